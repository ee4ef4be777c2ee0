//! The end of a node that still owes answers: it goes when they are proven, or owns up that they are not.

use std::time::Duration;

use devnet::ollama::{CHAT, Fault};
use pin_sidecar::relay::Outcome;
use serde_json::Value;
use tokio::time::{Instant, sleep};

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

/// How long proof may be waited for.
const PROOF: Duration = Duration::from_secs(2);

/// How long the gateway's Close may be waited for.
const CLOSE: Duration = Duration::from_secs(1);

/// What is no time in a world where every byte arrives at once.
const AT_ONCE: Duration = Duration::from_millis(20);

/// When the agent's Close was read.
async fn closed_at(gateway: &Gateway) -> Instant {
    gateway
        .wait_for(|frame| frame.is_from_agent("close"))
        .await
        .at
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_proof_of_what_was_sent_and_no_longer() {
    let (net, _wire) = start_on_wire(&[]).await;
    let delay = PROOF - Duration::from_millis(100);
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.result_ack_delay = delay;
    });
    let sent = ask(&net, "one").outcome().await.frame.at;
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    let waited = closed_at(&net.gateway).await - sent;
    assert!(waited >= delay && waited < delay + AT_ONCE, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fence_proves_what_nobody_acknowledges_and_goes_at_once() {
    for only_pongs in [false, true] {
        let (net, _wire) = start_on_wire_with(&[], |policy| {
            proves_nothing(policy);
            policy.acknowledge_heartbeats = !only_pongs;
            policy.answer_pings = only_pongs;
        })
        .await;
        let sent = ask(&net, "one").outcome().await.frame.at;
        assert_eq!(net.sidecar.drain().await, Outcome::Drained);
        let closed = closed_at(&net.gateway).await - sent;
        assert!(closed < AT_ONCE, "{closed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_close_that_answers_ours_is_proof_too_and_may_take_its_time() {
    let (net, wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(proves_nothing);
    ask(&net, "one").outcome().await.result();
    let began = Instant::now();
    let latency = Duration::from_millis(350);
    wire.0.change(|weather| weather.latency = latency);
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    let closed = closed_at(&net.gateway).await - latency - began;
    assert!(closed >= PROOF && closed < PROOF + AT_ONCE, "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nothing_proves_is_owned_up_to_in_time() {
    let (net, _wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.answer_closes = false;
    });
    ask(&net, "one").outcome().await.result();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Dropped);
    let took = began.elapsed();
    assert!(took > PROOF && took <= PROOF + CLOSE, "{took:?}");
    let closed = closed_at(&net.gateway).await - began;
    assert!(closed >= PROOF && closed < PROOF + AT_ONCE, "{closed:?}");
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

/// What a drain may take beyond `PIN_DRAIN_TIMEOUT`.
const SLACK: Duration = Duration::from_secs(5);

/// A node with an answer whose gateway is away; it begins to drain, and may take so long, when this returns.
async fn draining_alone(limit: &str) -> (Net<Node>, Wire, Chat) {
    let (mut net, wire) = start_on_wire(&[("PIN_DRAIN_TIMEOUT", limit)]).await;
    net.ollama.pause_at(3);
    let chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &wire).await;
    net.ollama.go_on();
    wait_for_undelivered(&net, 1).await;
    net.sidecar.begin_drain();
    (net, wire, chat)
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_stays_away_costs_the_answer_and_no_more_time_than_a_drain_may_take() {
    let limit = Duration::from_secs(10);
    let (net, _wire, _chat) = draining_alone("10s").await;
    let began = Instant::now();
    assert_eq!(net.sidecar.drained().await, Outcome::Dropped);
    let took = began.elapsed();
    assert!(took >= limit && took < limit + SLACK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_comes_back_at_the_last_moment_gets_its_answer() {
    let (net, wire, mut chat) = draining_alone("10s").await;
    sleep(Duration::from_millis(9_900)).await;
    wire.mend();
    chat.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_hung_ollama_is_left_and_its_chat_is_told_so_for_which_there_is_time() {
    let limit = Duration::from_secs(25);
    let (mut net, _wire) = start_on_wire(&[("PIN_DRAIN_TIMEOUT", "25s")]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.result_ack_delay = PROOF - Duration::from_millis(100);
    });
    net.ollama.fail_next(CHAT, 1, Fault::HangBeforeHeaders);
    let mut chat = ask(&net, "one");
    let request = net.ollama.wait_for_request(CHAT).await;
    let began = Instant::now();
    net.sidecar.begin_drain();
    let told = chat.outcome().await;
    draining(&told);
    let told = told.frame.at - began;
    assert!(told >= limit && told < limit + AT_ONCE, "{told:?}");
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
    let took = began.elapsed();
    assert!(took < limit + PROOF + CLOSE, "{took:?}");
    let left = request.left_at().unwrap() - began;
    assert!(left >= limit && left < limit + AT_ONCE, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_reads_nothing_any_more_costs_the_answer_and_no_more_time() {
    let (net, _wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(proves_nothing);
    ask(&net, "one").outcome().await.result();
    net.gateway.stop_reading();
    let began = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Dropped);
    let took = began.elapsed();
    assert!(took > PROOF && took <= PROOF + CLOSE, "{took:?}");
}
