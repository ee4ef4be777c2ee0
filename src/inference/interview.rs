//! Interviews: prompts by which the network measures a node, run one after another in one slot.
//!
//! Invariant: what is told of a prompt was measured on a streamed answer, from the sending of that prompt on, by a model
//! that was loaded before. A prompt that fails takes nothing from the others. No prompt is run twice for one interview.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::{
    timed_chat::{TimedAnswer, TimedChat},
    work::{Done, Head, Progress, Task, Tokens, Work},
};
use crate::{
    backend::NotLoaded,
    clock::millis,
    config::JobSettings,
    label::Label,
    protocol::{
        AgentMessage, Body, Code, Failure, InterviewAnswers, Operation, PromptAnswer, Reply,
    },
};

/// A prompt's time where the network does not say: what it has been seen to say.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Far more prompts than any interview has (protocol, "Interviews": five or seven).
const MAX_PROMPTS: usize = 64;

/// An interview that is asked for.
pub(super) struct Interview {
    model: Option<String>,
    node: Option<String>,
    prompts: Vec<Prompt>,
    timeout: Duration,
}

struct Prompt {
    id: Box<RawValue>,
    /// `None` where it is no text.
    text: Option<String>,
}

/// The frame's fields as far as they matter. One of another type than its own counts as missing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Frame<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    node_id: Option<&'a RawValue>,
    #[serde(borrow)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow)]
    timeout_ms: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptFields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
}

/// Where the text is in a result for generation 2.
#[derive(Deserialize)]
struct ChatCompletion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
}

impl Interview {
    /// `frame`: the whole of INTERVIEW_REQUEST.
    pub(super) fn read(frame: &str) -> Self {
        let frame: Frame<'_> = serde_json::from_str(frame).unwrap_or_default();
        let timeout_ms = parsed::<f64>(frame.timeout_ms).filter(|ms| *ms >= 1.0);
        let timeout = timeout_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
        let prompts: Vec<&RawValue> = frame
            .prompts
            .and_then(|list| serde_json::from_str(list.get()).ok())
            .unwrap_or_default();
        Self {
            model: parsed(frame.model),
            node: parsed(frame.node_id),
            // Enough of them to see that there are too many.
            prompts: prompts
                .iter()
                .take(MAX_PROMPTS + 1)
                .map(|raw| Prompt::read(raw))
                .collect(),
            timeout: timeout.unwrap_or(USUAL_TIMEOUT),
        }
    }

    /// How long one prompt may take: no longer than a chat.
    fn prompt_limit(&self, settings: &JobSettings) -> Duration {
        self.timeout.min(settings.request_timeout)
    }

    async fn run(&self, task: Task<'_>, progress: &mut Progress) {
        let load = timeout_at(task.deadline, task.on.node.backend.load(&task.on.model)).await;
        if let Ok(Err(NotLoaded { failure, .. })) = load {
            // The prompts tell the network; that they are slower now is true.
            warn!(
                code = failure.code.as_str(),
                "the model could not be loaded before an interview"
            );
        }
        let mut answers = Vec::with_capacity(self.prompts.len());
        let mut sum = Sum::default();
        let mut room = task.settings.max_result_bytes;
        for prompt in &self.prompts {
            let id = prompt.id.clone();
            answers.push(match self.ask_in_time(prompt, &task, room).await {
                Ok(answer) => {
                    let text = text_of(&answer.result);
                    room = room.saturating_sub(text.len());
                    sum.add(&answer);
                    told(id, &answer, text)
                }
                Err(failure) => {
                    sum.failed += 1;
                    PromptAnswer::failed(id, failure.text())
                }
            });
        }
        sum.log(&task, self.prompts.len());
        let answers = InterviewAnswers::new(self.model().to_owned(), &answers, true);
        progress.done = Some(Done {
            reply: Reply {
                message: AgentMessage::InterviewResult,
                request_id: task.request_id.clone(),
                body: Body::Interview(answers),
            },
            tokens: Some(Tokens {
                prompt: sum.prompt_tokens,
                generated: sum.tokens,
            }),
            load_duration: None,
        });
    }

    /// As [`Interview::ask`], as long as there is time.
    async fn ask_in_time(
        &self,
        prompt: &Prompt,
        task: &Task<'_>,
        room: usize,
    ) -> Result<TimedAnswer, Failure> {
        let is_over = || Instant::now() >= task.deadline;
        let over = || Failure::new(Code::Timeout, "the time of the whole interview is over");
        if is_over() {
            return Err(over());
        }
        let answered = self.ask(prompt, task, room).await;
        answered.map_err(|failure| if is_over() { over() } else { failure })
    }

    /// Has one prompt answered, in at most `room` bytes.
    async fn ask(
        &self,
        prompt: &Prompt,
        task: &Task<'_>,
        room: usize,
    ) -> Result<TimedAnswer, Failure> {
        let limit = self.prompt_limit(task.settings);
        let settings = JobSettings {
            first_token_timeout: limit,
            token_timeout: limit,
            request_timeout: limit,
            max_result_bytes: room,
            ..task.settings.clone()
        };
        let chat = TimedChat {
            backend: &task.on.node.backend,
            model: &task.on.model,
            settings: &settings,
            deadline: (Instant::now() + limit).min(task.deadline),
        };
        let created = task.shared.clock.unix_seconds();
        chat.ask(&prompt.chat(task)?, task.request_id.as_str(), created)
            .await
    }

    fn model(&self) -> &str {
        self.model.as_deref().unwrap_or_default()
    }
}

impl Work for Interview {
    fn operation(&self) -> Operation {
        Operation::Interview
    }

    fn head(&self) -> Result<Head, Failure> {
        let invalid = |sentence| Err(Failure::new(Code::Invalid, sentence));
        match &self.model {
            None => invalid("no model is named"),
            Some(_) if self.prompts.is_empty() => {
                invalid("prompts are missing, empty or not a list")
            }
            Some(_) if self.prompts.len() > MAX_PROMPTS => invalid("there are too many prompts"),
            Some(model) => Ok(Head {
                model: model.clone(),
                node: self.node.clone(),
            }),
        }
    }

    /// Interviews do not wait where chats do.
    fn bytes(&self) -> usize {
        0
    }

    fn limit(&self, settings: &JobSettings) -> Duration {
        let prompts = u32::try_from(self.prompts.len()).unwrap_or(u32::MAX);
        self.prompt_limit(settings).saturating_mul(prompts)
    }

    fn perform<'a>(
        &'a mut self,
        task: Task<'a>,
        progress: &'a mut Progress,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        async {
            self.run(task, progress).await;
            Ok(())
        }
        .boxed()
    }

    fn without_result(&self, failure: &Failure) -> (AgentMessage, Body) {
        let failed = |prompt: &Prompt| {
            PromptAnswer::failed(prompt.id.clone(), failure.code.as_str().to_owned())
        };
        let answers: Vec<_> = self.prompts.iter().map(failed).collect();
        let answers = InterviewAnswers::new(self.model().to_owned(), &answers, false);
        (AgentMessage::InterviewResult, Body::Interview(answers))
    }
}

impl Prompt {
    fn read(raw: &RawValue) -> Self {
        let fields: PromptFields<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
        Self {
            id: fields.id.map(ToOwned::to_owned).unwrap_or_default(),
            text: parsed(fields.prompt),
        }
    }

    /// The chat that asks it. `max_tokens` is not applied: the tiers are calibrated on whole answers.
    fn chat(&self, task: &Task<'_>) -> Result<Bytes, Failure> {
        let Some(text) = &self.text else {
            return Err(Failure::new(Code::Invalid, "the prompt is no text"));
        };
        let chat = json!({
            "model": task.on.model.name,
            "messages": [{"role": "user", "content": text}],
            "stream": true,
        });
        Ok(Bytes::from(chat.to_string()))
    }
}

/// What the network is told of an answer.
fn told(prompt_id: Box<RawValue>, answer: &TimedAnswer, text: String) -> PromptAnswer {
    PromptAnswer {
        prompt_id,
        response: text,
        ttft_ms: nearest_millis(answer.first_token),
        total_ms: nearest_millis(answer.total),
        tokens_generated: answer.tokens,
        error: None,
    }
}

/// An interview in numbers.
#[derive(Default)]
struct Sum {
    failed: usize,
    prompt_tokens: u64,
    tokens: u64,
    time: Duration,
}

impl Sum {
    fn add(&mut self, answered: &TimedAnswer) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(answered.prompt_tokens);
        self.tokens = self.tokens.saturating_add(answered.tokens);
        self.time += answered.total;
    }

    fn log(&self, task: &Task<'_>, prompts: usize) {
        info!(
            request_id = task.request_id.as_str(),
            model = &*task.on.model.name,
            node = &*task.on.node.alias,
            prompts,
            failed = self.failed,
            tokens_per_second = self.tokens as f64 / self.time.as_secs_f64().max(0.001),
            "interview answered"
        );
    }
}

fn nearest_millis(duration: Duration) -> u64 {
    millis(duration + Duration::from_micros(500))
}

/// What a field says, if it is of this type.
fn parsed<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

fn text_of(result: &RawValue) -> String {
    let completion: Option<ChatCompletion> = serde_json::from_str(result.get()).ok();
    let first = completion.and_then(|completion| completion.choices.into_iter().next());
    first
        .and_then(|choice| choice.message.content)
        .unwrap_or_default()
}
