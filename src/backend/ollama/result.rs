//! From what an answer's lines added up to, the `result` of either generation: Ollama's own shape, or OpenAI's.
//!
//! Invariant: counts are the backend's own, 0 where it gave none, never estimated.

use std::time::Duration;

use serde_json::value::RawValue;

use crate::{
    backend::{
        Completion, ResultContext,
        completion::{Answer, SHED, Usage, chat_completion},
        object::{Object, Value, count, string},
    },
    protocol::Generation,
};

/// Which fields of Ollama's final object are counts of tokens or nanoseconds.
const COUNTS: [&str; 6] = [
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
];

/// Puts the whole answer together; `last` is Ollama's final object. `None` if that cannot be read.
pub(super) fn complete(answer: &Answer, last: &str, context: &ResultContext) -> Option<Completion> {
    let last = Object::parse(last.trim()).ok()?;
    let counted = |key| last.given(key).and_then(count);
    let prompt_tokens = counted("prompt_eval_count").unwrap_or(0);
    let generation_tokens = counted("eval_count").unwrap_or(0);
    let load_duration = counted("load_duration").map(Duration::from_nanos);
    let result = match context.generation {
        Generation::Desktop => ollama_result(answer, last),
        Generation::Operator => {
            let model = last.given("model").and_then(string).unwrap_or_default();
            let done_reason = last.given("done_reason").and_then(string);
            let usage = Usage {
                prompt_tokens,
                completion_tokens: generation_tokens,
                total_tokens: prompt_tokens.saturating_add(generation_tokens),
            };
            chat_completion(answer, &model, done_reason.as_deref(), usage, context)
        }
    }?;
    Some(Completion {
        result,
        is_empty: answer.says_nothing(),
        prompt_tokens,
        generation_tokens,
        load_duration,
    })
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
    if answer.has_shed {
        last.set("logprobs", Value::Raw("null"));
        last.set("warning", text(SHED));
    }
    write_counts_whole(&mut last);
    let mut json = String::new();
    last.write(&mut json);
    RawValue::from_string(json).ok()
}

/// Who reads Ollama's answers takes counts for integers, so `7.0` becomes `7`.
fn write_counts_whole(last: &mut Object<'_>) {
    for name in COUNTS {
        let odd = last.given(name).filter(|json| json.parse::<u64>().is_err());
        if let Some(count) = odd.and_then(count) {
            last.set(name, Value::Json(count.to_string()));
        }
    }
}

fn text(text: &str) -> Value<'static> {
    Value::Json(serde_json::Value::from(text).to_string())
}
