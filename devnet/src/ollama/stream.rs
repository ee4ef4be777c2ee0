//! Writes one answer, token by token, and does to it what its fault says.
//!
//! Invariant: what is written before a fault has left for the client before the fault strikes.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    Behaviour,
    answer::Answer,
    fault::Fault,
    record::{ChatGuard, Request},
};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How many writes may wait for the connection, so that a client that stops reading stops the model.
const AHEAD: usize = 16;

/// One write of [`Fault::Garbage`].
static GARBAGE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

pub(super) enum Write {
    Bytes(Bytes),
    /// Send what there is before going on.
    Flush,
    /// Break the connection off.
    Cut,
}

/// The client is gone.
pub(super) struct Gone;

pub(super) fn body(request: Arc<Request>, pause: watch::Receiver<Option<usize>>) -> (Writer, Body) {
    let (writes, queue) = mpsc::channel(AHEAD);
    let frames = stream::unfold(queue, |mut queue| async {
        loop {
            match queue.recv().await? {
                Write::Bytes(bytes) => return Some((Ok(Frame::data(bytes)), queue)),
                // Hyper sends what it has whenever the body has nothing ready.
                Write::Flush => tokio::task::yield_now().await,
                Write::Cut => return Some((Err(io::ErrorKind::ConnectionAborted.into()), queue)),
            }
        }
    });
    let writer = Writer {
        writes,
        request,
        pause,
    };
    (writer, StreamBody::new(frames).boxed_unsync())
}

/// The end of a body that is written to.
pub(super) struct Writer {
    writes: mpsc::Sender<Write>,
    request: Arc<Request>,
    pause: watch::Receiver<Option<usize>>,
}

impl Writer {
    pub(super) async fn put(&self, write: Write) -> Result<(), Gone> {
        let permit = match self.writes.try_reserve() {
            Ok(permit) => permit,
            Err(_) => {
                let _stalled = self.request.stall();
                self.writes.reserve().await.map_err(|_| Gone)?
            }
        };
        permit.send(write);
        Ok(())
    }

    pub(super) async fn write(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Ok(())
        } else {
            self.put(Write::Bytes(bytes)).await
        }
    }

    /// Each part leaves on its own.
    pub(super) async fn write_parts(
        &self,
        parts: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), Gone> {
        for part in parts {
            self.write(part).await?;
            self.put(Write::Flush).await?;
        }
        Ok(())
    }

    pub(super) async fn sleep_until(&self, when: Instant) -> Result<(), Gone> {
        tokio::select! {
            () = sleep_until(when) => Ok(()),
            () = self.writes.closed() => Err(Gone),
        }
    }

    /// So many bytes of one letter.
    pub(super) async fn garbage(&self, bytes: u64) -> Result<(), Gone> {
        let mut left = bytes;
        while left > 0 {
            let size = usize::try_from(left).map_or(GARBAGE.len(), |left| left.min(GARBAGE.len()));
            self.write(Bytes::from_static(&GARBAGE).slice(..size))
                .await?;
            left -= size as u64;
        }
        Ok(())
    }

    /// Waits for the client to go.
    pub(super) async fn closed(&self) -> Result<(), Gone> {
        self.writes.closed().await;
        Err(Gone)
    }

    /// Waits while an answer of so many tokens is to stop.
    async fn wait_while_paused(&self, tokens: usize) -> Result<(), Gone> {
        let mut pause = self.pause.clone();
        tokio::select! {
            // Fails only if the stand-in is gone.
            _ = pause.wait_for(|at| at.is_none_or(|at| tokens < at)) => Ok(()),
            () = self.writes.closed() => Err(Gone),
        }
    }
}

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
                self.rest(self.behaviour.done_delay).await?;
                let end = pending + &self.answer.end(begun);
                self.writer.write(end).await?;
                self.rest(self.behaviour.end_delay).await
            }
            Some(fault) => {
                self.writer.write(pending).await?;
                self.strike(fault).await
            }
        }
    }

    async fn script(&self, parts: Vec<Bytes>) -> Result<(), Gone> {
        for part in parts {
            self.rest(self.behaviour.token_delay).await?;
            self.writer.write_parts([part]).await?;
        }
        Ok(())
    }

    async fn rest(&self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        self.writer.sleep_until(Instant::now() + time).await
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
