//! A gateway that says very much at once.

use devnet::sim::wire::BUFFER;
use serde_json::json;

use crate::{support::Counts, wire};

#[tokio::test(start_paused = true)]
async fn a_ping_in_a_flood_that_has_arrived_whole_is_answered_before_the_rest_is_worked_on() {
    const BEFORE: usize = 100;
    const BEHIND: usize = 5_000;
    /// What WebSocket puts before a short frame, in bytes.
    const HEAD: usize = 2;
    let (net, _wire) = wire::start(&[]).await;
    let ack = json!({"type": "RESULT_ACK", "request_id": "nobody's"});
    let flood = (BEFORE + 1 + BEHIND) * (HEAD + ack.to_string().len());
    assert!(flood < BUFFER as usize, "the wire holds all of it");
    let acknowledge = |count| (0..count).for_each(|_| net.gateway.send(&ack));
    acknowledge(BEFORE);
    net.gateway.send(&json!({"type": "PING"}));
    acknowledge(BEHIND);
    net.gateway
        .wait_for(|frame| frame.is_from_agent("PONG"))
        .await;
    let series = "messages_received_total{message=\"RESULT_ACK\"}";
    let done = net.sidecar.metric(series).await;
    assert!(
        done < (BEFORE + BEHIND / 10) as f64,
        "PONG came after {done} frames, {BEFORE} of which were ahead of its PING"
    );
}
