//! Where an interview stands among other work: one slot, ahead of all that wait, one at a time.

use super::*;

async fn running(net: &Net, value: f64) {
    net.sidecar
        .wait_for_metric("requests_running", |running| running == value)
        .await;
}

#[tokio::test]
async fn an_interview_goes_ahead_of_chats_that_wait_and_keeps_its_slot_for_all_prompts() {
    let net = Net::start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "4")]).await;
    net.ollama.pause_at(3);
    let mut first = net.chat("first");
    wait_for_prompt(&net, "first").await;
    let mut waiting = [net.chat("second"), net.chat("third")];
    net.gateway.send(&interview("i", &["one", "two", "three"]));
    let mut late = net.chat("late");
    round_trip(&net.gateway).await;
    net.ollama.go_on();
    first.outcome().await.result();
    assert_eq!(errors(&result(&net.gateway, "i").await), [None; 3]);
    for chat in waiting.iter_mut().chain([&mut late]) {
        chat.outcome().await.result();
    }
    assert_eq!(
        prompts(&net),
        ["first", "one", "two", "three", "second", "third", "late"]
    );
    assert_eq!(net.ollama.chats().most, 1);
    running(&net, 0.0).await;
}

#[tokio::test]
async fn pings_and_heartbeats_are_answered_in_time_while_an_interview_is_run() {
    let net = Net::start(&[
        ("PIN_CAPACITY", "1"),
        ("PIN_HEARTBEAT_INTERVAL", "100ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "10s"),
    ])
    .await;
    net.ollama.pause_at(3);
    net.gateway.send(&interview("i", &["one"]));
    wait_for_prompt(&net, "one").await;
    let seen = net.gateway.frames().len();
    let mut at = seen;
    for _ in 0..5 {
        at = net
            .gateway
            .wait_for_since(at, |frame| frame.is_from_agent("HEARTBEAT"))
            .await
            .0
            + 1;
        round_trip(&net.gateway).await;
    }
    let beat = &net.gateway.frames()[at - 1];
    assert_eq!(beat.value["health"]["current_load"], 1);
    net.ollama.go_on();
    assert_eq!(errors(&result(&net.gateway, "i").await), [None]);
}

#[tokio::test]
async fn of_three_interviews_of_a_node_one_is_run_one_waits_and_one_is_refused() {
    let net = Net::start(&[("PIN_CAPACITY", "4")]).await;
    net.ollama.pause_at(3);
    net.gateway.send(&interview("first", &["one", "two"]));
    wait_for_prompt(&net, "one").await;
    net.gateway.send(&interview("second", &["three"]));
    net.gateway.send(&interview("third", &["four", "five"]));
    assert_eq!(
        errors(&result(&net.gateway, "third").await),
        [Some("busy"); 2]
    );
    running(&net, 1.0).await;
    net.ollama.go_on();
    assert_eq!(errors(&result(&net.gateway, "second").await), [None]);
    assert_eq!(errors(&result(&net.gateway, "first").await), [None, None]);
    assert_eq!(prompts(&net), ["one", "two", "three"]);
    running(&net, 0.0).await;
}

#[tokio::test]
async fn a_node_is_meant_by_its_id_or_its_alias_and_by_an_unknown_one_whoever_has_the_model() {
    let net = Net::start(&[]).await;
    let acknowledged = net
        .gateway
        .wait_for(|frame| frame.is_from_gateway("REGISTER_NODE_ACK"))
        .await;
    round_trip(&net.gateway).await;
    let names = [
        acknowledged.value["node_id"].clone(),
        json!("node-1"),
        json!("somebody-else"),
        Value::Null,
    ];
    for (n, name) in names.into_iter().enumerate() {
        let id = format!("i{n}");
        let mut request = interview(&id, &["one"]);
        request["node_id"] = name;
        net.gateway.send(&request);
        assert_eq!(
            errors(&result(&net.gateway, &id).await),
            [None],
            "{request}"
        );
    }
}

#[tokio::test]
async fn an_interview_waits_for_its_slot_longer_than_a_chat_may() {
    let settings = [("PIN_CAPACITY", "1"), ("PIN_QUEUE_TIMEOUT", "100ms")];
    let net = Net::start(&settings).await;
    net.ollama.pause_at(3);
    let mut first = net.chat("first");
    wait_for_prompt(&net, "first").await;
    net.gateway.send(&interview("i", &["one"]));
    let refused = net.chat("second").outcome().await;
    assert!(refused.error().starts_with("queue_timeout: "));
    net.ollama.go_on();
    first.outcome().await.result();
    assert_eq!(errors(&result(&net.gateway, "i").await), [None]);
}

#[tokio::test]
async fn an_interview_that_got_its_slot_too_late_says_so_and_asks_nothing_in_vain() {
    let net = Net::start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.pause_at(3);
    let mut first = net.chat("first");
    wait_for_prompt(&net, "first").await;
    let mut request = interview("i", &["one", "two", "three"]);
    request["timeout_ms"] = json!(200);
    net.gateway.send(&request);
    assert_eq!(
        errors(&result(&net.gateway, "i").await),
        [Some("timeout"); 3]
    );
    request["interview_id"] = json!("j");
    net.gateway.send(&request);
    round_trip(&net.gateway).await;
    // It has its slot, and no time to be loaded and answered.
    net.ollama
        .set_behaviour(|behaviour| behaviour.load_delay = Duration::from_secs(60));
    net.ollama.remove_model(MODEL);
    net.ollama.add_model(MODEL, Default::default());
    net.ollama.go_on();
    first.outcome().await.result();
    let over = Some("timeout: the time of the whole interview is over");
    assert_eq!(errors(&result(&net.gateway, "j").await), [over; 3]);
    assert_eq!(prompts(&net), ["first"]);
}
