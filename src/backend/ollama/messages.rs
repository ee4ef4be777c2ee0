//! OpenAI's messages in Ollama's words: lists of parts become text and images, arguments of tool calls become objects, a
//! tool's result names its tool, and what a model thought goes by one name.
//!
//! Invariant: nothing is dropped and nobody is made to fetch anything. A message that is in Ollama's words stays byte for
//! byte.

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
        assert_message(
            r#"{"content":[{"type":"text","text":null},{"type":"text","text":"a"}]}"#,
            r#"{"content":"a"}"#,
        );
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
            r#"{"type":"text","text":7}"#,
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
        assert_message(
            &call(r#""{\"a\":\"\ud83d\"}""#),
            &call("{\"a\":\"\u{fffd}\"}"),
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

    fn messages(list: &str) -> String {
        let mut json = String::new();
        let translated = translate_messages(list).unwrap();
        translated.unwrap_or(Value::Raw(list)).write(&mut json);
        json
    }

    #[test]
    fn a_tools_result_names_the_tool_that_was_called() {
        let calls = concat!(
            r#"{"role":"assistant","tool_calls":["#,
            r#"{"id":"a","function":{"name":"f","arguments":{}}},{"id":"\u0062","function":{"name":"g\n","arguments":{}}}]}"#,
        );
        for (theirs, tool) in [
            (r#""tool_call_id":"a""#, r#","tool_name":"f""#),
            (r#""tool_call_id":"b""#, r#","tool_name":"g\n""#),
            (r#""tool_call_id":"b","name":"h""#, r#","tool_name":"h""#),
            (r#""name":"h""#, r#","tool_name":"h""#),
            (r#""tool_call_id":"a","name":"""#, r#","tool_name":"f""#),
            (r#""tool_call_id":"unknown""#, ""),
            (r#""tool_call_id":"a","tool_name":"x""#, ""),
        ] {
            let result = |more| format!(r#"[{calls},{{"role":"tool",{theirs}{more}}}]"#);
            assert_eq!(messages(&result("")), result(tool));
        }
        let user = format!(r#"[{calls},{{"role":"user","name":"h"}}]"#);
        assert_eq!(messages(&user), user);
    }

    #[test]
    fn a_call_whose_id_comes_again_is_the_last_one() {
        let call = |name| {
            format!(
                r#"{{"tool_calls":[{{"id":"call_0","function":{{"name":"{name}","arguments":{{}}}}}}]}}"#
            )
        };
        let result = |tool| format!(r#"{{"role":"tool","tool_call_id":"call_0"{tool}}}"#);
        assert_eq!(
            messages(&format!(
                "[{},{},{},{}]",
                call("f"),
                result(""),
                call("g"),
                result("")
            )),
            format!(
                "[{},{},{},{}]",
                call("f"),
                result(r#","tool_name":"f""#),
                call("g"),
                result(r#","tool_name":"g""#)
            )
        );
    }

    #[test]
    fn calls_that_share_an_id_in_one_message_have_their_results_in_their_order() {
        for id in ["", "call", r"\ud83d"] {
            let call = |name| {
                format!(r#"{{"id":"{id}","function":{{"name":"{name}","arguments":{{}}}}}}"#)
            };
            let calls = format!(r#"{{"tool_calls":[{},{}]}}"#, call("f"), call("g"));
            let result = |tool: String| format!(r#"{{"role":"tool","tool_call_id":"{id}"{tool}}}"#);
            let named = |tool| result(format!(r#","tool_name":"{tool}""#));
            let turn = |of: [String; 3]| format!("{calls},{}", of.join(","));
            let theirs = turn(["f", "g", "g"].map(|_| result(String::new())));
            let ours = turn(["f", "g", "g"].map(named));
            assert_eq!(
                messages(&format!("[{theirs},{theirs}]")),
                format!("[{ours},{ours}]")
            );
        }
    }

    #[test]
    fn what_an_earlier_answer_thought_is_not_lost() {
        assert_message(
            r#"{"thinking":"","reasoning_content":"R"}"#,
            r#"{"thinking":"R"}"#,
        );
        for name in ["reasoning_content", "reasoning"] {
            assert_message(
                &format!(r#"{{"role":"assistant","{name}":"h\u006d","content":"x"}}"#),
                r#"{"role":"assistant","content":"x","thinking":"h\u006d"}"#,
            );
        }
        for same in [
            r#"{"role":"assistant","reasoning":"b","thinking":"a"}"#,
            r#"{"role":"assistant","reasoning":{"x":1},"reasoning_content":""}"#,
        ] {
            assert_message(same, same);
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
