//! The stand-in of OpenAI-compatible servers, as an HTTP client sees it; the bytes are those of the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bytes;
mod models;
mod refusals;

use std::time::{Duration, Instant};

use devnet::{
    http::{self, Answer},
    openai::{
        Behaviour, CHAT, Chats, End, Fault, Fixture, MODELS, OpenAi, Refuses, Style, UsageManner,
        lists, spoken,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const JSON: (&str, &str) = ("content-type", "application/json");

const STYLES: [Style; 5] = [
    Style::LlamaServer,
    Style::Vllm,
    Style::Mlx,
    Style::Transformers,
    Style::Ollama,
];

async fn server(style: Style) -> OpenAi {
    with(style, |_| {}).await
}

async fn with(style: Style, change: impl FnOnce(&mut Behaviour)) -> OpenAi {
    OpenAi::builder()
        .style(style)
        .model("tiny")
        .behaviour(change)
        .start()
        .await
        .unwrap()
}

/// A chat of so many tokens with the model that the server has.
fn chat(server: &OpenAi, tokens: u64) -> Value {
    json!({
        "model": server.model_id("tiny"), "messages": [{"role": "user", "content": "alpha beta"}],
        "max_tokens": tokens,
    })
}

fn streamed(server: &OpenAi, tokens: u64) -> Value {
    let mut chat = chat(server, tokens);
    chat["stream"] = json!(true);
    chat["stream_options"] = json!({"include_usage": true});
    chat
}

fn and(mut chat: Value, more: &Value) -> Value {
    chat.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    chat
}

async fn ask(server: &OpenAi, body: &Value) -> Answer {
    http::post_with(&(server.url() + CHAT), &[JSON], body.to_string())
        .await
        .unwrap()
}

/// The events of a stream, without what changes from one to the next in a real one.
fn events(text: &str) -> Vec<String> {
    let bare = |line: &str| {
        let mut line = line.to_owned();
        for part in [
            r#""created":1764000000,"#,
            r#""created": 1764000000, "#,
            r#""id":"chatcmpl-9kT2vQ0b","#,
            r#""id": "chatcmpl-9kT2vQ0b", "#,
            r#""system_fingerprint":"b0-unknown","#,
            r#""system_fingerprint":"fp_ollama","#,
            r#""system_fingerprint": "0.32.2", "#,
        ] {
            line = line.replace(part, "");
        }
        line
    };
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(bare)
        .collect()
}

/// What comes over a connection of one's own, until the server closes it.
async fn raw(server: &OpenAi, request: &str) -> String {
    let mut tcp = TcpStream::connect(server.addr()).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut all = String::new();
    tcp.read_to_string(&mut all).await.unwrap();
    all
}

/// A streamed chat over a connection of one's own that holds until the server closes it.
async fn raw_chat(server: &OpenAi, body: &Value) -> String {
    let body = body.to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(server, &(head + &body)).await
}

/// What came of a stream, and whether it was cut off.
async fn pieces(server: &OpenAi, body: &Value) -> (String, bool) {
    let url = server.url() + CHAT;
    let mut answer = http::post_streaming(&url, body.to_string()).await.unwrap();
    let mut all = Vec::new();
    loop {
        match answer.next().await {
            Ok(Some(piece)) => all.extend(piece),
            Ok(None) => return (String::from_utf8(all).unwrap(), false),
            Err(_) => return (String::from_utf8(all).unwrap(), true),
        }
    }
}

#[tokio::test]
async fn mlx_speaks_http_1_0_without_a_length_and_ends_by_closing() {
    let server = server(Style::Mlx).await;
    let answer = raw_chat(&server, &streamed(&server, 2)).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    let head = answer
        .split("\r\n\r\n")
        .next()
        .unwrap()
        .to_ascii_lowercase();
    assert!(
        !head.contains("content-length") && !head.contains("transfer-encoding"),
        "{head}"
    );
    assert!(
        answer.ends_with("\r\n\r\ndata: [DONE]\n\n") || answer.ends_with("}\n\ndata: [DONE]\n\n")
    );
}

/// Before how many milliseconds the status came, and the first event that says something.
async fn arrivals(server: &OpenAi) -> (Duration, String) {
    let begun = Instant::now();
    let request = streamed(server, 2).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        request.len()
    );
    let mut tcp = TcpStream::connect(server.addr()).await.unwrap();
    tcp.write_all((head + &request).as_bytes()).await.unwrap();
    let mut first = [0; 1000];
    let read = tcp.read(&mut first).await.unwrap();
    (
        begun.elapsed(),
        String::from_utf8_lossy(&first[..read]).into_owned(),
    )
}

#[tokio::test]
async fn the_status_comes_at_once_or_with_the_first_token() {
    let late = Duration::from_millis(300);
    for (style, at_once) in [
        (Style::LlamaServer, false),
        (Style::Vllm, true),
        (Style::Mlx, true),
        (Style::Transformers, true),
        (Style::Ollama, false),
    ] {
        let server = with(style, |behaviour| behaviour.first_token_delay = late).await;
        let (after, first) = arrivals(&server).await;
        assert!(first.starts_with("HTTP/1."), "{first}");
        assert_eq!(after < late, at_once, "{style:?} {after:?}");
    }
}

#[tokio::test]
async fn comments_come_where_and_as_often_as_they_are_wanted() {
    let server = with(Style::Vllm, |behaviour| {
        behaviour.first_token_delay = Duration::from_millis(50);
        behaviour.comment_every = Some(Duration::from_millis(10));
    })
    .await;
    let text = ask(&server, &streamed(&server, 2)).await.text();
    assert!(text.starts_with(": ping\n\n: ping\n\n"), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn faults_strike_where_they_are_told_to_and_then_are_over() {
    let server = server(Style::LlamaServer).await;
    let body = streamed(&server, 5);
    let error = json!({"message": "out of memory"});
    for (fault, cut, last) in [
        (Fault::Cut { after: 2 }, true, "}\n\n"),
        (Fault::Reset { after: 2 }, true, ""),
        (Fault::End { after: 2 }, false, "}\n\n"),
        (
            Fault::ErrorEvent {
                after: 2,
                error: error.clone(),
                done: false,
            },
            false,
            "data: {\"error\":{\"message\":\"out of memory\"}}\n\n",
        ),
        (
            Fault::ErrorEvent {
                after: 2,
                error,
                done: true,
            },
            false,
            "data: {\"error\":{\"message\":\"out of memory\"}}\n\ndata: [DONE]\n\n",
        ),
    ] {
        server.fail_next(CHAT, 1, fault.clone());
        let (text, was_cut) = pieces(&server, &body).await;
        assert_eq!(was_cut, cut, "{fault:?}");
        assert!(
            text.ends_with(last) && !text.contains("finish_reason\":\"length"),
            "{text}"
        );
        assert_eq!(text.matches("content\":\"").count(), 2, "{fault:?}");
    }
    server.fail_next(CHAT, 1, Fault::ResetBeforeHeaders);
    assert!(
        http::post(&(server.url() + CHAT), body.to_string())
            .await
            .is_err()
    );
    server.fail_next(CHAT, 1, Fault::retry_after(429, 7, "{}"));
    let busy = ask(&server, &body).await;
    assert_eq!(
        (busy.status, &busy.headers["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    server.fail_next(CHAT, 1, Fault::SplitEvery(1));
    let (split, _) = pieces(&server, &body).await;
    let whole = ask(&server, &body).await.text();
    assert_eq!(split, whole);
}

#[tokio::test]
async fn a_fixture_is_given_byte_for_byte_with_its_end() {
    let server = server(Style::LlamaServer).await;
    let body = streamed(&server, 5);
    for (end, cut) in [(End::Proper, false), (End::Cut, true), (End::Reset, true)] {
        server.answer_next(Fixture::raw(["data: 1\r\r", "\u{feff}", "x"]).end(end));
        let (text, was_cut) = pieces(&server, &body).await;
        assert_eq!(
            (text.as_str(), was_cut),
            ("data: 1\r\r\u{feff}x", cut),
            "{end:?}"
        );
    }
    server.answer_next(Fixture::over_http_1_0());
    assert!(
        raw_chat(&server, &body)
            .await
            .starts_with("HTTP/1.0 200 OK\r\n")
    );
    server.answer_next(Fixture::crlf().in_writes_of(1));
    let (text, _) = pieces(&server, &body).await;
    assert!(
        text.starts_with(": ping - 2026-01-01 00:00:00\r\n\r\ndata: {"),
        "{text}"
    );
    server.answer_next(Fixture::reset_after_head());
    assert_eq!(pieces(&server, &body).await, (String::new(), true));
    server.answer_next(Fixture::html_with_200());
    assert_eq!(
        ask(&server, &body).await.headers["content-type"],
        "text/html; charset=utf-8"
    );
    let late = Duration::from_millis(200);
    server.answer_next(Fixture::late_head(late));
    let (after, _) = arrivals(&server).await;
    assert!(after >= late, "{after:?}");
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_wherever_the_answer_is() {
    let server = with(Style::LlamaServer, |behaviour| {
        behaviour.token_delay = Duration::from_millis(20);
    })
    .await;
    let url = server.url() + CHAT;
    let faults = [
        Some(Fault::HangBeforeHeaders),
        None,
        Some(Fault::Hang { after: 1 }),
        Some(Fixture::open_after_done().into()),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        if let Some(fault) = fault {
            server.fail_next(CHAT, 1, fault);
        }
        let body = streamed(&server, 1_000).to_string();
        let asking = tokio::spawn({
            let url = url.clone();
            async move {
                let mut answer = http::post_streaming(&url, body).await.unwrap();
                while let Ok(Some(_)) = answer.next().await {}
            }
        });
        server.wait_for_chats(number + 1).await;
        asking.abort();
        server.chat_requests()[number].wait_until_left().await;
        assert_eq!(server.wait_until_idle().await.ever, number + 1);
    }
}

#[tokio::test]
async fn an_answer_stops_where_it_is_told_to_and_a_stop_cuts_it() {
    let server = server(Style::LlamaServer).await;
    server.pause_at(2);
    let url = server.url() + CHAT;
    let mut answer = http::post_streaming(&url, streamed(&server, 4).to_string())
        .await
        .unwrap();
    let mut text = String::new();
    while text.matches("content\":\"").count() < 2 {
        text += &String::from_utf8_lossy(&answer.next().await.unwrap().unwrap());
    }
    assert_eq!(
        server.chats(),
        Chats {
            running: 1,
            ever: 1,
            most: 1
        }
    );
    server.go_on();
    while let Some(piece) = answer.next().await.unwrap() {
        text += &String::from_utf8_lossy(&piece);
    }
    assert!(text.ends_with("data: [DONE]\n\n"));

    server.pause_at(1);
    let mut answer = http::post_streaming(&url, streamed(&server, 4).to_string())
        .await
        .unwrap();
    answer.next().await.unwrap();
    server.stop().await;
    while let Ok(Some(_)) = answer.next().await {}
    assert!(http::get(&(server.url() + MODELS)).await.is_err());
    server.start_again().await.unwrap();
    server.go_on();
    assert_eq!(ask(&server, &chat(&server, 1)).await.status, 200);
}
