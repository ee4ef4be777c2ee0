//! Work whose session stays away: it goes on for PIN_ORPHAN_GRACE and no longer.

use std::time::Duration;

use devnet::ollama::CHAT;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;

const GRACE: Duration = Duration::from_secs(30);

/// One chat runs, one waits, and nothing but the grace ends either.
const SETTINGS: [(&str, &str); 5] = [
    ("PIN_ORPHAN_GRACE", "30s"),
    ("PIN_CAPACITY", "1"),
    ("PIN_QUEUE", "1"),
    ("PIN_QUEUE_TIMEOUT", "9m"),
    ("PIN_TOKEN_TIMEOUT", "9m"),
];

/// How much sooner or later may be.
const NEARLY: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn work_whose_session_stays_away_is_stopped_and_told_as_orphaned_waiting_work_too() {
    let (net, wire) = start_on_wire(&SETTINGS).await;
    net.ollama.pause_at(3);
    let mut running = ask(&net, "running");
    let request = net.ollama.wait_for_request(CHAT).await;
    let mut waiting = ask(&net, "waiting");
    round_trip(&net.gateway).await;
    let lost = Instant::now();
    go_away(&net, &wire).await;
    sleep_until(lost + GRACE - NEARLY).await;
    wait_for_undelivered(&net, 0).await;
    let stopped = request.wait_until_left().await - lost;
    assert!(stopped >= GRACE && stopped < GRACE + NEARLY, "{stopped:?}");
    sleep_until(lost + GRACE + NEARLY).await;
    assert_eq!(net.sidecar.metric("undelivered_results").await, 2.0);

    net.ollama.go_on();
    come_back(&net, &wire, 2).await;
    for chat in [&mut running, &mut waiting] {
        let outcome = chat.outcome().await;
        assert!(
            outcome.error().starts_with("orphaned: "),
            "{}",
            outcome.error()
        );
    }
    wait_for_undelivered(&net, 0).await;
    assert_eq!(runs(&net, "waiting"), 0);
    // An orphan's id is free again, and so is its slot.
    ask(&net, "running").outcome().await.result();
    assert_eq!(runs(&net, "running"), 2);
    assert_eq!(net.gateway.books().bills(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_whose_session_is_back_in_time_goes_on_and_keeps_its_slot() {
    let settings = [
        ("PIN_CAPACITY", "1"),
        ("PIN_QUEUE", "0"),
        ("PIN_TOKEN_TIMEOUT", "9m"),
    ];
    let (net, wire) = start_on_wire(&settings).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &wire).await;
    sleep(GRACE - NEARLY).await;
    come_back(&net, &wire, 2).await;
    sleep(GRACE).await;
    let refused = ask(&net, "two").outcome().await;
    assert!(refused.error().starts_with("busy: "), "{}", refused.error());
    net.ollama.go_on();
    chat.outcome().await.result();
    assert_once(&net, &["one"]);
}

#[tokio::test(start_paused = true)]
async fn each_session_that_is_lost_gives_the_whole_grace_again() {
    let (net, wire) = start_on_wire(&SETTINGS).await;
    net.ollama.pause_at(3);
    let (mut running, mut waiting) = (ask(&net, "running"), ask(&net, "waiting"));
    net.ollama.wait_for_chats(1).await;
    for session in 2..=4 {
        go_away(&net, &wire).await;
        sleep(GRACE - NEARLY).await;
        come_back(&net, &wire, session).await;
        sleep(2 * NEARLY).await;
    }
    net.ollama.go_on();
    for chat in [&mut running, &mut waiting] {
        chat.outcome().await.result();
    }
    assert_once(&net, &["running", "waiting"]);
}
