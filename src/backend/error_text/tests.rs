//! What the network is told of a model server's words, and what it is not.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::protocol::{Code, Failure};

fn text_of(words: String) -> String {
    Failure::new(Code::Backend, words).text()
}

fn sentence(status: u16, body: impl AsRef<[u8]>) -> String {
    let said = words_of_status(status, body.as_ref(), &Credentials::default());
    text_of(said.unwrap_or_else(|status| status))
}

#[test]
fn the_backends_own_words_are_passed_on() {
    for (body, text) in [
        (
            r#"{"error":"model 'nope' not found"}"#,
            "backend: model 'nope' not found",
        ),
        (
            r#"{"error":"\"tiny\" does not support thinking"}"#,
            "backend: \"tiny\" does not support thinking",
        ),
        (
            r#"{"error":"model 'llama3.2:1b' not found"}"#,
            "backend: model 'llama3.2:1b' not found",
        ),
        (
            r#"{"error":"option \"num_predict\" must be of type integer"}"#,
            "backend: option \"num_predict\" must be of type integer",
        ),
        (
            r#"{"error":"registry.ollama.ai/library/tiny:latest does not support tools"}"#,
            "backend: registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        (
            r#"{"error":{"message":"no such model","type":"api_error","param":null,"code":null}}"#,
            "backend: no such model",
        ),
        (r#"{"detail":"Not allowed"}"#, "backend: Not allowed"),
        (
            r#"{"detail":[{"loc":["body"]},{"msg":"field required"},{"msg":"x"}]}"#,
            "backend: field required",
        ),
        (
            r#"{"object":"error","message":"too long"}"#,
            "backend: too long",
        ),
        (
            r#"{"error":{"message":"1 validation error:\n  {'type': 'float_parsing', 'msg': 'not a number', 'input': 'my secret'}"}}"#,
            "backend: 1 validation error:   {'type': 'float_parsing', 'msg': 'not a number'",
        ),
        (
            r#"{"message":"Input should be a string [type=string_type, input_value=['my secret'], input_type=list]"}"#,
            "backend: Input should be a string [type=string_type",
        ),
        (
            r#"{"detail":{"error":{"message":"no such voice","code":1}}}"#,
            "backend: no such voice",
        ),
        (r#"{"detail":{"error":"busy"}}"#, "backend: busy"),
        (
            r#"{"detail":{"error":{"x":1}},"message":"c"}"#,
            "backend: c",
        ),
        (
            r#"{"message":"c","detail":"b","error":{"message":"a"}}"#,
            "backend: a",
        ),
        (
            r#"{"message":"c","detail":[],"error":{"code":1}}"#,
            "backend: c",
        ),
    ] {
        assert_eq!(sentence(500, body), text);
    }
}

#[test]
fn a_character_that_is_none_takes_no_word_with_it() {
    for body in [
        &br#"{"error":"bad \ud83d thing"}"#[..],
        br#"{"error":{"message":"bad \ud83d thing"},"x\ud83d":1}"#,
        b"{\"error\":\"bad \xe9 thing\"}",
    ] {
        assert_eq!(sentence(400, body), "backend: bad \u{fffd} thing");
    }
}

#[test]
fn a_body_that_is_no_error_is_only_its_status() {
    for body in [
        "",
        "<html>bad gateway at 10.0.0.1</html>",
        "{}",
        "[]",
        "null",
        r#""x""#,
        r#"{"error":null}"#,
        r#"{"detail":[{"loc":[]}],"message":{}}"#,
    ] {
        assert_eq!(sentence(502, body), "backend: HTTP 502");
    }
    assert_eq!(
        sentence(502, r#"{"error":"\u0000 \n"}"#),
        "backend: HTTP 502"
    );
}

#[test]
fn nothing_tells_where_the_backend_is_or_what_lies_on_its_disk() {
    for (words, cleaned) in [
        (
            "Post \"http://127.0.0.1:41863/completion\": EOF",
            "Post \"…\": EOF",
        ),
        ("see https://user:pw@host/a?b=c.", "see …."),
        (
            "dial tcp 127.0.0.1:11434: connect: connection refused",
            "dial tcp …: connect: connection refused",
        ),
        (
            "dial tcp [::1]:11434: connect: refused",
            "dial tcp …: connect: refused",
        ),
        ("dial tcp [fe80::1%eth0]:80: refused", "dial tcp …: refused"),
        (
            "lookup ollama.internal:11434/api/chat failed",
            "lookup … failed",
        ),
        (
            "no route to 10.1.2.3, giving up",
            "no route to …, giving up",
        ),
        (
            "open /root/.ollama/models/blobs/sha256-0a: no such file",
            "open …: no such file",
        ),
        (
            "open '/home/my user/x': no such file",
            "open '…': no such file",
        ),
        ("open C:\\Users\\me\\model.gguf: denied", "open …: denied"),
        ("open \\\\nas\\models: denied", "open …: denied"),
        ("open C:\\Users\\Ann Zoe\\m.gguf: denied", "open …: denied"),
        ("open /home/Ann Zoe/m.gguf: denied", "open …: denied"),
        ("no route to fe80::1%eth0", "no route to …%eth0"),
        (
            "no route to 2001:db8::1: timed out",
            "no route to …: timed out",
        ),
        ("in std::vector, a::b, 0x7f", "in std::vector, a::b, 0x7f"),
        ("model=/m/x.gguf failed (/tmp/y)", "model=… failed (…)"),
        ("file:///etc/passwd", "…"),
        (
            "a and/or b, 3 / 4 in 0.5s: 100%",
            "a and/or b, 3 / 4 in 0.5s: 100%",
        ),
        ("two\nlines\u{1b}[31m", "two lines[31m"),
        ("ht\u{0}tp://secret.example", "…"),
    ] {
        assert_eq!(clean(words), cleaned, "{words}");
    }
}

#[test]
fn no_key_is_repeated() {
    for (words, cleaned) in [
        (
            "bad header Authorization: Bearer sk-1234.abcd",
            "bad header Authorization: Bearer …",
        ),
        (
            "got 'Bearer abc-DEF_9', wanted another",
            "got 'Bearer …', wanted another",
        ),
        ("header Basic YW5uOnB3", "header Basic …"),
        (
            "header 'Basic /W5uOnBhc3M9+w==', wrong",
            "header 'Basic …', wrong",
        ),
        (
            "Incorrect API key provided: sk-proj-abc.",
            "Incorrect API key provided: ….",
        ),
        ("the bearer of bad news", "the bearer … bad news"),
        ("a basic risk-free model", "a basic risk-free model"),
    ] {
        assert_eq!(clean(words), cleaned, "{words}");
    }
}

#[test]
fn a_key_that_ends_beyond_what_is_passed_on_leaves_no_beginning_of_itself() {
    let credentials = Credentials::bearer(&"K-one-two-three-four".to_owned().into());
    let url = format!("http://{} ", "x".repeat(MAX_LOOKED_AT - 20));
    for padding in [".".repeat(MAX_BYTES - 10), url] {
        let body = format!(r#"{{"error":"{padding}K-one-two-three-four"}}"#);
        let told = words_of_status(500, body.as_bytes(), &credentials).unwrap();
        assert!(told.ends_with('…') && !told.contains("K-"), "{told}");
    }
}

#[test]
fn a_long_error_is_cut_between_characters() {
    let cleaned = clean(&"🦀é".repeat(200));
    assert!((MAX_BYTES - 3..=MAX_BYTES).contains(&cleaned.len()));
    assert!(cleaned.chars().all(|c| "🦀é".contains(c)));
}

#[test]
fn an_error_of_megabytes_costs_no_more_than_a_look_at_its_beginning() {
    let credentials = Credentials::bearer(&"K-one-two-three-four".to_owned().into());
    // Not the time that passes: on a busy machine that says little.
    let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let before = worked();
    for part in ["[", "a:", "/x ", "\u{0}", "1.1.1.1:"] {
        let words = part.repeat(8 * 1024 * 1024 / part.len());
        let error = serde_json::value::to_raw_value(&words).unwrap();
        let text = text_of(words_of_error(error.get(), &credentials));
        assert!(
            text.len() <= MAX_BYTES + "backend: ".len(),
            "{}",
            text.len()
        );
    }
    let nested = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let error = format!(r#"{{"message":{nested}}}"#);
    assert_eq!(
        text_of(words_of_error(&error, &credentials)),
        "backend: an error without words"
    );
    let took = worked() - before;
    assert!(took < Duration::from_secs(10), "{took:?}");
}

proptest! {
    #[test]
    fn any_words_stay_short_and_printable(words in "\\PC{0,700}|[/:.\\[\\]0-9a-z\"' ]{0,100}") {
        let cleaned = clean(&words);
        prop_assert!(cleaned.len() <= MAX_BYTES);
        prop_assert!(!cleaned.contains(char::is_control));
        prop_assert!(!cleaned.contains("://"));
    }

    #[test]
    fn nothing_private_survives_whatever_stands_around_it(
        before in "([ -~]{0,30}[ \"'(=,;<:])?",
        private in private(),
        after in "([ \"'),;:.!?>][ -~]{0,30})?",
    ) {
        let cleaned = clean(&format!("{before}{private}{after}"));
        prop_assert!(!cleaned.contains("zebra"), "{}", cleaned);
        prop_assert!(!cleaned.contains("4711"), "{}", cleaned);
    }
}

/// URLs, hosts with their ports, addresses and absolute paths, which all have `zebra` or `4711` in them.
fn private() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9+.-]{0,5}://([a-z]{1,4}:zebra@)?zebra[a-z0-9.-]{0,9}(:[0-9]{1,5})?(/[a-z0-9._~%&=?#-]{0,9}){0,3}",
        "([a-z0-9-]{1,9}\\.){0,2}zebra(\\.[a-z]{1,4})?:[0-9]{2,5}(/zebra[a-z0-9]{0,5})?",
        "(/[a-z0-9._-]{1,9}){0,3}/zebra[a-z0-9._-]{0,9}(/[a-z0-9._-]{1,9}){0,2}",
        "[A-Z]:\\\\([A-Za-z0-9._-]{1,9}\\\\){0,3}zebra[a-z0-9.]{0,5}",
        "[A-Z]:\\\\Users\\\\Ann Zoe\\\\zebra",
        "\\[2001:db8:[0-9a-f]{1,4}::4711\\](:[0-9]{2,5})?",
        "(2001:db8:[0-9a-f]{1,4}|fe80|fd00:1)::4711",
    ]
}
