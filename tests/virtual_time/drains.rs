//! How long a drain takes, and how long a gateway is left alone.

use std::{sync::Arc, time::Duration};

use devnet::{
    ollama::{CHAT, Fault},
    sim::wire::BUFFER,
};
use pin_sidecar::{admin::Connecting, relay::Outcome, service::Stage};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    MOMENT, SECOND,
    support::{Counts, Net, chat},
    wire::{self, Node},
};

/// The delivery rules, "Drain": `PIN_DRAIN_TIMEOUT`, and so much more.
const BEYOND: Duration = Duration::from_secs(5);

/// Has the gateway ask to be left alone.
async fn ask_for_peace(net: &Net<Node>, seconds: &Value) {
    net.gateway
        .send(&json!({"type": "INTERVIEW_FAILED", "retry_after_seconds": seconds}));
    sleep(MOMENT).await;
}

/// Has it close.
async fn close(net: &Net<Node>) {
    net.gateway.close_sessions(1000, "");
    net.gateway.wait_for_no_session().await;
}

/// Drains the node and opens it again.
async fn drain_and_connect(net: &Net<Node>) {
    net.sidecar.service.request_drain().await;
    assert_eq!(net.sidecar.service.reopen(), Connecting::Now);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_told_to_end_during_a_drain_ends_in_time_whenever_it_is_told() {
    for before in [0, 100, 900, 1_100, 5_000, 5_400, 9_000].map(Duration::from_millis) {
        let (net, wire) = wire::start(&[("PIN_DRAIN_TIMEOUT", "1s")]).await;
        // Its answer has nowhere to go.
        net.ollama
            .set_behaviour(|behaviour| behaviour.done_delay = SECOND / 2);
        let _chat = net.chat("why");
        sleep(MOMENT).await;
        wire.cut();
        drop(net.sidecar.service.request_drain());
        sleep(before).await;
        let told = Instant::now();
        assert_eq!(net.sidecar.drain().await, Outcome::Dropped);
        let took = told.elapsed();
        assert!(took <= SECOND + BEYOND, "{took:?}, told after {before:?}");
        assert!(took > BEYOND - SECOND, "{took:?}: it has tried");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_has_no_more_time_because_the_process_is_to_end_as_well() {
    let (mut net, _wire) = wire::start(&[("PIN_DRAIN_TIMEOUT", "10s")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let mut chat = net.chat("why");
    sleep(MOMENT).await;
    let began = Instant::now();
    drop(net.sidecar.service.request_drain());
    sleep(9 * SECOND).await;
    net.sidecar.begin_drain();
    let outcome = chat.outcome().await;
    assert_eq!(outcome.error(), "draining: this node is shutting down");
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_process_ends_in_time_though_a_gateway_that_no_longer_reads_closes_at_the_last_moment() {
    let (mut net, _wire) = wire::start(&[("PIN_DRAIN_TIMEOUT", "1s")]).await;
    net.gateway.stop_reading();
    // Eight times what the wire holds, so that there is no room for the answer to its Close.
    net.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(BUFFER as usize / 8); 64]);
    });
    let _chat = net.chat("why");
    sleep(MOMENT).await;
    assert_eq!(net.sidecar.metric("undelivered_results").await, 1.0);
    let told = Instant::now();
    net.sidecar.begin_drain();
    // A tenth of a second before the session would have been left anyway.
    sleep(BEYOND + 4 * SECOND / 10).await;
    net.gateway.close_sessions(1008, "");
    assert_eq!(net.sidecar.drained().await, Outcome::Dropped);
    let took = told.elapsed();
    assert!(took <= SECOND + BEYOND, "{took:?}");
    assert!(took > BEYOND, "{took:?}: it has tried");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_left_alone_for_as_long_as_it_asked_over_any_number_of_drains() {
    for drains in 0..4 {
        let (net, _wire) = wire::start(&[]).await;
        ask_for_peace(&net, &json!(8)).await;
        close(&net).await;
        let away = Instant::now();
        for _ in 0..drains {
            drain_and_connect(&net).await;
            sleep(SECOND).await;
        }
        net.gateway.wait_for_session(2).await;
        let away = away.elapsed();
        assert!(
            away >= 8 * SECOND - MOMENT,
            "{away:?} after {drains} drains"
        );
        assert!(away <= 9 * SECOND, "{away:?} after {drains} drains");
    }
}

#[tokio::test(start_paused = true)]
async fn no_number_that_a_gateway_names_ends_the_process_or_keeps_a_node_away_for_longer_than_an_hour()
 {
    const HOUR: Duration = Duration::from_secs(3_600);
    /// With what is added at random.
    const LONGEST: Duration = Duration::from_secs(3_600 + 360);
    for seconds in [json!(1e30), json!(31_536_000), json!(u64::MAX)] {
        for drains_first in [false, true] {
            let (net, _wire) = wire::start(&[]).await;
            ask_for_peace(&net, &seconds).await;
            if drains_first {
                drain_and_connect(&net).await;
            } else {
                close(&net).await;
            }
            let away = Instant::now();
            sleep(LONGEST).await;
            let frames = net.gateway.frames();
            let mut logins = frames.iter().filter(|frame| frame.is_from_agent("AUTH"));
            let away = logins.nth(1).map(|frame| frame.at - away);
            assert!(
                away.is_some_and(|away| away >= HOUR - SECOND),
                "{away:?} for {seconds}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_proven_is_no_loss_though_its_request_comes_again_behind_our_close() {
    let (mut net, _wire) = wire::start(&[]).await;
    let service = Arc::clone(&net.sidecar.service);
    let undelivered = "undelivered_results";
    net.gateway
        .chat_with_id("one", chat("one"))
        .outcome()
        .await
        .result();
    sleep(MOMENT).await;
    assert_eq!(net.sidecar.metric(undelivered).await, 0.0);
    net.gateway.stop_reading();
    net.sidecar.begin_drain();
    sleep(MOMENT).await;
    // The Close is on its way, and nobody has read it yet.
    for id in ["one", "two"] {
        assert!(net.gateway.try_request(id, &chat(id)));
    }
    sleep(MOMENT).await;
    assert_eq!(net.sidecar.metric(undelivered).await, 0.0);
    assert_eq!(net.sidecar.metric("ignored_requests_total").await, 2.0);
    net.gateway.read_again();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert_eq!(service.stage(), Stage::Ended);
}
