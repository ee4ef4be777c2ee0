//! Kinds of work. Each says how a request for it is read, done and answered, in a file of its own; all that jobs have in
//! common, from admission to the keeping of answers, asks for nothing else.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{chat::Chat, jobs::Handle, record::Times, speech::Speech};
use crate::{
    backend::RequestHead,
    config::JobSettings,
    node::Offered,
    protocol::{AgentMessage, Body, Failure, Generation, Operation, Reply, RequestId},
    shared::Shared,
};

/// Who does work of this kind; `None` if nobody here does.
pub(super) fn of(operation: Operation) -> Option<&'static dyn Work> {
    match operation {
        Operation::Chat => Some(&Chat),
        Operation::Speech => Some(&Speech),
        Operation::Interview => None,
    }
}

/// The frame that ends a request for this kind of work without a result.
pub(super) fn without_result(work: &dyn Work, request_id: RequestId, failure: &Failure) -> Reply {
    Reply {
        message: work.error(),
        request_id,
        body: Body::Error(failure.text()),
    }
}

/// A kind of work.
pub(super) trait Work: Send + Sync {
    /// Which one.
    fn operation(&self) -> Operation;

    /// Checks what is asked for, and tells what it says of itself.
    ///
    /// # Errors
    /// The request cannot be taken.
    fn inspect(&self, payload: &str) -> Result<RequestHead, Failure>;

    /// Does it, and ends by the task's deadline. `progress` has the result as soon as that is whole; all that this does
    /// afterwards may be cut short.
    ///
    /// # Errors
    /// There is no result.
    fn perform<'a>(
        &'a self,
        task: Task<'a>,
        progress: &'a mut Progress,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// The type of the frame that ends a request without a result.
    fn error(&self) -> AgentMessage;
}

/// A request that may run now.
pub(super) struct Task<'a> {
    pub(super) request_id: &'a RequestId,
    pub(super) payload: Bytes,
    pub(super) stream: bool,
    /// Where it runs.
    pub(super) on: &'a Offered,
    /// When its time is over.
    pub(super) deadline: Instant,
    pub(super) handle: &'a Handle,
    pub(super) settings: &'a JobSettings,
    pub(super) shared: &'a Shared,
    /// The shape of results.
    pub(super) generation: Generation,
}

/// How far a job is.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) times: Times,
    pub(super) done: Option<Done>,
}

/// What came of a request.
pub(super) struct Done {
    /// The frame that has the result.
    pub(super) reply: Reply,
    /// Tokens of the prompt, as the backend counted them; 0 where it did not say.
    pub(super) prompt_tokens: u64,
    /// Tokens generated, likewise.
    pub(super) generation_tokens: u64,
    /// How long the backend took to load the model for it, where it says.
    pub(super) load_duration: Option<Duration>,
}
