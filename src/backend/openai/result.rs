//! From what an answer's chunks added up to, the `result` of either generation: OpenAI's shape, or Ollama's own.
//!
//! Invariant: `model` is the name that was asked for. What the server calls it may be a path on the operator's disk.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::chunk::Counts;
use crate::{
    backend::{
        Completion, ResultContext,
        arguments::are_none,
        completion::{Answer, SHED, Usage, chat_completion},
        object::{Object, elements, string},
    },
    protocol::Generation,
};

/// Puts the whole answer together. `None` if that cannot be.
pub(super) fn complete(
    answer: &Answer,
    finish_reason: Option<&str>,
    counts: Counts,
    context: &ResultContext,
) -> Option<Completion> {
    let result = match context.generation {
        Generation::Desktop => ollama_result(answer, finish_reason, counts, context),
        Generation::Operator => {
            let usage = Usage {
                prompt_tokens: counts.prompt,
                completion_tokens: counts.generation,
                total_tokens: counts.prompt.saturating_add(counts.generation),
            };
            chat_completion(answer, &context.model, finish_reason, usage, context)
        }
    }?;
    Some(Completion {
        result,
        is_empty: answer.says_nothing(),
        prompt_tokens: counts.prompt,
        generation_tokens: counts.generation,
        load_duration: None,
    })
}

/// Ollama's final object, as far as there is something to say in it.
#[derive(Serialize)]
struct Final<'a> {
    model: &'a str,
    created_at: String,
    message: Message<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Box<RawValue>>,
    done: bool,
    done_reason: &'static str,
    prompt_eval_count: u64,
    eval_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Serialize)]
struct Call {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: Box<RawValue>,
}

fn ollama_result(
    answer: &Answer,
    finish_reason: Option<&str>,
    counts: Counts,
    context: &ResultContext,
) -> Option<Box<RawValue>> {
    let tool_calls = answer.tool_calls.to_json();
    let created = UNIX_EPOCH.checked_add(Duration::from_secs(context.created))?;
    let logprobs = match answer.logprobs.is_empty() {
        true => None,
        false => Some(RawValue::from_string(answer.logprobs.to_json()).ok()?),
    };
    to_raw_value(&Final {
        model: &context.model,
        created_at: humantime::format_rfc3339_seconds(created).to_string(),
        message: Message {
            role: "assistant",
            content: &answer.content,
            thinking: &answer.thinking,
            tool_calls: elements(&tool_calls)?.filter_map(call).collect(),
        },
        logprobs,
        done: true,
        done_reason: match finish_reason {
            Some("length") => "length",
            _ => "stop",
        },
        prompt_eval_count: counts.prompt,
        eval_count: counts.generation,
        warning: answer.has_shed.then_some(SHED),
    })
    .ok()
}

fn call(call: &str) -> Option<Call> {
    let call = Object::parse(call).ok()?;
    let function = Object::parse(call.given("function")?).ok()?;
    let said = |object: &Object<'_>, name| {
        let said = object.given(name).and_then(string).unwrap_or_default();
        said.into_owned()
    };
    Some(Call {
        id: said(&call, "id"),
        function: Function {
            name: said(&function, "name"),
            arguments: arguments(&said(&function, "arguments"))?,
        },
    })
}

/// Ollama's arguments are an object. What is none goes as the text that it is.
fn arguments(text: &str) -> Option<Box<RawValue>> {
    if are_none(text) {
        return RawValue::from_string("{}".to_owned()).ok();
    }
    let object = RawValue::from_string(text.trim().to_owned());
    match object {
        Ok(object) if object.get().starts_with('{') => Some(object),
        Ok(_) | Err(_) => to_raw_value(text).ok(),
    }
}
