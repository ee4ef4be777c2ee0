//! From the payload of a chat request to the body that an OpenAI-compatible server gets: the payload as it is, less what is the
//! operator's to say, and always asking for a stream that ends with counts.
//!
//! Invariants: what nobody has to change is passed on byte for byte. No request has the server fetch, load or unload anything,
//! in whatever case its keys are written: some servers match them without regard to it.

use super::messages::check_messages;
use crate::{
    backend::{
        Model, Prepared,
        chat::{ChatRequest, HARDWARE_KEYS, folds_to, invalid, smallest_limit},
        object::{Object, Value},
    },
    config::PolicySettings,
    protocol::Failure,
};

/// Room for what is appended to a payload: `stream`, `stream_options`, a limit, the model's id.
const APPENDED_BYTES: usize = 256;

/// The longest answer, by the names that servers know it by. llama.cpp has the last one win.
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "n_predict"];

/// How many answers are wanted, by the names that servers know it by. There is one.
const ANSWERS: [&str; 3] = ["n", "best_of", "n_cmpl"];

/// What servers take from a request that is their operator's to say. Sources: the request types of llama.cpp, vLLM, SGLang,
/// mlx_lm, LM Studio, LocalAI, TabbyAPI, TGI and LiteLLM's proxy.
const OPERATORS_KEYS: [&str; 47] = [
    // Which weights are loaded beside the model's, and for how long it stays.
    "ttl",
    "lora",
    "lora_path",
    "lora_request",
    "adapter",
    "adapter_id",
    "adapters",
    "draft_model",
    "num_draft_tokens",
    "backend",
    // Which place in memory and in the queue a request takes, and what of it is kept.
    "id_slot",
    "cache_prompt",
    "cache_salt",
    "priority",
    "request_id",
    "rid",
    "session_params",
    "data_parallel_rank",
    // Whom the server would ask for something.
    "kv_transfer_params",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "api_base",
    "base_url",
    "api_key",
    "custom_llm_provider",
    "extra_headers",
    "extra_body",
    "fallbacks",
    "model_list",
    "mcp_servers",
    "image_data",
    "video_data",
    "audio_data",
    // Code, and templates, which are code.
    "chat_template",
    "chat_template_kwargs",
    "prompt_template",
    "custom_logit_processor",
    "logits_processors",
    // How long it generates whatever the model says, and what it streams beside the answer.
    "min_tokens",
    "ignore_eos",
    "echo",
    "sse_ping_interval",
    "timings_per_token",
    // What it writes down of whom.
    "user",
    "store",
    "metadata",
];

/// The `POST /v1/chat/completions` of a chat.
///
/// # Errors
/// As [`crate::backend::chat::inspect`]; and `invalid` where more than one answer is wanted, where a limit is no number, and
/// where a message has something that is to be fetched.
pub(super) fn chat(
    payload: &[u8],
    model: &Model,
    policy: &PolicySettings,
) -> Result<Prepared, Failure> {
    let chat = ChatRequest::parse(payload)?;
    let (mut top, asked) = (chat.top, chat.model);
    if let Some(messages) = check_messages(chat.messages)? {
        top.set("messages", messages);
    }
    check_answers(&top)?;
    limit_output(&mut top, policy)?;
    // A null means as much as nothing, and mlx_lm refuses it.
    top.remove_where(|key, json| json == "null" || is_operators(key, policy));
    if *asked != *model.id {
        top.set("model", id(model));
    }
    Ok(finish(top, payload.len(), model))
}

/// The `POST /v1/chat/completions` that has a model loaded: the least that a server has no choice but to load it for.
pub(super) fn load(model: &Model) -> Prepared {
    let mut top = Object::default();
    top.set("model", id(model));
    let messages = r#"[{"role":"user","content":"Hello"}]"#;
    top.set("messages", Value::Raw(messages));
    top.set("max_tokens", Value::Raw("1"));
    finish(top, 0, model)
}

fn finish(mut top: Object<'_>, bytes: usize, model: &Model) -> Prepared {
    top.set("stream", Value::Raw("true"));
    let with_counts = r#"{"include_usage":true}"#;
    top.set("stream_options", Value::Raw(with_counts));
    let mut body = String::with_capacity(bytes + APPENDED_BYTES);
    top.write(&mut body);
    Prepared::new(model, body.into())
}

fn id(model: &Model) -> Value<'static> {
    Value::Json(serde_json::Value::from(&*model.id).to_string())
}

fn is_operators(key: &str, policy: &PolicySettings) -> bool {
    let hardware: &[&str] = if policy.allow_hardware_options {
        &[]
    } else {
        &HARDWARE_KEYS
    };
    let mut kept_out = OPERATORS_KEYS.iter().chain(hardware);
    kept_out.any(|known| key == *known || folds_to(key, known))
}

/// Some servers read text as a number, so that nothing but 1 is taken.
fn check_answers(top: &Object<'_>) -> Result<(), Failure> {
    let wants_more = |name: &&str| top.has(name) && top.number(name) != Some(1.0);
    match ANSWERS.into_iter().find(wants_more) {
        Some(name) => Err(invalid(format!("{name} is not 1: a chat has one answer"))),
        None => Ok(()),
    }
}

fn limit_output(top: &mut Object<'_>, policy: &PolicySettings) -> Result<(), Failure> {
    let is_no_number = |name: &&str| top.has(name) && top.number(name).is_none();
    if let Some(name) = LIMITS.into_iter().find(is_no_number) {
        return Err(invalid(format!("{name} is not a number")));
    }
    let asked = smallest_limit(top, &LIMITS);
    for name in &LIMITS[1..] {
        top.remove(name);
    }
    let is_within = |cap: u64| top_number(asked).is_some_and(|asked| asked <= cap as f64);
    match (asked, policy.max_output_tokens) {
        (_, Some(cap)) if !is_within(cap) => top.set("max_tokens", Value::Json(cap.to_string())),
        (Some(asked), _) => top.set("max_tokens", Value::Raw(asked)),
        (None, _) => top.remove("max_tokens"),
    }
    Ok(())
}

fn top_number(json: Option<&str>) -> Option<f64> {
    json?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        any_json::value,
        backend::chat::{
            inspect,
            tests::{AMBIGUOUS, NO_CHATS},
        },
        protocol::Code,
    };

    const ENDING: &str = r#","stream":true,"stream_options":{"include_usage":true}}"#;

    fn body_under(payload: &str, policy: &PolicySettings) -> Result<String, Failure> {
        let model = Model {
            id: "/models/tiny.gguf".into(),
            ..Model::named("tiny.gguf")
        };
        let prepared = chat(payload.as_bytes(), &model, policy)?;
        Ok(String::from_utf8(prepared.body.to_vec()).unwrap())
    }

    fn body(payload: &str) -> String {
        body_under(payload, &PolicySettings::default()).unwrap()
    }

    /// What becomes of these fields.
    fn fields(fields: &str, policy: &PolicySettings) -> Result<String, Failure> {
        let start = r#"{"model":"/models/tiny.gguf","messages":["x"]"#;
        let body = body_under(&format!("{start}{fields}}}"), policy)?;
        let rest = body.strip_prefix(start).unwrap();
        Ok(rest.strip_suffix(ENDING).unwrap().to_owned())
    }

    fn free(json: &str) -> String {
        fields(json, &PolicySettings::default()).unwrap()
    }

    #[test]
    fn what_is_refused_at_receipt_would_be_refused_again() {
        for payload in NO_CHATS.into_iter().chain(AMBIGUOUS) {
            let again = body_under(payload, &PolicySettings::default());
            assert_eq!(again.unwrap_err(), inspect(payload.as_bytes()).unwrap_err());
        }
    }

    #[test]
    fn a_chat_passes_whole_save_for_the_models_id_and_that_it_always_streams_with_counts() {
        let payload = concat!(
            r#"{"messages":[ {"role":"user","content":"\u00e9\ud83e\udd80 <b>","x":[1, 2]} ],"model":"TINY.gguf","#,
            r#""new_field":{"n":123456789012345678901234567890.0e-400,"a":[ ]},"stream":false,"tools":[],"#,
            r#""stream_options":{"continuous_usage_stats":true},"reasoning_effort":"low","top_k":7}"#,
        );
        let expected = concat!(
            r#"{"messages":[ {"role":"user","content":"\u00e9\ud83e\udd80 <b>","x":[1, 2]} ],"model":"/models/tiny.gguf","#,
            r#""new_field":{"n":123456789012345678901234567890.0e-400,"a":[ ]},"stream":true,"tools":[],"#,
            r#""stream_options":{"include_usage":true},"reasoning_effort":"low","top_k":7}"#,
        );
        assert_eq!(body(payload), expected);
    }

    #[test]
    fn what_is_null_is_absent() {
        assert_eq!(
            free(r#","top_p":null,"a":1,"stop":null,"max_tokens":null"#),
            r#","a":1"#
        );
    }

    #[test]
    fn nothing_has_the_server_load_unload_or_fetch_something() {
        for key in OPERATORS_KEYS.iter().chain(&HARDWARE_KEYS) {
            assert_eq!(
                free(&format!(r#","a":1,"{key}":1,"b":2"#)),
                r#","a":1,"b":2"#
            );
        }
        let odd = r#","Chat_Template":"x","lora\u005fpath":"x","\u212av_tran\u017ffer_params":{}"#;
        assert_eq!(free(odd), "");
    }

    #[test]
    fn hardware_options_pass_where_the_operator_allows_them_and_nothing_else_does() {
        let generous = PolicySettings {
            allow_hardware_options: true,
            ..PolicySettings::default()
        };
        let kept = fields(r#","keep_alive":0,"chat_template":"x""#, &generous);
        assert_eq!(kept.unwrap(), r#","keep_alive":0"#);
    }

    #[test]
    fn the_smallest_limit_is_sent_under_the_name_that_every_server_knows() {
        for (given, sent) in [
            (r#","max_tokens":7"#, r#","max_tokens":7"#),
            (r#","max_completion_tokens":7"#, r#","max_tokens":7"#),
            (
                r#","max_completion_tokens":9,"a":1,"max_tokens":7"#,
                r#","a":1,"max_tokens":7"#,
            ),
            (
                r#","max_tokens":9,"a":1,"max_completion_tokens":7"#,
                r#","max_tokens":7,"a":1"#,
            ),
            (r#","max_tokens":9,"n_predict":5"#, r#","max_tokens":5"#),
            (r#","max_tokens":9,"n_predict":-1"#, r#","max_tokens":9"#),
            (r#","max_tokens":0"#, ""),
            (r#","max_tokens":-1,"max_completion_tokens":0"#, ""),
        ] {
            assert_eq!(free(given), sent, "{given}");
        }
    }

    #[test]
    fn the_operators_limit_lowers_what_is_asked_for_and_holds_where_nothing_is() {
        let capped = PolicySettings {
            max_output_tokens: Some(100),
            ..PolicySettings::default()
        };
        for (given, sent) in [
            ("", r#","max_tokens":100"#),
            (r#","max_tokens":99"#, r#","max_tokens":99"#),
            (r#","max_tokens":101,"a":1"#, r#","max_tokens":100,"a":1"#),
            (r#","max_tokens":1e999"#, r#","max_tokens":100"#),
            (r#","n_predict":-1"#, r#","max_tokens":100"#),
            (r#","max_tokens":0"#, r#","max_tokens":100"#),
        ] {
            assert_eq!(fields(given, &capped).unwrap(), sent, "{given}");
        }
    }

    #[test]
    fn more_than_one_answer_and_limits_that_are_no_numbers_are_invalid() {
        for wrong in [
            r#","n":2"#,
            r#","n":"2""#,
            r#","n":0"#,
            r#","best_of":3"#,
            r#","n_cmpl":4"#,
            r#","max_tokens":"100000""#,
            r#","n_predict":[9]"#,
        ] {
            let refused = fields(wrong, &PolicySettings::default()).unwrap_err();
            assert_eq!(refused.code, Code::Invalid, "{wrong}");
        }
        assert_eq!(free(r#","n":1,"best_of":1.0"#), r#","n":1,"best_of":1.0"#);
    }

    #[test]
    fn a_load_generates_one_token() {
        let body = load(&Model::named("a\"b")).body;
        let expected = concat!(
            r#"{"model":"a\"b","messages":[{"role":"user","content":"Hello"}],"max_tokens":1,"stream":true,"#,
            r#""stream_options":{"include_usage":true}}"#,
        );
        assert_eq!(body, expected);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_fields_nobody_knows_keep_theirs(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            fields in prop::collection::vec(value(), 1..5),
            message in value(),
        ) {
            let _ = chat(&bytes, &Model::named("m"), &PolicySettings::default());
            let mut payload = format!(r#"{{"model":"tiny","messages":[{message}]"#);
            for (n, field) in fields.iter().enumerate() {
                payload += &format!(r#", "x_{n}" : {field}"#);
            }
            if let Ok(body) = body_under(&(payload + "}"), &PolicySettings::default()) {
                let body = Object::parse(&body).unwrap();
                for (n, field) in fields.iter().enumerate() {
                    prop_assert_eq!(body.given(&format!("x_{n}")).unwrap_or("null"), field);
                }
            }
        }
    }
}
