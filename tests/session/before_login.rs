//! A gateway that says all sorts of things before it says whether the login is good. Only AUTH_SUCCESS lets in, only an
//! ERROR or a Close that says so refuses, and nothing makes the login last longer than it may.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use async_tungstenite::{
    WebSocketStream,
    tokio::{TokioAdapter, accept_async},
    tungstenite::{
        Message,
        protocol::frame::{
            CloseFrame, Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    next_attempt, quick,
    support::{CLIENT, Sidecar, ollama},
};

type Socket = WebSocketStream<TokioAdapter<TcpStream>>;

/// A gateway's end of a connection, played by the test.
struct Raw {
    listener: TcpListener,
}

impl Raw {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Lets the agent connect, up to its AUTH.
    async fn accept(&self) -> Socket {
        let accepted = timeout(devnet::PATIENCE, self.listener.accept()).await;
        let mut socket = accept_async(accepted.unwrap().unwrap().0).await.unwrap();
        assert_eq!(next(&mut socket).await["type"], "AUTH");
        socket
    }
}

/// The next frame of the protocol.
async fn next(socket: &mut Socket) -> Value {
    loop {
        let message = timeout(devnet::PATIENCE, socket.next()).await.unwrap();
        if let Message::Text(text) = message.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn start(gateway: &Raw, settings: &[(&str, &str)]) -> (devnet::ollama::Ollama, Sidecar) {
    let ollama = ollama().await;
    let url = format!("ws://{}", gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &url, &ollama.url(), &quick(settings));
    (ollama, sidecar)
}

/// What means nothing before a login.
fn nonsense() -> Vec<Message> {
    let request = json!({"type": "INFERENCE_REQUEST", "request_id": "early", "payload": {}});
    let mut messages: Vec<_> = [
        "",
        "{",
        "[]",
        r#"{"type":"auth_success"}"#,
        r#"{"type":["AUTH_SUCCESS"]}"#,
        r#"{"type":"AUTH_SUCCESS","type":"AUTH_SUCCESS"}"#,
        r#"{"type":"HEARTBEAT_ACK"}"#,
        r#"{"type":"RESULT_ACK","request_id":"never sent"}"#,
        r#"{"type":"CANCEL_REQUEST","request_id":"never seen"}"#,
        r#"{"type":"INTERVIEW_FAILED","retry_after_seconds":1e18}"#,
        &request.to_string(),
        &"[".repeat(10_000),
    ]
    .map(Message::text)
    .into();
    messages.push(Message::binary(&b"{\"type\":\"AUTH_SUCCESS\"}"[..]));
    messages.push(Message::Ping(b"early"[..].into()));
    messages.push(Message::Pong(b"\0\0\0\0\0\0\0\x01"[..].into()));
    messages
}

#[tokio::test]
async fn only_the_verdict_counts_and_what_came_before_it_is_forgotten() {
    let gateway = Raw::start().await;
    let (_ollama, sidecar) = start(&gateway, &[]).await;
    let mut socket = gateway.accept().await;
    for message in nonsense() {
        socket.send(message).await.unwrap();
    }
    socket
        .send(Message::text(r#"{"type":"PING"}"#))
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await, json!({"type": "PONG"}));
    assert_eq!(sidecar.metric("session_up").await, 0.0);
    socket
        .send(Message::text(r#"{"type":"AUTH_SUCCESS","operator_id":7}"#))
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await["type"], "REGISTER_NODE");
    assert_eq!(next(&mut socket).await["type"], "MODEL_LIST");
    assert_eq!(sidecar.metric("session_up").await, 1.0);
    assert_eq!(sidecar.metric("requests_running").await, 0.0);
}

#[tokio::test]
async fn no_flood_makes_a_login_last_longer_than_it_may() {
    const LIMIT: Duration = Duration::from_millis(300);
    let gateway = Raw::start().await;
    let (_ollama, sidecar) = start(&gateway, &[("PIN_CONNECT_TIMEOUT", "300ms")]).await;
    let mut socket = gateway.accept().await;
    let began = Instant::now();
    let flood = async {
        // Until the agent is gone.
        while socket
            .feed(Message::text(r#"{"type":"RESULT_ACK"}"#))
            .await
            .is_ok()
        {}
    };
    timeout(devnet::PATIENCE, flood).await.unwrap();
    let took = began.elapsed();
    assert!((LIMIT..LIMIT * 5).contains(&took), "{took:?}");
    assert_eq!(
        sidecar
            .metric("connect_failures_total{reason=\"timeout\"}")
            .await,
        1.0
    );
    gateway.accept().await;
}

#[tokio::test]
async fn what_may_not_be_read_during_a_login_is_tried_again_later() {
    let not_utf8 = Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true);
    for message in [
        Message::text("x".repeat(64 * 1024 + 1)),
        Message::Frame(not_utf8),
        Message::Frame(Frame::message("x", OpCode::Data(Data::Continue), true)),
        Message::Close(None),
    ] {
        let gateway = Raw::start().await;
        let (_ollama, sidecar) = start(&gateway, &[("PIN_MAX_FRAME_BYTES", "64KiB")]).await;
        let mut socket = gateway.accept().await;
        socket.send(message).await.unwrap();
        let mut second = gateway.accept().await;
        second
            .send(Message::text(r#"{"type":"AUTH_SUCCESS"}"#))
            .await
            .unwrap();
        assert_eq!(next(&mut second).await["type"], "REGISTER_NODE");
        assert_eq!(sidecar.metric("connect_attempts_total").await, 2.0);
    }
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::from(code),
        reason: reason.to_owned().into(),
    }))
}

/// What `/readyz` says after logins that were answered with a Close of these codes, one after the other.
async fn told_after_closes(codes: &[u16]) -> String {
    let gateway = Raw::start().await;
    let (_ollama, sidecar) = start(&gateway, &[]).await;
    for code in codes {
        let mut socket = gateway.accept().await;
        socket
            .send(close(*code, "no\u{7} such operator"))
            .await
            .unwrap();
    }
    let (last, times) = (codes[codes.len() - 1], codes.len());
    let words = format!("it closed the link with code {last} (no  such operator)");
    let attempts = "connect_attempts_total";
    sidecar
        .wait_for_metric(attempts, |count| count >= times as f64)
        .await;
    sidecar.wait_until_pending(&words).await.remove(0)
}

#[tokio::test]
async fn a_close_in_place_of_an_answer_is_told_with_its_code_and_reason_and_tried_again_soon() {
    for codes in [&[1008][..], &[1011], &[4400], &[1008, 1011, 1008]] {
        let told = told_after_closes(codes).await;
        assert!(
            told.contains("did not answer the login: it closed"),
            "{codes:?}: {told}"
        );
    }
}

#[tokio::test]
async fn a_close_that_says_no_and_a_second_one_for_reasons_of_policy_are_refused_logins() {
    for codes in [&[4401][..], &[4403], &[1008, 1008], &[1011, 1008, 1008]] {
        let told = told_after_closes(codes).await;
        assert!(
            told.contains("The gateway refused the login (it closed"),
            "{codes:?}: {told}"
        );
        let wait = next_attempt(&[told]);
        assert!((46..=72).contains(&wait.as_secs()), "{wait:?}");
    }
}
