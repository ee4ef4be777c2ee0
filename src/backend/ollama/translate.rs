//! OpenAI's dialect in Ollama's words, where the consumer has not used those, at the top of a chat: sampling keys go to
//! `options`, `response_format` becomes `format`, and so on.
//!
//! Invariant: nothing is dropped. A key that is translated moves; one that is not (the native one is there, it is null, or
//! its value has no counterpart) stays where it is. `reasoning_effort` alone never does: what it asks for depends on the
//! model.

use crate::backend::{
    Model, Thinking,
    chat::smallest_limit,
    halves::text,
    object::{Object, Value, elements, string},
};

/// Keys that are options by the same name.
const OPTIONS: [&str; 5] = [
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
];

/// The longest answer, by its old name and its new one.
const LIMITS: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Translates what stands at the top of a chat.
pub(super) fn translate_keys<'a>(chat: &mut Object<'a>, options: &mut Object<'a>, model: &Model) {
    translate_options(chat, options);
    translate_stop(chat, options);
    translate_limits(chat, options);
    translate_format(chat);
    translate_effort(chat, model);
}

fn translate_options<'a>(chat: &mut Object<'a>, options: &mut Object<'a>) {
    for name in OPTIONS {
        let value = chat.given(name).filter(|_| !options.has(name));
        if let Some(value) = value {
            chat.remove(name);
            options.set(name, Value::Raw(value));
        }
    }
}

/// To OpenAI an empty stop is none. Ollama would end its answer at once, and an empty list would take the model's own stops
/// away.
fn translate_stop<'a>(chat: &mut Object<'a>, options: &mut Object<'a>) {
    let Some(stop) = chat.given("stop").filter(|_| !options.has("stop")) else {
        return;
    };
    let says_something = |stop: &&str| !matches!(*stop, "null" | r#""""#);
    let stops: Vec<_> = match elements(stop) {
        Some(stops) => stops.filter(says_something).map(Value::Raw).collect(),
        None => Some(stop)
            .filter(says_something)
            .map(Value::Raw)
            .into_iter()
            .collect(),
    };
    chat.remove("stop");
    if !stops.is_empty() {
        options.set("stop", Value::List(stops));
    }
}

/// The smaller limit counts. To Ollama 0 and less would mean no limit, or none but the context's.
fn translate_limits<'a>(chat: &mut Object<'a>, options: &mut Object<'a>) {
    if options.has("num_predict") {
        return;
    }
    let smallest = smallest_limit(chat, &LIMITS);
    for name in LIMITS {
        if chat.has(name) {
            chat.remove(name);
        }
    }
    if let Some(limit) = smallest {
        // What is no number is told by Ollama.
        options.set("num_predict", Value::Raw(limit));
    }
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

fn native_format<'a>(response_format: &'a str) -> Option<&'a str> {
    let response_format = Object::parse(response_format).ok()?;
    let schema = |object: &Object<'a>| object.given("schema").filter(|json| json.starts_with('{'));
    // Some servers take a schema with either type, and without a name around it.
    let flat = schema(&response_format);
    match &*string(response_format.given("type")?)? {
        "json_object" => flat.or(Some(r#""json""#)),
        "json_schema" => {
            let named = response_format.given("json_schema").map(Object::parse);
            named
                .and_then(Result::ok)
                .as_ref()
                .and_then(schema)
                .or(flat)
        }
        _ => None,
    }
}

/// Ollama answers with an error where a model is asked to think that cannot, or is given a level that it does not take. The
/// consumer never wrote `think`, so it is written only as the model takes it.
fn translate_effort(chat: &mut Object<'_>, model: &Model) {
    let effort = chat.given("reasoning_effort").and_then(text);
    chat.remove("reasoning_effort");
    let Some(effort) = effort.filter(|effort| !effort.trim().is_empty()) else {
        return;
    };
    if chat.has("think") {
        return;
    }
    let think = match (model.thinking, &*effort) {
        (Thinking::None, _) => return,
        (Thinking::OnOrOff | Thinking::Levels, "none") => "false",
        (Thinking::Levels, "minimal" | "low") => r#""low""#,
        (Thinking::Levels, "medium") => r#""medium""#,
        (Thinking::Levels, "high" | "xhigh" | "max") => r#""high""#,
        // No level of this model's, but a wish that it thinks.
        (Thinking::OnOrOff | Thinking::Levels, _) => "true",
    };
    chat.set("think", Value::Raw(think));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(object: &Object<'_>) -> String {
        let mut json = String::new();
        object.write(&mut json);
        json
    }

    /// What is left at the top, and the options.
    fn keys(chat: &str, thinking: Thinking) -> (String, String) {
        let model = Model {
            thinking,
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
            keys(chat, Thinking::OnOrOff),
            (top.to_owned(), options.to_owned()),
            "{chat}"
        );
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
    fn a_stop_or_a_limit_that_means_nothing_to_openai_is_left_out() {
        for nothing in [
            r#"{"stop":""}"#,
            r#"{"stop":[]}"#,
            r#"{"stop":[ ]}"#,
            r#"{"stop":["", ""]}"#,
            r#"{"stop":[null]}"#,
            r#"{"max_tokens":0}"#,
            r#"{"max_tokens":-1}"#,
            r#"{"max_completion_tokens":0.0,"max_tokens":-0}"#,
        ] {
            assert_keys(nothing, "{}", "{}");
        }
        assert_keys(r#"{"stop":["","a", " "]}"#, "{}", r#"{"stop":["a"," "]}"#);
        assert_keys(
            r#"{"max_tokens":0,"max_completion_tokens":7}"#,
            "{}",
            r#"{"num_predict":7}"#,
        );
    }

    #[test]
    fn ollamas_own_stop_and_limit_are_taken_at_their_word() {
        assert_keys(
            r#"{"stop":"","max_tokens":0,"options":{"stop":[],"num_predict":-1}}"#,
            r#"{"stop":"","max_tokens":0}"#,
            r#"{"stop":[],"num_predict":-1}"#,
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
            r#"{"format":"json","response_format":{"type":"json_object"},"think":false}"#,
            "{}",
        );
    }

    #[test]
    fn the_longest_answer_is_named_in_two_ways() {
        assert_keys(r#"{"max_tokens":5}"#, "{}", r#"{"num_predict":5}"#);
        assert_keys(
            r#"{"max_tokens":5,"max_completion_tokens":6}"#,
            "{}",
            r#"{"num_predict":5}"#,
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
        for flat in ["json_object", "json_schema"] {
            assert_keys(
                &format!(r#"{{"response_format":{{"type":"{flat}","schema":{{"a": 1.0}}}}}}"#),
                r#"{"format":{"a": 1.0}}"#,
                "{}",
            );
        }
        assert_keys(
            r#"{"response_format":{"type":"json_object","schema":null}}"#,
            r#"{"format":"json"}"#,
            "{}",
        );
        for other in [
            r#"{"response_format":{"type":"text"}}"#,
            r#"{"response_format":{"type":"json_schema","json_schema":{"schema":"x"}}}"#,
            r#"{"response_format":{"type":"json_schema"}}"#,
        ] {
            assert_keys(other, other, "{}");
        }
    }

    #[test]
    fn an_effort_is_written_only_as_the_model_takes_it() {
        for (effort, levels, on_or_off) in [
            ("none", "false", "false"),
            ("minimal", r#""low""#, "true"),
            ("low", r#""low""#, "true"),
            ("medium", r#""medium""#, "true"),
            ("high", r#""high""#, "true"),
            ("xhigh", r#""high""#, "true"),
            ("default", "true", "true"),
            ("auto", "true", "true"),
            ("Low", "true", "true"),
            ("NONE", "true", "true"),
            (r"\ud83d", "true", "true"),
        ] {
            let chat = format!(r#"{{"reasoning_effort":"{effort}"}}"#);
            let think = |value| format!(r#"{{"think":{value}}}"#);
            assert_eq!(keys(&chat, Thinking::Levels).0, think(levels), "{effort}");
            assert_eq!(
                keys(&chat, Thinking::OnOrOff).0,
                think(on_or_off),
                "{effort}"
            );
            assert_eq!(keys(&chat, Thinking::None).0, "{}", "{effort}");
        }
    }

    #[test]
    fn an_effort_that_is_no_word_asks_for_nothing_and_never_reaches_ollama() {
        for other in [r#""""#, r#"" ""#, "3", "null", "{}"] {
            let chat = format!(r#"{{"reasoning_effort":{other}}}"#);
            for thinking in [Thinking::Levels, Thinking::OnOrOff, Thinking::None] {
                assert_eq!(keys(&chat, thinking).0, "{}", "{chat}");
            }
        }
    }
}
