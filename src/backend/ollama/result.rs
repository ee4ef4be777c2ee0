//! From what an answer's lines added up to, the `result` of either generation.
//!
//! Invariant: counts are the backend's own, 0 where it gave none, never estimated.

use std::{borrow::Cow, convert::Infallible, time::Duration};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    backend::{
        Completion, Envelope,
        object::{Object, Value, elements, rewrite_elements, string},
    },
    protocol::Generation,
};

use super::answer::{Answer, Elements};

/// Puts the whole answer together; `last` is Ollama's final object. `None` if that cannot be read.
pub(super) fn complete(answer: &Answer, last: &str, envelope: &Envelope) -> Option<Completion> {
    let last = Object::parse(last.trim()).ok()?;
    let prompt_tokens = count(&last, "prompt_eval_count").unwrap_or(0);
    let generation_tokens = count(&last, "eval_count").unwrap_or(0);
    let load_duration = count(&last, "load_duration").map(Duration::from_nanos);
    let result = match envelope.generation {
        Generation::Desktop => ollama_result(answer, last),
        Generation::Operator => {
            let usage = Usage {
                prompt_tokens,
                completion_tokens: generation_tokens,
                total_tokens: prompt_tokens.saturating_add(generation_tokens),
            };
            openai_result(answer, &last, usage, envelope)
        }
    }?;
    Some(Completion {
        result,
        prompt_tokens,
        generation_tokens,
        load_duration,
    })
}

/// A count, or a time in nanoseconds; what no JSON number holds exactly is neither, and could not be added up.
fn count(last: &Object<'_>, key: &str) -> Option<u64> {
    const MAX: u64 = 1 << 53;
    let count = last.given(key)?.parse().ok()?;
    (count <= MAX).then_some(count)
}

/// Ollama's final object with the whole message in it.
fn ollama_result(answer: &Answer, mut last: Object<'_>) -> Option<Box<RawValue>> {
    let message = last.given("message").unwrap_or(r#"{"role":"assistant"}"#);
    let mut message = Object::parse(message).ok()?;
    message.set("content", text(&answer.content));
    if !answer.thinking.is_empty() {
        message.set("thinking", text(&answer.thinking));
    }
    if !answer.tool_calls.is_empty() {
        message.set("tool_calls", Value::Json(answer.tool_calls.to_json()));
    }
    last.set("message", Value::Object(message));
    if !answer.logprobs.is_empty() {
        last.set("logprobs", Value::Json(answer.logprobs.to_json()));
    }
    let mut json = String::new();
    last.write(&mut json);
    RawValue::from_string(json).ok()
}

fn text(text: &str) -> Value<'static> {
    Value::Json(serde_json::Value::from(text).to_string())
}

#[derive(Serialize)]
struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: Cow<'a, str>,
    choices: [Choice<'a>; 1],
    usage: Usage,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u8,
    message: Message<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall<'a>>,
}

#[derive(Serialize)]
struct ToolCall<'a> {
    id: Cow<'a, str>,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: Cow<'a, str>,
    /// JSON in a string.
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Box<RawValue>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

fn openai_result(
    answer: &Answer,
    last: &Object<'_>,
    usage: Usage,
    envelope: &Envelope,
) -> Option<Box<RawValue>> {
    let tool_calls = answer.tool_calls.to_json();
    let tool_calls: Vec<_> = elements(&tool_calls)?
        .enumerate()
        .filter_map(|(i, call)| tool_call(i, call))
        .collect();
    let finish_reason = match last.given("done_reason").and_then(string).as_deref() {
        _ if !tool_calls.is_empty() => "tool_calls",
        Some("length") => "length",
        // OpenAI's clients know a closed set of reasons, and to them every other end is this one.
        _ => "stop",
    };
    let message = Message {
        role: "assistant",
        content: &answer.content,
        thinking: &answer.thinking,
        tool_calls,
    };
    let logprobs = if answer.logprobs.is_empty() {
        None
    } else {
        Some(openai_logprobs(&answer.logprobs)?)
    };
    to_raw_value(&ChatCompletion {
        id: &envelope.request_id,
        object: "chat.completion",
        created: envelope.created,
        model: last.given("model").and_then(string).unwrap_or_default(),
        choices: [Choice {
            index: 0,
            message,
            logprobs,
            finish_reason,
        }],
        usage,
    })
    .ok()
}

/// Ollama gives arguments as an object, and not in every version an id.
fn tool_call(index: usize, call: &str) -> Option<ToolCall<'_>> {
    let call = Object::parse(call).ok()?;
    let function = Object::parse(call.given("function")?).ok()?;
    let arguments = function.given("arguments").unwrap_or("{}");
    let id = call
        .given("id")
        .and_then(string)
        .filter(|id| !id.is_empty());
    Some(ToolCall {
        id: id.unwrap_or_else(|| format!("call_{index}").into()),
        r#type: "function",
        function: Function {
            name: function.given("name").and_then(string).unwrap_or_default(),
            arguments: string(arguments).unwrap_or(Cow::Borrowed(arguments)),
        },
    })
}

/// The same tokens, with the list of alternatives that OpenAI always gives and Ollama leaves out where it is empty.
fn openai_logprobs(tokens: &Elements) -> Option<Logprobs> {
    let tokens = tokens.to_json();
    let completed = rewrite_elements(&tokens, |token| {
        let Ok(mut token) = Object::parse(token) else {
            return Ok::<_, Infallible>(None);
        };
        if token.has("top_logprobs") {
            return Ok(None);
        }
        token.set("top_logprobs", Value::List(Vec::new()));
        Ok(Some(Value::Object(token)))
    });
    let Ok(completed) = completed;
    let mut json = String::with_capacity(tokens.len());
    completed.unwrap_or(Value::Raw(&tokens)).write(&mut json);
    Some(Logprobs {
        content: RawValue::from_string(json).ok()?,
    })
}
