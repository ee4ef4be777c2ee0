//! One answer of a backend, read to its end while its text goes out in chunks, if anybody wants them. What kind of work it
//! is for is nothing to it.
//!
//! Invariant: an answer is never thrown away for its chunks, which are a courtesy. While there is no room for them the
//! backend is not read, which is how a slow gateway slows it; when the request's time is over they are given up, and what
//! the backend has sent by then is still read.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    chunks::Chunks,
    idle_timeout::{IdleTimeout, TimedOut},
    record::Times,
};
use crate::{
    backend::{Arrival, ChatStream, Completion, Decoder, Deltas, ResultContext, RunningChat},
    config::JobSettings,
    protocol::{Code, Failure},
    transport::http::HttpError,
};

/// How long the end of a body is waited for that has given its whole answer. It usually comes with it.
const END_WAIT: Duration = Duration::from_millis(20);

/// How long the counts of an answer's tokens are waited for once all else of it is there (protocol, "A chat").
const COUNTS_WAIT: Duration = Duration::from_secs(2);

/// How long an answer whose chunks were given up is read on. What the backend had sent before that lies in the buffers of
/// this machine; what it has not is not waited for.
const LAST_READ: Duration = Duration::from_millis(100);

/// What comes of waiting for the backend.
enum Event {
    /// The next piece of its answer, or the end.
    Backend(Option<Result<Bytes, HttpError>>),
    /// Nothing of it: the request has come again by another session.
    Gateway,
}

/// An answer that is being read.
pub(super) struct AnswerReader<'a> {
    settings: &'a JobSettings,
    /// When the request's time is over.
    deadline: Instant,
    chunks: Chunks<'a>,
    /// What has arrived and is not sent.
    deltas: Deltas,
    timeout: IdleTimeout,
    /// How long the backend may be silent between two parts of the answer.
    pause: Duration,
    /// When the last of it arrived.
    last_heard: Option<Instant>,
}

impl<'a> AnswerReader<'a> {
    pub(super) fn new(settings: &'a JobSettings, deadline: Instant, chunks: Chunks<'a>) -> Self {
        Self {
            settings,
            deadline,
            chunks,
            deltas: Deltas::default(),
            timeout: IdleTimeout::new(settings.first_token_timeout, deadline),
            pause: settings.token_timeout,
            last_heard: None,
        }
    }

    /// Ollama gives nothing while its model writes a call of a tool, so that this may take as long as a first token.
    pub(super) fn allow_for_calls(&mut self) {
        self.pause = self.pause.max(self.settings.first_token_timeout);
    }

    /// Reads the answer that `asked` gives. All of it is in the decoder then, and what arrived last is not sent.
    pub(super) async fn read(
        &mut self,
        asked: impl Future<Output = Result<(ChatStream, RunningChat), Failure>>,
        times: &mut Times,
    ) -> Result<Box<dyn Decoder>, Failure> {
        let asked = self.timeout.wait(asked).await;
        let (
            ChatStream {
                mut body,
                mut decoder,
            },
            running,
        ) = asked.map_err(|timed_out| self.timed_out(&timed_out, times))??;
        decoder.limit(self.settings.max_result_bytes);
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    () = self.chunks.moved() => Event::Gateway,
                    bytes = body.next() => Event::Backend(bytes),
                }
            };
            let heard = self.timeout.wait(next).await;
            let lacks_only_counts = decoder.arrival() == Arrival::AllButCounts;
            let bytes = match heard {
                Ok(Event::Backend(Some(Ok(bytes)))) => bytes,
                Ok(Event::Backend(None)) => break,
                Ok(Event::Gateway) => {
                    self.send(decoder.as_ref()).await;
                    continue;
                }
                Ok(Event::Backend(Some(Err(_)))) | Err(_) if lacks_only_counts => break,
                Ok(Event::Backend(Some(Err(error)))) => return Err(broken(&error)),
                Err(timed_out) => return Err(self.timed_out(&timed_out, times)),
            };
            let now = Instant::now();
            self.last_heard = Some(now);
            let is_alive = decoder.feed(&bytes, &mut self.deltas)?;
            if is_alive {
                running.heard(now);
                times.token();
                self.timeout.renew(self.pause);
            }
            match decoder.arrival() {
                Arrival::Whole => {
                    // Read to its end the connection can be used again; but nobody is kept waiting for that.
                    let _ = timeout(END_WAIT, body.next()).await;
                    break;
                }
                Arrival::AllButCounts if !lacks_only_counts => {
                    let end = Instant::now() + COUNTS_WAIT;
                    self.timeout.end_at(end.min(self.deadline));
                }
                Arrival::AllButCounts | Arrival::Partial => {}
            }
            if !self.deltas.is_empty() {
                self.send(decoder.as_ref()).await;
            }
        }
        self.chunks.follow(&mut self.deltas, decoder.as_ref());
        Ok(decoder)
    }

    /// When the last bytes of the answer arrived, if any did.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Puts the whole answer together.
    pub(super) fn finish(
        &mut self,
        decoder: Box<dyn Decoder>,
        context: &ResultContext,
    ) -> Result<Completion, Failure> {
        decoder.finish(&mut self.deltas, context)
    }

    /// Sends what arrived last, unless the request's time is over before there is room.
    pub(super) async fn send_last(&mut self) {
        // The answer that follows has it, too.
        let _ = timeout_at(self.deadline, self.chunks.send(&mut self.deltas)).await;
    }

    async fn send(&mut self, decoder: &dyn Decoder) {
        self.chunks.follow(&mut self.deltas, decoder);
        let is_sent = {
            let mut sending = pin!(self.chunks.send(&mut self.deltas));
            // Nearly always there is room, and no need for a timer.
            sending.as_mut().now_or_never().is_some()
                || timeout_at(self.deadline, sending).await.is_ok()
        };
        if !is_sent {
            self.chunks.give_up();
            self.timeout.end_at(Instant::now() + LAST_READ);
        }
    }

    fn timed_out(&self, timed_out: &TimedOut, times: &Times) -> Failure {
        let limit = match timed_out {
            TimedOut::Overdue => return overdue(self.settings),
            TimedOut::Idle(limit) => humantime::format_duration(*limit),
        };
        let sentence = match times.first_token() {
            None => format!("the backend gave no token within {limit}"),
            Some(_) => format!("the backend gave no further token for {limit}"),
        };
        Failure::new(Code::Timeout, sentence)
    }
}

/// The request's time was over before there was an answer.
pub(super) fn overdue(settings: &JobSettings) -> Failure {
    let limit = humantime::format_duration(settings.request_timeout);
    Failure::new(Code::Timeout, format!("not answered within {limit}"))
}

/// An answer broke off.
pub(super) fn broken(error: &HttpError) -> Failure {
    let sentence = match error {
        HttpError::NotHttp(_) | HttpError::Encoded(_) => {
            format!("the answer cannot be read: {error}")
        }
        HttpError::Broken
        | HttpError::Dial(_)
        | HttpError::Status(_)
        | HttpError::Unexpected
        | HttpError::TooLarge
        | HttpError::Silent(_) => "the connection broke in the middle of the answer".to_owned(),
    };
    Failure::new(Code::Backend, sentence)
}
