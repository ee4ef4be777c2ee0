//! What the log and the metrics say of how long a chat took.

use std::{ops::RangeInclusive, time::Duration};

use crate::world::{Net, Step};

const FIRST: Duration = Duration::from_millis(700);
const UNTIL_TOKEN: Duration = Duration::from_millis(300);
const BETWEEN: Duration = Duration::from_millis(200);
const UNTIL_DONE: Duration = Duration::from_millis(400);

/// The chat that waits for its slot: in milliseconds from its receipt, and with what timers may add to that.
const QUEUE: u64 = 700;
const FIRST_TOKEN: u64 = 1_000;
const WHOLE: u64 = 1_800;
const TICKS: u64 = 10;

fn milliseconds(exact: u64) -> RangeInclusive<u64> {
    exact..=exact + TICKS
}

/// A chat that gets its slot, the only one, when an earlier one has ended.
async fn behind_another() -> Net {
    let mut net = Net::start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.plan(&[Step::Rest(FIRST), Step::Done(0)]);
    net.ollama.plan(&[
        Step::Rest(UNTIL_TOKEN),
        Step::Say,
        Step::Rest(BETWEEN),
        Step::Say,
        Step::Rest(BETWEEN),
        Step::Say,
        Step::Rest(UNTIL_DONE),
        Step::Done(3),
    ]);
    for request_id in ["first", "second"] {
        net.gateway.ask(request_id).await;
    }
    for request_id in ["first", "second"] {
        let response = net.gateway.wait_for("INFERENCE_RESPONSE").await;
        assert_eq!(response["request_id"], request_id);
    }
    net
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_how_long_a_chat_waited_and_ran_from_its_receipt_on() {
    let net = behind_another().await;
    let second = net.log.end_of("second");
    for (field, exact) in [
        ("queue_ms", QUEUE),
        ("first_token_ms", FIRST_TOKEN),
        ("duration_ms", WHOLE),
    ] {
        let told = second[field].as_u64().unwrap();
        assert!(milliseconds(exact).contains(&told), "{field}: {second}");
    }
    let first = net.log.end_of("first");
    assert!(
        milliseconds(0).contains(&first["queue_ms"].as_u64().unwrap()),
        "{first}"
    );
    assert!(first["first_token_ms"].is_null(), "it had none: {first}");
}

#[tokio::test(start_paused = true)]
async fn the_metrics_count_waiting_time_to_first_token_and_duration_from_the_receipt_on() {
    let net = behind_another().await;
    for (series, exact) in [
        ("request_queue_time_seconds_sum", QUEUE),
        ("time_to_first_token_seconds_sum", FIRST_TOKEN),
        (
            "request_duration_seconds_sum{operation=\"chat\"}",
            QUEUE + WHOLE,
        ),
        ("time_per_output_token_seconds_sum", 200),
    ] {
        let told = net.metric(series) * 1_000.0;
        assert!(
            milliseconds(exact).contains(&(told.round() as u64)),
            "{series}: {told} ms instead of {exact}"
        );
    }
    assert_eq!(net.metric("time_to_first_token_seconds_count"), 1.0);
}
