//! What a node's model server has and does: whether it answers, what is offered of its models, and a real answer of the
//! first of them, since a server that lists its models may be unable to run any.
//!
//! Invariant: of the answer nothing is kept but its numbers.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::Step;
use crate::{
    backend::Model,
    config::JobSettings,
    inference::{TimedAnswer, TimedChat},
    node::Node,
    protocol::Failure,
};

/// How long the answer may get, in tokens: enough to see how fast it goes.
const TOKENS: u32 = 32;

/// In tokens a second, of a model that Ollama serves (protocol, "Interviews"): a node below the first fails its interview,
/// one above the second gets the best tier.
const FLOOR: f64 = 10.0;
const BEST: f64 = 20.0;

/// What is named in the result, which nobody sees.
const REQUEST_ID: &str = "check";

const BROKEN: &str = "Ollama's own log says more (`journalctl -u ollama`, `docker compose logs ollama`), and `ollama run` with \
                      that model shows whether it runs at all.";
const SLOW: &str = "Have a smaller model interviewed (PIN_INTERVIEW_MODEL), or see with `ollama ps` that this one is on the GPU.";

/// Looks at a node's model server. Gives its first model beside the steps, if it offers one.
pub(super) async fn look(node: &Node) -> (Vec<Step>, Option<Model>) {
    let began = Instant::now();
    node.backend.look_now().await;
    let offer = node.backend.offer().borrow().clone();
    let why_empty = offer.why_empty.unwrap_or_default();
    if !offer.is_up {
        let backend = Step::failed("backend", why_empty).lasting(began.elapsed());
        return (
            vec![backend, Step::skipped_after("models", "backend")],
            None,
        );
    }
    let version = offer.version.map(|version| format!(" {version}"));
    let found = format!("Ollama{} answers.", version.unwrap_or_default());
    let backend = Step::passed("backend", found).lasting(began.elapsed());
    let models = match (offer.models.first(), offer.models.len()) {
        (None, _) => Step::failed("models", why_empty),
        (Some(only), 1) => Step::passed("models", format!("1 model is offered: {}.", only.name)),
        (Some(first), n) => Step::passed(
            "models",
            format!("{n} models are offered, {} first.", first.name),
        ),
    };
    (vec![backend, models], offer.models.into_iter().next())
}

/// The answer that is left out for want of a model.
pub(super) fn without_model() -> Step {
    Step::skipped("answer", "Not tried, since there is no model to ask.")
}

/// A chat that tries a model.
pub(super) struct Trial<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) model: &'a Model,
    pub(super) settings: &'a JobSettings,
    began: Instant,
}

impl<'a> Trial<'a> {
    /// One whose time begins now.
    pub(super) fn new(node: &'a Arc<Node>, model: &'a Model, settings: &'a JobSettings) -> Self {
        Self {
            node,
            model,
            settings,
            began: Instant::now(),
        }
    }

    /// Has the model loaded, which may take PIN_FIRST_TOKEN_TIMEOUT, and asks it.
    pub(super) async fn step(&self) -> Step {
        let step = match self.load().await {
            Some(trouble) => trouble,
            None => match self.ask().await {
                Ok(answer) => self.told(&answer),
                Err(failure) => self.failed("gives no answer", &failure),
            },
        };
        step.lasting(self.began.elapsed())
    }

    async fn load(&self) -> Option<Step> {
        let limit = self.settings.first_token_timeout;
        let load = self.node.backend.load(self.model);
        match timeout_at(self.began + limit, load).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(self.failed("cannot be loaded", &failure)),
            Err(_) => {
                let limit = humantime::format_duration(limit);
                let found = format!(
                    "The model {} was not loaded within {limit} (PIN_FIRST_TOKEN_TIMEOUT).",
                    self.model.name
                );
                Some(Step::failed("answer", found).advising(BROKEN))
            }
        }
    }

    async fn ask(&self) -> Result<TimedAnswer, Failure> {
        let limit = self.settings.first_token_timeout + self.settings.token_timeout;
        // Told where that is over.
        let settings = JobSettings {
            request_timeout: limit,
            ..self.settings.clone()
        };
        let chat = TimedChat {
            backend: &self.node.backend,
            model: self.model,
            settings: &settings,
            deadline: self.began + limit,
        };
        let payload = json!({
            "model": self.model.name,
            "messages": [{"role": "user", "content": "Count from one to thirty in words."}],
            "stream": true,
            "max_tokens": TOKENS,
        });
        chat.ask(payload.to_string().as_bytes(), REQUEST_ID, 0)
            .await
    }

    fn failed(&self, how: &str, failure: &Failure) -> Step {
        let found = format!("The model {} {how} ({}).", self.model.name, failure.text());
        Step::failed("answer", found).advising(BROKEN)
    }

    fn told(&self, answer: &TimedAnswer) -> Step {
        let (name, tokens) = (&self.model.name, answer.tokens);
        if tokens == 0 {
            let found = format!("The model {name} answers without a token.");
            return Step::failed("answer", found).advising(BROKEN);
        }
        let speed = per_second(tokens, answer.total);
        let first = answer.first_token.as_secs_f64();
        let found = format!(
            "The model {name} gave {tokens} tokens, the first after {first:.2} s, at {speed:.1} tokens/s; the network's floor \
             is {FLOOR}, its best tier is over {BEST}."
        );
        if speed < FLOOR {
            return Step::warned("answer", found, SLOW);
        }
        Step::passed("answer", found)
    }
}

fn per_second(tokens: u64, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(0.001)
}
