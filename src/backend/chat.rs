//! What a chat request is, whichever model server answers it.
//!
//! Invariant: a payload is read and checked in one place, at receipt as when it is sent, so what was checked is what is
//! sent; and one that could mean two things is refused. Ollama is written in Go, whose JSON decoder matches keys without
//! regard to case and lets the last of two win; and which server a request goes to is not known when it is checked.

use std::borrow::Cow;

use super::object::{Object, elements, string};
use crate::protocol::{Code, Failure};

/// What is the operator's to say, at the top and in `options`.
pub(super) const HARDWARE_KEYS: [&str; 7] = [
    "keep_alive",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_batch",
    "use_mmap",
    "_debug_render_only",
];

/// What Ollama reads at the top: `ChatRequest` in its `api/types.go`, as of 0.17.4, less [`HARDWARE_KEYS`].
const CHAT_KEYS: [&str; 11] = [
    "model",
    "messages",
    "stream",
    "format",
    "tools",
    "options",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
];

/// What Ollama reads in `options`: `Options` and `Runner` in the same file, less [`HARDWARE_KEYS`].
const OPTION_KEYS: [&str; 14] = [
    "num_ctx",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
];

/// What OpenAI's dialect has at the top and Ollama has elsewhere or by another name.
const OPENAI_KEYS: [&str; 15] = [
    "temperature",
    "top_p",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "max_completion_tokens",
    "max_tokens",
    "response_format",
    "reasoning_effort",
    "n",
    "best_of",
    "n_cmpl",
    "n_predict",
    "stream_options",
];

/// What a chat request says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The model that it names.
    pub model: String,
    /// Whether it wants its answer in chunks, too.
    pub stream: bool,
    /// Whether it offers tools to the model.
    pub has_tools: bool,
}

/// Looks whether a payload is a chat, and what it says of itself. Copies none of its content.
///
/// # Errors
/// `invalid`: no JSON object, no model, no messages, `stream` or `options` of another type than theirs, or a key at
/// the top or in `options` that is written twice or in another case.
pub fn inspect(payload: &[u8]) -> Result<RequestHead, Failure> {
    let chat = ChatRequest::parse(payload)?;
    Ok(RequestHead {
        stream: chat.stream,
        has_tools: chat.has_tools(),
        model: chat.model.into_owned(),
    })
}

/// A payload that is a chat: its keys are unambiguous and what is needed is there.
pub(super) struct ChatRequest<'a> {
    /// Its keys and values, in their order.
    pub(super) top: Object<'a>,
    pub(super) options: Option<Object<'a>>,
    pub(super) model: Cow<'a, str>,
    /// A list that is not empty.
    pub(super) messages: &'a str,
    pub(super) stream: bool,
}

impl<'a> ChatRequest<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// As [`inspect`].
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Failure> {
        let payload =
            std::str::from_utf8(payload).map_err(|_| invalid("the payload is not UTF-8"))?;
        let top =
            Object::parse(payload).map_err(|error| invalid(format!("the payload is {error}")))?;
        check_keys(&top, &[&CHAT_KEYS, &OPENAI_KEYS, &HARDWARE_KEYS])?;
        Ok(Self {
            options: read_options(&top)?,
            model: read_model(&top)?,
            messages: read_messages(&top)?,
            stream: read_stream(&top)?,
            top,
        })
    }
}

impl ChatRequest<'_> {
    fn has_tools(&self) -> bool {
        let tools = self.top.given("tools").and_then(elements);
        tools.is_some_and(|mut tools| tools.next().is_some())
    }
}

fn read_options<'a>(top: &Object<'a>) -> Result<Option<Object<'a>>, Failure> {
    let Some(options) = top.given("options") else {
        return Ok(None);
    };
    let options =
        Object::parse(options).map_err(|error| invalid(format!("options are {error}")))?;
    check_keys(&options, &[&OPTION_KEYS, &HARDWARE_KEYS])?;
    Ok(Some(options))
}

fn read_model<'a>(top: &Object<'a>) -> Result<Cow<'a, str>, Failure> {
    let model = top.given("model").and_then(string);
    model
        .filter(|name| !name.is_empty())
        .ok_or_else(|| invalid("no model is named"))
}

/// To Ollama a chat without messages is an order to load a model or to throw it out.
fn read_messages<'a>(top: &Object<'a>) -> Result<&'a str, Failure> {
    let is_filled = |list: &&str| {
        list.strip_prefix('[')
            .is_some_and(|rest| !rest.trim_start().starts_with(']'))
    };
    top.given("messages")
        .filter(is_filled)
        .ok_or_else(|| invalid("messages are missing, empty or not a list"))
}

fn read_stream(top: &Object<'_>) -> Result<bool, Failure> {
    match top.given("stream") {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(_) => Err(invalid("stream is neither true nor false")),
    }
}

/// The smallest of the limits on an answer's length that a chat has under these names, as it is written. To OpenAI no limit is
/// less than 1. What is no number counts only where nothing else does.
pub(super) fn smallest_limit<'a>(chat: &Object<'a>, names: &[&str]) -> Option<&'a str> {
    let limits = names
        .iter()
        .filter_map(|name| Some((chat.number(name), chat.given(name)?)));
    let means_something =
        |(number, _): &(Option<f64>, &str)| number.is_none_or(|limit| limit >= 1.0);
    let size = |number: Option<f64>| number.unwrap_or(f64::INFINITY);
    let smallest = limits
        .filter(means_something)
        .min_by(|one, other| size(one.0).total_cmp(&size(other.0)));
    smallest.map(|(_, limit)| limit)
}

/// Refuses an object with a key that is ambiguous.
fn check_keys(object: &Object<'_>, known: &[&[&str]]) -> Result<(), Failure> {
    if object.has_duplicates() {
        return Err(invalid("a key is written twice"));
    }
    for key in object.names() {
        if let Some(meant) = known
            .iter()
            .copied()
            .flatten()
            .find(|known| folds_to(key, known))
        {
            return Err(invalid(format!(
                "the key {meant} is written in another case"
            )));
        }
    }
    Ok(())
}

/// Whether Go's encoding/json takes `key` for `known`, a lower-case ASCII name, although it is spelled otherwise.
/// Its folding is Unicode's simple one: beyond ASCII, only the Kelvin sign and the long s fold to ASCII letters.
pub(super) fn folds_to(key: &str, known: &str) -> bool {
    let fold = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        c => c.to_ascii_lowercase(),
    };
    key != known && key.chars().map(fold).eq(known.chars())
}

pub(super) fn invalid(sentence: impl Into<String>) -> Failure {
    Failure::new(Code::Invalid, sentence)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::backend) const NO_CHATS: [&str; 14] = [
        "",
        "null",
        "[]",
        r#"{"model":"m","messages":[{}]"#,
        r#"{"messages":[{}]}"#,
        r#"{"model":null,"messages":[{}]}"#,
        r#"{"model":"","messages":[{}]}"#,
        r#"{"model":7,"messages":[{}]}"#,
        r#"{"model":"m"}"#,
        r#"{"model":"m","messages":null}"#,
        r#"{"model":"m","messages":[ ]}"#,
        r#"{"model":"m","messages":{"0":{}}}"#,
        r#"{"model":"m","messages":[{}],"stream":"true"}"#,
        r#"{"model":"m","messages":[{}],"options":[]}"#,
    ];

    pub(in crate::backend) const AMBIGUOUS: [&str; 9] = [
        r#"{"model":"m","messages":[{}],"model":"n"}"#,
        r#"{"model":"m","messages":[{}],"x":1,"\u0078":2}"#,
        r#"{"model":"m","messages":[{}],"Keep_Alive":0}"#,
        r#"{"model":"m","messages":[{}],"\u212aeep_alive":0}"#,
        r#"{"model":"m","messages":[{}],"option\u017f":{}}"#,
        r#"{"model":"m","messages":[{}],"MAX_TOKENS":1}"#,
        r#"{"model":"m","messages":[{}],"_Debug_Render_Only":true}"#,
        r#"{"model":"m","messages":[{}],"options":{"Num_Ctx":1}}"#,
        r#"{"model":"m","messages":[{}],"options":{"num_thread":1,"num_thread":2}}"#,
    ];

    fn refusal(payload: &str) -> String {
        inspect(payload.as_bytes()).unwrap_err().text()
    }

    #[test]
    fn the_receipt_tells_the_model_whether_chunks_are_wanted_and_whether_there_are_tools() {
        for (rest, stream, has_tools) in [
            ("", false, false),
            (r#","stream":true"#, true, false),
            (r#","stream":false"#, false, false),
            (r#","stream":null"#, false, false),
            (r#","tools":[ ]"#, false, false),
            (r#","tools":null"#, false, false),
            (r#","tools":[{}]"#, false, true),
        ] {
            let payload = format!(r#"{{"model":"a\u0062","messages":["x"]{rest}}}"#);
            let head = inspect(payload.as_bytes()).unwrap();
            assert_eq!(
                head,
                RequestHead {
                    model: "ab".into(),
                    stream,
                    has_tools,
                }
            );
        }
    }

    #[test]
    fn what_is_no_chat_is_refused() {
        for payload in NO_CHATS {
            assert!(refusal(payload).starts_with("invalid: "), "{payload}");
        }
        assert_eq!(
            inspect(b"{\"model\":\"\xff\",\"messages\":[{}]}")
                .unwrap_err()
                .code,
            Code::Invalid
        );
    }

    #[test]
    fn an_ambiguous_key_is_refused_at_the_top_and_in_options() {
        for payload in AMBIGUOUS {
            assert!(refusal(payload).starts_with("invalid: "), "{payload}");
        }
    }

    #[test]
    fn keys_fold_as_they_do_in_go() {
        for key in ["Keep_alive", "\u{212a}eep_alive", "KEEP_ALIVE"] {
            assert!(folds_to(key, "keep_alive"), "{key}");
        }
        for key in [
            "keep_alive",
            "keep-alive",
            "keep_alive ",
            "keepalive",
            "k\u{456}ep_alive",
        ] {
            assert!(!folds_to(key, "keep_alive"), "{key}");
        }
        assert!(folds_to("u\u{17f}e_mmap", "use_mmap"));
    }

    proptest! {
        #[test]
        fn a_key_in_another_spelling_is_always_refused(
            key in prop::sample::select(vec!["keep_alive", "stream", "messages", "options", "num_ctx", "use_mmap"]),
            swaps in prop::collection::vec(0..3u8, 12),
        ) {
            let spelled: String = key.chars().zip(swaps).map(|(c, swap)| match (c, swap) {
                ('k', 2) => '\u{212a}',
                ('s', 2) => '\u{17f}',
                (c, 1) => c.to_ascii_uppercase(),
                (c, _) => c,
            }).collect();
            prop_assume!(spelled != key);
            let (top, option) = if key.starts_with("num") { ("x", &*spelled) } else { (&*spelled, "x") };
            let payload = format!(r#"{{"model":"m","messages":[{{}}],"{top}":1,"options":{{"{option}":1}}}}"#);
            prop_assert_eq!(inspect(payload.as_bytes()).unwrap_err().code, Code::Invalid);
        }
    }
}
