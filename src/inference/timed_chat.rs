//! One streamed chat, timed as the network times a node: for interviews, and for whoever wants to know what they will find.
//!
//! Invariant: time runs from the sending of the request, so whoever asks has had the model loaded before.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{answer_reader::AnswerReader, chunks::Chunks, record::Times};
use crate::{
    backend::{Backend, Model, ResultContext},
    config::JobSettings,
    protocol::{Failure, Generation},
};

/// A chat that is to be timed.
pub(crate) struct TimedChat<'a> {
    /// Who is asked.
    pub(crate) backend: &'a Backend,
    /// For which model.
    pub(crate) model: &'a Model,
    /// How long it may be silent, and how large the answer may be.
    pub(crate) settings: &'a JobSettings,
    /// When its time is over.
    pub(crate) deadline: Instant,
}

/// Its answer.
pub(crate) struct TimedAnswer {
    /// In the shape of generation 2.
    pub(crate) result: Box<RawValue>,
    /// See [`Completion::is_empty`](crate::backend::Completion::is_empty).
    pub(crate) is_empty: bool,
    /// Tokens of the prompt, as the backend counts them; 0 where it does not say.
    pub(crate) prompt_tokens: u64,
    /// Tokens generated, likewise.
    pub(crate) tokens: u64,
    /// Until the first token of any kind.
    pub(crate) first_token: Duration,
    /// Until the last byte.
    pub(crate) total: Duration,
}

impl TimedChat<'_> {
    /// Has it answered. `payload`: the chat, with `"stream":true`. `request_id` and `created` (Unix seconds) stand in the
    /// result.
    ///
    /// # Errors
    /// As [`Backend::prepare`] and [`Backend::chat`], and when the answer breaks off or takes too long.
    pub(crate) async fn ask(
        &self,
        payload: &[u8],
        request_id: &str,
        created: u64,
    ) -> Result<TimedAnswer, Failure> {
        let body = self.backend.prepare(payload, self.model)?;
        let sent = Instant::now();
        let mut reader = AnswerReader::new(self.settings, self.deadline, Chunks::unwanted());
        let mut times = Times::default();
        let read = reader.read(self.backend.chat(body), &mut times).await;
        let decoder = read?;
        // Not until now: an end, or counts, that never come are waited for.
        let total = reader
            .last_heard()
            .map_or_else(|| sent.elapsed(), |last| last - sent);
        let context = ResultContext {
            generation: Generation::Operator,
            request_id: request_id.to_owned(),
            created,
            model: self.model.name.to_string(),
        };
        let completion = reader.finish(decoder, &context)?;
        Ok(TimedAnswer {
            result: completion.result,
            is_empty: completion.is_empty,
            prompt_tokens: completion.prompt_tokens,
            tokens: completion.generation_tokens,
            first_token: times.first_token().map_or(total, |first| first - sent),
            total,
        })
    }
}
