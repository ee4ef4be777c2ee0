//! A gateway that says very much at once.

use serde_json::json;

use crate::world::Net;

#[tokio::test(start_paused = true)]
async fn a_ping_in_a_flood_that_has_arrived_whole_is_answered_before_the_rest_is_worked_on() {
    const BEFORE: usize = 1_000;
    const BEHIND: usize = 50_000;
    let mut net = Net::start(&[]).await;
    let ack = json!({"type": "RESULT_ACK", "request_id": "nobody's"});
    let ping = json!({"type": "PING"});
    let acks = |count| std::iter::repeat_n(ack.clone(), count);
    net.gateway
        .send(acks(BEFORE).chain([ping]).chain(acks(BEHIND)))
        .await;
    net.gateway.wait_for("PONG").await;
    let done = net.metric("messages_received_total{message=\"RESULT_ACK\"}");
    assert!(
        done < (BEFORE + BEHIND / 10) as f64,
        "PONG came after {done} frames, {BEFORE} of which were ahead of its PING"
    );
}
