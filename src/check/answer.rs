//! What a node's model server has and does: whether it answers, what is offered of its models, and a real answer of the
//! first of them, since a server that lists its models may be unable to run any.
//!
//! Invariant: of the answer nothing is kept but its numbers.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::Step;
use crate::{
    backend::{Guide, Model, NotLoaded, speech::SpeechServer},
    config::JobSettings,
    inference::{TimedAnswer, TimedChat},
    node::Node,
    protocol::Failure,
};

/// How long the answer may get, in tokens: enough to see how fast it goes.
const TOKENS: u32 = 32;

/// What is named in the result, which nobody sees.
const REQUEST_ID: &str = "check";

/// Why none is tried where that would keep somebody waiting.
pub(super) const ALL_SLOTS_TAKEN: &str =
    "Not tried, since requests have every slot. Check again when the node is less busy.";

/// What helps where a server counts nothing.
const UNCOUNTED: &str = "An interview measures by the server's own counts, and nothing is estimated: turn them on, or choose \
                         another server (docs/openai.md, \"How tokens are counted\").";

/// Looks at a node's servers. Gives its first model beside the steps, if it offers one.
pub(super) async fn look(node: &Node) -> (Vec<Step>, Option<Model>) {
    let (mut steps, model) = look_at_models(node).await;
    if let Some(speech) = &node.speech {
        steps.push(look_at_speech(speech).await);
    }
    (steps, model)
}

async fn look_at_speech(speech: &SpeechServer) -> Step {
    let began = Instant::now();
    speech.look_now().await;
    let step = match speech.why_nothing() {
        Some(why) => Step::failed("speech", why),
        None => {
            let names = speech.offer().borrow().names.join(", ");
            Step::passed(
                "speech",
                format!("The speech server answers; offered: {names}."),
            )
        }
    };
    step.lasting(began.elapsed())
}

async fn look_at_models(node: &Node) -> (Vec<Step>, Option<Model>) {
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
    let name = capitalized(node.backend.guide().name);
    let found = format!("{name}{} answers.", version.unwrap_or_default());
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
                Err(failure) => self.failed("gives no answer", &failure, None).await,
            },
        };
        step.lasting(self.began.elapsed())
    }

    async fn load(&self) -> Option<Step> {
        let limit = self.settings.first_token_timeout;
        let load = self.node.backend.load(self.model);
        match timeout_at(self.began + limit, load).await {
            Ok(Ok(())) => None,
            Ok(Err(NotLoaded { failure, why_odd })) => {
                Some(self.failed("cannot be loaded", &failure, why_odd).await)
            }
            Err(_) => {
                let limit = humantime::format_duration(limit);
                let found = format!(
                    "The model {} was not loaded within {limit} (PIN_FIRST_TOKEN_TIMEOUT).",
                    self.model.name
                );
                Some(Step::failed("answer", found).advising(self.guide().if_broken))
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

    fn guide(&self) -> &'static Guide {
        self.node.backend.guide()
    }

    /// Whether it is the model's trouble or its server's, which may want a key for chats alone or have gone down with the
    /// model, another look tells. `why_odd`: it is neither's.
    async fn failed(&self, how: &str, failure: &Failure, why_odd: Option<String>) -> Step {
        let backend = &self.node.backend;
        backend.look_now().await;
        let offer = backend.offer().borrow().clone();
        let of_server = offer.why_empty.filter(|_| !offer.is_up);
        let of_its_chats = backend.why_unserved(&self.model.name);
        let (how, advice) = match of_server.or(of_its_chats).or(why_odd) {
            Some(why) => ("gives no answer", why),
            None => (how, self.guide().if_broken.to_owned()),
        };
        let found = format!("The model {} {how} ({}).", self.model.name, failure.text());
        Step::failed("answer", found).advising(advice)
    }

    fn told(&self, answer: &TimedAnswer) -> Step {
        let (name, tokens) = (&self.model.name, answer.tokens);
        if answer.is_empty {
            let found = format!(
                "The model {name} answers without any text, thought or call; its server counts {tokens} tokens."
            );
            return Step::failed("answer", found).advising(self.guide().if_broken);
        }
        let first = answer.first_token.as_secs_f64();
        if tokens == 0 {
            let found = format!(
                "The model {name} answered, the first token after {first:.2} s, but its server counts no tokens: how many a second is \
                 unknown."
            );
            return Step::warned("answer", found, UNCOUNTED);
        }
        let speed = per_second(tokens, answer.total);
        let Guide {
            floor,
            best,
            if_slow,
            ..
        } = self.guide();
        let found = format!(
            "The model {name} gave {tokens} tokens, the first after {first:.2} s, at {speed:.1} tokens/s; the network's floor \
             is {floor}, its best tier is over {best}."
        );
        if speed < *floor {
            return Step::warned("answer", found, *if_slow);
        }
        Step::passed("answer", found)
    }
}

/// As the first word of a sentence.
fn capitalized(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters.clone()).collect()
}

fn per_second(tokens: u64, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(0.001)
}
