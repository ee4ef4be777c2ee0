//! The end of a node that still owes answers: it goes when they are proven, or owns up that they are not.

use std::time::{Duration, Instant};

use devnet::ollama::{CHAT, Fault};
use pin_sidecar::relay::Outcome;
use serde_json::Value;

use super::*;

fn draining(outcome: &devnet::gateway::Outcome) {
    assert!(
        outcome.error().starts_with("draining: "),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn the_waiting_room_is_refused_and_what_runs_is_answered() {
    let (mut net, _network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "1")]).await;
    net.ollama.pause_at(3);
    let mut running = ask(&net, "running");
    net.ollama.wait_for_chats(1).await;
    let mut waiting = ask(&net, "waiting");
    round_trip(&net.gateway).await;
    net.sidecar.begin_drain();
    draining(&waiting.outcome().await);
    draining(&ask(&net, "new").outcome().await);
    // A repeat of what runs is no new work.
    let _repeat = ask(&net, "running");
    round_trip(&net.gateway).await;
    net.ollama.go_on();
    running.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert_eq!(answered(&net.gateway, 1), ["waiting", "new", "running"]);
}

#[tokio::test]
async fn it_waits_for_the_proof_of_what_was_sent() {
    let (mut net, _network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.result_ack_delay = Duration::from_millis(700);
    });
    let began = ask(&net, "one").outcome().await.frame.at;
    net.sidecar.begin_drain();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(650), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_fence_proves_what_nobody_acknowledges() {
    let (net, _network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_heartbeats = true;
    });
    ask(&net, "one").outcome().await.result();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_close_that_answers_ours_is_proof_too() {
    let (net, _network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    ask(&net, "one").outcome().await.result();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_answer_that_nothing_proves_is_owned_up_to_in_time() {
    let (net, _network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.answer_closes = false;
    });
    ask(&net, "one").outcome().await.result();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Dropped);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_gateway_that_comes_back_in_time_gets_its_answer_and_is_offered_nothing() {
    let (mut net, network) = start(&[]).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    net.sidecar.begin_drain();
    net.sidecar
        .wait_for_metric("draining", |draining| draining == 1.0)
        .await;
    go_away(&net, &network).await;
    net.ollama.go_on();
    wait_for_undelivered(&net, 1).await;
    // It may be gone as soon as the answer is.
    network.mend().await.unwrap();
    chat.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert_offered_nothing(&net.gateway, 2);
    assert_eq!(net.gateway.books().bills(), 1);
    assert_eq!(net.gateway.sessions().ever, 2);
}

fn assert_offered_nothing(gateway: &Gateway, connection: u64) {
    let offers: Vec<Value> = gateway
        .frames()
        .iter()
        .filter(|frame| frame.connection == connection && frame.sender == Sender::Agent)
        .filter_map(|frame| frame.value.get("models").cloned())
        .collect();
    assert!(!offers.is_empty());
    assert!(
        offers.iter().all(|models| *models == json!([])),
        "{offers:?}"
    );
}

#[tokio::test]
async fn a_session_that_breaks_while_work_still_runs_is_opened_again_for_it() {
    let (mut net, network) = start(&[]).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    net.sidecar.begin_drain();
    net.sidecar
        .wait_for_metric("draining", |draining| draining == 1.0)
        .await;
    for session in 2..=3 {
        go_away(&net, &network).await;
        come_back(&net, &network, session).await;
        draining(&ask(&net, &format!("new-{session}")).outcome().await);
    }
    net.ollama.go_on();
    chat.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert_offered_nothing(&net.gateway, 2);
    assert_offered_nothing(&net.gateway, 3);
}

#[tokio::test]
async fn a_gateway_that_stays_away_costs_the_answer_and_no_more_time_than_a_drain_may_take() {
    let (mut net, network) = start(&[("PIN_DRAIN_TIMEOUT", "500ms")]).await;
    net.ollama.pause_at(3);
    let _chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &network).await;
    let began = Instant::now();
    net.sidecar.begin_drain();
    net.ollama.go_on();
    assert_eq!(net.sidecar.drained().await, Outcome::Dropped);
    assert!(
        began.elapsed() < Duration::from_millis(5700),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_hung_ollama_is_left_and_its_chat_is_told_so() {
    let (mut net, _network) = start(&[("PIN_DRAIN_TIMEOUT", "300ms")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::HangBeforeHeaders);
    let mut chat = ask(&net, "one");
    let request = net.ollama.wait_for_request(CHAT).await;
    let began = Instant::now();
    net.sidecar.begin_drain();
    draining(&chat.outcome().await);
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(request.left_at().is_some());
}

#[tokio::test]
async fn a_gateway_that_reads_nothing_any_more_costs_the_answer_and_no_more_time() {
    let (net, _network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    ask(&net, "one").outcome().await.result();
    net.gateway.stop_reading();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Dropped);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
