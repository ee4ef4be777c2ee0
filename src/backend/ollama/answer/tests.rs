//! What becomes of an answer, in whatever pieces and shapes it comes.

#![allow(clippy::unwrap_used)]

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{any_json, protocol::Generation};

/// What a real Ollama 0.17.4 sent.
const STREAM: &str = concat!(
    r#"{"model":"tiny","created_at":"2026-11-22T21:05:43.722879839Z","message":{"role":"assistant","content":" big"},"done":false}"#,
    "\n",
    r#"{"model":"tiny","created_at":"2026-11-22T21:05:43.724334884Z","message":{"role":"assistant","content":" move"},"done":false}"#,
    "\n",
    r#"{"model":"tiny","created_at":"2026-11-22T21:05:43.724716286Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"length","total_duration":354742667,"load_duration":348377259,"prompt_eval_count":7,"prompt_eval_duration":1456197,"eval_count":4,"eval_duration":790054}"#,
    "\n",
);

/// The same with `"stream":false` and `"logprobs":true`: one object, no newline.
const OBJECT: &str = r#"{"model":"tiny","created_at":"2026-11-22T21:05:43.762733203Z","message":{"role":"assistant","content":" big move"},"done":true,"done_reason":"length","logprobs":[{"token":" big","logprob":-4.33831787109375,"bytes":[32,98,105,103]},{"token":" move","logprob":-2.6823697090148926,"bytes":[32,109,111,118,101]}],"total_duration":3657486,"load_duration":2005884,"prompt_eval_count":7,"prompt_eval_duration":323454,"eval_count":2,"eval_duration":414183}"#;

/// Everything at once: thinking, tool calls over several lines, alternatives.
const RICH: &str = concat!(
    r#"{"model":"m","message":{"role":"assistant","content":"","thinking":"hm\u003c"},"done":false,"logprobs":[{"token":"h","logprob":-1.5,"top_logprobs":[{"token":"x","logprob":-2}]}]}"#,
    "\r\n\n",
    r#"{"model":"m","message":{"role":"assistant","content":"🦀 é","tool_calls":[{"id":"call_x","function":{"index":0,"name":"f","arguments":{"n":12345678901234567890123,"s":"\u00e9"}}}]},"logprobs":[{"token":"y","logprob":-3}],"done":false}"#,
    "\n",
    r#"{"model":"m","message":{"role":"assistant","content":null,"thinking":null,"tool_calls":[{"function":{"name":"g","arguments":{}}}]},"logprobs":null,"error":null,"done":null}"#,
    "\n",
    r#"{"model":"m","unknown":{"n":1e400},"message":{"role":"assistant","content":"","new":[1.0]},"done":true,"done_reason":"stop","eval_count":null}"#,
);

type Outcome = Result<(Vec<(ChunkKind, String)>, Completion), Failure>;

fn decode_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    generation: Generation,
) -> Outcome {
    let mut decoder = Box::<ChatDecoder>::default();
    let mut deltas = Deltas::default();
    for piece in pieces {
        decoder.feed(piece, &mut deltas)?;
    }
    let context = ResultContext {
        generation,
        request_id: "req-1".into(),
        created: 1_700_000_000,
        model: "asked".into(),
    };
    let completion = decoder.finish(&mut deltas, &context)?;
    Ok((deltas.drain().collect(), completion))
}

fn decode(body: &str, generation: Generation) -> (Vec<(ChunkKind, String)>, Completion) {
    decode_pieces([body.as_bytes()], generation).unwrap()
}

fn failure(body: &[u8]) -> String {
    let failure = decode_pieces([body], Generation::Desktop).unwrap_err();
    assert_eq!(failure.code, Code::Backend);
    failure.text()
}

#[test]
fn a_desktop_client_gives_ollamas_final_object_with_the_whole_message() {
    let (deltas, completion) = decode(STREAM, Generation::Desktop);
    assert_eq!(deltas, [(ChunkKind::Content, " big move".to_owned())]);
    assert_eq!(
        completion.result.get(),
        r#"{"model":"tiny","created_at":"2026-11-22T21:05:43.724716286Z","message":{"role":"assistant","content":" big move"},"done":true,"done_reason":"length","total_duration":354742667,"load_duration":348377259,"prompt_eval_count":7,"prompt_eval_duration":1456197,"eval_count":4,"eval_duration":790054}"#
    );
    assert_eq!(
        (completion.prompt_tokens, completion.generation_tokens),
        (7, 4)
    );
    assert_eq!(
        completion.load_duration,
        Some(Duration::from_nanos(348_377_259))
    );
}

#[test]
fn an_operator_gives_a_chat_completion() {
    let (_, completion) = decode(STREAM, Generation::Operator);
    assert_eq!(
        completion.result.get(),
        r#"{"id":"req-1","object":"chat.completion","created":1700000000,"model":"tiny","choices":[{"index":0,"message":{"role":"assistant","content":" big move"},"finish_reason":"length"}],"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11}}"#
    );
}

#[test]
fn one_object_instead_of_lines_is_an_answer_too() {
    let (deltas, completion) = decode(OBJECT, Generation::Desktop);
    assert_eq!(deltas, [(ChunkKind::Content, " big move".to_owned())]);
    assert_eq!(completion.result.get(), OBJECT);
    let (_, completion) = decode(OBJECT, Generation::Operator);
    assert!(completion.result.get().contains(
        r#""logprobs":{"content":[{"token":" big","logprob":-4.33831787109375,"bytes":[32,98,105,103],"top_logprobs":[]},{"token""#
    ));
}

#[test]
fn thinking_tool_calls_and_logprobs_are_put_together_from_all_lines() {
    let (deltas, completion) = decode(RICH, Generation::Desktop);
    let expected = [
        (ChunkKind::Thinking, "hm<".to_owned()),
        (ChunkKind::Content, "🦀 é".to_owned()),
    ];
    assert_eq!(deltas, expected);
    assert_eq!(
        completion.result.get(),
        concat!(
            r#"{"model":"m","unknown":{"n":1e400},"message":{"role":"assistant","content":"🦀 é","new":[1.0],"thinking":"hm<","#,
            r#""tool_calls":[{"id":"call_x","function":{"index":0,"name":"f","arguments":{"n":12345678901234567890123,"s":"\u00e9"}}},"#,
            r#"{"function":{"name":"g","arguments":{}}}]},"done":true,"done_reason":"stop","eval_count":null,"#,
            r#""logprobs":[{"token":"h","logprob":-1.5,"top_logprobs":[{"token":"x","logprob":-2}]},{"token":"y","logprob":-3}]}"#,
        )
    );
}

#[test]
fn an_operator_gives_them_as_openai_has_them() {
    let (_, completion) = decode(RICH, Generation::Operator);
    assert_eq!(
        completion.result.get(),
        concat!(
            r#"{"id":"req-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":"#,
            r#"{"role":"assistant","content":"🦀 é","thinking":"hm<","tool_calls":["#,
            r#"{"id":"call_x","type":"function","function":{"name":"f","arguments":"{\"n\":12345678901234567890123,\"s\":\"\\u00e9\"}"}},"#,
            r#"{"id":"call_req-1_1","type":"function","function":{"name":"g","arguments":"{}"}}]},"#,
            r#""logprobs":{"content":[{"token":"h","logprob":-1.5,"top_logprobs":[{"token":"x","logprob":-2}]},"#,
            r#"{"token":"y","logprob":-3,"top_logprobs":[]}]},"finish_reason":"tool_calls"}],"#,
            r#""usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#,
        )
    );
}

#[test]
fn no_two_calls_of_a_conversation_share_an_id() {
    let body = r#"{"message":{"tool_calls":[{"function":{"name":"f"}},{"id":"","function":{"name":"f"}}]},"done":true}"#;
    let mut ids = HashSet::new();
    for request in ["req-1", "req-2", "req-1_0"] {
        let mut decoder = Box::<ChatDecoder>::default();
        let mut deltas = Deltas::default();
        decoder.feed(body.as_bytes(), &mut deltas).unwrap();
        let context = ResultContext {
            generation: Generation::Operator,
            request_id: request.into(),
            created: 0,
            model: "asked".into(),
        };
        let completion = decoder.finish(&mut deltas, &context).unwrap();
        let result: serde_json::Value = serde_json::from_str(completion.result.get()).unwrap();
        let calls = result["choices"][0]["message"]["tool_calls"]
            .as_array()
            .unwrap();
        ids.extend(calls.iter().map(|call| call["id"].to_string()));
    }
    assert_eq!(ids.len(), 6, "{ids:?}");
}

#[test]
fn a_call_without_arguments_is_given_with_an_empty_object() {
    for arguments in [
        "",
        r#","arguments":null"#,
        r#","arguments":"""#,
        r#","arguments":" ""#,
        r#","arguments":"null""#,
        r#","arguments":"[ ]""#,
        r#","arguments":[]"#,
    ] {
        let body = format!(
            r#"{{"message":{{"tool_calls":[{{"id":"x","function":{{"name":"f"{arguments}}}}}]}},"done":true}}"#
        );
        let (_, completion) = decode(&body, Generation::Operator);
        let call = r#"{"name":"f","arguments":"{}"}"#;
        assert!(completion.result.get().contains(call), "{arguments}");
    }
}

#[test]
fn tokens_are_counted_however_their_number_is_written() {
    let body = r#"{"done":true,"prompt_eval_count":1.2e1,"eval_count":7.0,"load_duration":5e9}"#;
    let (_, completion) = decode(body, Generation::Operator);
    let usage = r#""usage":{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19}"#;
    assert!(completion.result.get().contains(usage));
    assert_eq!(
        (completion.prompt_tokens, completion.generation_tokens),
        (12, 7)
    );
    assert_eq!(completion.load_duration, Some(Duration::from_secs(5)));
}

#[test]
fn a_desktop_client_gives_counts_as_integers_and_all_else_as_it_was_written() {
    let theirs = r#"{"done":true,"total_duration":5e9,"prompt_eval_count":12345678901234567890,"eval_count":7.0,"eval_duration":7.5,"load_duration":"1","x":7.0,"message":{"content":""}}"#;
    let ours = theirs.replace("5e9", "5000000000").replacen("7.0", "7", 1);
    let (_, completion) = decode(theirs, Generation::Desktop);
    assert_eq!(completion.result.get(), ours);
}

#[test]
fn an_end_that_only_loads_the_model_is_no_answer() {
    for reason in ["load", "unload"] {
        let end = |content| {
            format!(
                r#"{{"message":{{"content":"{content}"}},"done":true,"done_reason":"{reason}"}}"#
            )
        };
        assert_eq!(
            failure(end("").as_bytes()),
            "backend: the model was only loaded or unloaded: nothing was generated"
        );
        // What was said was generated, whatever is said of it.
        assert_eq!(decode(&end("x"), Generation::Operator).0.len(), 1);
    }
}

#[test]
fn a_character_that_comes_in_two_lines_is_whole() {
    let line = |message: &str| format!("{{\"message\":{{{message}}},\"done\":false}}\n");
    let body = line(r#""thinking":"\ud83e""#)
        + &line(r#""thinking":"\udd80","content":"a\ud83d""#)
        + &line(
            r#""content":"\ude00b\ud83d","tool_calls":[{"id":"\ude00","function":{"name":"f"}}]"#,
        )
        + r#"{"message":{"content":""},"x":"\ud83d","done":true}"#;
    let (deltas, completion) = decode(&body, Generation::Desktop);
    let whole: String = deltas.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(whole, "🦀a😀b\u{fffd}");
    let expected = r#"{"message":{"content":"a😀b?","thinking":"🦀","tool_calls":[{"id":"?","function":{"name":"f"}}]},"x":"?","done":true}"#;
    assert_eq!(completion.result.get(), expected.replace('?', "\u{fffd}"));
}

/// What comes of an answer of which 64 KiB may be kept, that comes in reads of 16 KiB.
fn kept_of(body: &str) -> Outcome {
    let mut decoder = Box::<ChatDecoder>::default();
    decoder.limit(LIMIT);
    let mut deltas = Deltas::default();
    for piece in body.as_bytes().chunks(16 * 1024) {
        decoder.feed(piece, &mut deltas)?;
    }
    let context = ResultContext {
        generation: Generation::Desktop,
        request_id: "req-1".into(),
        created: 0,
        model: "asked".into(),
    };
    let completion = decoder.finish(&mut deltas, &context)?;
    Ok((deltas.drain().collect(), completion))
}

const LIMIT: usize = 64 * 1024;

#[test]
fn the_size_of_an_answer_is_what_is_kept_of_it_however_it_is_written() {
    let line = |message: &str| format!("{{\"message\":{{{message}}},\"done\":false}}\n");
    let end = r#"{"message":{"content":""},"done":true}"#;
    let all_at_once = |bytes: usize, done: bool| {
        let text = "x".repeat(bytes);
        format!("{{\"message\":{{\"content\":\"{text}\"}},\"done\":{done}}}\n")
    };
    for fits in [
        line(r#""content":"abcde""#).repeat(9_000),
        line(r#""content":"x""#).repeat(20_000),
        line(r#""content":"""#).repeat(30_000),
        line(r#""content":"x","thinking":"""#).repeat(15_000),
        line(r#""content":"\u4e2d""#).repeat(12_000),
        line(&format!(r#""content":"{}""#, r"\u003c".repeat(10))).repeat(2_000),
        line(r#""content":"\n\n\n\n""#).repeat(8_000),
        "\n".repeat(LIMIT + 1),
        all_at_once(40_000, true),
        all_at_once(LIMIT - 100, false),
    ] {
        let kept = kept_of(&(fits.clone() + end));
        assert!(kept.is_ok(), "{} {:?}", &fits[..50], kept.map(|_| ()));
    }
    for too_large in [
        line(r#""content":"abcde""#).repeat(LIMIT / 5),
        line(r#""thinking":"\u4e2d""#).repeat(LIMIT / 3),
        line(&format!(r#""tool_calls":[{{"x":"{}"}}]"#, "x".repeat(500))).repeat(LIMIT / 500),
        all_at_once(LIMIT, true),
        format!("{{\"x\":\"{}\",\"done\":true}}\n", "x".repeat(LIMIT)),
        " ".repeat(10 * 1024 * 1024),
    ] {
        let failure = kept_of(&(too_large.clone() + end)).unwrap_err();
        assert_eq!(failure.code, Code::TooLarge, "{}", &too_large[..50]);
    }
}

#[test]
fn no_character_that_is_none_takes_the_answer_with_it() {
    let body = [
        &b"{\"message\":{\"content\":\"a\xf0\x9f\"},\"done\":false}\n"[..],
        b"{\"message\":{\"content\":\"\xa6\x80b\",\"x\\ud83d\":1},\"y\\ude00\":2,\"done\":false}\n",
        b"{\"message\":{\"content\":\"\xed\xa0\xbd\"},\"z\xff\":\"\\ud83d\",\"k\\ud83d\":3,\"done\":true}",
    ];
    let (deltas, completion) = decode_pieces(body, Generation::Desktop).unwrap();
    let whole: String = deltas.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(whole.replace('\u{fffd}', ""), "ab");
    assert!(whole.starts_with("a\u{fffd}") && whole.contains("b\u{fffd}"));
    let expected = format!(r#"{{"message":{{"content":"{whole}"}},"z?":"?","k?":3,"done":true}}"#);
    assert_eq!(completion.result.get(), expected.replace('?', "\u{fffd}"));
}

#[test]
fn an_answer_that_is_not_complete_is_a_failure() {
    let cut = &STREAM[..STREAM.find("\"done\":true").unwrap()];
    let one_line = &STREAM[..=STREAM.find('\n').unwrap()];
    assert_eq!(
        failure(one_line.as_bytes()),
        "backend: the answer ended before it was complete"
    );
    assert_eq!(
        failure(b""),
        "backend: the answer ended before it was complete"
    );
    assert_eq!(
        failure(b" \r\n\n"),
        "backend: the answer ended before it was complete"
    );
    assert_eq!(
        failure(cut.as_bytes()),
        "backend: the answer cannot be read"
    );
}

#[test]
fn an_error_in_the_stream_carries_ollamas_words_cleaned() {
    let killed = r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#;
    let text = "backend: an error was encountered while running the model: unexpected EOF";
    assert_eq!(
        failure(
            format!(
                "{one}{killed}\n",
                one = &STREAM[..=STREAM.find('\n').unwrap()]
            )
            .as_bytes()
        ),
        text
    );
    assert_eq!(failure(killed.as_bytes()), text);
    assert_eq!(
        failure(br#"{"error":{"message":"at http://10.0.0.1:1/x"}}"#),
        "backend: at …"
    );
    assert_eq!(
        failure(br#"{"error":7}"#),
        "backend: an error without words"
    );
    assert_eq!(failure(br#"{"error":"late","done":true}"#), "backend: late");
}

#[test]
fn what_cannot_be_read_is_a_failure() {
    for line in [
        &b"garbage\n"[..],
        b"[]",
        br#"{"message":{"content":7},"done":true}"#,
        br#"{"message":{"tool_calls":{}},"done":true}"#,
        br#"{"logprobs":1,"done":true}"#,
    ] {
        assert_eq!(failure(line), "backend: the answer cannot be read");
    }
    for (body, came) in [
        (&b"\n <!DOCTYPE html>\n<html>"[..], "HTML came"),
        (b"<html>", "HTML came"),
        (
            b"\x1f\x8b\x08\0\n\xff",
            "gzip came, which was not asked for",
        ),
    ] {
        let told = format!("backend: the answer cannot be read: {came}");
        assert_eq!(failure(body), told);
    }
}

#[test]
fn what_comes_after_the_end_is_ignored() {
    let body = format!("{STREAM}{{\"error\":\"x\"}}\n<html>\n\u{0}");
    assert_eq!(
        decode(&body, Generation::Desktop).1.result.get(),
        decode(STREAM, Generation::Desktop).1.result.get()
    );
}

proptest! {
    #[test]
    fn where_a_read_ends_makes_no_difference(
        tokens in prop::collection::vec("[a-zé漢🦀\"\\\\\\n<]{0,6}", 0..12),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
        newline in any::<bool>(),
    ) {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut body: String = tokens
            .iter()
            .map(|token| format!(r#"{{"message":{{"content":{}}},"done":false}}"#, quoted(token)) + "\n")
            .collect();
        body.push_str(r#"{"message":{"content":"🦀"},"done":true}"#);
        body.push_str(if newline { "\n" } else { "" });

        let body = body.as_bytes();
        cuts.sort_by_key(|cut| cut.index(body.len()));
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&body[from..cut.index(body.len())]);
            from = cut.index(body.len());
        }
        pieces.push(&body[from..]);

        let (deltas, completion) = decode_pieces(pieces, Generation::Desktop).unwrap();
        let whole = tokens.concat() + "🦀";
        prop_assert_eq!(deltas, vec![(ChunkKind::Content, whole.clone())]);
        let expected = format!(r#"{{"message":{{"content":{}}},"done":true}}"#, quoted(&whole));
        prop_assert_eq!(completion.result.get(), expected);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..RICH.len()) {
        let _ = decode_pieces([&bytes[..]], Generation::Desktop);
        let body = RICH.as_bytes();
        let _ = decode_pieces([&body[..cut], &bytes, &body[cut..]], Generation::Operator);
    }

    #[test]
    fn any_answer_is_the_same_however_it_is_cut(
        lines in prop::collection::vec(line(), 0..6),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ending in prop::sample::select(vec!["", "\n", "\r\n\n"]),
    ) {
        let body = lines.concat() + r#"{"message":{"content":"🦀"},"done":true}"# + ending;
        let body = body.as_bytes();
        cuts.sort_by_key(|cut| cut.index(body.len()));
        let ends = cuts.iter().map(|cut| cut.index(body.len())).chain([body.len()]);
        let pieces: Vec<&[u8]> = ends
            .scan(0, |from, end| Some(&body[std::mem::replace(from, end)..end]))
            .collect();
        for generation in [Generation::Desktop, Generation::Operator] {
            let whole = decode_pieces([body], generation).map(|(deltas, completion)| (deltas, completion.result.get().to_owned()));
            let cut = decode_pieces(pieces.iter().copied(), generation)
                .map(|(deltas, completion)| (deltas, completion.result.get().to_owned()));
            prop_assert_eq!(whole.map_err(|failure| failure.text()), cut.map_err(|failure| failure.text()));
        }
    }

    #[test]
    fn an_answer_that_breaks_off_anywhere_is_never_complete(
        lines in prop::collection::vec(line(), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let body = lines.concat() + r#"{"message":{"content":"🦀"},"done":true,"eval_count":7}"#;
        let cut = cut.index(body.len());
        let failure = decode_pieces([&body.as_bytes()[..cut]], Generation::Desktop);
        prop_assert_eq!(failure.map(|_| ()).map_err(|failure| failure.code), Err(Code::Backend));
    }
}

/// A line that does not end an answer, in some of the ways that Ollama may write it, and blank ones.
fn line() -> impl Strategy<Value = String> {
    let call = r#"\{"function":\{"name":"[a-z]{1,3}","arguments":\{"n": [0-9]{1,30}\}\}\}"#;
    let delta = (
        any_json::string(),
        any_json::string(),
        prop::option::of(call),
        any_json::value(),
        "\r?\n|[ \t]\n\n",
    );
    delta.prop_map(|(content, thinking, call, unknown, ending)| {
        let (content, thinking) = (text_or_null(&content), text_or_null(&thinking));
        let calls = call.map(|call| format!(r#","tool_calls":[{call}]"#)).unwrap_or_default();
        format!(
            r#"{{"x":{unknown},"message":{{"content":{content},"thinking":{thinking}{calls}}},"done":false}}{ending}"#
        )
    })
}

/// Half a surrogate pair is no text.
fn text_or_null(json: &str) -> &str {
    if serde_json::from_str::<String>(json).is_ok() {
        json
    } else {
        "null"
    }
}
