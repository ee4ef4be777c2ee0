//! The messages of a chat for an OpenAI-compatible server: as they are, where they bring all they speak of with them.
//!
//! Invariant: nobody is made to fetch anything. llama.cpp and vLLM would, over HTTP as from the operator's disk.

use std::convert::Infallible;

use crate::{
    backend::{
        chat::{folds_to, invalid},
        fields::fields,
        halves::text,
        object::{Object, Value, elements, rewrite_elements},
    },
    protocol::Failure,
};

/// How deep images and the like may lie within a part of a message. Real ones lie two deep.
const DEEPEST: usize = 8;

/// What of a part is only read.
const WORDS: [&str; 5] = ["type", "text", "refusal", "thinking", "reasoning"];

/// What beside its content a message may have that is to be looked at.
const MEDIA: [&str; 6] = [
    "images",
    "image_url",
    "video_url",
    "audio_url",
    "attachments",
    "files",
];

/// Checks the messages; gives them anew where a call is in Ollama's words: to OpenAI its arguments are text, and it has a type.
///
/// # Errors
/// `invalid`: one has something that is to be fetched, or content that could mean two things.
pub(super) fn check_messages(messages: &str) -> Result<Option<Value<'_>>, Failure> {
    rewrite_elements(messages, |message| {
        let mut message = match Object::parse(message) {
            Ok(message) => message,
            Err(_) if message.starts_with('{') => return Err(to_be_fetched()),
            Err(_) => return Ok(None),
        };
        check_message(&message)?;
        let calls = message.given("tool_calls").and_then(in_openais_words);
        Ok(calls.map(|calls| {
            message.set("tool_calls", calls);
            Value::Object(message)
        }))
    })
}

fn check_message(message: &Object<'_>) -> Result<(), Failure> {
    if message.has_duplicates() || message.names().any(|name| folds_to(name, "content")) {
        return Err(invalid(
            "a key of a message is written twice, or in another case",
        ));
    }
    for (name, json) in message.pairs() {
        match name {
            "content" => check_content(json, DEEPEST)?,
            name if MEDIA.contains(&name) && !is_enclosed(name, json, DEEPEST) => {
                return Err(to_be_fetched());
            }
            _ => {}
        }
    }
    Ok(())
}

/// A content is text, a part, or a list of such.
fn check_content(content: &str, depth: usize) -> Result<(), Failure> {
    let depth = depth.checked_sub(1).ok_or_else(to_be_fetched)?;
    if content.starts_with('{') {
        return check_part(content);
    }
    for part in elements(content).into_iter().flatten() {
        check_content(part, depth)?;
    }
    Ok(())
}

fn check_part(part: &str) -> Result<(), Failure> {
    let part = Object::parse(part).map_err(|_| to_be_fetched())?;
    let mut things = part.pairs().filter(|(name, _)| !WORDS.contains(name));
    if !part.has_duplicates() && things.all(|(name, json)| is_enclosed(name, json, DEEPEST)) {
        Ok(())
    } else {
        Err(to_be_fetched())
    }
}

fn to_be_fetched() -> Failure {
    invalid("an image or a file is not in the message: only data: URLs are taken")
}

/// Whether a thing in a part is there, rather than at some address: data has no colon in it, but for a `data:` URL's own.
fn is_enclosed(name: &str, json: &str, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    match json.as_bytes().first() {
        Some(b'"') => {
            let said = text(json).unwrap_or_default();
            let scheme = said.trim_start().get(..5);
            let is_data = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
            let name = name.to_ascii_lowercase();
            let is_address = ["url", "path", "uri"].iter().any(|end| name.ends_with(end));
            // Base64 has no dots, which most paths have.
            is_data || !(is_address || said.contains(':') || said.starts_with('.'))
        }
        Some(b'[') => elements(json)
            .into_iter()
            .flatten()
            .all(|one| is_enclosed(name, one, depth)),
        Some(b'{') => Object::parse(json).is_ok_and(|object| {
            let mut pairs = object.pairs();
            pairs.all(|(name, json)| is_enclosed(name, json, depth))
        }),
        _ => true,
    }
}

fn in_openais_words(calls: &str) -> Option<Value<'_>> {
    let Ok(rewritten) = rewrite_elements(calls, |call| {
        Ok::<_, Infallible>(call_in_openais_words(call))
    });
    rewritten
}

fn call_in_openais_words(call: &str) -> Option<Value<'_>> {
    let [kind, function] = fields(call, ["type", "function"])?;
    let function = function?;
    let arguments = fields(function, ["arguments"])?[0].filter(|json| json.starts_with('{'));
    if kind.is_some() && arguments.is_none() {
        return None;
    }
    let mut call = Object::parse(call).ok()?;
    if kind.is_none() {
        call.set("type", Value::Raw(r#""function""#));
    }
    if let Some(arguments) = arguments {
        let mut function = Object::parse(function).ok()?;
        let text = serde_json::Value::from(arguments).to_string();
        function.set("arguments", Value::Json(text));
        call.set("function", Value::Object(function));
    }
    Some(Value::Object(call))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn checked(messages: &str) -> Result<String, Failure> {
        Ok(check_messages(messages)?.map_or_else(
            || messages.to_owned(),
            |value| {
                let mut json = String::new();
                value.write(&mut json);
                json
            },
        ))
    }

    fn part(part: &str) -> String {
        format!(r#"[{{"role":"user","content":[{{"type":"text","text":"see http://x"}},{part}]}}]"#)
    }

    #[test]
    fn messages_that_bring_all_with_them_stay_as_they_are() {
        for fine in [
            r#"[ {"role":"user","content":"see https://example.com and file:///etc/passwd"} , 7,"x"]"#,
            r#"[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}]"#,
            &part(
                r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,/9j/","detail":"low"}}"#,
            ),
            &part(r#"{"type":"image_url","image_url":"DATA:image/png;base64,aGk="}"#),
            &part(r#"{"type":"input_audio","input_audio":{"data":"/9j/aGk=","format":"wav"}}"#),
            &part(
                r#"{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,aGk="}}"#,
            ),
            &part(r#""text with a colon: here""#),
        ] {
            assert_eq!(checked(fine).unwrap(), fine);
        }
    }

    #[test]
    fn nobody_is_made_to_fetch_anything() {
        for there in [
            r#"{"type":"image_url","image_url":{"url":"http://127.0.0.1/x"}}"#,
            r#"{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}"#,
            r#"{"type":"image_url","image_url":{"url":"/etc/passwd"}}"#,
            r#"{"type":"image_url","image_url":"https://host/x"}"#,
            r#"{"image_url":{"url":"\u0068ttp://host/x"}}"#,
            r#"{"type":"video_url","video_url":{"url":"http://host/x"}}"#,
            r#"{"type":"audio_url","audio_url":{"url":" http://host/x"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"http://host/x","format":"wav"}}"#,
            r#"{"type":"input_image","image":["http://host/x"]}"#,
            r#"{"type":"file","file":{"file_url":"x"}}"#,
            r#"{"type":"image","source":{"type":"url","url":"http://host/x"}}"#,
            r#"{"type":"image","path":"/etc/passwd"}"#,
            r#"{"type":"image","image":{"path":"x"}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"../x.wav"}}"#,
            r#"[{"type":"image_url","image_url":{"url":"http://host/x"}}]"#,
            r#"{"text":"a","image_url":"data:x","image_url":"http://host/x"}"#,
            r#"{"type":"image","x":{"x":{"x":{"x":{"x":{"x":{"x":{"x":{"x":1}}}}}}}}}"#,
        ] {
            let refused = checked(&part(there)).unwrap_err();
            assert_eq!(refused.code, Code::Invalid, "{there}");
        }
    }

    #[test]
    fn nothing_is_fetched_that_stands_beside_the_content_or_in_its_place() {
        let there = r#"{"type":"image_url","image_url":{"url":"http://host/x"}}"#;
        for message in [
            format!(r#""content":{there}"#),
            format!(r#""content":[{there}],"content":"x""#),
            format!(r#""Content":[{there}]"#),
            r#""content":"x","images":["http://host/x"]"#.to_owned(),
            r#""content":"x","image_url":{"url":"http://host/x"}"#.to_owned(),
        ] {
            let refused = checked(&format!(r#"[{{"role":"user",{message}}}]"#)).unwrap_err();
            assert_eq!(refused.code, Code::Invalid, "{message}");
        }
    }

    #[test]
    fn a_call_in_ollamas_words_is_written_in_openais() {
        for (given, sent) in [
            (
                r#"{"type":"function","function":{"name":"f","arguments":{"x": "é\n"}}},{"id":"b"}"#,
                r#"{"type":"function","function":{"name":"f","arguments":"{\"x\": \"é\\n\"}"}},{"id":"b"}"#,
            ),
            (
                r#"{"id":"a","function":{"name":"f","arguments":"{}"}}"#,
                r#"{"id":"a","function":{"name":"f","arguments":"{}"},"type":"function"}"#,
            ),
        ] {
            let messages = |calls| format!(r#"[{{"role":"assistant","tool_calls":[{calls}]}}]"#);
            assert_eq!(checked(&messages(given)).unwrap(), messages(sent));
        }
    }
}
