//! From the payload of a chat request to the body that Ollama gets.
//!
//! Invariant: what nobody has to change is passed on byte for byte. Nothing here keeps more than a bounded multiple of what
//! it rewrites.

use super::{
    contexts::{Contexts, SentContext},
    messages::translate_messages,
    translate::translate_keys,
};
use crate::{
    backend::{
        Model, Prepared,
        chat::ChatRequest,
        object::{Object, Value},
    },
    config::PolicySettings,
    protocol::Failure,
};

/// Room for what is appended to a payload: `stream`, `options` with the operator's caps, a model's full name.
const APPENDED_BYTES: usize = 256;

/// How long Ollama keeps a model that is to stay loaded, once its last request has ended.
const KEPT: &str = r#""30m""#;

/// The `POST /api/chat` of a chat: translated, kept within the policy, and asking for a stream.
///
/// # Errors
/// As [`crate::backend::chat::inspect`]; and `invalid` where a message has content that Ollama cannot be given.
pub(super) fn chat(
    payload: &[u8],
    model: &Model,
    policy: &PolicySettings,
    contexts: &Contexts,
) -> Result<Prepared, Failure> {
    let ChatRequest {
        mut top,
        options,
        model: asked,
        messages,
        ..
    } = ChatRequest::parse(payload)?;
    if let Some(messages) = translate_messages(messages)? {
        top.set("messages", messages);
    }
    let had_options = options.is_some();
    let mut options = options.unwrap_or_default();
    translate_keys(&mut top, &mut options, model);
    let context = policy.apply(&mut top, &mut options, model, contexts);
    if had_options || !options.is_empty() {
        top.set("options", Value::Object(options));
    }
    if !is_same_model(&asked, &model.name) {
        top.set("model", name(model));
    }
    top.set("stream", Value::Raw("true"));
    Ok(finish(top, payload.len(), model, context))
}

/// The `POST /api/chat` that only loads a model: with what every request for it carries, and no messages.
pub(super) fn load(model: &Model, policy: &PolicySettings, contexts: &Contexts) -> Prepared {
    let (mut top, mut options) = (Object::default(), Object::default());
    top.set("model", name(model));
    let context = policy.set_context(&mut options, model, contexts);
    if !options.is_empty() {
        top.set("options", Value::Object(options));
    }
    top.set("stream", Value::Raw("false"));
    finish(top, 0, model, context)
}

fn finish(
    mut top: Object<'_>,
    bytes: usize,
    model: &Model,
    context: Option<SentContext>,
) -> Prepared {
    if model.is_preloaded && !top.has("keep_alive") {
        top.set("keep_alive", Value::Raw(KEPT));
    }
    let mut body = String::with_capacity(bytes + APPENDED_BYTES);
    top.write(&mut body);
    Prepared {
        context,
        ..Prepared::new(model, body.into())
    }
}

fn name(model: &Model) -> Value<'static> {
    Value::Json(serde_json::Value::from(&*model.name).to_string())
}

/// Whether Ollama takes both names for the same one without our help.
fn is_same_model(asked: &str, offered: &str) -> bool {
    asked == offered || offered.strip_suffix(":latest") == Some(asked)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        any_json::{string, value},
        backend::chat::{
            inspect,
            tests::{AMBIGUOUS, NO_CHATS},
        },
    };

    fn model() -> Model {
        Model::named("tiny:latest")
    }

    fn body(payload: &str, model: &Model, policy: &PolicySettings) -> Result<String, Failure> {
        let prepared = chat(payload.as_bytes(), model, policy, &Contexts::default())?;
        Ok(String::from_utf8(prepared.body.to_vec()).unwrap())
    }

    fn prepared(payload: &str) -> String {
        body(payload, &model(), &PolicySettings::default()).unwrap()
    }

    #[test]
    fn what_is_refused_at_receipt_would_be_refused_again() {
        for payload in NO_CHATS.into_iter().chain(AMBIGUOUS) {
            let again = body(payload, &model(), &PolicySettings::default());
            assert_eq!(again.unwrap_err(), inspect(payload.as_bytes()).unwrap_err());
        }
    }

    #[test]
    fn a_chat_passes_whole_save_that_it_always_streams() {
        let payload = concat!(
            r#"{"messages":[ {"role":"user","content":"\u00e9\ud83e\udd80 <b>","images":["aGk="],"x":[1, 2]} ],"#,
            r#""model":"tiny","new_field":{"n":123456789012345678901234567890.0e-400,"a":[ ]},"stream":false,"#,
            r#""format":{"type":"object"},"tools":[],"think":null,"logprobs":true,"options":{"top_k":7,"mirostat":2}}"#,
        );
        assert_eq!(
            prepared(payload),
            payload.replace(r#""stream":false"#, r#""stream":true"#)
        );
    }

    #[test]
    fn stream_is_appended_where_it_is_missing() {
        let payload = r#"{"model":"tiny","messages":[{}]}"#;
        assert_eq!(
            prepared(payload),
            r#"{"model":"tiny","messages":[{}],"stream":true}"#
        );
    }

    #[test]
    fn a_model_is_renamed_only_where_ollama_would_not_find_it() {
        for (asked, sent) in [
            ("tiny", "tiny"),
            ("tiny:latest", "tiny:latest"),
            ("Tiny", "tiny:latest"),
            ("TINY:Latest", "tiny:latest"),
        ] {
            let body = prepared(&format!(
                r#"{{"model":"{asked}","messages":[{{}}],"stream":true}}"#
            ));
            assert_eq!(
                body,
                format!(r#"{{"model":"{sent}","messages":[{{}}],"stream":true}}"#)
            );
        }
    }

    #[test]
    fn the_operators_hardware_is_not_the_consumers_however_a_key_is_spelled() {
        let payload = concat!(
            r#"{"model":"tiny","keep\u005falive":0,"messages":[{}],"_debug_render_only":true,"num_gpu":0,"#,
            r#""options":{"num_gpu":0,"main_gpu":1,"top_k":1,"num_thread":1,"num_batch":1,"use_mmap":true,"keep_alive":1}}"#,
        );
        assert_eq!(
            prepared(payload),
            r#"{"model":"tiny","messages":[{}],"options":{"top_k":1},"stream":true}"#
        );
        let policy = PolicySettings {
            allow_hardware_options: true,
            ..PolicySettings::default()
        };
        let body = body(payload, &model(), &policy).unwrap();
        assert_eq!(
            body,
            format!("{},\"stream\":true}}", payload.strip_suffix('}').unwrap())
        );
    }

    #[test]
    fn a_long_prompt_in_parts_arrives_whole() {
        let text = "x".repeat(1 << 20);
        let part = format!(r#"{{"type":"text","text":"{text}"}}"#);
        let messages = |content| {
            format!(r#"{{"model":"tiny","messages":[{{"content":{content}}}],"stream":true}}"#)
        };
        let body = prepared(&messages(format!("[{part}, {part}]")));
        assert!(body == messages(format!(r#""{text}{text}""#)));
    }

    proptest! {
        #[test]
        fn what_nobody_has_heard_of_survives_byte_for_byte(top in value(), option in value(), field in value()) {
            let payload = format!(
                r#"{{"x_1":{top},"model":"tiny","options":{{"x_2":{option}}},"messages":[{{"x_3":{field}}}],"stream":true}}"#
            );
            prop_assert_eq!(prepared(&payload), payload);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            message in value(),
            content in value(),
            calls in value(),
        ) {
            let _ = chat(&bytes, &model(), &PolicySettings::default(), &Contexts::default());
            for message in [message, format!(r#"{{"content":[{content}],"tool_calls":[{calls}]}}"#)] {
                let payload = format!(r#"{{"model":"tiny","messages":[{message}]}}"#);
                if let Ok(body) = body(&payload, &model(), &PolicySettings::default()) {
                    prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&body).is_ok());
                }
            }
        }

        #[test]
        fn no_object_brings_the_operators_keys_to_ollama(
            top in prop::collection::vec((spelling(), value()), 0..4),
            options in prop::collection::vec((spelling(), value()), 0..4),
        ) {
            let (top, options) = (fields(&top), fields(&options));
            let payload = format!(r#"{{"model":"tiny",{top}"messages":[{{}}],"options":{{{options}"x":1}}}}"#);
            if let Ok(body) = body(&payload, &model(), &PolicySettings::default()) {
                let top = Object::parse(&body).unwrap();
                let options = Object::parse(top.given("options").unwrap()).unwrap();
                for key in top.names().chain(options.names()) {
                    prop_assert!(!HARDWARE_KEYS.contains(&&*folded(key)), "{} in {}", key, body);
                }
            }
        }

        #[test]
        fn what_is_not_translated_keeps_its_bytes_beside_what_is(
            fields in prop::collection::vec(value(), 1..5),
            effort in value(),
            parts in prop::collection::vec(string(), 0..4),
        ) {
            let parts: Vec<_> = parts.iter().map(|text| format!(r#"{{"type":"text","text":{text}}}"#)).collect();
            let content = parts.join(" ,");
            let mut payload = format!(
                r#"{{"keep_alive":0,"messages":[{{"content":[{content}]}}],"max_tokens":1,"reasoning_effort":{effort}"#
            );
            for (n, field) in fields.iter().enumerate() {
                payload += &format!(r#", "x_{n}" : {field}"#);
            }
            let body = prepared(&(payload + r#","model":"tiny"}"#));
            let body = Object::parse(&body).unwrap();
            for (n, field) in fields.iter().enumerate() {
                let kept = body.given(&format!("x_{n}"));
                prop_assert_eq!(kept.unwrap_or("null"), field);
            }
        }
    }

    /// What is the operator's to say, in the words of the protocol and not of the code that keeps it out.
    const HARDWARE_KEYS: [&str; 7] = [
        "keep_alive",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "num_batch",
        "use_mmap",
        "_debug_render_only",
    ];

    /// One of those, or a key near them, each letter in one of the ways that Go would take for it.
    fn spelling() -> impl Strategy<Value = String> {
        let names =
            HARDWARE_KEYS
                .into_iter()
                .chain(["num_keep", "top_k", "keepalive", "x", "stop"]);
        let name = prop::sample::select(names.collect::<Vec<_>>());
        (name, prop::collection::vec(0..20u8, 20)).prop_map(|(name, ways)| {
            name.chars()
                .zip(ways)
                .map(|(c, way)| spelled(c, way))
                .collect()
        })
    }

    /// Mostly as it is: a key that is spelled oddly is refused, and one that is not must still not get through.
    fn spelled(c: char, way: u8) -> String {
        match (c, way) {
            (c, 0) => c.to_ascii_uppercase().to_string(),
            ('k', 1) => "\u{212a}".to_owned(),
            ('s', 1) => "\\u017F".to_owned(),
            (c, 2..=5) => format!("\\u{:04x}", u32::from(c)),
            (c, _) => c.to_string(),
        }
    }

    fn fields(fields: &[(String, String)]) -> String {
        fields
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value},"))
            .collect()
    }

    /// Case taken away by Unicode's full tables.
    fn folded(key: &str) -> String {
        key.to_uppercase().to_lowercase()
    }
}
