//! What becomes of an answer, in whatever pieces and shapes it comes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{any_json, protocol::Generation};

const FINISH: &str = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str =
    r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
const DONE: &str = "data: [DONE]";

/// What came of a body.
#[derive(Debug, PartialEq)]
struct Read {
    /// In the shape of generation 2.
    result: Value,
    deltas: Vec<(ChunkKind, String)>,
    arrival: Arrival,
}

fn context(generation: Generation) -> ResultContext {
    ResultContext {
        generation,
        request_id: "r1".to_owned(),
        created: 1_704_499_200,
        model: "asked".to_owned(),
    }
}

fn decoder(limit: usize) -> Box<ChatDecoder> {
    let mut decoder = Box::<ChatDecoder>::default();
    decoder.limit(limit);
    decoder
}

/// Reads a body that comes in these pieces.
fn read_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Read, Failure> {
    let (mut decoder, mut deltas) = (decoder(1_000_000), Deltas::default());
    let mut said = Vec::new();
    for piece in pieces {
        decoder.feed(piece, &mut deltas)?;
        said.extend(deltas.drain());
    }
    let arrival = decoder.arrival();
    let completion = decoder.finish(&mut deltas, &context(Generation::Operator))?;
    said.extend(deltas.drain());
    Ok(Read {
        result: serde_json::from_str(completion.result.get()).unwrap(),
        deltas: said,
        arrival,
    })
}

fn read(body: &str) -> Result<Read, Failure> {
    read_pieces([body.as_bytes()])
}

/// A stream of these lines, each an event.
fn stream(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n\n")).collect()
}

fn delta(delta: &Value) -> String {
    let chunk = json!({"choices": [{"index": 0, "delta": delta}]});
    format!("data: {chunk}")
}

fn said(text: &str) -> String {
    delta(&json!({"content": text}))
}

fn answer(lines: &[&str]) -> Value {
    read(&stream(lines)).unwrap().result
}

fn message(lines: &[&str]) -> Value {
    answer(lines)["choices"][0]["message"].clone()
}

fn failure(body: &str) -> String {
    read(body).unwrap_err().text()
}

/// What four servers sent, shortened.
fn streams_of_real_servers() -> [String; 4] {
    [
        // llama-server
        stream(&[
            r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"object":"chat.completion.chunk"}"#,
            r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" life"}}],"object":"chat.completion.chunk"}"#,
            r#"data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"object":"chat.completion.chunk"}"#,
            r#"data: {"choices":[],"object":"chat.completion.chunk","usage":{"completion_tokens":3,"prompt_tokens":57,"total_tokens":60,"prompt_tokens_details":{"cached_tokens":0}},"timings":{"cache_n":0,"prompt_n":57,"predicted_n":3}}"#,
            DONE,
        ]),
        // vLLM
        stream(&[
            ": keep-alive",
            r#"data: {"object":"chat.completion.chunk","model":"/models/x","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null}"#,
            r#"data: {"choices":[{"index":0,"delta":{"content":" life"},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":57,"total_tokens":58,"completion_tokens":1}}"#,
            r#"data: {"choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null}]}"#,
            r#"data: {"choices":[],"usage":{"prompt_tokens":57,"total_tokens":60,"completion_tokens":3}}"#,
            DONE,
        ]),
        // mlx_lm
        stream(&[
            ": keepalive 1/1",
            r#"data: {"object": "chat.completion.chunk", "choices": [{"index": 0, "finish_reason": null, "delta": {"role": "assistant", "content": " life"}}]}"#,
            r#"data: {"object": "chat.completion.chunk", "choices": [{"index": 0, "finish_reason": "length", "delta": {"role": "assistant"}}]}"#,
            r#"data: {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 57, "completion_tokens": 3, "total_tokens": 60}}"#,
            DONE,
        ]),
        // transformers
        stream(&[
            r#"data: {"choices":[{"delta":{"role":"assistant"},"index":0}],"model":"DIR@main","object":"chat.completion.chunk","system_fingerprint":""}"#,
            r#"data: {"choices":[{"delta":{"content":" life"},"index":0}],"model":"DIR@main","object":"chat.completion.chunk"}"#,
            r#"data: {"choices":[{"delta":{},"index":0,"finish_reason":"length"}],"usage":{"completion_tokens":3,"prompt_tokens":57,"total_tokens":60}}"#,
        ]),
    ]
}

#[test]
fn the_answer_of_each_server_comes_out_the_same() {
    let whole = r#"{"id":"x","object":"chat.completion","model":"/m/x","choices":[{"index":0,"message":{"role":"assistant","content":" life"},"finish_reason":"length"}],"usage":{"prompt_tokens":57,"completion_tokens":3,"total_tokens":60}}"#;
    let expected = json!({
        "id": "r1", "object": "chat.completion", "created": 1_704_499_200, "model": "asked",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": " life"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 57, "completion_tokens": 3, "total_tokens": 60},
    });
    let bodies = streams_of_real_servers();
    for body in bodies.iter().map(String::as_str).chain([whole]) {
        let read = read(body).unwrap();
        assert_eq!(read.result, expected, "{body}");
        assert_eq!(read.deltas, [(ChunkKind::Content, " life".to_owned())]);
    }
}

#[test]
fn a_desktop_client_gets_ollamas_final_object() {
    let call =
        json!([{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]);
    let body = stream(&[
        &delta(&json!({"reasoning": "hm"})),
        &said("a"),
        &delta(&json!({"tool_calls": call})),
        FINISH,
        USAGE,
    ]);
    let (mut decoder, mut deltas) = (decoder(1_000), Deltas::default());
    decoder.feed(body.as_bytes(), &mut deltas).unwrap();
    let completion = decoder.finish(&mut deltas, &context(Generation::Desktop));
    let completion = completion.unwrap();
    let result: Value = serde_json::from_str(completion.result.get()).unwrap();
    assert_eq!(
        result,
        json!({
            "model": "asked", "created_at": "2024-01-06T00:00:00Z", "done": true, "done_reason": "stop",
            "message": {
                "role": "assistant", "content": "a", "thinking": "hm",
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}],
            },
            "prompt_eval_count": 7, "eval_count": 3,
        })
    );
    let counts = (completion.prompt_tokens, completion.generation_tokens);
    assert_eq!(counts, (7, 3));
}

#[test]
fn thinking_is_read_under_either_name_and_once() {
    for (first, expected) in [
        (json!({"reasoning_content": "hm"}), "hm"),
        (json!({"reasoning": "hm", "content": null}), "hm"),
        (json!({"reasoning_content": "hm", "reasoning": "hm"}), "hm"),
        (json!({"reasoning_content": "", "reasoning": "hm"}), "hm"),
        (
            json!({"reasoning_content": null, "reasoning": {"x": 1}}),
            "",
        ),
    ] {
        let body = stream(&[&delta(&first), &said("<think>a"), FINISH, USAGE]);
        let read = read(&body).unwrap();
        let message = &read.result["choices"][0]["message"];
        assert_eq!(message["content"], "<think>a");
        assert_eq!(message["thinking"].as_str().unwrap_or_default(), expected);
        let thought = (ChunkKind::Thinking, expected.to_owned());
        let thought = Some(thought).filter(|(_, text)| !text.is_empty());
        let said = (ChunkKind::Content, "<think>a".to_owned());
        let expected: Vec<_> = thought.into_iter().chain([said]).collect();
        assert_eq!(read.deltas, expected);
    }
}

#[test]
fn an_answer_is_whole_with_a_finish_reason_or_done_and_never_without() {
    let text = said("a");
    for (rest, arrival) in [
        (vec![DONE], Arrival::Whole),
        (vec![FINISH], Arrival::AllButCounts),
        (vec![FINISH, DONE], Arrival::Whole),
        (vec![FINISH, USAGE], Arrival::Whole),
        (vec![USAGE, FINISH], Arrival::AllButCounts),
        (
            vec![FINISH, DONE, r#"data: {"error":"late"}"#],
            Arrival::Whole,
        ),
    ] {
        let lines: Vec<&str> = [&*text].into_iter().chain(rest).collect();
        let read = read(&stream(&lines)).unwrap();
        assert_eq!(read.arrival, arrival, "{lines:?}");
    }
    let no_reason = r#"data: {"choices":[{"delta":{},"finish_reason":""}]}"#;
    for cut in [
        String::new(),
        stream(&[&text]),
        stream(&[&text, USAGE]),
        stream(&[&text, no_reason]),
    ] {
        let text = "backend: the answer ended before it was complete";
        assert_eq!(failure(&cut), text, "{cut}");
    }
    let in_the_middle = stream(&[&text]) + r#"data: {"cho"#;
    assert_eq!(
        failure(&in_the_middle),
        "backend: the answer cannot be read"
    );
}

#[test]
fn a_last_event_without_a_blank_line_counts() {
    for end in ["", "\n", "\r", "\r\n"] {
        let body = stream(&[&said("a"), FINISH]) + USAGE + end;
        let read = read(&body).unwrap();
        assert_eq!(read.result["usage"]["total_tokens"], 10, "{end:?}");
        let finished = stream(&[&said("a")]) + FINISH + end;
        let read = read_pieces([finished.as_bytes()]).unwrap();
        assert_eq!(read.result["choices"][0]["message"]["content"], "a");
    }
}

#[test]
fn what_is_cut_off_behind_an_answers_end_takes_nothing_from_it() {
    let whole = stream(&[&said("a"), FINISH]);
    let tails = [USAGE, DONE, r#"data: {"error":"no"}"#, "data: hello"];
    for tail in tails {
        for rest in ["", "\n\n", "\n\ndata: [DONE]\n\n"] {
            for end in 0..tail.len() {
                let body = format!("{whole}{}{rest}", &tail[..end]);
                let read = read(&body).unwrap();
                let content = &read.result["choices"][0]["message"]["content"];
                assert_eq!(content, "a", "{body}");
            }
        }
    }
    let with_error = format!(r#"{whole}data: {{"error":"no"}}"#);
    assert_eq!(failure(&with_error), "backend: no");
}

#[test]
fn an_error_wins_over_what_follows_it() {
    let text = said("a");
    for (error, words) in [
        (
            r#"{"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}"#,
            "EngineCore died",
        ),
        (r#"{"error":"text"}"#, "text"),
        (
            r#"{"error":{"message":"out of memory","trace":"x"}}"#,
            "out of memory",
        ),
        (
            r#"{"object":"error","message":"flat","type":"x","code":400}"#,
            "flat",
        ),
        (r#"{"detail":"no"}"#, "no"),
        (
            r#"{"detail":[{"loc":[],"msg":"field required"}]}"#,
            "field required",
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"abort"}]}"#,
            "the model server gave the answer up (abort)",
        ),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"error":{"message":"both"}}"#,
            "both",
        ),
    ] {
        let error = format!("data: {error}");
        for rest in [vec![], vec![DONE], vec![FINISH, USAGE, DONE]] {
            let lines: Vec<&str> = [&*text, &error].into_iter().chain(rest).collect();
            let told = failure(&stream(&lines));
            assert_eq!(told, format!("backend: {words}"), "{lines:?}");
        }
        let after_the_end = stream(&[&text, FINISH, &error]);
        assert_eq!(failure(&after_the_end), format!("backend: {words}"));
    }
}

#[test]
fn what_is_no_stream_is_told() {
    let unreadable = "backend: the answer cannot be read";
    let html = "backend: the answer cannot be read: HTML came";
    for (body, text) in [
        (
            r#"{"error":"Unexpected endpoint or method. (POST /v1/x)"}"#,
            "backend: Unexpected endpoint or method. (POST …)",
        ),
        (r#"{"detail":[{"msg":"m"}]}"#, "backend: m"),
        ("<!doctype html><html>", html),
        ("\n <html>", html),
        ("{}", unreadable),
        ("[]", unreadable),
        (r#"{"choices":[{"#, unreadable),
        ("data: nonsense\n\n", unreadable),
        (
            "page not found",
            "backend: the answer ended before it was complete",
        ),
    ] {
        assert_eq!(failure(body), text, "{body}");
    }
}

#[test]
fn odd_events_are_taken_for_what_they_say() {
    for odd in [
        r#"data: {"choices":[{"index":0,"delta":null,"finish_reason":null}]}"#,
        r#"data: {"choices":[{"index":0}]}"#,
        r#"data: {"choices":null}"#,
        r#"data: {"choices":[7,null,{"index":1,"delta":{"content":"other"}}]}"#,
        r#"data: {"choices":[{"index":18446744073709551616,"delta":{"content":"other"}}]}"#,
        r#"data: {"choices":[{"delta":{"content":"","tool_calls":null}}],"usage":null}"#,
        r#"data: {"prompt_progress":{"total":1}}"#,
        "event: ping\ndata:",
        "retry: 3000\nid: 7\ndata: ",
        ": ping - 2026-11-27",
    ] {
        let lines = [&said("a"), odd, &said("b"), FINISH, DONE];
        assert_eq!(message(&lines)["content"], "ab", "{odd}");
    }
    let parts = json!([{"type": "text", "text": "a"}, {"text": null}, {"text": "b"}]);
    let parts = delta(&json!({"content": parts}));
    assert_eq!(message(&[&parts, DONE])["content"], "ab");
    let with_end = r#"data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#;
    assert_eq!(message(&[with_end])["content"], "a");
}

#[test]
fn counts_are_the_servers_last_ones_and_never_added_up() {
    let text = said("a");
    let early = r#"data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}"#;
    let timings = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}],"timings":{"cache_n":5,"prompt_n":2,"predicted_n":3}}"#;
    let odd = r#"data: {"choices":[],"usage":{"prompt_tokens":7.0,"completion_tokens":"x"}}"#;
    let none = r#"data: {"choices":[],"usage":null}"#;
    let empty = r#"data: {"choices":[],"usage":{"prompt_tokens":null,"details":{}},"timings":{}}"#;
    let other_timings = r#"data: {"choices":[],"timings":{"prompt_n":50,"predicted_n":70}}"#;
    for (lines, prompt, generation) in [
        (vec![&*text, FINISH, DONE], 0, 0),
        (vec![early, early, FINISH, DONE], 7, 1),
        (vec![early, FINISH, USAGE, DONE], 7, 3),
        (vec![&*text, FINISH, none, USAGE], 7, 3),
        (vec![&*text, timings, DONE], 7, 3),
        (vec![&*text, FINISH, odd], 7, 0),
        (vec![&*text, FINISH, USAGE, empty, DONE], 7, 3),
        (vec![early, FINISH, other_timings, DONE], 7, 1),
    ] {
        let usage = &answer(&lines)["usage"];
        let counts = (&usage["prompt_tokens"], &usage["completion_tokens"]);
        assert_eq!(counts, (&json!(prompt), &json!(generation)), "{lines:?}");
    }
}

#[test]
fn calls_are_put_together_and_end_as_calls_whatever_the_finish_reason() {
    let fragment = |calls: Value| delta(&json!({"tool_calls": calls}));
    let answer = answer(&[
        &fragment(json!([{"index": 0, "id": "9X", "function": {"name": "get", "arguments": "{"}}])),
        &fragment(json!([{"index": 0, "function": {"arguments": "\"a\":\"b\\n\"}"}}])),
        &fragment(json!([{"index": 1, "function": {"name": "other"}}])),
        FINISH,
        DONE,
    ]);
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let expected = [
        call("9X", "get", r#"{"a":"b\n"}"#),
        call("call_r1_1", "other", "{}"),
    ];
    assert_eq!(choice["message"]["tool_calls"], json!(expected));
}

#[test]
fn log_probabilities_are_joined_and_odd_numbers_in_them_cost_nothing() {
    let with = |tokens: &str| {
        format!(
            r#"data: {{"choices":[{{"delta":{{"content":"a"}},"logprobs":{{"content":{tokens}}}}}]}}"#
        )
    };
    let first = with(r#"[{"token":"a","logprob":-0.5,"top_logprobs":[]}]"#);
    let second = with(r#"[{"token":"NaN","logprob":NaN,"top_logprobs":[]}]"#);
    let answer = answer(&[&first, &second, &with("null"), DONE]);
    let choice = &answer["choices"][0];
    assert_eq!(
        choice["logprobs"]["content"],
        json!([
            {"token": "a", "logprob": -0.5, "top_logprobs": []},
            {"token": "NaN", "logprob": null, "top_logprobs": []},
        ])
    );
    assert_eq!(choice["message"]["content"], "aaa");
}

#[test]
fn characters_come_whole_however_they_are_cut_and_escaped() {
    let first = r#"data: {"choices":[{"delta":{"content":"\ud83e"}}]}"#;
    let second = r#"data: {"choices":[{"delta":{"content":"\udd80é"}}]}"#;
    assert_eq!(message(&[first, second, DONE])["content"], "🦀é");
    assert_eq!(message(&[first, DONE])["content"], "\u{fffd}");
    let mut bad = stream(&[&said("a?b"), DONE]).into_bytes();
    let at = bad.iter().position(|byte| *byte == b'?').unwrap();
    bad[at] = 0xe9;
    let read = read_pieces([&bad[..]]).unwrap();
    let content = &read.result["choices"][0]["message"]["content"];
    assert_eq!(content, "a\u{fffd}b");
}

#[test]
fn comments_roles_and_counts_are_no_part_of_the_answer() {
    let call = json!([{"index": 0, "function": {"name": "f"}}]);
    let (mut decoder, mut deltas) = (decoder(1_000), Deltas::default());
    for (line, brings) in [
        (": ping".to_owned(), false),
        (delta(&json!({"role": "assistant", "content": null})), false),
        (delta(&json!({"role": "assistant", "content": ""})), false),
        (said("a"), true),
        (delta(&json!({"reasoning": "a"})), true),
        (delta(&json!({"tool_calls": call})), true),
        (USAGE.to_owned(), false),
    ] {
        let brought = decoder.feed(format!("{line}\n\n").as_bytes(), &mut deltas);
        assert_eq!(brought.unwrap(), brings, "{line}");
    }
}

#[test]
fn what_is_kept_is_bounded_whatever_it_is() {
    let big = "x".repeat(600);
    let call = |name: &str| {
        delta(&json!({"tool_calls": [{"index": 0, "function": {"name": name, "arguments": big}}]}))
    };
    for lines in [
        [said(&big), said(&big)],
        [said(&big), delta(&json!({"reasoning": big}))],
        [call("f"), call("")],
        [call("f"), said(&big)],
    ] {
        let (mut decoder, mut deltas) = (decoder(1_000), Deltas::default());
        let mut feed = |line: &str| decoder.feed(format!("{line}\n\n").as_bytes(), &mut deltas);
        assert!(feed(&lines[0]).is_ok());
        assert_eq!(feed(&lines[1]).unwrap_err().code, Code::TooLarge);
    }
    for endless in ["data: ", "{"] {
        let (mut decoder, mut deltas) = (decoder(1_000), Deltas::default());
        decoder.feed(endless.as_bytes(), &mut deltas).unwrap();
        let filler = vec![b'x'; LINE_BEYOND + 1_001];
        let refused = decoder.feed(&filler, &mut deltas).unwrap_err();
        assert_eq!(refused.code, Code::TooLarge, "{endless}");
    }
}

/// The pieces of a text that is cut at these thousandths of its length.
fn pieces<'a>(body: &'a str, cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut * body.len() / 1_000).collect();
    cuts.sort_unstable();
    cuts.push(body.len());
    let mut start = 0;
    let mut pieces = Vec::new();
    for end in cuts {
        pieces.push(&body.as_bytes()[start..end]);
        start = end;
    }
    pieces
}

proptest! {
    #[test]
    fn where_a_read_ends_makes_no_difference(
        cuts in prop::collection::vec(0..1_000usize, 0..12),
        end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
    ) {
        let call = json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]);
        let lines = [
            ": ping".to_owned(),
            delta(&json!({"role": "assistant", "content": null})),
            delta(&json!({"reasoning_content": "h🦀"})),
            said("é"),
            delta(&json!({"tool_calls": call})),
            FINISH.to_owned(),
            USAGE.to_owned(),
            DONE.to_owned(),
        ];
        let body: String = lines.iter().map(|line| format!("{line}{end}{end}")).collect();
        prop_assert_eq!(read_pieces(pieces(&body, &cuts)).unwrap(), read(&body).unwrap());
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), chunk in any_json::value()) {
        let _ = read_pieces([&body[..]]);
        let _ = read(&chunk);
        let _ = read(&format!("data: {chunk}\n\n"));
        let in_a_choice = format!(r#"{{"choices":[{{"delta":{chunk},"logprobs":{chunk}}}],"usage":{chunk}}}"#);
        let _ = read(&format!("data: {in_a_choice}\n\n"));
    }
}
