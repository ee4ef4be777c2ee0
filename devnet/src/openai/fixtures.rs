//! The answers that were met in the wild and that break a naive client, by name. Those that say something say
//! [`TEXT`](Fixture::TEXT), and where they count, 7 tokens of prompt and 3 of answer.

use std::time::Duration;

use super::fault::{End, Fault, Fixture, Step};

const DONE: &str = "[DONE]";
const USAGE: &str = r#"{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}"#;

/// A chunk with this `delta` and `finish_reason`, both JSON.
pub(super) fn chunk(delta: &str, finish: &str) -> String {
    let choice = format!(r#"{{"index":0,"delta":{delta},"finish_reason":{finish}}}"#);
    of_choices(&choice, "")
}

fn of_choices(choices: &str, more: &str) -> String {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"/srv/models/tiny.gguf","choices":[{choices}]{more}}}"#
    )
}

fn text(text: &str) -> String {
    chunk(&format!(r#"{{"content":"{text}"}}"#), "null")
}

fn stop() -> String {
    chunk("{}", "\"stop\"")
}

pub(super) fn usage() -> String {
    of_choices("", &format!(r#","usage":{USAGE}"#))
}

fn said() -> Vec<String> {
    ["life", " goes", " on"].map(text).into()
}

/// What was said between these events.
fn around(before: &[String], after: &[String]) -> Fixture {
    Fixture::events([before, &said(), after].concat())
}

fn ending(after: &[String]) -> Fixture {
    around(&[], after)
}

pub(super) fn done() -> String {
    DONE.to_owned()
}

impl Fixture {
    /// What is said.
    pub const TEXT: &str = "life goes on";
    /// What is thought where anything is.
    pub const THOUGHT: &str = "hm so";

    /// As OpenAI's own servers do it.
    pub fn plain() -> Self {
        ending(&[stop(), usage(), done()])
    }

    /// An event with the role and nothing else first.
    pub fn role_only_first() -> Self {
        let role = chunk(r#"{"role":"assistant"}"#, "null");
        around(&[role], &[stop(), usage(), done()])
    }

    /// The same with `content:null`, and once more in the middle.
    pub fn null_content() -> Self {
        let null = chunk(r#"{"role":"assistant","content":null}"#, "null");
        let again = chunk(r#"{"content":null,"tool_calls":null}"#, "null");
        around(&[null], &[again, stop(), usage(), done()])
    }

    /// `delta:null`, at the beginning and at the end.
    pub fn null_delta() -> Self {
        let end = chunk("null", "\"stop\"");
        around(&[chunk("null", "null")], &[end, usage(), done()])
    }

    /// The content as a list of parts.
    pub fn content_as_list() -> Self {
        let parts =
            r#"{"content":[{"type":"text","text":"life"},{"type":"text","text":" goes on"}]}"#;
        Self::events([chunk(parts, "null"), stop(), usage(), done()])
    }

    /// No `finish_reason` before the last chunk.
    pub fn absent_finish_reason() -> Self {
        let bare = |text: &str| {
            of_choices(
                &format!(r#"{{"index":0,"delta":{{"content":"{text}"}}}}"#),
                "",
            )
        };
        Self::events([
            bare("life"),
            bare(" goes"),
            bare(" on"),
            stop(),
            usage(),
            done(),
        ])
    }

    /// An empty `finish_reason` before the last chunk.
    pub fn empty_finish_reason() -> Self {
        let bare = |text: &str| chunk(&format!(r#"{{"content":"{text}"}}"#), "\"\"");
        Self::events([
            bare("life"),
            bare(" goes"),
            bare(" on"),
            stop(),
            usage(),
            done(),
        ])
    }

    /// Text in the delta that has the `finish_reason`.
    pub fn text_with_finish_reason() -> Self {
        let last = chunk(r#"{"content":" on"}"#, "\"stop\"");
        Self::events([text("life"), text(" goes"), last, usage(), done()])
    }

    /// No `finish_reason` at all, but `[DONE]`.
    pub fn done_without_finish_reason() -> Self {
        ending(&[usage(), done()])
    }

    /// Another `finish_reason`, written as JSON.
    pub fn finish_reason(reason: &str) -> Self {
        ending(&[chunk("{}", reason), usage(), done()])
    }

    /// No `[DONE]`: it ends after the usage.
    pub fn no_done() -> Self {
        ending(&[stop(), usage()])
    }

    /// The connection stays open after `[DONE]`.
    pub fn open_after_done() -> Self {
        Self::plain().end(End::StayOpen)
    }

    /// A `finish_reason`, and then nothing, for good.
    pub fn open_after_finish_reason() -> Self {
        ending(&[stop()]).end(End::StayOpen)
    }

    /// A `finish_reason`, then the usage so much later, then nothing, for good.
    pub fn late_usage(late: Duration) -> Self {
        let event = format!("data: {}\n\n", usage());
        Self::open_after_finish_reason()
            .then(Step::Wait(late))
            .then(Step::Bytes(event.into()))
    }

    /// Usage before the `finish_reason`.
    pub fn usage_before_finish_reason() -> Self {
        ending(&[usage(), stop(), done()])
    }

    /// Usage in the chunk with the `finish_reason`.
    pub fn usage_with_finish_reason() -> Self {
        let choice = r#"{"index":0,"delta":{},"finish_reason":"stop"}"#;
        ending(&[of_choices(choice, &format!(r#","usage":{USAGE}"#)), done()])
    }

    /// A usage chunk that says the `finish_reason` again (TabbyAPI).
    pub fn usage_with_choices_again() -> Self {
        let choice =
            r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}"#;
        ending(&[
            stop(),
            of_choices(choice, &format!(r#","usage":{USAGE}"#)),
            done(),
        ])
    }

    /// Usage so far in each chunk, and all of it at the end.
    pub fn usage_on_each() -> Self {
        let with = |text: &str, tokens: u32| {
            let total = tokens + 7;
            let choice =
                format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}"#);
            of_choices(
                &choice,
                &format!(
                    r#","usage":{{"prompt_tokens":7,"completion_tokens":{tokens},"total_tokens":{total}}}"#
                ),
            )
        };
        Self::events([
            with("life", 1),
            with(" goes", 2),
            with(" on", 3),
            stop(),
            usage(),
            done(),
        ])
    }

    /// `usage:null` in each chunk after the one that has it, too.
    pub fn null_usage() -> Self {
        let end = of_choices(
            r#"{"index":0,"delta":{},"finish_reason":"stop"}"#,
            r#","usage":null"#,
        );
        let nothing = of_choices("", r#","usage":null"#);
        ending(&[end, usage(), nothing, done()])
    }

    /// No usage.
    pub fn no_usage() -> Self {
        ending(&[stop(), done()])
    }

    /// An error event, then `[DONE]` (vLLM).
    pub fn error_then_done() -> Self {
        ending(&[
            r#"{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}"#.to_owned(),
            done(),
        ])
    }

    /// An error event after the `finish_reason`, then `[DONE]`.
    pub fn error_after_finish_reason() -> Self {
        ending(&[
            stop(),
            r#"{"error":{"message":"out of memory","code":null}}"#.to_owned(),
            done(),
        ])
    }

    /// An error beside choices.
    pub fn error_beside_choices() -> Self {
        let choice = r#"{"index":0,"delta":{"content":""},"finish_reason":"error"}"#;
        ending(&[
            of_choices(choice, r#","error":{"message":"out of memory"}"#),
            done(),
        ])
    }

    /// An error event and the end (llama-server, TabbyAPI).
    pub fn error_then_end() -> Self {
        ending(&[
            r#"{"error":{"code":500,"message":"out of memory","type":"server_error"}}"#.to_owned(),
        ])
    }

    /// An error event that is a string.
    pub fn error_as_string() -> Self {
        ending(&[r#"{"error":"out of memory"}"#.to_owned()])
    }

    /// An error event of the flat kind (SGLang, lmdeploy).
    pub fn flat_error() -> Self {
        let flat = r#"{"object":"error","message":"out of memory","type":"InternalServerError","code":500}"#;
        ending(&[flat.to_owned(), done()])
    }

    /// An error event under `detail`.
    pub fn detail_error() -> Self {
        ending(&[r#"{"detail":[{"msg":"out of memory"}]}"#.to_owned(), done()])
    }

    /// An `event: error` line before it.
    pub fn error_with_event_line() -> Self {
        ending(&[]).then(Step::Bytes(
            "event: error\ndata: {\"error\":{\"message\":\"out of memory\"}}\n\n".into(),
        ))
    }

    /// Lines with CR LF, and a comment each (sse-starlette).
    pub fn crlf() -> Self {
        Self::plain()
            .first(Step::Bytes(": ping - 2026-01-01 00:00:00\n\n".into()))
            .lines_end_with("\r\n")
    }

    /// Lines with CR.
    pub fn cr() -> Self {
        Self::plain().lines_end_with("\r")
    }

    /// A byte order mark first.
    pub fn bom() -> Self {
        Self::plain().first(Step::Bytes("\u{feff}".into()))
    }

    /// No space after the colon, other fields, and lines that are none.
    pub fn odd_fields() -> Self {
        let events = [text("life goes on"), stop(), usage(), done()];
        Self::raw(
            events.map(|event| {
                format!("id: 1\nretry: 10\nevent: message\nnonsense\ndata:{event}\n\n")
            }),
        )
    }

    /// One event in several lines of `data`.
    pub fn data_in_lines() -> Self {
        let whole = chunk(r#"{"content":"life goes on"}"#, "\"stop\"").replace(',', ",\ndata: ");
        Self::raw([
            format!("data: {whole}\n\n"),
            format!("data: {}\n\n", usage()),
        ])
        .then(Step::Bytes("data: [DONE]\n\n".into()))
    }

    /// The last event without its empty line, ended by the close.
    pub fn no_last_newline() -> Self {
        ending(&[]).then(Step::Bytes(
            format!("data: {}", chunk("{}", "\"stop\"")).into(),
        ))
    }

    /// Nothing but comments for `count` times `every`, from the beginning on, then the answer.
    pub fn comments(count: usize, every: Duration) -> Self {
        Self::plain().first(Step::Repeat(": keepalive 1/1\n\n".into(), count, every))
    }

    /// One event that is longer than so many bytes.
    pub fn larger_than(bytes: usize) -> Self {
        Self::events([text(&"x".repeat(bytes)), stop(), usage(), done()])
    }

    /// The last event cut in the middle of its JSON by the close.
    pub fn cut_json() -> Self {
        ending(&[]).then(Step::Bytes("data: {\"choices\":[{\"index\":0,\"de".into()))
    }

    /// Something that is no JSON.
    pub fn not_json() -> Self {
        ending(&[
            r#"{"choices":[{"index":0,"delta":{"content":"x"},"logprobs":NaN}]}"#.to_owned(),
            stop(),
            done(),
        ])
    }

    /// Bytes that are no UTF-8 within the text.
    pub fn bad_utf8() -> Self {
        ending(&[]).then(Step::Bytes(
            b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\"}}]}\n\ndata: [DONE]\n\n"
                .as_slice()
                .into(),
        ))
    }

    /// Characters of several bytes, which `in_writes_of` cuts.
    pub fn many_bytes_a_character() -> Self {
        Self::events([text("grüße 🦀"), stop(), usage(), done()])
    }

    /// HTTP/1.0 without a length.
    pub fn over_http_1_0() -> Self {
        Self::plain().http_1_0()
    }

    /// No status before this is over.
    pub fn late_head(late: Duration) -> Self {
        Self::plain().first(Step::Wait(late))
    }

    /// The head, and a reset.
    pub fn reset_after_head() -> Self {
        Self::raw::<String>([]).end(End::Reset)
    }

    /// Half of the answer, and then this.
    pub fn half(end: End) -> Self {
        Self::events(said()).end(end)
    }

    /// 200, and nothing.
    pub fn nothing() -> Fault {
        Fault::answer(200, "application/json", "")
    }

    /// 200 with an error in it (LM Studio).
    pub fn error_with_200() -> Fault {
        Fault::answer(
            200,
            "application/json; charset=utf-8",
            r#"{"error":"Unexpected endpoint or method. (POST /chat/completions)"}"#,
        )
    }

    /// 200 with a page.
    pub fn html_with_200() -> Fault {
        Fault::answer(
            200,
            "text/html; charset=utf-8",
            "<!doctype html><title>Home</title><p>Welcome",
        )
    }

    /// One object, as if nobody had asked for a stream.
    pub fn whole_object() -> Fault {
        Fault::answer(
            200,
            "application/json",
            &format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"/srv/models/tiny.gguf","choices":[{{"index":0,"message":{{"role":"assistant","content":"life goes on"}},"finish_reason":"stop"}}],"usage":{USAGE}}}"#
            ),
        )
    }

    /// Thoughts under this key, then text.
    pub fn thinking_under(key: &str) -> Self {
        let thought = |text: &str| chunk(&format!(r#"{{"{key}":"{text}"}}"#), "null");
        around(&[thought("hm"), thought(" so")], &[stop(), usage(), done()])
    }

    /// The same thoughts under both keys, then text.
    pub fn thinking_under_both() -> Self {
        let thought = |text: &str| {
            chunk(
                &format!(r#"{{"content":null,"reasoning":"{text}","reasoning_content":"{text}"}}"#),
                "null",
            )
        };
        around(&[thought("hm"), thought(" so")], &[stop(), usage(), done()])
    }

    /// Thoughts as tags within the text, which is text.
    pub fn thinking_in_text() -> Self {
        Self::events([
            text("<think>hm so</think>"),
            text("life goes on"),
            stop(),
            usage(),
            done(),
        ])
    }
}
