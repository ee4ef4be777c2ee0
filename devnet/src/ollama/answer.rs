//! What the stand-in says, and how it is written: Ollama's own lines or OpenAI's events.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Behaviour,
    request::ChatRequest,
    timestamp::rfc3339,
    wire::{Choice, Counts, Logprob, Message, Native, OpenAi, Usage, write},
};
use crate::model_server::words;

/// What a model that thinks thinks before it speaks.
const THOUGHTS: [&str; 4] = ["Let", " me", " think", "."];

#[derive(Debug)]
struct Token {
    thinking: bool,
    text: String,
}

/// One answer that is ready to be spoken.
#[derive(Debug)]
pub(super) struct Answer {
    tokens: Vec<Token>,
    tool_calls: Option<Value>,
    reason: &'static str,
    prompt_tokens: u64,
    model: String,
    logprobs: Option<u64>,
    dialect: Dialect,
    started: Instant,
    pub(super) load: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    OpenAi { include_usage: bool },
}

impl Answer {
    pub(super) fn new(
        request: &ChatRequest,
        dialect: Dialect,
        thinks: bool,
        behaviour: &Behaviour,
    ) -> Self {
        let tool_calls = tool_calls(&request.tools, behaviour);
        let mut tokens = tokens(request, thinks, behaviour);
        if tool_calls.is_some() {
            tokens.retain(|token| token.thinking);
        }
        Self {
            reason: if request.num_predict == Some(tokens.len()) {
                "length"
            } else {
                "stop"
            },
            tokens,
            tool_calls,
            prompt_tokens: request.prompt_tokens() as u64,
            model: request.model.clone(),
            logprobs: request.logprobs.then_some(request.top_logprobs),
            dialect,
            started: Instant::now(),
            load: Duration::ZERO,
        }
    }

    /// How many lines come before the last one: one for each token, and one for a call of tools.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + usize::from(self.tool_calls.is_some())
    }

    pub(super) fn content_type(&self, stream: bool) -> &'static str {
        match (self.dialect, stream) {
            (Dialect::Native, true) => "application/x-ndjson",
            (Dialect::Native, false) => "application/json; charset=utf-8",
            (Dialect::OpenAi { .. }, true) => "text/event-stream",
            (Dialect::OpenAi { .. }, false) => "application/json",
        }
    }

    /// One line of a stream.
    pub(super) fn line(&self, index: usize) -> String {
        let message = match self.tokens.get(index) {
            Some(Token {
                thinking: false,
                text,
            }) => Message::saying(text),
            Some(Token {
                thinking: true,
                text,
            }) => self.thinking("", text),
            None => Message {
                tool_calls: self.tool_calls(),
                ..Message::saying("")
            },
        };
        match self.dialect {
            Dialect::Native => {
                let line = Native {
                    logprobs: self.logprobs(index..index + 1),
                    ..self.native(message)
                };
                write(&line) + "\n"
            }
            Dialect::OpenAi { .. } => event(&self.chunk(message, None)),
        }
    }

    /// The last line of a stream.
    pub(super) fn end(&self, spoke_since: Instant) -> String {
        match self.dialect {
            Dialect::Native => {
                write(&self.done(Message::saying(""), Vec::new(), spoke_since)) + "\n"
            }
            Dialect::OpenAi { include_usage } => {
                let mut end = event(&self.chunk(Message::saying(""), Some(self.finish_reason())));
                if include_usage {
                    end += &event(&self.openai(
                        "chat.completion.chunk",
                        Vec::new(),
                        Some(self.usage()),
                    ));
                }
                end + "data: [DONE]\n\n"
            }
        }
    }

    /// All of it as one object.
    pub(super) fn whole(&self, spoke_since: Instant) -> String {
        let (content, thinking) = (self.said(false), self.said(true));
        let message = if thinking.is_empty() {
            Message::saying(&content)
        } else {
            self.thinking(&content, &thinking)
        };
        let message = Message {
            tool_calls: self.tool_calls(),
            ..message
        };
        match self.dialect {
            Dialect::Native => {
                write(&self.done(message, self.logprobs(0..self.tokens.len()), spoke_since))
            }
            Dialect::OpenAi { .. } => {
                let finish_reason = Some(self.finish_reason());
                let choice = Choice {
                    index: 0,
                    delta: None,
                    message: Some(message),
                    finish_reason,
                };
                write(&self.openai("chat.completion", vec![choice], Some(self.usage())))
            }
        }
    }

    fn said(&self, thinking: bool) -> String {
        let tokens = self
            .tokens
            .iter()
            .filter(|token| token.thinking == thinking);
        tokens.map(|token| token.text.as_str()).collect()
    }

    fn thinking<'a>(&self, content: &'a str, thinking: &'a str) -> Message<'a> {
        let native = self.dialect == Dialect::Native;
        Message {
            thinking: native.then_some(thinking),
            reasoning: (!native).then_some(thinking),
            ..Message::saying(content)
        }
    }

    /// OpenAI writes the arguments as a string, and the index outside.
    fn tool_calls(&self) -> Option<Value> {
        let calls = self.tool_calls.as_ref()?;
        if self.dialect == Dialect::Native {
            return Some(calls.clone());
        }
        let translate = |call: &Value| {
            let function = &call["function"];
            json!({
                "id": call["id"], "index": function["index"], "type": "function",
                "function": {"name": function["name"], "arguments": function["arguments"].to_string()},
            })
        };
        Some(calls.as_array()?.iter().map(translate).collect())
    }

    fn native<'a>(&'a self, message: Message<'a>) -> Native<'a> {
        let created_at = rfc3339(SystemTime::now());
        let model = &self.model;
        Native {
            model,
            created_at,
            message,
            done: false,
            done_reason: None,
            logprobs: Vec::new(),
            counts: None,
        }
    }

    fn done<'a>(
        &'a self,
        message: Message<'a>,
        logprobs: Vec<Logprob<'a>>,
        spoke_since: Instant,
    ) -> Native<'a> {
        let nanoseconds =
            |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let counts = Counts {
            total_duration: nanoseconds(self.started.elapsed()),
            load_duration: nanoseconds(self.load),
            prompt_eval_count: self.prompt_tokens,
            prompt_eval_duration: nanoseconds(
                (spoke_since - self.started).saturating_sub(self.load),
            ),
            eval_count: self.tokens.len() as u64,
            eval_duration: nanoseconds(spoke_since.elapsed()),
        };
        let done_reason = Some(self.reason);
        Native {
            done: true,
            done_reason,
            logprobs,
            counts: Some(counts),
            ..self.native(message)
        }
    }

    fn logprobs(&self, tokens: Range<usize>) -> Vec<Logprob<'_>> {
        let Some(top) = self.logprobs else {
            return Vec::new();
        };
        let alone = |token| Logprob {
            token,
            logprob: -0.5,
            bytes: token.as_bytes(),
            top_logprobs: Vec::new(),
        };
        let tokens = self
            .tokens
            .get(tokens)
            .unwrap_or_default()
            .iter()
            .map(|token| token.text.as_str());
        tokens
            .map(|token| Logprob {
                top_logprobs: (top > 0).then(|| alone(token)).into_iter().collect(),
                ..alone(token)
            })
            .collect()
    }

    fn chunk<'a>(&'a self, delta: Message<'a>, finish_reason: Option<&'static str>) -> OpenAi<'a> {
        let choice = Choice {
            index: 0,
            delta: Some(delta),
            message: None,
            finish_reason,
        };
        self.openai("chat.completion.chunk", vec![choice], None)
    }

    fn openai<'a>(
        &'a self,
        object: &'static str,
        choices: Vec<Choice<'a>>,
        usage: Option<Usage>,
    ) -> OpenAi<'a> {
        let created = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let (id, system_fingerprint) = ("chatcmpl-523", "fp_ollama");
        OpenAi {
            id,
            object,
            created,
            model: &self.model,
            system_fingerprint,
            choices,
            usage,
        }
    }

    fn finish_reason(&self) -> &'static str {
        if self.tool_calls.is_some() {
            "tool_calls"
        } else {
            self.reason
        }
    }

    fn usage(&self) -> Usage {
        let (prompt_tokens, completion_tokens) = (self.prompt_tokens, self.tokens.len() as u64);
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
        }
    }
}

fn event(event: &OpenAi) -> String {
    format!("data: {}\n\n", write(event))
}

/// Thoughts first; as many in all as the chat allows, or as the stand-in says by itself.
fn tokens(request: &ChatRequest, thinks: bool, behaviour: &Behaviour) -> Vec<Token> {
    let thoughts = THOUGHTS.into_iter().filter(|_| thinks).map(|text| Token {
        thinking: true,
        text: text.to_owned(),
    });
    let words = match &behaviour.script {
        Some(script) => script.clone(),
        None => words(&request.prompt())
            .take(request.num_predict.unwrap_or(behaviour.tokens))
            .collect(),
    };
    let words = words.into_iter().map(|text| Token {
        thinking: false,
        text,
    });
    thoughts
        .chain(words)
        .take(request.num_predict.unwrap_or(usize::MAX))
        .collect()
}

/// A call of the first tool that was offered, where the behaviour wants one.
fn tool_calls(tools: &[Value], behaviour: &Behaviour) -> Option<Value> {
    let (tool, arguments) = (tools.first()?, behaviour.tool_arguments.as_ref()?);
    let name = &tool["function"]["name"];
    Some(
        json!([{"id": "call_k3v9x2ab", "function": {"index": 0, "name": name, "arguments": arguments}}]),
    )
}
