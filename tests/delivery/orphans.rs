//! Work whose session stays away: it goes on for PIN_ORPHAN_GRACE and no longer.

use std::time::Duration;

use devnet::ollama::CHAT;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn work_whose_session_stays_away_is_stopped_and_told_as_orphaned_waiting_work_too() {
    let settings = [
        ("PIN_ORPHAN_GRACE", "300ms"),
        ("PIN_CAPACITY", "1"),
        ("PIN_QUEUE", "1"),
    ];
    let (net, network) = start(&settings).await;
    net.ollama.pause_at(3);
    let mut running = ask(&net, "running");
    let request = net.ollama.wait_for_request(CHAT).await;
    let mut waiting = ask(&net, "waiting");
    round_trip(&net.gateway).await;
    let began = Instant::now();
    go_away(&net, &network).await;
    let stopped = request.wait_until_left().await - began;
    assert!(stopped >= Duration::from_millis(300), "{stopped:?}");
    assert!(stopped < Duration::from_secs(5), "{stopped:?}");
    wait_for_undelivered(&net, 2).await;

    net.ollama.go_on();
    come_back(&net, &network, 2).await;
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

#[tokio::test]
async fn work_whose_session_is_back_in_time_goes_on_and_keeps_its_slot() {
    let (net, network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &network).await;
    come_back(&net, &network, 2).await;
    let refused = ask(&net, "two").outcome().await;
    assert!(refused.error().starts_with("busy: "), "{}", refused.error());
    net.ollama.go_on();
    chat.outcome().await.result();
    assert_once(&net, &["one"]);
}

#[tokio::test]
async fn each_session_that_is_lost_gives_the_whole_grace_again() {
    let (net, network) = start(&[("PIN_ORPHAN_GRACE", "2s")]).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    let began = Instant::now();
    let mut session = 1;
    while began.elapsed() < Duration::from_millis(2500) {
        go_away(&net, &network).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        session += 1;
        come_back(&net, &network, session).await;
    }
    net.ollama.go_on();
    chat.outcome().await.result();
    assert_once(&net, &["one"]);
}
