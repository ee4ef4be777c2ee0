//! OpenAI's dialect in Ollama's words, where the consumer has not used those: sampling keys go to `options`,
//! `response_format` becomes `format`, lists of parts become text and images, and so on.
//!
//! Invariant: nothing is dropped and nobody is made to fetch anything. A key that is translated moves; one that is not
//! (the native one is there, it is null, or its value has no counterpart) stays where it is.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::{
    backend::{
        Model,
        chat::invalid,
        object::{Object, Value, elements, interior, rewrite_elements, string},
    },
    protocol::Failure,
};

/// Keys that become options, and which. `max_tokens` is the old name of `max_completion_tokens`, so the new one is
/// asked first.
const OPTIONS: [(&str, &str); 8] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("max_completion_tokens", "num_predict"),
    ("max_tokens", "num_predict"),
];

/// Translates what stands at the top of a chat.
pub(super) fn translate_keys<'a>(chat: &mut Object<'a>, options: &mut Object<'a>, model: &Model) {
    translate_options(chat, options);
    translate_format(chat);
    translate_effort(chat, model);
}

fn translate_options<'a>(chat: &mut Object<'a>, options: &mut Object<'a>) {
    for (theirs, ours) in OPTIONS {
        let Some(value) = chat.given(theirs) else {
            continue;
        };
        if !options.has(ours) {
            chat.remove(theirs);
            options.set(ours, option(ours, value));
        }
    }
}

fn option<'a>(name: &str, json: &'a str) -> Value<'a> {
    if name == "stop" && json.starts_with('"') {
        return Value::List(vec![Value::Raw(json)]);
    }
    Value::Raw(json)
}

fn translate_format(chat: &mut Object<'_>) {
    if chat.has("format") {
        return;
    }
    if let Some(format) = chat.given("response_format").and_then(native_format) {
        chat.remove("response_format");
        chat.set("format", Value::Raw(format));
    }
}

fn native_format(response_format: &str) -> Option<&str> {
    let response_format = Object::parse(response_format).ok()?;
    match &*string(response_format.given("type")?)? {
        "json_object" => Some(r#""json""#),
        "json_schema" => Object::parse(response_format.given("json_schema")?)
            .ok()?
            .given("schema"),
        _ => None,
    }
}

/// A model that cannot think would be answered with an error for a key that its consumer never wrote, so there the
/// effort is left out.
fn translate_effort(chat: &mut Object<'_>, model: &Model) {
    let Some(effort) = chat.given("reasoning_effort") else {
        return;
    };
    if chat.has("think") || !matches!(string(effort).as_deref(), Some("low" | "medium" | "high")) {
        return;
    }
    chat.remove("reasoning_effort");
    if model.thinks {
        chat.set("think", Value::Raw(effort));
    }
}

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
    let Some(arguments) = function
        .given("arguments")
        .filter(|json| json.starts_with('"'))
    else {
        return Ok(None);
    };
    function.set("arguments", Value::Json(arguments_object(arguments)?));
    call.set("function", Value::Object(function));
    Ok(Some(Value::Object(call)))
}

/// The object that a string of arguments spells; no arguments at all are often spelled as nothing.
fn arguments_object(arguments: &str) -> Result<String, Failure> {
    let not_an_object = || invalid("arguments of a tool call are not an object");
    let text = string(arguments).ok_or_else(not_an_object)?;
    let text = text.trim();
    if text.is_empty() {
        return Ok("{}".to_owned());
    }
    if !text.starts_with('{') || serde_json::from_str::<&RawValue>(text).is_err() {
        return Err(not_an_object());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn written(object: &Object<'_>) -> String {
        let mut json = String::new();
        object.write(&mut json);
        json
    }

    /// What is left at the top, and the options.
    fn keys(chat: &str, thinks: bool) -> (String, String) {
        let model = Model {
            thinks,
            ..Model::named("m")
        };
        let mut chat = Object::parse(chat).unwrap();
        let mut options = chat
            .given("options")
            .map(|o| Object::parse(o).unwrap())
            .unwrap_or_default();
        chat.remove("options");
        translate_keys(&mut chat, &mut options, &model);
        (written(&chat), written(&options))
    }

    fn assert_keys(chat: &str, top: &str, options: &str) {
        assert_eq!(
            keys(chat, true),
            (top.to_owned(), options.to_owned()),
            "{chat}"
        );
    }

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
    fn sampling_keys_become_options() {
        assert_keys(
            r#"{"temperature":0.50,"top_p":1,"seed":123456789012345678901,"frequency_penalty":-1,"presence_penalty":2}"#,
            "{}",
            r#"{"temperature":0.50,"top_p":1,"seed":123456789012345678901,"frequency_penalty":-1,"presence_penalty":2}"#,
        );
        assert_keys(r#"{"stop":"\n","x":1}"#, r#"{"x":1}"#, r#"{"stop":["\n"]}"#);
        assert_keys(r#"{"stop":["a","b"]}"#, "{}", r#"{"stop":["a","b"]}"#);
        assert_keys(
            r#"{"stop":null,"seed":null}"#,
            r#"{"stop":null,"seed":null}"#,
            "{}",
        );
    }

    #[test]
    fn the_native_key_wins_and_the_other_stays_where_it_is() {
        assert_keys(
            r#"{"seed":1,"options":{"seed":2}}"#,
            r#"{"seed":1}"#,
            r#"{"seed":2}"#,
        );
        assert_keys(
            r#"{"seed":1,"options":{"seed":null,"x":0}}"#,
            "{}",
            r#"{"seed":1,"x":0}"#,
        );
        assert_keys(
            r#"{"format":"json","response_format":{"type":"json_object"},"think":false,"reasoning_effort":"low"}"#,
            r#"{"format":"json","response_format":{"type":"json_object"},"think":false,"reasoning_effort":"low"}"#,
            "{}",
        );
    }

    #[test]
    fn the_longest_answer_is_named_in_two_ways() {
        assert_keys(r#"{"max_tokens":5}"#, "{}", r#"{"num_predict":5}"#);
        assert_keys(
            r#"{"max_tokens":5,"max_completion_tokens":6}"#,
            r#"{"max_tokens":5}"#,
            r#"{"num_predict":6}"#,
        );
        assert_keys(
            r#"{"max_tokens":5,"max_completion_tokens":null}"#,
            r#"{"max_completion_tokens":null}"#,
            r#"{"num_predict":5}"#,
        );
    }

    #[test]
    fn a_response_format_becomes_a_format() {
        assert_keys(
            r#"{"response_format":{"type":"json_object"}}"#,
            r#"{"format":"json"}"#,
            "{}",
        );
        assert_keys(
            r#"{"format":null,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"a": 1.0}}}}"#,
            r#"{"format":{"a": 1.0}}"#,
            "{}",
        );
        for other in [
            r#"{"response_format":{"type":"text"}}"#,
            r#"{"response_format":{"type":"json_schema"}}"#,
        ] {
            assert_keys(other, other, "{}");
        }
    }

    #[test]
    fn an_effort_makes_a_model_think_that_can() {
        assert_eq!(
            keys(r#"{"reasoning_effort":"high"}"#, true).0,
            r#"{"think":"high"}"#
        );
        assert_eq!(keys(r#"{"reasoning_effort":"high"}"#, false).0, "{}");
        assert_eq!(
            keys(r#"{"reasoning_effort":"minimal"}"#, true).0,
            r#"{"reasoning_effort":"minimal"}"#
        );
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
        assert_message(&call(r#""""#), &call("{}"));
        for wrong in [
            r#""[1]""#,
            r#""{\"a\":""#,
            r#""null""#,
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
