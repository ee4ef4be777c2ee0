//! What counts as proof that an answer has been read, and what does not.

use std::{ops::RangeInclusive, time::Duration};

use devnet::gateway::AckId;
use tokio::time::{Instant, sleep};

use super::*;

/// The answer is proven: the next session does not hear of it again.
async fn assert_proven(net: &Net<Node>, wire: &Wire) {
    wait_for_undelivered(net, 0).await;
    go_away(net, wire).await;
    come_back(net, wire, 2).await;
    ask(net, "after").outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["after"]);
    assert_eq!(redelivered(net).await, 0.0);
}

/// The answer is not: the next session hears of it again, and of nothing twice.
async fn assert_unproven(net: &Net<Node>, wire: &Wire) {
    round_trip(&net.gateway).await;
    wait_for_undelivered(net, 1).await;
    go_away(net, wire).await;
    net.gateway.set_policy(|policy| *policy = Policy::default());
    come_back(net, wire, 2).await;
    wait_for_answer(net, 2, "one").await;
    wait_for_undelivered(net, 0).await;
    assert_eq!(redelivered(net).await, 1.0);
    assert_once(net, &["one"]);
}

/// Waits until the agent has sent so many more heartbeats.
async fn wait_for_heartbeats(net: &Net<Node>, more: usize) {
    let mut seen = net.gateway.frames().len();
    for _ in 0..more {
        seen = net
            .gateway
            .wait_for_since(seen, |frame| frame.is_from_agent("HEARTBEAT"))
            .await
            .0
            + 1;
    }
}

#[tokio::test(start_paused = true)]
async fn pongs_prove_where_the_gateway_acknowledges_nothing() {
    let (net, wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.answer_pings = true;
    });
    ask(&net, "one").outcome().await.result();
    assert_proven(&net, &wire).await;
}

#[tokio::test(start_paused = true)]
async fn pongs_prove_nothing_where_the_gateway_has_acknowledged_a_heartbeat() {
    let (net, wire) = start_on_wire(&[("PIN_HEARTBEAT_INTERVAL", "50ms")]).await;
    net.gateway
        .wait_for(|frame| frame.is_from_gateway("HEARTBEAT_ACK"))
        .await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.answer_pings = true;
    });
    ask(&net, "one").outcome().await.result();
    wait_for_heartbeats(&net, 3).await;
    assert_unproven(&net, &wire).await;
}

#[tokio::test(start_paused = true)]
async fn acknowledged_heartbeats_prove_where_answers_are_not_acknowledged() {
    let (net, wire) = start_on_wire_with(&[], |policy| {
        proves_nothing(policy);
        policy.acknowledge_heartbeats = true;
    })
    .await;
    ask(&net, "one").outcome().await.result();
    assert_proven(&net, &wire).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_list_of_models_proves_too() {
    let settings = [("PIN_MODEL_REFRESH_INTERVAL", "50ms")];
    let (net, wire) = start_on_wire_with(&settings, |policy| {
        proves_nothing(policy);
        policy.acknowledge_models = true;
    })
    .await;
    ask(&net, "one").outcome().await.result();
    net.ollama
        .add_model("new", devnet::ollama::ModelShape::default());
    assert_proven(&net, &wire).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_are_acknowledged_twice_prove_no_more_than_once() {
    for answers_pings in [true, false] {
        let (net, wire) = start_on_wire(&[]).await;
        net.gateway.set_policy(|policy| {
            policy.repeat_heartbeat_acks = true;
            policy.answer_pings = answers_pings;
        });
        wait_for_heartbeats(&net, 5).await;
        round_trip(&net.gateway).await;
        net.gateway.set_policy(proves_nothing);
        ask(&net, "one").outcome().await.result();
        // All lists were acknowledged, so this is one too many as well; whoever counted any of them would do so now.
        net.gateway.send(&json!({"type": "MODEL_LIST_ACK"}));
        wait_for_heartbeats(&net, 3).await;
        assert_unproven(&net, &wire).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_acknowledgement_that_comes_late_does_not_pass_for_that_of_the_next_heartbeat() {
    let (net, wire) = start_on_wire(&[]).await;
    wait_for_heartbeats(&net, 1).await;
    round_trip(&net.gateway).await;
    net.gateway.set_policy(proves_nothing);
    ask(&net, "one").outcome().await.result();
    wait_for_heartbeats(&net, 1).await;
    // Pings were answered, and this heartbeat's was not: what comes cannot be about it.
    net.gateway.send(&json!({"type": "HEARTBEAT_ACK"}));
    assert_unproven(&net, &wire).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_with_another_id_or_with_none_proves_nothing() {
    for id in [AckId::Another, AckId::Missing] {
        let (net, wire) = start_on_wire(&[]).await;
        net.gateway.set_policy(|policy| {
            proves_nothing(policy);
            policy.acknowledge_results = true;
            policy.result_ack_id = id;
        });
        ask(&net, "one").outcome().await.result();
        assert_unproven(&net, &wire).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_may_come_twice_and_late() {
    let (net, wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.repeat_result_acks = true;
        policy.result_ack_delay = Duration::from_millis(300);
    });
    ask(&net, "one").outcome().await.result();
    wait_for_undelivered(&net, 1).await;
    assert_proven(&net, &wire).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_is_lost_with_the_link_is_no_loss() {
    let (net, wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.result_ack_delay = Duration::from_secs(60);
    });
    ask(&net, "one").outcome().await.result();
    assert_unproven(&net, &wire).await;
}

/// Has a small chat answered every tenth of a second, for so long.
async fn chat_on(net: &Net<Node>, time: Duration) {
    let until = Instant::now() + time;
    for n in 0.. {
        ask(net, &format!("chat-{n}")).outcome().await.result();
        if Instant::now() >= until {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// When heartbeats came.
fn heartbeats(net: &Net<Node>) -> Vec<Instant> {
    let frames = net.gateway.frames();
    let beats = frames
        .iter()
        .filter(|frame| frame.is_from_agent("HEARTBEAT"));
    beats.map(|frame| frame.at).collect()
}

/// From each of these moments to the next it is as many milliseconds as is right.
fn assert_gaps(moments: &[Instant], right: RangeInclusive<u64>) {
    for pair in moments.windows(2) {
        let gap = (pair[1] - pair[0]).as_millis();
        assert!(
            right.contains(&u64::try_from(gap).unwrap()),
            "a fence after {gap} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn unproven_answers_are_fenced_by_a_heartbeat_after_a_second() {
    let (net, _wire) = start_on_wire(&[]).await;
    net.gateway.set_policy(proves_nothing);
    let first = ask(&net, "first").outcome().await.frame.at;
    // Each fence is behind the answers before it; those after it want one of their own.
    chat_on(&net, Duration::from_secs(10)).await;
    let fences = [vec![first], heartbeats(&net)].concat();
    assert!(fences.len() > 9, "{} fences", fences.len() - 1);
    assert_gaps(&fences, 1_000..=1_150);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_proven_want_no_fence() {
    let (net, _wire) = start_on_wire(&[]).await;
    chat_on(&net, Duration::from_secs(10)).await;
    assert_eq!(heartbeats(&net), []);
}

#[tokio::test(start_paused = true)]
async fn fences_go_at_once_where_the_outbox_is_half_full_and_at_most_once_a_second() {
    let (net, _wire) = start_on_wire(&[("PIN_OUTBOX_BYTES", "1MiB")]).await;
    net.gateway.set_policy(proves_nothing);
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(600 * 1024)]));
    let large = ask(&net, "large").outcome().await.frame.at;
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = None);
    chat_on(&net, Duration::from_secs(5)).await;
    let fences = heartbeats(&net);
    assert!(
        fences[0] - large < Duration::from_millis(50),
        "the fence came {:?} after the answer",
        fences[0] - large
    );
    assert!(fences.len() > 4, "{} fences", fences.len());
    assert_gaps(&fences, 1_000..=1_150);
}
