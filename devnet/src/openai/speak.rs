//! Writes one streamed answer, token by token, and does to it what its fault says.
//!
//! Invariant: what is written before a fault has left for the client before the fault strikes.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Behaviour,
    answer::Answer,
    fault::{End, Fault, Fixture, Step},
    style::{Comments, Manners},
};
use crate::{
    listener::Reset,
    model_server::{ChatGuard, Gone, Write, Writer},
};

/// What an answer needs beside its words.
pub(super) struct Speaker {
    pub(super) behaviour: Behaviour,
    pub(super) manners: Manners,
    pub(super) writer: Writer,
    pub(super) reset: Option<Arc<Reset>>,
    /// Told when the status is to be sent.
    pub(super) begun: Option<oneshot::Sender<()>>,
}

/// Speaks until the answer is whole, the fault strikes or the client is gone.
pub(super) async fn speak(
    mut speaker: Speaker,
    answer: Answer,
    fault: Option<Fault>,
    chat: ChatGuard,
) {
    if speaker.manners.head_at_once {
        speaker.begin();
    }
    let spoken = match fault {
        Some(Fault::SplitEvery(size)) => speaker.split(&answer, size).await,
        Some(Fault::Garbage { bytes }) => {
            speaker.begin();
            speaker.writer.garbage(bytes).await
        }
        fault => speaker.stream(&answer, fault).await,
    };
    if spoken.is_ok() {
        chat.finish();
    }
}

/// Writes an answer whose bytes are given.
pub(super) async fn recite(mut speaker: Speaker, fixture: Fixture, chat: ChatGuard) {
    let recited = async {
        for step in fixture.steps {
            match step {
                Step::Wait(time) => speaker.writer.rest(time).await?,
                Step::Bytes(bytes) => {
                    speaker.begin();
                    speaker.writer.write_parts([bytes]).await?;
                }
                Step::Repeat(bytes, times, pause) => {
                    speaker.begin();
                    for _ in 0..times {
                        speaker.writer.rest(pause).await?;
                        speaker.writer.write_parts([bytes.clone()]).await?;
                    }
                }
            }
        }
        speaker.begin();
        speaker.end(fixture.end).await
    };
    if recited.await.is_ok() {
        chat.finish();
    }
}

impl Speaker {
    /// Lets the status go.
    fn begin(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Fails only if the client is gone.
            let _ = begun.send(());
        }
    }

    async fn stream(&mut self, answer: &Answer, fault: Option<Fault>) -> Result<(), Gone> {
        let first = Instant::now() + self.behaviour.first_token_delay;
        let mut opening = Some(answer.opening());
        let early = self.manners.head_at_once
            && matches!(self.manners.opening, super::style::Opening::RoleAlone);
        if early && let Some(opening) = opening.take() {
            self.writer.write(opening).await?;
        }
        let strike = fault.as_ref().and_then(Fault::after);
        for index in 0..answer.len() {
            if strike == Some(index) {
                break;
            }
            let due = first + self.behaviour.token_delay * u32::try_from(index).unwrap_or(u32::MAX);
            self.wait(due, index).await?;
            self.writer.wait_while_paused(index).await?;
            self.begin();
            let line = opening.take().unwrap_or_default() + &answer.line(index);
            self.writer.write(line).await?;
        }
        self.begin();
        match fault {
            None => {
                self.writer.rest(self.behaviour.finish_delay).await?;
                let opening = opening.take().unwrap_or_default();
                self.writer.write(opening + &answer.finish()).await?;
                self.writer.rest(self.behaviour.usage_delay).await?;
                self.writer.write(answer.end()).await
            }
            Some(fault) => self.strike(fault).await,
        }
    }

    /// Until a token is due; with the comments that come meanwhile.
    async fn wait(&self, due: Instant, spoken: usize) -> Result<(), Gone> {
        let when = if spoken == 0 {
            Comments::BeforeFirstToken
        } else {
            Comments::AfterFirstToken
        };
        let own = self
            .behaviour
            .comment_every
            .map(|every| (": ping\n\n", every));
        let usual = self.manners.comment.filter(|(.., then)| *then == when);
        let comment = own.or(usual.map(|(text, every, _)| (text, every)));
        if let Some((text, every)) = comment.filter(|_| self.begun.is_none()) {
            let mut next = Instant::now() + every;
            while next < due {
                self.writer.sleep_until(next).await?;
                self.writer.write(text).await?;
                next += every;
            }
        }
        if due > Instant::now() {
            self.writer.sleep_until(due).await?;
        }
        Ok(())
    }

    async fn strike(&self, fault: Fault) -> Result<(), Gone> {
        self.writer.put(Write::Flush).await?;
        match fault {
            Fault::ErrorEvent { error, done, .. } => {
                let end = if done { "data: [DONE]\n\n" } else { "" };
                let event = format!("data: {}\n\n{end}", json!({"error": error}));
                self.writer.write(event).await
            }
            Fault::Cut { .. } => self.end(End::Cut).await,
            Fault::Reset { .. } => self.end(End::Reset).await,
            Fault::Hang { .. } => self.end(End::StayOpen).await,
            Fault::End { .. } => Ok(()),
            // The others are handled before a word is said.
            Fault::Answer { .. }
            | Fault::HangBeforeHeaders
            | Fault::ResetBeforeHeaders
            | Fault::SplitEvery(_)
            | Fault::Garbage { .. }
            | Fault::Fixture(_) => Ok(()),
        }
    }

    async fn end(&self, end: End) -> Result<(), Gone> {
        self.writer.put(Write::Flush).await?;
        match end {
            End::Proper => Ok(()),
            End::Cut => self.writer.put(Write::Cut).await,
            End::Reset => {
                if let Some(reset) = &self.reset {
                    reset.on_drop();
                }
                self.writer.put(Write::Cut).await
            }
            End::StayOpen => self.writer.closed().await,
        }
    }

    async fn split(&mut self, answer: &Answer, size: usize) -> Result<(), Gone> {
        self.begin();
        let lines = (0..answer.len()).map(|index| answer.line(index));
        let all: String = [answer.opening()].into_iter().chain(lines).collect();
        let mut rest = Bytes::from(all + &answer.finish() + &answer.end());
        while !rest.is_empty() {
            let part = rest.split_to(size.clamp(1, rest.len()));
            self.writer.write_parts([part]).await?;
        }
        Ok(())
    }
}
