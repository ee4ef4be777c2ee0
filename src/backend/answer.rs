//! An answer to a chat: what arrives of it, what reads it, and what it comes to.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::{
    protocol::{ChunkKind, Failure, Generation},
    transport::http::Body,
};

/// What part of an answer arrived in one read: deltas of one kind joined, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deltas(Vec<(ChunkKind, String)>);

impl Deltas {
    /// Adds text, joined to the last piece where that is of the same kind. Empty text adds nothing.
    pub fn push(&mut self, kind: ChunkKind, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some((last, joined)) if *last == kind => joined.push_str(text),
            _ => self.0.push((kind, text.to_owned())),
        }
    }

    /// Whether nothing has arrived since the last [`Deltas::drain`].
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the pieces out, in order of arrival.
    pub fn drain(&mut self) -> impl Iterator<Item = (ChunkKind, String)> + '_ {
        self.0.drain(..)
    }
}

/// A finished answer.
#[derive(Debug)]
pub struct Completion {
    /// The `result` of `INFERENCE_RESPONSE`, in the shape of the client's generation.
    pub result: Box<RawValue>,
    /// Whether there is no text in it, no thought and no call, whatever the backend counted.
    pub is_empty: bool,
    /// Tokens of the prompt, as the backend counted them; 0 where it did not say.
    pub prompt_tokens: u64,
    /// Tokens generated, likewise.
    pub generation_tokens: u64,
    /// How long the backend took to load the model for this answer, where it says.
    pub load_duration: Option<Duration>,
}

/// What a finished answer needs from its request, beside the body.
#[derive(Clone, Debug)]
pub struct ResultContext {
    /// The shape of the result.
    pub generation: Generation,
    /// The id of the result of generation 2.
    pub request_id: String,
    /// Unix seconds, `created` of generation 2.
    pub created: u64,
    /// The name by which the model was asked for.
    pub model: String,
}

/// How much of an answer has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Not all of its text, as far as is known. Ends with more of it.
    Partial,
    /// All but the counts of its tokens, which some servers send last and some never: they are waited for, shortly.
    AllButCounts,
    /// All of it: nothing is lost if the body does not end.
    Whole,
}

/// Reads one answer's body, in whatever pieces it arrives. Pure and without a clock.
pub trait Decoder: Send + Sync {
    /// Takes the next bytes of the body; text that became complete is added to `deltas`. Gives whether anything came that is
    /// part of the answer: text, thinking, a call, log probabilities. A backend that sends such is alive.
    ///
    /// # Errors
    /// The backend reported a failure, or what it sent cannot be read or is too large; the body must then be dropped.
    fn feed(&mut self, bytes: &[u8], deltas: &mut Deltas) -> Result<bool, Failure>;

    /// All text up to now, one piece a kind.
    fn so_far(&self) -> Deltas;

    /// Sets how much is kept of the answer, in bytes. What would be more goes without its log probabilities, also those to
    /// come, and the result says so; if it is too much without them, too, it is `too_large`. Without this there is no limit.
    fn limit(&mut self, max: usize);

    /// How much of the answer has arrived.
    fn arrival(&self) -> Arrival;

    /// Gives the whole answer, once the body has ended or [`Decoder::arrival`] says that there is no more to wait for.
    ///
    /// # Errors
    /// The answer is not complete, or its last line is as little to be taken as [`Decoder::feed`] says.
    fn finish(
        self: Box<Self>,
        deltas: &mut Deltas,
        context: &ResultContext,
    ) -> Result<Completion, Failure>;
}

/// A chat that the backend has begun to answer. Dropping it closes the request, which makes the backend stop.
pub struct ChatStream {
    /// The answer's bytes as they come.
    pub body: Body,
    /// What makes sense of them.
    pub decoder: Box<dyn Decoder>,
}
