//! Writes one answer, token by token, and does to it what its fault says.
//!
//! Invariant: what is written before a fault has left for the client before the fault strikes.

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::{Behaviour, answer::Answer, fault::Fault};
use crate::model_server::{ChatGuard, Gone, Write, Writer};

/// Speaks until the answer is whole, the fault strikes or the client is gone.
pub(super) async fn speak(
    answer: Answer,
    behaviour: Behaviour,
    fault: Option<Fault>,
    writer: Writer,
    chat: ChatGuard,
) {
    let speaker = Speaker {
        answer,
        behaviour,
        writer,
    };
    let spoken = match fault {
        Some(Fault::Split(ends)) => speaker.split(ends).await,
        Some(Fault::SplitEvery(size)) => speaker.split((1..).map(|part| part * size.max(1))).await,
        Some(Fault::Garbage { bytes }) => speaker.writer.garbage(bytes).await,
        Some(Fault::Script(parts)) => speaker.script(parts).await,
        fault => speaker.stream(fault).await,
    };
    if spoken.is_ok() {
        chat.finish();
    }
}

struct Speaker {
    answer: Answer,
    behaviour: Behaviour,
    writer: Writer,
}

impl Speaker {
    async fn stream(&self, fault: Option<Fault>) -> Result<(), Gone> {
        let begun = Instant::now() + self.behaviour.first_token_delay;
        let mut pending = String::new();
        for index in 0..self.answer.len() {
            if fault.as_ref().and_then(Fault::after) == Some(index) {
                break;
            }
            let due = begun + self.behaviour.token_delay * u32::try_from(index).unwrap_or(u32::MAX);
            if due > Instant::now() {
                self.writer.sleep_until(due).await?;
            }
            self.writer.wait_while_paused(index).await?;
            pending += &self.answer.line(index);
            if (index + 1) % self.behaviour.lines_per_write.max(1) == 0 {
                self.writer.write(std::mem::take(&mut pending)).await?;
            }
        }
        match fault {
            None => {
                self.writer.rest(self.behaviour.done_delay).await?;
                let end = pending + &self.answer.end(begun);
                self.writer.write(end).await?;
                self.writer.rest(self.behaviour.end_delay).await
            }
            Some(fault) => {
                self.writer.write(pending).await?;
                self.strike(fault).await
            }
        }
    }

    async fn script(&self, parts: Vec<Bytes>) -> Result<(), Gone> {
        for part in parts {
            self.writer.rest(self.behaviour.token_delay).await?;
            self.writer.write_parts([part]).await?;
        }
        Ok(())
    }

    async fn strike(&self, fault: Fault) -> Result<(), Gone> {
        self.writer.put(Write::Flush).await?;
        match fault {
            Fault::ErrorLine { error, .. } => {
                self.writer
                    .write(format!("{}\n", json!({"error": error})))
                    .await
            }
            Fault::HalfLine { after } => {
                let line = self.answer.line(after);
                self.writer.write(line[..line.len() / 2].to_owned()).await
            }
            Fault::Cut { .. } => self.writer.put(Write::Cut).await,
            Fault::Hang { .. } => self.writer.closed().await,
            Fault::EndWithoutDone { .. } => Ok(()),
            // The others are handled before a word is said.
            Fault::Answer { .. }
            | Fault::HangBeforeHeaders
            | Fault::Split(_)
            | Fault::SplitEvery(_)
            | Fault::Garbage { .. }
            | Fault::SingleObject
            | Fault::Script(_) => Ok(()),
        }
    }

    fn whole_stream(&self) -> Bytes {
        let begun = Instant::now();
        let mut all: String = (0..self.answer.len())
            .map(|index| self.answer.line(index))
            .collect();
        all += &self.answer.end(begun);
        all.into()
    }

    /// Writes the whole body in parts that end at these positions, in rising order, and a last part.
    async fn split(&self, ends: impl IntoIterator<Item = usize>) -> Result<(), Gone> {
        let mut rest = self.whole_stream();
        let mut written = 0;
        for end in ends {
            if rest.is_empty() {
                break;
            }
            let part = rest.split_to(end.saturating_sub(written).min(rest.len()));
            written += part.len();
            self.writer.write_parts([part]).await?;
        }
        self.writer.write(rest).await
    }
}
