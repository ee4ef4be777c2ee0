//! What an answer adds up to, whichever server gives it; and the whole of it in OpenAI's shape, `chat.completion`, which is
//! the `result` of generation 2.
//!
//! Invariant: counts are the backend's own, 0 where it gave none, never estimated.

use std::{borrow::Cow, convert::Infallible};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Deltas, ResultContext,
    halves::without_halves,
    object::{Object, Value, elements, interior, rewrite_elements, string},
};
use crate::protocol::{ChunkKind, Code, Failure};

/// What the pieces of an answer add up to.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) content: String,
    pub(super) thinking: String,
    pub(super) tool_calls: Elements,
    pub(super) logprobs: Elements,
    /// Whether there were log probabilities that were left out.
    pub(super) has_shed: bool,
}

/// What a result says of log probabilities that were left out.
pub(super) const SHED: &str = "log probabilities were left out: with them the answer would be larger than PIN_MAX_RESULT_BYTES";

impl Answer {
    /// Adds log probabilities, as [`Elements::push`] does, unless they are left out.
    pub(super) fn add_logprobs(&mut self, list: Option<&RawValue>) -> Result<bool, Failure> {
        let mut nowhere = Elements::default();
        let kept = if self.has_shed {
            &mut nowhere
        } else {
            &mut self.logprobs
        };
        kept.push(list)
    }

    /// Leaves log probabilities out, also those to come.
    pub(super) fn shed(&mut self) {
        self.has_shed |= !self.logprobs.is_empty();
        self.logprobs = Elements::default();
    }

    /// Adds text, and tells it as new.
    pub(super) fn say(&mut self, kind: ChunkKind, text: &str, deltas: &mut Deltas) {
        let said = match kind {
            ChunkKind::Thinking => &mut self.thinking,
            ChunkKind::Content => &mut self.content,
        };
        said.push_str(text);
        deltas.push(kind, text);
    }

    /// Whether there is neither text nor a call in it.
    pub(super) fn says_nothing(&self) -> bool {
        self.content.is_empty() && self.thinking.is_empty() && self.tool_calls.is_empty()
    }

    /// Its text, one piece a kind.
    pub(super) fn deltas(&self) -> Deltas {
        let mut deltas = Deltas::default();
        deltas.push(ChunkKind::Thinking, &self.thinking);
        deltas.push(ChunkKind::Content, &self.content);
        deltas
    }
}

/// The elements of several JSON lists, as they were written, with commas between them.
#[derive(Default)]
pub(super) struct Elements(String);

impl Elements {
    /// Adds a list; `None` and an empty one add nothing. Gives whether anything was added.
    ///
    /// # Errors
    /// What is given is something else than a list.
    pub(super) fn push(&mut self, list: Option<&RawValue>) -> Result<bool, Failure> {
        let Some(list) = list else { return Ok(false) };
        if !list.get().starts_with('[') {
            return Err(unreadable());
        }
        let elements = interior(list.get()).trim();
        if !self.0.is_empty() && !elements.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&without_halves(elements));
        Ok(!elements.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them as one JSON list.
    pub(super) fn to_json(&self) -> String {
        format!("[{}]", self.0)
    }
}

/// What was sent is not what the server's dialect says.
pub(super) fn unreadable() -> Failure {
    Failure::new(Code::Backend, "the answer cannot be read")
}

#[derive(Serialize)]
struct ChatCompletion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
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

/// Tokens, as the server counted them.
#[derive(Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) total_tokens: u64,
}

/// Puts it together; `finish_reason` is in the server's word. `None` if that cannot be.
pub(super) fn chat_completion(
    answer: &Answer,
    model: &str,
    finish_reason: Option<&str>,
    usage: Usage,
    context: &ResultContext,
) -> Option<Box<RawValue>> {
    let tool_calls = answer.tool_calls.to_json();
    let tool_calls: Vec<_> = elements(&tool_calls)?
        .enumerate()
        .filter_map(|(place, call)| tool_call(call, place, &context.request_id))
        .collect();
    let finish_reason = match finish_reason {
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
        Some(logprobs(&answer.logprobs)?)
    };
    to_raw_value(&ChatCompletion {
        id: &context.request_id,
        object: "chat.completion",
        created: context.created,
        model,
        choices: [Choice {
            index: 0,
            message,
            logprobs,
            finish_reason,
        }],
        usage,
        warning: answer.has_shed.then_some(SHED),
    })
    .ok()
}

/// Arguments may be given as an object, and an id be missing, as they are by Ollama. The id that is made then has the
/// request's in it: the result of a call is found by its id, and a conversation goes over many requests.
fn tool_call<'a>(call: &'a str, place: usize, request_id: &str) -> Option<ToolCall<'a>> {
    let call = Object::parse(call).ok()?;
    let function = Object::parse(call.given("function")?).ok()?;
    // Clients parse them, so that nothing has to be an object.
    let arguments = function.given("arguments").filter(|json| *json != r#""""#);
    let arguments = arguments.unwrap_or("{}");
    let id = call
        .given("id")
        .and_then(string)
        .filter(|id| !id.is_empty());
    Some(ToolCall {
        id: id.unwrap_or_else(|| format!("call_{request_id}_{place}").into()),
        r#type: "function",
        function: Function {
            name: function.given("name").and_then(string).unwrap_or_default(),
            arguments: string(arguments).unwrap_or(Cow::Borrowed(arguments)),
        },
    })
}

/// The same tokens, with the list of alternatives that OpenAI always gives and others leave out where it is empty.
fn logprobs(tokens: &Elements) -> Option<Logprobs> {
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
