//! Speech: a clip by a node's speech server, whole or not at all.
//!
//! Invariant: a clip that was cut off is none. Its length is bounded while it is read, and silence ends it as it ends a
//! chat.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use serde_json::value::RawValue;

use super::{
    answer_reader::{broken, overdue},
    idle_timeout::{IdleTimeout, TimedOut},
    work::{Done, Head, Progress, Task, Work},
};
use crate::{
    backend::speech::SpeechRequest,
    config::JobSettings,
    protocol::{AgentMessage, Body, Code, Failure, Operation, Reply},
};

pub(super) struct Speech {
    request: Result<SpeechRequest, Failure>,
    bytes: usize,
}

impl Speech {
    pub(super) fn read(payload: &str) -> Self {
        Self {
            request: SpeechRequest::read(payload),
            bytes: payload.len(),
        }
    }
}

impl Work for Speech {
    fn operation(&self) -> Operation {
        Operation::Speech
    }

    fn head(&self) -> Result<Head, Failure> {
        let request = self.request.as_ref().map_err(Clone::clone)?;
        Ok(Head {
            model: request.offered_name(),
            node: None,
        })
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn perform<'a>(
        &'a mut self,
        task: Task<'a>,
        progress: &'a mut Progress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let request = self.request.as_ref().map_err(Clone::clone)?;
            let result = speak(request, &task).await?;
            progress.done = Some(Done {
                reply: Reply {
                    message: AgentMessage::TtsResponse,
                    request_id: task.request_id.clone(),
                    body: Body::Result(result),
                },
                tokens: None,
                load_duration: None,
            });
            Ok(())
        }
        .boxed()
    }

    fn without_result(&self, failure: &Failure) -> (AgentMessage, Body) {
        (AgentMessage::TtsError, Body::Error(failure.text()))
    }
}

/// No node has a speech server.
pub(super) fn no_backend() -> Failure {
    Failure::new(Code::ModelNotFound, "this node has no speech backend")
}

async fn speak(request: &SpeechRequest, task: &Task<'_>) -> Result<Box<RawValue>, Failure> {
    let settings = task.settings;
    let server = task.on.node.speech.as_ref().ok_or_else(no_backend)?;
    let mut timeout = IdleTimeout::new(settings.first_token_timeout, task.deadline);
    let mut has_begun = false;
    let asked = server.speak(request, &task.on.model.name, settings.max_result_bytes);
    let asked = timeout.wait(asked).await;
    let mut stream = asked.map_err(|over| timed_out(&over, has_begun, settings))??;
    loop {
        let heard = timeout.wait(stream.body.next()).await;
        let Some(bytes) = heard.map_err(|over| timed_out(&over, has_begun, settings))? else {
            return stream.clip.finish(request);
        };
        let bytes = bytes.map_err(|error| broken(&error))?;
        if !bytes.is_empty() {
            has_begun = true;
            timeout.renew(settings.token_timeout);
            stream.clip.feed(&bytes)?;
        }
    }
}

fn timed_out(over: &TimedOut, has_begun: bool, settings: &JobSettings) -> Failure {
    let limit = |limit: Duration| humantime::format_duration(limit);
    let sentence = match over {
        TimedOut::Overdue => return overdue(settings),
        TimedOut::Idle(silence) if has_begun => {
            format!(
                "the speech server sent no more audio for {}",
                limit(*silence)
            )
        }
        TimedOut::Idle(silence) => {
            format!("the speech server sent no audio within {}", limit(*silence))
        }
    };
    Failure::new(Code::Timeout, sentence)
}
