//! `POST /drain` and what follows it: the process stays, and serves again when it is asked to or when Ollama alone was
//! restarted, to which `/drain` is a hook.

use std::{sync::Arc, time::Duration};

use devnet::{
    gateway::{Chat, Frame},
    http::{self, Answer},
    ollama::{CHAT, Fault},
};
use pin_sidecar::{admin::Connecting, relay::Outcome};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    quick,
    support::{CLIENT, Net, gateway, ollama},
    wire::{self, Node},
};

/// How much later may be.
const SOON: Duration = Duration::from_millis(500);

/// Asks for a drain, as a hook does; the answer comes when it is over.
fn drain(net: &Net) -> JoinHandle<Answer> {
    let url = format!("http://{}/drain", net.sidecar.admin);
    tokio::spawn(async move { http::post(&url, "").await.unwrap() })
}

async fn connect(net: &Net) -> u16 {
    let url = format!("http://{}/session/connect", net.sidecar.admin);
    http::post(&url, "").await.unwrap().status
}

/// A chat that Ollama goes on answering until it is told to.
async fn chat_under_way<S>(net: &Net<S>) -> Chat {
    net.ollama.pause_at(2);
    let mut running = net.streamed("one");
    running.next().await;
    running
}

#[tokio::test]
async fn a_hook_is_answered_once_the_running_chat_is_and_the_process_stays() {
    let net = Net::start(&[]).await;
    let mut running = chat_under_way(&net).await;
    let hook = drain(&net);
    net.gateway.wait_for(offers_nothing).await;
    assert_eq!(
        net.chat("two").outcome().await.error(),
        "draining: this node is shutting down"
    );
    assert!(!hook.is_finished(), "a chat still runs");

    net.ollama.go_on();
    running.outcome().await.result();
    let answer = hook.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"drained": true, "undelivered": 0}));
    net.gateway.wait_for_no_session().await;
    assert_eq!(net.sidecar.get("/healthz").await.0, 200);
    assert_eq!(net.sidecar.get("/readyz").await.0, 503);
    net.sidecar
        .wait_until_pending("Drained as it was asked to")
        .await;
    assert_eq!(net.sidecar.metric("draining").await, 1.0);
    // Once more is no more.
    assert_eq!(drain(&net).await.unwrap().status, 200);

    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    assert_eq!(
        net.gateway.sessions().ever,
        1,
        "nothing was left to deliver"
    );
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_drained_node_serves_again_when_it_is_asked_to_and_may_be_drained_again() {
    let net = Net::start(&[]).await;
    for round in 1..=3 {
        assert_eq!(drain(&net).await.unwrap().status, 200);
        net.gateway.wait_for_no_session().await;
        let frames = net.gateway.frames().len();
        assert_eq!(connect(&net).await, 200);
        let offers = |frame: &Frame| frame.is_from_agent("MODEL_LIST") && !offers_nothing(frame);
        net.gateway.wait_for_since(frames, offers).await;
        net.sidecar.wait_until_pending("").await;
        assert_eq!(net.sidecar.metric("draining").await, 0.0);
        net.chat("one").outcome().await.result();
        assert_eq!(net.gateway.books().bills(), round);
    }
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
}

#[tokio::test]
async fn who_asks_for_a_session_in_the_middle_of_a_drain_has_it_once_that_is_over_and_not_before() {
    let net = Net::start(&[]).await;
    let mut running = chat_under_way(&net).await;
    let hook = drain(&net);
    net.gateway.wait_for(offers_nothing).await;
    assert_eq!(connect(&net).await, 202);
    let frames = net.gateway.frames().len();
    net.ollama.go_on();
    running.outcome().await.result();
    assert_eq!(hook.await.unwrap().status, 200);
    net.gateway
        .wait_for_since(frames, |frame| frame.is_from_agent("AUTH"))
        .await;
    net.sidecar.wait_until_pending("").await;
    net.chat("one").outcome().await.result();
}

#[tokio::test]
async fn a_signal_during_a_hooks_drain_ends_the_process_with_it_and_the_hook_is_answered() {
    let mut net = Net::start(&[]).await;
    let mut running = chat_under_way(&net).await;
    let hook = drain(&net);
    net.gateway.wait_for(offers_nothing).await;
    net.sidecar.begin_drain();
    net.ollama.go_on();
    running.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert_eq!(hook.await.unwrap().status, 200);
}

/// How long Ollama has to stay to count as restarted.
const STAYS: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_node_serves_again_when_ollama_alone_was_restarted_and_has_stayed_for_ten_seconds() {
    let (net, _wire) = wire::start(&[]).await;
    assert_eq!(net.sidecar.service.request_drain().await.undelivered, 0);
    restart_ollama(&net).await;
    // It does not stay the first time.
    sleep(STAYS / 2).await;
    restart_ollama(&net).await;
    let returned = Instant::now();
    net.gateway.wait_for_session(2).await;
    let waited = returned.elapsed();
    assert!(waited >= STAYS && waited < STAYS + SOON, "{waited:?}");
    net.chat("one").outcome().await.result();
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_ollama_was_not_restarted_stays_drained() {
    let (net, _wire) = wire::start(&[]).await;
    net.sidecar.service.request_drain().await;
    sleep(STAYS * 60).await;
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_during_the_drain_counts_too() {
    let (net, _wire) = wire::start(&[]).await;
    let mut running = chat_under_way(&net).await;
    let service = Arc::clone(&net.sidecar.service);
    let hook = tokio::spawn(async move { service.request_drain().await });
    net.gateway.wait_for(offers_nothing).await;
    restart_ollama(&net).await;
    let returned = Instant::now();
    assert!(running.outcome().await.error().starts_with("backend: "));
    assert_eq!(hook.await.unwrap().undelivered, 0);
    net.gateway.wait_for_session(2).await;
    let waited = returned.elapsed();
    assert!(waited >= STAYS && waited < STAYS + SOON, "{waited:?}");
    net.ollama.go_on();
    net.chat("two").outcome().await.result();
}

#[tokio::test]
async fn what_a_drain_could_not_deliver_is_said_and_goes_in_the_next_session() {
    let (net, running) = drained_without_a_gateway().await;
    let mut answered = net.gateway.listen_for(running.id());
    net.gateway.start_again().await.unwrap();
    assert_eq!(connect(&net).await, 200);
    assert_eq!(
        answered.outcome().await.error(),
        "draining: this node is shutting down"
    );
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
}

#[tokio::test]
async fn what_a_drain_could_not_deliver_has_another_chance_when_the_process_ends() {
    let (net, running) = drained_without_a_gateway().await;
    let mut answered = net.gateway.listen_for(running.id());
    net.gateway.start_again().await.unwrap();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    assert_eq!(
        answered.outcome().await.error(),
        "draining: this node is shutting down"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_wants_to_be_left_alone_is_though_the_node_was_drained_meanwhile() {
    let wanted = Duration::from_secs(50);
    for closes_itself in [true, false] {
        let (net, _wire) = wire::start(&[]).await;
        net.gateway.send(&json!({
            "type": "INTERVIEW_FAILED", "reason": "try later", "retry_after_seconds": 50,
        }));
        // What comes in order was read with it.
        net.chat("one").outcome().await.result();
        if closes_itself {
            net.gateway.close_sessions(1000, "");
            net.gateway.wait_for_no_session().await;
        }
        let closed = Instant::now();
        net.sidecar.service.request_drain().await;
        assert_eq!(net.sidecar.service.reopen(), Connecting::Now);
        net.gateway.wait_for_session(2).await;
        let away = closed.elapsed();
        // Up to a tenth more, so that not all nodes come at once.
        assert!(
            away >= wanted && away < wanted.mul_f64(1.1) + SOON,
            "{away:?}"
        );
    }
}

#[tokio::test]
async fn what_nobody_could_be_given_before_the_process_ends_is_owned_up_to() {
    let (net, _running) = drained_without_a_gateway().await;
    assert_eq!(net.sidecar.drain().await, Outcome::Dropped);
}

/// A node that was drained while its gateway was away, and the chat whose answer it still has.
async fn drained_without_a_gateway() -> (Net, Chat) {
    let settings = quick(&[("PIN_DRAIN_TIMEOUT", "100ms")]);
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let mut running = net.streamed("one");
    running.next().await;
    net.gateway.stop().await;
    let answer = drain(&net).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json(), json!({"drained": false, "undelivered": 1}));
    (net, running)
}

/// Ollama is away for as long as a container's runtime needs at least.
async fn restart_ollama(net: &Net<Node>) {
    net.sidecar.to_ollama.cut();
    sleep(Duration::from_millis(500)).await;
    net.sidecar.to_ollama.mend();
}

fn offers_nothing(frame: &Frame) -> bool {
    frame.is_from_agent("MODEL_LIST") && frame.value["models"] == Value::Array(Vec::new())
}
