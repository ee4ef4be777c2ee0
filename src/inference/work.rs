//! Kinds of work. Each says how a request for it is read, done and answered, in a file of its own; all that jobs have in
//! common, from admission to the keeping of answers, asks for nothing else.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{chat::Chat, interview::Interview, jobs::Handle, record::Times, speech::Speech};
use crate::{
    config::JobSettings,
    node::Offered,
    protocol::{AgentMessage, Body, Failure, Generation, Operation, Reply, RequestId},
    shared::Shared,
};

/// Reads a request for this kind of work. Whatever is wrong with it is told by [`Work::head`].
pub(super) fn read(operation: Operation, payload: Option<Box<RawValue>>) -> Box<dyn Work> {
    let payload = payload.map_or_else(String::new, |payload| Box::<str>::from(payload).into());
    match operation {
        Operation::Chat => Box::new(Chat::read(payload)),
        Operation::Speech => Box::new(Speech::read(&payload)),
        Operation::Interview => Box::new(Interview::read(&payload)),
    }
}

/// A request, of whatever kind.
pub(super) trait Work: Send + Sync {
    /// Which kind of work it asks for.
    fn operation(&self) -> Operation;

    /// What it says of itself.
    ///
    /// # Errors
    /// It cannot be taken.
    fn head(&self) -> Result<Head, Failure>;

    /// How much memory it takes while it waits, in bytes.
    fn bytes(&self) -> usize;

    /// How long it may take, from its receipt to its answer.
    fn limit(&self, settings: &JobSettings) -> Duration {
        settings.request_timeout
    }

    /// Does it, and ends by the task's deadline. `progress` has the result as soon as that is whole; all that this does
    /// afterwards may be cut short.
    ///
    /// # Errors
    /// There is no result.
    fn perform<'a>(
        &'a mut self,
        task: Task<'a>,
        progress: &'a mut Progress,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// The type and the body of the frame that ends it without a result.
    fn without_result(&self, failure: &Failure) -> (AgentMessage, Body);

    /// The frame that ends it without a result.
    fn failed(&self, request_id: RequestId, failure: &Failure) -> Reply {
        let (message, body) = self.without_result(failure);
        Reply {
            message,
            request_id,
            body,
        }
    }
}

/// What a request says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The model that it names.
    pub(super) model: String,
    /// The node that it is for, by its id or alias, where it is for one.
    pub(super) node: Option<String>,
}

/// A request that may run now.
pub(super) struct Task<'a> {
    pub(super) request_id: &'a RequestId,
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

/// Tokens, as the backend counted them; 0 where it did not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Of the prompt.
    pub(super) prompt: u64,
    /// Generated.
    pub(super) generated: u64,
}

/// What came of a request.
pub(super) struct Done {
    /// The frame that has the result.
    pub(super) reply: Reply,
    /// What it took, where that is counted in tokens.
    pub(super) tokens: Option<Tokens>,
    /// How long the backend took to load the model for it, where it says.
    pub(super) load_duration: Option<Duration>,
}
