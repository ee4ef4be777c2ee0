//! What counts as proof that an answer has been read, and what does not.

use std::time::Duration;

use devnet::gateway::AckId;

use super::*;

/// The answer is proven: the next session does not hear of it again.
async fn assert_proven(net: &Net, network: &Proxy) {
    wait_for_undelivered(net, 0).await;
    go_away(net, network).await;
    come_back(net, network, 2).await;
    ask(net, "after").outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["after"]);
    assert_eq!(redelivered(net).await, 0.0);
}

/// The answer is not: the next session hears of it again, and of nothing twice.
async fn assert_unproven(net: &Net, network: &Proxy) {
    round_trip(&net.gateway).await;
    wait_for_undelivered(net, 1).await;
    go_away(net, network).await;
    net.gateway.set_policy(|policy| *policy = Policy::default());
    come_back(net, network, 2).await;
    wait_for_answer(net, 2, "one").await;
    wait_for_undelivered(net, 0).await;
    assert_eq!(redelivered(net).await, 1.0);
    assert_once(net, &["one"]);
}

/// Waits until the agent has sent so many more heartbeats.
async fn wait_for_heartbeats(net: &Net, more: usize) {
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

#[tokio::test]
async fn pongs_prove_where_the_gateway_acknowledges_nothing() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.answer_pings = true;
    });
    ask(&net, "one").outcome().await.result();
    assert_proven(&net, &network).await;
}

#[tokio::test]
async fn pongs_prove_nothing_where_the_gateway_has_acknowledged_a_heartbeat() {
    let (net, network) = start(&[("PIN_HEARTBEAT_INTERVAL", "50ms")]).await;
    net.gateway
        .wait_for(|frame| frame.is_from_gateway("HEARTBEAT_ACK"))
        .await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.answer_pings = true;
    });
    ask(&net, "one").outcome().await.result();
    wait_for_heartbeats(&net, 3).await;
    assert_unproven(&net, &network).await;
}

#[tokio::test]
async fn acknowledged_heartbeats_prove_where_answers_are_not_acknowledged() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_heartbeats = true;
    });
    ask(&net, "one").outcome().await.result();
    assert_proven(&net, &network).await;
}

#[tokio::test]
async fn an_acknowledged_list_of_models_proves_too() {
    let (net, network) = start_with(&[("PIN_MODEL_REFRESH_INTERVAL", "50ms")], |policy| {
        proves_nothing(policy);
        policy.acknowledge_models = true;
    })
    .await;
    ask(&net, "one").outcome().await.result();
    net.ollama
        .add_model("new", devnet::ollama::ModelShape::default());
    assert_proven(&net, &network).await;
}

#[tokio::test]
async fn heartbeats_that_are_acknowledged_twice_prove_no_more_than_once() {
    let (net, network) = start(&[("PIN_HEARTBEAT_INTERVAL", "50ms")]).await;
    net.gateway
        .set_policy(|policy| policy.repeat_heartbeat_acks = true);
    wait_for_heartbeats(&net, 5).await;
    round_trip(&net.gateway).await;
    net.gateway.set_policy(proves_nothing);
    ask(&net, "one").outcome().await.result();
    wait_for_heartbeats(&net, 3).await;
    assert_unproven(&net, &network).await;
}

#[tokio::test]
async fn an_acknowledgement_with_another_id_or_with_none_proves_nothing() {
    for id in [AckId::Another, AckId::Missing] {
        let (net, network) = start(&[]).await;
        net.gateway.set_policy(|policy| {
            proves_nothing(policy);
            policy.acknowledge_results = true;
            policy.result_ack_id = id;
        });
        ask(&net, "one").outcome().await.result();
        assert_unproven(&net, &network).await;
    }
}

#[tokio::test]
async fn an_acknowledgement_may_come_twice_and_late() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.repeat_result_acks = true;
        policy.result_ack_delay = Duration::from_millis(300);
    });
    ask(&net, "one").outcome().await.result();
    wait_for_undelivered(&net, 1).await;
    assert_proven(&net, &network).await;
}

#[tokio::test]
async fn an_acknowledgement_that_is_lost_with_the_link_is_no_loss() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_results = true;
        policy.result_ack_delay = Duration::from_secs(60);
    });
    ask(&net, "one").outcome().await.result();
    assert_unproven(&net, &network).await;
}

#[tokio::test]
async fn unproven_answers_are_fenced_by_a_heartbeat_after_a_second_and_at_most_once_a_second() {
    let (net, _network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    let first = ask(&net, "first").outcome().await.frame.at;
    // Each fence is behind the answers before it; those after it want one of their own.
    for n in 0.. {
        ask(&net, &format!("chat-{n}")).outcome().await.result();
        if first.elapsed() > Duration::from_millis(3500) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut times = vec![first];
    let frames = net.gateway.frames();
    let beats = frames
        .iter()
        .filter(|frame| frame.is_from_agent("HEARTBEAT"));
    times.extend(beats.map(|frame| frame.at));
    assert!(times.len() >= 3, "{} fences", times.len() - 1);
    for pair in times.windows(2) {
        let gap = pair[1] - pair[0];
        let right = Duration::from_millis(900)..Duration::from_millis(2200);
        assert!(right.contains(&gap), "a fence after {gap:?}");
    }
}

#[tokio::test]
async fn a_fence_goes_at_once_where_the_outbox_is_half_full() {
    let (net, _network) = start(&[("PIN_OUTBOX_BYTES", "64KiB")]).await;
    net.gateway.set_policy(|policy| {
        proves_nothing(policy);
        policy.acknowledge_heartbeats = true;
    });
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(40 * 1024)]));
    let answer = ask(&net, "one").outcome().await.frame.at;
    wait_for_undelivered(&net, 0).await;
    let beat = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("HEARTBEAT"))
        .await
        .at;
    assert!(
        beat - answer < Duration::from_millis(700),
        "the fence came {:?} after the answer",
        beat - answer
    );
}
