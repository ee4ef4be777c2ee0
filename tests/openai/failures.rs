//! What becomes of answers that are none.

use std::time::Duration;

use devnet::openai::{CHAT, End, Fault, Fixture, OpenAi, Style, spoken};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    Net, OFTEN, chat, server,
    support::{CLIENT, DESKTOP},
};

const OUT_OF_MEMORY: &str = "backend: out of memory";

/// Answers that fail, with what the consumer is told; empty where the words are the sidecar's own.
fn failing() -> Vec<(&'static str, Fault, &'static str)> {
    vec![
        (
            "error, then [DONE]",
            Fixture::error_then_done().into(),
            "backend: EngineCore encountered an issue. See stack trace (above) for the root cause.",
        ),
        (
            "error, then the end",
            Fixture::error_then_end().into(),
            OUT_OF_MEMORY,
        ),
        (
            "error after finish_reason",
            Fixture::error_after_finish_reason().into(),
            OUT_OF_MEMORY,
        ),
        (
            "error beside choices",
            Fixture::error_beside_choices().into(),
            OUT_OF_MEMORY,
        ),
        (
            "error as a string",
            Fixture::error_as_string().into(),
            OUT_OF_MEMORY,
        ),
        ("flat error", Fixture::flat_error().into(), OUT_OF_MEMORY),
        ("detail", Fixture::detail_error().into(), OUT_OF_MEMORY),
        (
            "event: error",
            Fixture::error_with_event_line().into(),
            OUT_OF_MEMORY,
        ),
        ("half, then the end", Fixture::half(End::Proper).into(), ""),
        ("half, then cut", Fixture::half(End::Cut).into(), ""),
        ("half, then reset", Fixture::half(End::Reset).into(), ""),
        ("JSON cut by the close", Fixture::cut_json().into(), ""),
        ("no JSON", Fixture::not_json().into(), ""),
        ("abort", Fixture::finish_reason(r#""abort""#).into(), ""),
        ("error", Fixture::finish_reason(r#""error""#).into(), ""),
        ("null, then the end", Fixture::half(End::Proper).into(), ""),
        (
            "reset after the head",
            Fixture::reset_after_head().into(),
            "",
        ),
        ("nothing", Fixture::nothing(), ""),
        (
            "200 with an error",
            Fixture::error_with_200(),
            "backend: Unexpected endpoint or method. (POST …)",
        ),
        ("200 with a page", Fixture::html_with_200(), ""),
        ("cut before a token", Fault::Cut { after: 0 }, ""),
        ("end before a token", Fault::End { after: 0 }, ""),
        ("reset before the head", Fault::ResetBeforeHeaders, ""),
    ]
}

#[tokio::test]
async fn an_answer_that_fails_is_a_failure_and_the_next_one_is_served() {
    let net = Net::start().await;
    for (name, fault, words) in failing() {
        // What has just served is not tried for one failure.
        net.ask(&json!({"max_tokens": 1})).await.result();
        let before = net.server.chats().ever;
        let outcome = net.answered(fault).await;
        let error = outcome.answer.clone().expect_err(name);
        assert!(error.starts_with("backend: "), "{name}: {error}");
        if !words.is_empty() {
            assert_eq!(error, words, "{name}");
        }
        assert!(!error.contains('<'), "{name}: {error}");
        let after = net.server.chats().ever;
        assert_eq!(after, before + 1, "{name}: it was asked again");
    }
    net.ask(&json!({"max_tokens": 1})).await.result();
    net.server.wait_until_idle().await;
}

/// As llama-server does, without a word of it in the answer's head.
#[tokio::test]
async fn a_server_that_closes_its_connections_behind_its_answers_costs_no_chat() {
    let settings = [("PIN_CAPACITY", "4"), ("PIN_QUEUE", "200"), OFTEN];
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &settings).await;
    // Each begins in the moment in which another ends, and the looks go on among them.
    let chats: Vec<_> = (0..200)
        .map(|_| net.gateway.chat(chat(&json!({"max_tokens": 1}))))
        .collect();
    for mut chat in chats {
        chat.outcome().await.result();
    }
    let lists = net.gateway.frames();
    let withdrawn = lists
        .iter()
        .filter(|frame| frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([]));
    assert_eq!(withdrawn.count(), 0);
}

#[tokio::test]
async fn a_failure_is_one_for_a_desktop_client_too() {
    let server = server(Style::LlamaServer).await;
    let net = Net::with(DESKTOP, server, &[]).await;
    for (name, fault, _) in failing() {
        net.ask(&json!({"max_tokens": 1})).await.result();
        net.server.answer_next(fault);
        let outcome = net.ask(&json!({})).await;
        assert!(outcome.answer.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words_and_not_asked_again() {
    let net = Net::start().await;
    for (status, body, words) in [
        (
            400,
            r#"{"error":{"message":"too many words","code":400}}"#,
            "too many words",
        ),
        (
            400,
            r#"{"error":{"message":"too many words","code":"context_length_exceeded"}}"#,
            "too many words",
        ),
        (400, r#"{"error":"too many words"}"#, "too many words"),
        (
            400,
            r#"{"object":"error","message":"too many words","code":400}"#,
            "too many words",
        ),
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"too many words","input":"alpha"}]}"#,
            "too many words",
        ),
        (400, r#"{"detail":"too many words"}"#, "too many words"),
        (
            404,
            r#"{"error":{"message":"too many words"}}"#,
            "too many words",
        ),
        (
            409,
            r#"{"error":{"code":"model_not_admitted","message":"too many words","retryable":false}}"#,
            "too many words",
        ),
        (
            500,
            r#"{"error":{"message":"too many words"}}"#,
            "too many words",
        ),
        (502, "<html><title>Bad Gateway</title></html>", ""),
        (500, "Internal Server Error", ""),
    ] {
        net.ask(&json!({"max_tokens": 1})).await.result();
        let before = net.server.chats().ever;
        let outcome = net
            .answered(Fault::answer(status, "application/json", body))
            .await;
        let error = outcome.error();
        assert!(error.contains(words), "{status} {body}: {error}");
        assert!(!error.contains('<') && !error.contains("alpha"), "{error}");
        assert_eq!(
            net.server.chats().ever,
            before + 1,
            "{status}: it was asked again"
        );
    }
}

#[tokio::test]
async fn a_server_that_has_no_time_just_now_is_told_as_that() {
    let net = Net::start().await;
    for (status, body) in [
        (
            429,
            r#"{"error":{"message":"The request queue is full.","code":429}}"#,
        ),
        (
            503,
            r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
        ),
    ] {
        let outcome = net.answered(Fault::retry_after(status, 1, body)).await;
        assert!(outcome.answer.is_err(), "{status}");
        net.ask(&json!({})).await.result();
    }
}

#[tokio::test]
async fn an_error_that_comes_after_tokens_ends_the_chat_at_once() {
    let net = Net::start().await;
    let error = json!({"message": "out of memory"});
    for done in [false, true] {
        let error = error.clone();
        let outcome = net
            .answered(Fault::ErrorEvent {
                after: 3,
                error,
                done,
            })
            .await;
        assert_eq!(outcome.error(), OUT_OF_MEMORY);
        assert_eq!(outcome.streamed("content"), spoken("alpha beta", 3));
    }
}

#[tokio::test]
async fn an_answer_without_bounds_is_cut_and_its_server_left() {
    let server = OpenAi::builder().model("tiny").start().await.unwrap();
    let settings = [("PIN_MAX_RESULT_BYTES", "64KiB")];
    let net = Net::with(CLIENT, server, &settings).await;
    for fault in [
        Fault::Garbage { bytes: u64::MAX },
        Fixture::larger_than(300_000).end(End::StayOpen).into(),
    ] {
        let outcome = net.answered(fault).await;
        assert!(outcome.answer.is_err());
        net.server.wait_until_idle().await;
    }
    net.ask(&json!({})).await.result();
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_in_time() {
    let settings = [
        ("PIN_FIRST_TOKEN_TIMEOUT", "200ms"),
        ("PIN_TOKEN_TIMEOUT", "200ms"),
    ];
    let server = OpenAi::builder().model("tiny").start().await.unwrap();
    let net = Net::with(CLIENT, server, &settings).await;
    let every = Duration::from_millis(20);
    for fault in [
        Fault::HangBeforeHeaders,
        Fault::Hang { after: 0 },
        Fault::Hang { after: 2 },
        // Comments are life of the connection, and no token.
        Fixture::comments(1_000, every).into(),
    ] {
        let begun = Instant::now();
        let name = format!("{fault:?}");
        let outcome = net.answered(fault).await;
        assert!(outcome.answer.is_err(), "{name}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}");
        net.server.wait_until_idle().await;
    }
}

#[tokio::test]
async fn a_cancelled_chat_frees_the_server_wherever_it_is_and_says_nothing_more() {
    let settings = [("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")];
    let server = OpenAi::builder().model("tiny").start().await.unwrap();
    let net = Net::with(CLIENT, server, &settings).await;
    for (number, fault) in [
        Fault::HangBeforeHeaders,
        Fault::Hang { after: 3 },
        Fixture::comments(10_000, Duration::from_millis(10)).into(),
        Fixture::open_after_finish_reason().into(),
    ]
    .into_iter()
    .enumerate()
    {
        net.server.answer_next(fault);
        // What does not stream is streamed all the same.
        let cancelled = net.gateway.chat(chat(&json!({})));
        net.server.wait_for_chats(2 * number + 1).await;
        net.gateway.cancel(cancelled.id());
        net.server.chat_requests()[2 * number]
            .wait_until_left()
            .await;
        net.server.wait_until_idle().await;
        net.ask(&json!({})).await.result();
        assert_eq!(
            net.gateway.books().deliveries(cancelled.id()),
            Default::default()
        );
    }
}

#[tokio::test]
async fn a_server_that_goes_away_in_the_middle_costs_its_answer_and_no_more() {
    let net = Net::start().await;
    net.server.pause_at(3);
    let mut running = net.chat(&json!({"stream": true}));
    running.next().await;
    net.server.stop().await;
    let outcome = running.outcome().await;
    assert!(
        outcome.error().starts_with("backend: "),
        "{}",
        outcome.error()
    );
    net.server.go_on();
    net.server.start_again().await.unwrap();
    net.sidecar.wait_until_pending("").await;
    net.ask(&json!({})).await.result();
    assert_eq!(
        net.server
            .requests()
            .iter()
            .filter(|request| request.path == CHAT)
            .count(),
        2
    );
}
