//! OpenAI's messages in Ollama's words: lists of parts become text and images, arguments of tool calls become objects, a
//! tool's result names its tool, and what a model thought goes by one name.
//!
//! Invariant: nothing is dropped and nobody is made to fetch anything. A message that is in Ollama's words stays byte for
//! byte.

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use serde_json::value::RawValue;

use crate::{
    backend::{
        arguments::are_none,
        chat::invalid,
        halves,
        object::{Object, Value, elements, interior, rewrite_elements, string},
    },
    protocol::Failure,
};

/// Translates the messages; `None` if all of them can stay as they are.
pub(super) fn translate_messages(messages: &str) -> Result<Option<Value<'_>>, Failure> {
    let mut tools = Tools::default();
    rewrite_elements(messages, |message| translate_message(message, &mut tools))
}

fn translate_message<'a>(
    message: &'a str,
    tools: &mut Tools<'a>,
) -> Result<Option<Value<'a>>, Failure> {
    let mut message =
        Object::parse(message).map_err(|error| invalid(format!("a message is {error}")))?;
    // Not `||`: each of them must be asked.
    let changed = translate_role(&mut message)
        | translate_content(&mut message)?
        | translate_thinking(&mut message)
        | tools.name(&mut message)
        | translate_tool_calls(&mut message)?;
    Ok(changed.then_some(Value::Object(message)))
}

/// Which tools the calls were for, by the calls' ids.
#[derive(Default)]
struct Tools<'a> {
    by_id: HashMap<Cow<'a, str>, Called<'a>>,
    /// How many messages there were so far.
    messages: usize,
}

/// The tools that were called by one id: those of the last message that has it, since some servers use their ids again.
/// Others give all calls of a message the same; then each result is of the next one.
#[derive(Default)]
struct Called<'a> {
    message: usize,
    tools: VecDeque<&'a str>,
}

impl<'a> Called<'a> {
    fn add(&mut self, message: usize, tool: &'a str) {
        if self.message != message {
            self.message = message;
            self.tools.clear();
        }
        self.tools.push_back(tool);
    }

    /// The last one is also that of any further result.
    fn next(&mut self) -> Option<&'a str> {
        if self.tools.len() > 1 {
            self.tools.pop_front()
        } else {
            self.tools.front().copied()
        }
    }
}

impl<'a> Tools<'a> {
    /// Remembers the calls of a message; names the tool of a result, which has no other name in Ollama's templates.
    fn name(&mut self, message: &mut Object<'a>) -> bool {
        self.messages += 1;
        for call in message
            .given("tool_calls")
            .and_then(elements)
            .into_iter()
            .flatten()
        {
            self.remember(call);
        }
        if message.given("role").and_then(string).as_deref() != Some("tool")
            || text(message, "tool_name").is_some()
        {
            return false;
        }
        let called = || {
            let id = message.given("tool_call_id").and_then(halves::text)?;
            self.by_id.get_mut(&id)?.next()
        };
        let Some(name) = text(message, "name").or_else(called) else {
            return false;
        };
        message.set("tool_name", Value::Raw(name));
        true
    }

    fn remember(&mut self, call: &'a str) -> Option<()> {
        let call = Object::parse(call).ok()?;
        let function = Object::parse(call.given("function")?).ok()?;
        let id = call.given("id").and_then(halves::text)?;
        let tool = text(&function, "name")?;
        self.by_id.entry(id).or_default().add(self.messages, tool);
        Some(())
    }
}

/// The JSON of a text that is not empty.
fn text<'a>(object: &Object<'a>, name: &str) -> Option<&'a str> {
    let json = object.given(name)?;
    (json.starts_with('"') && json != r#""""#).then_some(json)
}

/// What a model thought is `thinking` to Ollama, and has two names elsewhere.
fn translate_thinking(message: &mut Object<'_>) -> bool {
    if message
        .given("thinking")
        .is_some_and(|thought| thought != r#""""#)
    {
        return false;
    }
    let theirs = ["reasoning_content", "reasoning"];
    let given = theirs
        .into_iter()
        .find_map(|name| Some((name, text(message, name)?)));
    let Some((name, thought)) = given else {
        return false;
    };
    message.remove(name);
    message.set("thinking", Value::Raw(thought));
    true
}

fn translate_role(message: &mut Object<'_>) -> bool {
    let is_developer = message
        .given("role")
        .and_then(string)
        .is_some_and(|role| role == "developer");
    if is_developer {
        message.set("role", Value::Raw(r#""system""#));
    }
    is_developer
}

/// Content as a list of parts becomes its texts, joined, and the images beside it.
fn translate_content(message: &mut Object<'_>) -> Result<bool, Failure> {
    let Some(parts) = message.given("content").and_then(elements) else {
        return Ok(false);
    };
    let (mut texts, mut images) = (Vec::new(), Vec::new());
    for part in parts {
        match read_part(part)? {
            Part::Text(text) => texts.push(text),
            Part::Image(image) => images.push(image),
        }
    }
    message.set("content", Value::Text(texts));
    if !images.is_empty() {
        add_images(message, images)?;
    }
    Ok(true)
}

fn add_images<'a>(message: &mut Object<'a>, added: Vec<Value<'a>>) -> Result<(), Failure> {
    let mut images = Vec::new();
    if let Some(given) = message.given("images") {
        let given = elements(given).ok_or_else(|| invalid("images of a message are not a list"))?;
        images.extend(given.map(Value::Raw));
    }
    images.extend(added);
    message.set("images", Value::List(images));
    Ok(())
}

enum Part<'a> {
    /// Escaped, without its quotes.
    Text(&'a str),
    /// Base64.
    Image(Value<'a>),
}

fn read_part(part: &str) -> Result<Part<'_>, Failure> {
    let unknown = || invalid("a part of a message's content is neither text nor image_url");
    let part = Object::parse(part).map_err(|_| unknown())?;
    match part.given("type").and_then(string).as_deref() {
        Some("text") => {
            let is_there = part.names().any(|name| name == "text");
            match part.given("text") {
                Some(text) if text.starts_with('"') => Ok(Part::Text(interior(text))),
                None if is_there => Ok(Part::Text("")),
                Some(_) | None => Err(invalid("a text part has no text")),
            }
        }
        Some("image_url") => {
            let url = part.given("image_url").and_then(image_url);
            url.and_then(image_data)
                .map(Part::Image)
                .ok_or_else(|| invalid("an image is no base64 data: URL"))
        }
        _ => Err(unknown()),
    }
}

/// OpenAI has `{"url": …}`; some clients send the URL alone, and Ollama's own translation takes it.
fn image_url(json: &str) -> Option<&str> {
    if json.starts_with('"') {
        return Some(json);
    }
    Object::parse(json).ok()?.given("url")
}

/// The base64 text of an image's `data:` URL, as JSON.
fn image_data(url: &str) -> Option<Value<'_>> {
    match string(url)? {
        Cow::Borrowed(url) => Some(Value::Text(vec![data_of_url(url)?])),
        Cow::Owned(url) => Some(Value::Json(serde_json::to_string(data_of_url(&url)?).ok()?)),
    }
}

fn data_of_url(url: &str) -> Option<&str> {
    let (head, data) = url.split_once(',')?;
    let head = head.to_ascii_lowercase();
    (head.starts_with("data:") && head.ends_with(";base64")).then_some(data)
}

fn translate_tool_calls(message: &mut Object<'_>) -> Result<bool, Failure> {
    let Some(calls) = message.given("tool_calls") else {
        return Ok(false);
    };
    let Some(translated) = rewrite_elements(calls, translate_tool_call)? else {
        return Ok(false);
    };
    message.set("tool_calls", translated);
    Ok(true)
}

fn translate_tool_call(call: &str) -> Result<Option<Value<'_>>, Failure> {
    let Ok(mut call) = Object::parse(call) else {
        return Ok(None);
    };
    let Some(Ok(mut function)) = call.given("function").map(Object::parse) else {
        return Ok(None);
    };
    let Some(arguments) = arguments_object(function.given("arguments"))? else {
        return Ok(None);
    };
    function.set("arguments", Value::Json(arguments));
    call.set("function", Value::Object(function));
    Ok(Some(Value::Object(call)))
}

/// The object that arguments spell; `None` if they are one.
fn arguments_object(arguments: Option<&str>) -> Result<Option<String>, Failure> {
    let not_an_object = || invalid("arguments of a tool call are not an object");
    let arguments = arguments.unwrap_or("null");
    if arguments.starts_with('{') {
        return Ok(None);
    }
    let text = match arguments.starts_with('"') {
        true => halves::text(arguments).ok_or_else(not_an_object)?,
        false => arguments.into(),
    };
    let text = text.trim();
    if are_none(text) {
        return Ok(Some("{}".to_owned()));
    }
    if !text.starts_with('{') || serde_json::from_str::<&RawValue>(text).is_err() {
        return Err(not_an_object());
    }
    Ok(Some(text.to_owned()))
}
