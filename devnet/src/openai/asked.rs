//! What a chat request asks for, and what each server refuses, in its words. Pure.

use hyper::{
    HeaderMap,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use serde_json::{Map, Value};

use super::{
    refusal::Refusal,
    style::{Refuses, Style},
};
use crate::model_server::text;

/// The fields that OpenAI has for a chat.
const FIELDS: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// A chat.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// The most tokens of the answer.
    pub(super) limit: Option<usize>,
    /// The name of the first tool that was offered.
    pub(super) tool: Option<String>,
    /// The words of the last message of a user.
    pub(super) prompt: String,
    /// A count in the place of the prompt's tokens: its words.
    pub(super) prompt_tokens: usize,
}

/// How strict the server is.
pub(super) struct Rules<'a> {
    pub(super) style: Style,
    /// Beyond what the style refuses.
    pub(super) refuses: &'a [Refuses],
    /// In tokens.
    pub(super) context: usize,
}

impl Rules<'_> {
    fn refuse(&self, what: Refuses) -> bool {
        self.refuses.contains(&what) || self.style.manners().refuses.contains(&what)
    }

    /// What is refused before the body is looked at.
    pub(super) fn check_head(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.refuse(Refuses::NoContentLength) && !headers.contains_key(CONTENT_LENGTH) {
            return Err(Refusal::new(411, "", "Content-Length header is required"));
        }
        let json = |value: &hyper::header::HeaderValue| {
            value
                .to_str()
                .is_ok_and(|kind| kind.starts_with("application/json"))
        };
        if self.refuse(Refuses::NoContentType) && !headers.get(CONTENT_TYPE).is_some_and(json) {
            let refusal =
                Refusal::invalid("Unsupported Media Type: Only 'application/json' is allowed");
            let status = if self.style == Style::Transformers {
                422
            } else {
                400
            };
            return Err(refusal.with_status(status));
        }
        Ok(())
    }

    /// Reads the body of `POST /v1/chat/completions`.
    pub(super) fn read(&self, body: &[u8]) -> Result<Asked, Refusal> {
        let not_json = || {
            let status = if self.style == Style::Transformers {
                422
            } else {
                400
            };
            Refusal::invalid("JSON decode error: the body is no object").with_status(status)
        };
        let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| not_json())?;
        self.check_fields(&body)?;
        let messages = self.messages(&body)?;
        let stream = flag(&body, "stream");
        if body.contains_key("stream_options") && !stream && self.refuse(Refuses::StreamOptions) {
            return Err(Refusal::invalid(
                "Stream options can only be defined when `stream=True`.",
            ));
        }
        let words = |message: &Value| text(&message["content"]).split_whitespace().count();
        let last = messages.iter().rfind(|message| message["role"] == "user");
        let asked = Asked {
            model: body.get("model").and_then(Value::as_str).map(str::to_owned),
            stream,
            include_usage: body
                .get("stream_options")
                .is_some_and(|options| options["include_usage"] == true),
            limit: self.limit(&body)?,
            tool: body
                .get("tools")
                .and_then(|tools| tools[0]["function"]["name"].as_str())
                .map(str::to_owned),
            prompt: last.map(|last| text(&last["content"])).unwrap_or_default(),
            prompt_tokens: messages.iter().map(words).sum(),
        };
        self.fit(asked)
    }

    fn check_fields(&self, body: &Map<String, Value>) -> Result<(), Refusal> {
        if self.refuse(Refuses::Nulls)
            && let Some((name, _)) = body.iter().find(|(_, value)| value.is_null())
        {
            return Err(Refusal::invalid(format!("{name} must not be null")));
        }
        let unknown: Vec<_> = body
            .keys()
            .filter(|name| !FIELDS.contains(&name.as_str()))
            .collect();
        if self.refuse(Refuses::UnknownFields) && !unknown.is_empty() {
            let message = format!("Unexpected fields in the request: {unknown:?}");
            return Err(Refusal::invalid(message).with_status(422));
        }
        let strict = matches!(self.style, Style::Vllm | Style::Mlx);
        let temperature = body.get("temperature").and_then(Value::as_f64);
        if strict && temperature.is_some_and(|temperature| temperature < 0.0) {
            return Err(Refusal::invalid("temperature must be non-negative"));
        }
        Ok(())
    }

    fn messages<'a>(&self, body: &'a Map<String, Value>) -> Result<&'a [Value], Refusal> {
        let status = match self.style {
            Style::Transformers => 500,
            Style::Mlx => 404,
            Style::LlamaServer | Style::Vllm | Style::Ollama => 400,
        };
        let Some(messages) = body.get("messages").and_then(Value::as_array) else {
            return Err(Refusal::invalid("Expected 'messages' to be an array"));
        };
        if messages.is_empty() && self.refuse(Refuses::NoMessages) {
            return Err(Refusal::invalid("[] is too short - 'messages'").with_status(status));
        }
        for message in messages {
            if message["role"] == "assistant"
                && message["content"].is_null()
                && self.refuse(Refuses::NullContent)
            {
                return Err(Refusal::invalid("invalid message content type: <nil>"));
            }
            let mut calls = message["tool_calls"].as_array().into_iter().flatten();
            if self.refuse(Refuses::ObjectArguments)
                && calls.any(|call| call["function"]["arguments"].is_object())
            {
                return Err(Refusal::invalid(
                    "1 validation error: tool_calls.0.function.arguments: Input should be a valid string",
                ));
            }
        }
        Ok(messages)
    }

    fn limit(&self, body: &Map<String, Value>) -> Result<Option<usize>, Refusal> {
        let number = |name: &str| body.get(name).and_then(Value::as_i64);
        let completion =
            number("max_completion_tokens").filter(|_| self.style.manners().completion_limit);
        // llama-server's own name for it wins there.
        let own = number("n_predict").filter(|_| self.style == Style::LlamaServer);
        let limit = own.or(completion).or(number("max_tokens"));
        match (limit, self.style) {
            (Some(..=0), Style::Vllm | Style::Mlx) => {
                Err(Refusal::invalid("max_tokens must be at least 1"))
            }
            (Some(..=0), Style::Transformers) => {
                Err(Refusal::new(500, "", "Internal Server Error"))
            }
            (Some(0), Style::LlamaServer) => Ok(Some(1)),
            (Some(..=0), Style::LlamaServer | Style::Ollama) => Ok(None),
            (limit, _) => Ok(limit.and_then(|limit| usize::try_from(limit).ok())),
        }
    }

    /// What a server does whose context is too small.
    fn fit(&self, mut asked: Asked) -> Result<Asked, Refusal> {
        let (prompt, context) = (asked.prompt_tokens, self.context);
        let room = context.saturating_sub(prompt);
        let limit = asked.limit;
        if self.refuse(Refuses::MaxTokens) && limit.is_some_and(|limit| limit > room) {
            return Err(Refusal::invalid(format!(
                "'max_tokens' or 'max_completion_tokens' is too large: {}. This model's maximum context length is {context} tokens \
                 and your request has {prompt} input tokens",
                limit.unwrap_or_default()
            )));
        }
        match self.style {
            Style::LlamaServer if room == 0 => return Err(Refusal::too_long(prompt, context)),
            Style::Vllm if room == 0 => {
                return Err(Refusal::invalid(format!(
                    "This model's maximum context length is {context} tokens. However, you requested {prompt} input tokens"
                )));
            }
            Style::LlamaServer => asked.limit = limit.map(|limit| limit.min(room)),
            Style::Vllm | Style::Mlx | Style::Transformers | Style::Ollama => {}
        }
        Ok(asked)
    }
}

fn flag(body: &Map<String, Value>, name: &str) -> bool {
    body.get(name).and_then(Value::as_bool).unwrap_or(false)
}
