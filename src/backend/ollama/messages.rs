//! OpenAI's messages in Ollama's words: lists of parts become text and images, arguments of tool calls become objects.
//!
//! Invariant: nothing is dropped and nobody is made to fetch anything. A message that is in Ollama's words stays byte for
//! byte.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    backend::{
        chat::invalid,
        object::{Object, Value, elements, interior, rewrite_elements, string},
    },
    protocol::Failure,
};

/// Translates the messages; `None` if all of them can stay as they are.
pub(super) fn translate_messages(messages: &str) -> Result<Option<Value<'_>>, Failure> {
    rewrite_elements(messages, translate_message)
}

fn translate_message(message: &str) -> Result<Option<Value<'_>>, Failure> {
    let mut message =
        Object::parse(message).map_err(|error| invalid(format!("a message is {error}")))?;
    // Not `||`: each of them must be asked.
    let changed = translate_role(&mut message)
        | translate_content(&mut message)?
        | translate_tool_calls(&mut message)?;
    Ok(changed.then_some(Value::Object(message)))
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
            let text = part.given("text").filter(|text| text.starts_with('"'));
            text.map(|text| Part::Text(interior(text)))
                .ok_or_else(|| invalid("a text part has no text"))
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

/// The object that arguments spell; `None` if they are one. That a call has none is spelled in many ways: not at all, as
/// null, blank, and as an empty list where objects and lists are one type.
fn arguments_object(arguments: Option<&str>) -> Result<Option<String>, Failure> {
    let not_an_object = || invalid("arguments of a tool call are not an object");
    let arguments = arguments.unwrap_or("null");
    if arguments.starts_with('{') {
        return Ok(None);
    }
    let text = match arguments.starts_with('"') {
        true => string(arguments).ok_or_else(not_an_object)?,
        false => arguments.into(),
    };
    let text = text.trim();
    let list = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if matches!(text, "" | "null" | r#""""#) || list.is_some_and(|list| list.trim().is_empty()) {
        return Ok(Some("{}".to_owned()));
    }
    if !text.starts_with('{') || serde_json::from_str::<&RawValue>(text).is_err() {
        return Err(not_an_object());
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn message(message: &str) -> Result<String, Failure> {
        let list = format!("[{message}]");
        let translated = translate_messages(&list)?;
        let mut json = String::new();
        translated.unwrap_or(Value::Raw(&list)).write(&mut json);
        Ok(json[1..json.len() - 1].to_owned())
    }

    fn assert_message(theirs: &str, ours: &str) {
        assert_eq!(message(theirs).unwrap(), ours, "{theirs}");
    }

    fn assert_refused(theirs: &str) {
        assert_eq!(message(theirs).unwrap_err().code, Code::Invalid, "{theirs}");
    }

    #[test]
    fn a_message_in_ollamas_words_stays_byte_for_byte() {
        for same in [
            r#"{ "role" : "user", "content":"a\/b", "images":["aGk="]}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{ "n":1e400}}}]}"#,
            r#"{"role":"tool","content":"","tool_call_id":"call_1","tool_calls":null}"#,
        ] {
            assert_message(same, same);
        }
    }

    #[test]
    fn parts_become_text_and_images() {
        assert_message(
            r#"{"role":"user","content":[{"type":"text","text":"a\n"},{"type":"text","text":"\u0062"}],"x":1}"#,
            r#"{"role":"user","content":"a\n\u0062","x":1}"#,
        );
        assert_message(
            concat!(
                r#"{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD","detail":"low"}},"#,
                r#"{"type":"text","text":"t"},{"type":"image_url","image_url":"DATA:;BASE64,RA=="},"#,
                r#"{"type":"image_url","image_url":{"url":"data:image\/png;base64,\/w=="}}],"images":["eA=="]}"#,
            ),
            r#"{"content":"t","images":["eA==","QUJD","RA==","/w=="]}"#,
        );
        assert_message(r#"{"content":[]}"#, r#"{"content":""}"#);
    }

    #[test]
    fn nobody_is_made_to_fetch_an_image_and_no_part_is_dropped() {
        for part in [
            r#"{"type":"image_url","image_url":{"url":"http://10.0.0.1/secret.png"}}"#,
            r#"{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/png,raw"}}"#,
            r#"{"type":"image_url","image_url":{}}"#,
            r#"{"type":"input_audio","input_audio":{}}"#,
            r#"{"type":"text"}"#,
            r#"{"text":"a"}"#,
            r#""a""#,
        ] {
            assert_refused(&format!(r#"{{"content":[{part}]}}"#));
        }
        assert_refused(
            r#"{"content":[{"type":"image_url","image_url":"data:;base64,eA=="}],"images":"x"}"#,
        );
        assert_refused(r#""a message""#);
    }

    #[test]
    fn arguments_of_tool_calls_become_objects() {
        let call = |arguments| {
            format!(
                r#"{{"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}}"#
            )
        };
        assert_message(
            &call(r#""{\"n\": 1.0, \"s\":\"\\n\"}""#),
            &call(r#"{"n": 1.0, "s":"\n"}"#),
        );
        for nothing in [
            r#""""#,
            r#"" \n""#,
            "null",
            r#""null""#,
            r#""\"\"""#,
            "[]",
            r#""[ ]""#,
        ] {
            assert_message(&call(nothing), &call("{}"));
        }
        assert_message(
            r#"{"tool_calls":[{"function":{"name":"f"}}]}"#,
            r#"{"tool_calls":[{"function":{"name":"f","arguments":{}}}]}"#,
        );
        for wrong in [
            r#""[1]""#,
            r#""{\"a\":""#,
            "7",
            r#""[""#,
            r#""{}{}""#,
            r#""\ud800""#,
        ] {
            assert_refused(&call(wrong));
        }
    }

    #[test]
    fn only_the_messages_that_need_it_are_rewritten() {
        let list =
            r#"[{"role" : "user"} , {"role":"developer","content":"x"}, { "role":"system" }]"#;
        let mut json = String::new();
        translate_messages(list).unwrap().unwrap().write(&mut json);
        assert_eq!(
            json,
            r#"[{"role" : "user"},{"role":"system","content":"x"},{ "role":"system" }]"#
        );
    }
}
