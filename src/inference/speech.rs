//! Speech, which no backend here gives: every request for it is refused.

use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};

use super::work::{Head, Progress, Task, Work};
use crate::protocol::{AgentMessage, Body, Code, Failure, Operation};

pub(super) struct Speech;

impl Work for Speech {
    fn operation(&self) -> Operation {
        Operation::Speech
    }

    fn head(&self) -> Result<Head, Failure> {
        Err(no_backend())
    }

    fn bytes(&self) -> usize {
        0
    }

    fn perform<'a>(
        &'a mut self,
        _: Task<'a>,
        _: &'a mut Progress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        ready(Err(no_backend())).boxed()
    }

    fn without_result(&self, failure: &Failure) -> (AgentMessage, Body) {
        (AgentMessage::TtsError, Body::Error(failure.text()))
    }
}

fn no_backend() -> Failure {
    Failure::new(Code::ModelNotFound, "this node has no speech backend")
}
