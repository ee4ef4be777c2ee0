//! Speech, which no backend here gives: every request for it is refused.

use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};

use super::work::{Progress, Task, Work};
use crate::{
    backend::RequestHead,
    protocol::{AgentMessage, Code, Failure, Operation},
};

pub(super) struct Speech;

impl Work for Speech {
    fn operation(&self) -> Operation {
        Operation::Speech
    }

    fn inspect(&self, _: &str) -> Result<RequestHead, Failure> {
        Err(no_backend())
    }

    fn perform<'a>(
        &'a self,
        _: Task<'a>,
        _: &'a mut Progress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        ready(Err(no_backend())).boxed()
    }

    fn error(&self) -> AgentMessage {
        AgentMessage::TtsError
    }
}

fn no_backend() -> Failure {
    Failure::new(Code::ModelNotFound, "this node has no speech backend")
}
