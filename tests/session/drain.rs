//! The end: what runs finishes and is delivered, what is new is refused, and nothing takes longer than it may.

use std::time::Duration;

use devnet::{
    gateway::{Frame, Login},
    ollama::{CHAT, Fault},
};
use pin_sidecar::relay::Outcome;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    quick,
    support::{CLIENT, DESKTOP, Net, Sidecar, gateway, ollama},
    wire,
};

#[tokio::test]
async fn an_idle_node_is_gone_within_a_second() {
    for client in [CLIENT, DESKTOP] {
        let net = Net::start_as(client, &[]).await;
        net.chat("one").outcome().await.result();
        let began = Instant::now();
        assert_eq!(net.sidecar.drain().await, Outcome::Drained);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        net.gateway.wait_for_no_session().await;
        let close = net
            .gateway
            .wait_for(|frame| frame.is_from_agent("close"))
            .await;
        assert_eq!(close.value["code"], 1000);
    }
}

#[tokio::test]
async fn a_running_chat_finishes_and_is_delivered_while_waiting_and_new_ones_are_refused() {
    let mut net = Net::start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "2")]).await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(20));
    let mut running = net.streamed("one");
    running.next().await;
    let mut waiting = net.chat("two");
    net.sidecar
        .wait_for_metric("requests_waiting", |count| count == 1.0)
        .await;

    net.sidecar.begin_drain();
    assert_eq!(
        waiting.outcome().await.error(),
        "draining: this node is shutting down"
    );
    let mut new = net.chat("three");
    assert_eq!(
        new.outcome().await.error(),
        "draining: this node is shutting down"
    );
    // Whoever sends chats is told that there is nothing to send them to.
    net.gateway.wait_for(offers_nothing("MODEL_LIST")).await;
    // Probes are answered all the while.
    let (status, readyz) = net.sidecar.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(
        readyz.contains("Draining: running chats finish, new ones are refused."),
        "{readyz}"
    );
    assert_eq!(net.sidecar.get("/healthz").await.0, 200);
    assert_eq!(net.sidecar.metric("draining").await, 1.0);

    running.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert_eq!(net.gateway.books().bills(), 1);
    assert_eq!(net.ollama.chats().ever, 1);
}

#[tokio::test]
async fn what_takes_too_long_is_cut_short_and_its_answer_still_goes_out() {
    let mut net = Net::start(&[("PIN_DRAIN_TIMEOUT", "200ms")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 2 });
    let mut running = net.streamed("one");
    running.next().await;
    let request = net.ollama.wait_for_request(CHAT).await;
    net.sidecar.begin_drain();
    let outcome = running.outcome().await;
    assert_eq!(outcome.error(), "draining: this node is shutting down");
    request.wait_until_left().await;
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test]
async fn a_node_whose_gateway_is_away_drains_at_once() {
    let net = Net::start(&[]).await;
    net.gateway.stop().await;
    net.sidecar.wait_until_pending("gateway").await;
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_node_that_is_logging_in_drains_at_once() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| policy.login = Login::Hang);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[]);
    gateway.wait_for(|frame| frame.is_from_agent("AUTH")).await;
    let began = Instant::now();
    assert_eq!(sidecar.drain().await, Outcome::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_answer_whose_session_breaks_during_a_drain_is_delivered_over_another_that_offers_nothing()
 {
    let mut net = Net::with(
        CLIENT,
        gateway().await,
        ollama().await,
        &quick(&[("PIN_DRAIN_TIMEOUT", "2s")]),
    )
    .await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let mut running = net.streamed("one");
    running.next().await;
    net.sidecar.begin_drain();
    net.gateway.wait_for(offers_nothing("MODEL_LIST")).await;
    let frames = net.gateway.frames().len();
    net.gateway.drop_sessions();
    net.gateway
        .wait_for_since(frames, offers_nothing("MODEL_LIST"))
        .await;
    let outcome = running.outcome().await;
    assert_eq!(outcome.error(), "draining: this node is shutting down");
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_delivered_during_a_drain_is_owned_up_to_in_time() {
    let limit = Duration::from_secs(10);
    let (mut net, wire) = wire::start(&[("PIN_DRAIN_TIMEOUT", "10s")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let mut running = net.streamed("one");
    running.next().await;
    wire.cut();
    let began = Instant::now();
    net.sidecar.begin_drain();
    assert_eq!(net.sidecar.drained().await, Outcome::Dropped);
    let took = began.elapsed();
    assert!(
        took >= limit && took < limit + Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_no_longer_reads_does_not_keep_a_node_from_ending() {
    let (net, _wire) = wire::start(&[]).await;
    net.gateway.stop_reading();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(850), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_node_ends_at_once() {
    let (net, _wire) = wire::start(&[]).await;
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    let took = began.elapsed();
    assert!(took < Duration::from_millis(50), "{took:?}");
}

#[tokio::test]
async fn probes_are_answered_until_the_end_and_not_after() {
    let mut net = Net::start(&[]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let mut running = net.streamed("one");
    running.next().await;
    net.sidecar.begin_drain();
    net.gateway.wait_for(offers_nothing("MODEL_LIST")).await;
    let probes = [
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 503),
        ("/metrics", 200),
    ];
    for (path, expected) in probes {
        assert_eq!(net.sidecar.get(path).await.0, expected, "{path}");
    }
    let (_, status) = net.sidecar.get("/status").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["session"]["state"], "up");
    assert_eq!(status["draining"], true);

    net.gateway.cancel(running.id());
    let admin = net.sidecar.admin;
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert!(TcpStream::connect(admin).await.is_err());
}

fn offers_nothing(kind: &str) -> impl Fn(&Frame) -> bool {
    move |frame| frame.is_from_agent(kind) && frame.value["models"] == json!([])
}
