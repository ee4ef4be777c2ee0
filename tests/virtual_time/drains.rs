//! How long a drain takes, and how long a gateway is left alone.

use std::time::Duration;

use pin_sidecar::{relay::Outcome, service::Stage};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::world::{Net, Step};

const SECOND: Duration = Duration::from_secs(1);

/// Whatever is done at once.
const MOMENT: Duration = Duration::from_millis(1);

/// The delivery rules, "Drain": `PIN_DRAIN_TIMEOUT`, and so much more.
const BEYOND: Duration = Duration::from_secs(5);

/// Has the gateway ask to be left alone, and close.
async fn send_away(net: &mut Net, seconds: Value) {
    net.gateway
        .send([json!({"type": "INTERVIEW_FAILED", "retry_after_seconds": seconds})])
        .await;
    net.gateway.close(1000).await;
    sleep(MOMENT).await;
}

/// Drains the node and opens it again.
async fn drain_and_connect(net: &Net) {
    net.service.request_drain().await;
    assert!(net.service.reopen());
    sleep(MOMENT).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_told_to_end_during_a_drain_ends_in_time_whenever_it_is_told() {
    for before in [0, 100, 900, 1_100, 5_000, 5_400, 9_000].map(Duration::from_millis) {
        let mut net = Net::start(&[("PIN_DRAIN_TIMEOUT", "1s")]).await;
        // Its answer has nowhere to go.
        net.ollama
            .plan(&[Step::Say, Step::Rest(SECOND / 2), Step::Done(1)]);
        net.gateway.ask("one").await;
        sleep(MOMENT).await;
        net.lose_gateway();
        drop(net.service.request_drain());
        sleep(before).await;
        let told = Instant::now();
        net.shut_down();
        assert_eq!(net.ended().await, Outcome::Dropped);
        let took = told.elapsed();
        assert!(took <= SECOND + BEYOND, "{took:?}, told after {before:?}");
        assert!(took > BEYOND - SECOND, "{took:?}: it has tried");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_has_no_more_time_because_the_process_is_to_end_as_well() {
    let mut net = Net::start(&[("PIN_DRAIN_TIMEOUT", "10s")]).await;
    net.ollama.plan(&[Step::Say, Step::Hang]);
    net.gateway.ask("one").await;
    sleep(MOMENT).await;
    let began = Instant::now();
    drop(net.service.request_drain());
    sleep(9 * SECOND).await;
    net.shut_down();
    let error = net.gateway.wait_for("INFERENCE_ERROR").await;
    assert_eq!(error["error"], "draining: this node is shutting down");
    assert_eq!(began.elapsed().as_secs(), 10);
    net.gateway
        .send([json!({"type": "RESULT_ACK", "request_id": "one"})])
        .await;
    net.gateway.read_out().await;
    assert_eq!(net.ended().await, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_left_alone_for_as_long_as_it_asked_over_any_number_of_drains() {
    for drains in 0..4 {
        let mut net = Net::start(&[]).await;
        send_away(&mut net, json!(8)).await;
        let away = Instant::now();
        for _ in 0..drains {
            drain_and_connect(&net).await;
            sleep(SECOND).await;
        }
        net.next_session().await;
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
    for seconds in [json!(1e30), json!(31_536_000), json!(u64::MAX)] {
        for drains_first in [false, true] {
            let mut net = Net::start(&[]).await;
            let frame = json!({"type": "INTERVIEW_FAILED", "retry_after_seconds": seconds});
            net.gateway.send([frame]).await;
            sleep(MOMENT).await;
            if drains_first {
                let drained = net.service.request_drain();
                net.gateway.read_out().await;
                drained.await;
                assert!(net.service.reopen());
            } else {
                net.gateway.close(1000).await;
            }
            let away = Instant::now();
            net.next_session().await;
            let away = away.elapsed();
            assert!(
                away >= HOUR - SECOND && away <= HOUR.mul_f64(1.1),
                "{away:?} for {seconds}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_proven_is_no_loss_though_its_request_comes_again_behind_our_close() {
    let mut net = Net::start(&[]).await;
    net.ollama.plan(&[Step::Say, Step::Done(1)]);
    net.gateway.ask("one").await;
    net.gateway.wait_for("INFERENCE_RESPONSE").await;
    net.gateway
        .send([json!({"type": "RESULT_ACK", "request_id": "one"})])
        .await;
    sleep(MOMENT).await;
    assert_eq!(net.metric("undelivered_results"), 0.0);
    net.shut_down();
    sleep(MOMENT).await;
    // The Close is on its way, and nobody has read it yet.
    net.gateway.ask("one").await;
    net.gateway.ask("two").await;
    sleep(MOMENT).await;
    assert_eq!(net.metric("undelivered_results"), 0.0);
    assert_eq!(net.metric("ignored_requests_total"), 2.0);
    net.gateway.read_out().await;
    assert_eq!(net.ended().await, Outcome::Drained);
    assert_eq!(net.service.stage(), Stage::Ended);
}
