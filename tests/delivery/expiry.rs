//! Nothing is kept for longer than PIN_RESULT_TTL, and nothing for less.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::*;

const TTL: Duration = Duration::from_secs(600);
const SETTINGS: [(&str, &str); 3] = [
    ("PIN_RESULT_TTL", "10m"),
    ("PIN_RECONNECT_MIN", "100ms"),
    ("PIN_RECONNECT_MAX", "400ms"),
];

/// How much sooner or later may be.
const NEARLY: Duration = Duration::from_secs(1);

const EXPIRED: &str = "results_dropped_total{reason=\"expired\"}";

/// A node that has been up for a while: what is too old is looked for at a moment that has nothing to do with the answer.
async fn start_a_while_ago() -> (Net<Node>, Wire) {
    let (net, wire) = wire::start(&SETTINGS).await;
    sleep(TTL * 2 / 3).await;
    (net, wire)
}

/// A node that has made the answer `one` while its gateway was away, and when.
async fn with_an_answer_that_cannot_go() -> (Net<Node>, Wire, Instant) {
    let (net, wire) = start_a_while_ago().await;
    net.ollama.pause_at(3);
    ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &wire).await;
    net.ollama.go_on();
    wait_for_undelivered(&net, 1).await;
    (net, wire, Instant::now())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_comes_for_is_dropped_and_counted() {
    let (net, wire, made) = with_an_answer_that_cannot_go().await;
    sleep_until(made + TTL - NEARLY).await;
    wait_for_undelivered(&net, 1).await;
    sleep_until(made + TTL + NEARLY).await;
    assert_eq!(net.sidecar.metric(EXPIRED).await, 1.0);
    assert_eq!(net.sidecar.metric("undelivered_results").await, 0.0);
    come_back(&net, &wire, 2).await;
    ask(&net, "two").outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["two"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_delivered_to_a_gateway_that_comes_at_the_last_moment() {
    let (net, wire, made) = with_an_answer_that_cannot_go().await;
    sleep_until(made + TTL - NEARLY).await;
    come_back(&net, &wire, 2).await;
    wait_for_undelivered(&net, 0).await;
    assert_eq!(answered(&net.gateway, 2), ["one"]);
    assert_eq!(net.sidecar.metric(EXPIRED).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_delivered_answer_is_forgotten_and_its_id_is_new_work() {
    let (net, _wire) = start_a_while_ago().await;
    ask(&net, "one").outcome().await.result();
    wait_for_undelivered(&net, 0).await;
    sleep(TTL - NEARLY).await;
    ask(&net, "one").outcome().await.result();
    assert_eq!(runs(&net, "one"), 1);
    wait_for_undelivered(&net, 0).await;
    // Asked for again it was delivered again, and is kept for as long from there.
    sleep(TTL + NEARLY).await;
    ask(&net, "one").outcome().await.result();
    assert_eq!(runs(&net, "one"), 2);
}
