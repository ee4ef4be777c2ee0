//! What an answer adds up to, whichever server gives it; and the whole of it in OpenAI's shape, `chat.completion`, which is
//! the `result` of generation 2.
//!
//! Invariant: counts are the backend's own, 0 where it gave none, never estimated.

use std::{borrow::Cow, convert::Infallible};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Deltas, ResultContext,
    arguments::are_none,
    error_text::what_came,
    halves::{Half, without_halves},
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
    half_of_content: Half,
    half_of_thinking: Half,
    /// Whether there were log probabilities that were left out.
    pub(super) has_shed: bool,
    /// What is kept elsewhere until it is put in here, in bytes.
    reserved: usize,
    /// How much is kept, in bytes; `None`: all of it.
    pub(super) limit: Option<usize>,
}

/// What a result says of log probabilities that were left out.
pub(super) const SHED: &str = "log probabilities were left out: with them the answer would be larger than PIN_MAX_RESULT_BYTES";

/// How much longer than an answer a line may be whose end has not come, in bytes: some 700 tokens have log probabilities as
/// large, with 20 alternatives each. Ollama writes a line per token; what writes a whole answer as one may be cut off here.
pub(super) const LINE_BEYOND: usize = 1024 * 1024;

impl Answer {
    /// Adds a list of log probabilities, unless they are left out. Gives whether there were any.
    ///
    /// # Errors
    /// What is given is something else than a list.
    pub(super) fn add_logprobs(&mut self, list: Option<&str>) -> Result<bool, Failure> {
        let elements = elements_of(list)?;
        if elements.is_empty() {
            return Ok(false);
        }
        if !self.fits(elements.len()) {
            self.shed();
        }
        if !self.has_shed {
            self.logprobs.push(elements);
        }
        Ok(true)
    }

    /// Adds a list of calls. Gives whether there were any.
    ///
    /// # Errors
    /// What is given is something else than a list, or too large.
    pub(super) fn add_calls(&mut self, list: Option<&str>) -> Result<bool, Failure> {
        let elements = elements_of(list)?;
        self.make_room(elements.len())?;
        self.tool_calls.push(elements);
        Ok(!elements.is_empty())
    }

    /// Counts calls that are kept elsewhere as long as they are not whole.
    ///
    /// # Errors
    /// They are too large.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), Failure> {
        self.make_room(bytes)?;
        self.reserved += bytes;
        Ok(())
    }

    /// Puts in the calls for which room was reserved, a JSON list of them.
    pub(super) fn set_calls(&mut self, list: &str) {
        self.reserved = 0;
        self.tool_calls.push(interior(list));
    }

    /// Leaves log probabilities out, also those to come.
    fn shed(&mut self) {
        self.has_shed = true;
        self.logprobs = Elements::default();
    }

    /// Makes sure that so many bytes more may be kept, without log probabilities if it has to be.
    ///
    /// # Errors
    /// They may not.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Failure> {
        if !self.fits(bytes) && !self.logprobs.is_empty() {
            self.shed();
        }
        if self.fits(bytes) {
            Ok(())
        } else {
            Err(too_large())
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        let lists = self.tool_calls.0.len() + self.logprobs.0.len();
        let kept = self.content.len() + self.thinking.len() + lists + self.reserved;
        self.limit.is_none_or(|max| kept + bytes <= max)
    }

    /// Makes sure that a line whose end has not come may be so long.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn check_line(&self, bytes: usize) -> Result<(), Failure> {
        match self.limit {
            Some(max) if bytes > max.saturating_add(LINE_BEYOND) => Err(too_large()),
            Some(_) | None => Ok(()),
        }
    }

    /// Adds a piece of text, a JSON string, and tells it as new. Gives whether there is anything in it.
    ///
    /// # Errors
    /// It is no string, or too large.
    pub(super) fn say(
        &mut self,
        kind: ChunkKind,
        piece: &str,
        deltas: &mut Deltas,
    ) -> Result<bool, Failure> {
        let half = match kind {
            ChunkKind::Thinking => &mut self.half_of_thinking,
            ChunkKind::Content => &mut self.half_of_content,
        };
        let said = half.join(piece).ok_or_else(unreadable)?;
        self.add_text(kind, &said, deltas)?;
        Ok(piece != r#""""#)
    }

    /// No other piece comes.
    ///
    /// # Errors
    /// It is too large with what stands for half a character at the end of a text.
    pub(super) fn end_texts(&mut self, deltas: &mut Deltas) -> Result<(), Failure> {
        let (thinking, content) = (self.half_of_thinking.end(), self.half_of_content.end());
        self.add_text(ChunkKind::Thinking, thinking, deltas)?;
        self.add_text(ChunkKind::Content, content, deltas)
    }

    fn add_text(
        &mut self,
        kind: ChunkKind,
        text: &str,
        deltas: &mut Deltas,
    ) -> Result<(), Failure> {
        self.make_room(text.len())?;
        let said = match kind {
            ChunkKind::Thinking => &mut self.thinking,
            ChunkKind::Content => &mut self.content,
        };
        said.push_str(text);
        deltas.push(kind, text);
        Ok(())
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
    /// Adds those of one list, without its brackets.
    fn push(&mut self, elements: &str) {
        if !self.0.is_empty() && !elements.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&without_halves(elements));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them as one JSON list.
    pub(super) fn to_json(&self) -> String {
        format!("[{}]", self.0)
    }
}

/// What stands between the brackets of a list; nothing where there is no list.
fn elements_of(list: Option<&str>) -> Result<&str, Failure> {
    match list {
        Some(list) if list.starts_with('[') => Ok(interior(list).trim()),
        Some(_) => Err(unreadable()),
        None => Ok(""),
    }
}

/// The text of a piece of the body. What is no UTF-8 is replaced: an answer is worth more than one of its characters.
pub(super) fn text_of(piece: &[u8]) -> Cow<'_, str> {
    // Hardly any needs that, and to look for what does costs several times as much as this.
    std::str::from_utf8(piece).map_or_else(|_| String::from_utf8_lossy(piece), Cow::Borrowed)
}

/// More is to be kept than may be.
pub(super) fn too_large() -> Failure {
    let sentence = "the answer is larger than PIN_MAX_RESULT_BYTES";
    Failure::new(Code::TooLarge, sentence)
}

/// A piece of the body is not what the server's dialect says, nor anything that is like it.
pub(super) fn unreadable_piece(piece: &[u8]) -> Failure {
    match what_came(piece) {
        Some(came) => {
            let sentence = format!("the answer cannot be read: {came}");
            Failure::new(Code::Backend, sentence)
        }
        None => unreadable(),
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
        Some("content_filter") => "content_filter",
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
    let arguments = function.given("arguments").unwrap_or_default();
    let said = string(arguments).unwrap_or(Cow::Borrowed(arguments));
    let arguments = if are_none(&said) { "{}".into() } else { said };
    let id = call
        .given("id")
        .and_then(string)
        .filter(|id| !id.is_empty());
    Some(ToolCall {
        id: id.unwrap_or_else(|| format!("call_{request_id}_{place}").into()),
        r#type: "function",
        function: Function {
            name: function.given("name").and_then(string).unwrap_or_default(),
            arguments,
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
