//! What the log and the metrics say of how long a chat took.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    log::Log,
    support::{Counts, Net, chat},
    wire::{self, Node},
};

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
async fn behind_another() -> (Net<Node>, Log) {
    let log = Log::listen();
    let (net, _wire) = wire::start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.set_behaviour(|behaviour| {
        behaviour.tokens = 0;
        behaviour.done_delay = FIRST;
    });
    let mut chats = ["first", "second"].map(|id| net.gateway.chat_with_id(id, chat(id)));
    net.ollama.wait_for_chats(1).await;
    net.ollama.set_behaviour(|behaviour| {
        behaviour.tokens = 3;
        behaviour.first_token_delay = UNTIL_TOKEN;
        behaviour.token_delay = BETWEEN;
        behaviour.done_delay = UNTIL_DONE;
    });
    for chat in &mut chats {
        chat.outcome().await.result();
    }
    (net, log)
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_how_long_a_chat_waited_and_ran_from_its_receipt_on() {
    let (_net, log) = behind_another().await;
    let second = log.end_of("second");
    for (field, exact) in [
        ("queue_ms", QUEUE),
        ("first_token_ms", FIRST_TOKEN),
        ("duration_ms", WHOLE),
    ] {
        let told = second[field].as_u64().unwrap();
        assert!(milliseconds(exact).contains(&told), "{field}: {second}");
    }
    let first = log.end_of("first");
    assert!(
        milliseconds(0).contains(&first["queue_ms"].as_u64().unwrap()),
        "{first}"
    );
    assert!(first["first_token_ms"].is_null(), "it had none: {first}");
}

#[tokio::test(start_paused = true)]
async fn the_metrics_count_waiting_time_to_first_token_and_duration_from_the_receipt_on() {
    let (net, _log) = behind_another().await;
    for (series, exact) in [
        ("request_queue_time_seconds_sum", QUEUE),
        ("time_to_first_token_seconds_sum", FIRST_TOKEN),
        (
            "request_duration_seconds_sum{operation=\"chat\"}",
            QUEUE + WHOLE,
        ),
        ("time_per_output_token_seconds_sum", 200),
    ] {
        let told = net.sidecar.metric(series).await * 1_000.0;
        assert!(
            milliseconds(exact).contains(&(told.round() as u64)),
            "{series}: {told} ms instead of {exact}"
        );
    }
    let counted = net.sidecar.metric("time_to_first_token_seconds_count");
    assert_eq!(counted.await, 1.0);
}
