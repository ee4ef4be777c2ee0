//! Model servers. A [`Backend`] says which models it has and answers chats; the job that asks reads the answer's body
//! itself, so that time-outs, cancelling and backpressure live in one place, and feeds it to the backend's [`Decoder`],
//! which is pure.
//!
//! Invariant: what a model server sends is never trusted in size, shape or encoding, and none of it reaches a log.

pub mod chat;
mod completion;
mod error_text;
mod object;
pub mod ollama;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use serde_json::value::RawValue;

use crate::protocol::{ChunkKind, Failure, Generation};

/// A model that is offered to the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The full name as the backend lists it, tag included: `llama3.2:latest`.
    pub name: Arc<str>,
    /// The longest context that the model was made for, in tokens; `None` where the backend does not say.
    pub context_length: Option<u64>,
    /// Whether the model can think, that is whether it accepts `think`.
    pub thinks: bool,
    /// The context it is loaded with just now, in tokens; `None` while it is not in memory.
    pub loaded_context: Option<u64>,
}

/// What a node has to offer just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The models that are served, by name; none while the backend does not answer.
    pub models: Vec<Model>,
    /// GPU memory that loaded models take, in bytes.
    pub vram_bytes: u64,
    /// Why there is nothing to offer, as a sentence for the operator.
    pub trouble: Option<String>,
    /// The backend's version, while it answers.
    pub version: Option<String>,
}

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
    /// Tokens of the prompt, as the backend counted them; 0 where it did not say.
    pub prompt_tokens: u64,
    /// Tokens generated, likewise.
    pub generation_tokens: u64,
    /// How long the backend took to load the model for this answer, where it says.
    pub load_duration: Option<Duration>,
}

/// What a finished answer needs from its request, beside the body.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The shape of the result.
    pub generation: Generation,
    /// The id of the result of generation 2.
    pub request_id: String,
    /// Unix seconds, `created` of generation 2.
    pub created: u64,
}

/// Reads one answer's body, in whatever pieces it arrives. Pure and without a clock.
pub trait Decoder: Send + Sync {
    /// Takes the next bytes of the body; text that became complete is added to `deltas`.
    ///
    /// # Errors
    /// The backend reported a failure or what it sent cannot be read; the body must then be dropped.
    fn feed(&mut self, bytes: &[u8], deltas: &mut Deltas) -> Result<(), Failure>;

    /// All text up to now, one piece a kind.
    fn so_far(&self) -> Deltas;

    /// Whether the whole answer has arrived, so that nothing is lost if the body does not end.
    fn is_complete(&self) -> bool;

    /// Gives the whole answer, once the body has ended or [`Decoder::is_complete`].
    ///
    /// # Errors
    /// The answer is not complete.
    fn finish(
        self: Box<Self>,
        deltas: &mut Deltas,
        envelope: &Envelope,
    ) -> Result<Completion, Failure>;
}

/// A chat that the backend has begun to answer. Dropping it closes the request, which makes the backend stop.
pub struct Answering {
    /// The answer's bytes as they come.
    pub body: Incoming,
    /// What makes sense of them.
    pub decoder: Box<dyn Decoder>,
}

/// A chat request that was found to be one, with the model it goes to.
#[derive(Debug)]
pub struct Chat {
    /// The request as the network sent it.
    pub payload: Bytes,
    /// The offered model that it names.
    pub model: Model,
}

/// A model server.
pub trait Backend: Send + Sync {
    /// Whether the list of models is so new that a model that is not in it does not exist.
    fn is_fresh(&self) -> bool;

    /// Looks up a model among those offered, without regard to case and with `:latest` understood.
    fn find(&self, name: &str) -> Option<Model>;

    /// As [`Backend::find`], after a look at the model server unless what is known of it is fresh.
    fn find_fresh<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Model>>;

    /// Checks and rewrites a chat by the operator's policy; gives the body to send. Does no I/O.
    ///
    /// # Errors
    /// `invalid`, with what is wrong with the request.
    fn prepare(&self, chat: &Chat) -> Result<Bytes, Failure>;

    /// Sends a prepared body and waits for the head of the answer.
    fn chat(&self, body: Bytes) -> BoxFuture<'_, Result<Answering, Failure>>;
}
