//! How an interview lives and ends: through lost sessions, repeats, cancels and drains.

use super::*;

/// Through a network that can be broken.
async fn start(settings: &[(&str, &str)]) -> (Net, Proxy) {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let network = Proxy::start(gateway.addr()).await.unwrap();
    let quick = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];
    let url = gateway.url_at(network.addr());
    let settings = [&quick, settings].concat();
    let sidecar = Sidecar::start(CLIENT, &url, &ollama.url(), &settings);
    gateway
        .wait_for(|frame| frame.is_from_agent("REGISTER_NODE"))
        .await;
    let net = Net {
        gateway,
        ollama,
        sidecar,
    };
    (net, network)
}

/// Breaks the session, and waits for the next, which is the n-th.
async fn reconnect(net: &Net, network: &Proxy, session: usize) {
    network.cut().await;
    net.gateway.wait_for_no_session().await;
    network.mend().await.unwrap();
    net.gateway.wait_for_session(session).await;
    net.sidecar
        .wait_for_metric("session_up", |up| up == 1.0)
        .await;
}

async fn undelivered(net: &Net, answers: f64) {
    net.sidecar
        .wait_for_metric("undelivered_results", |value| value == answers)
        .await;
}

#[tokio::test]
async fn cut_in_the_third_prompt_it_gives_one_result_and_no_prompt_is_run_twice() {
    let (net, network) = start(&[("PIN_ORPHAN_GRACE", "1ms")]).await;
    let five = ["one", "two", "three", "four", "five"];
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(5));
    net.gateway.send(&interview("i", &five));
    wait_for_prompt(&net, "three").await;
    reconnect(&net, &network, 2).await;
    // The gateway may ask again.
    net.gateway.send(&interview("i", &five));
    assert_eq!(errors(&result(&net.gateway, "i").await), [None; 5]);
    undelivered(&net, 0.0).await;
    assert_eq!(prompts(&net), five);
    assert_eq!(results(&net.gateway, "i"), 1);
    // It may even do so when it has had the result.
    net.gateway.send(&interview("i", &five));
    nth_result(&net.gateway, "i", 1).await;
    undelivered(&net, 0.0).await;
    assert_eq!(prompts(&net), five);
    assert_eq!(net.sidecar.metric("duplicate_requests_total").await, 2.0);
}

#[tokio::test]
async fn a_new_interview_of_a_later_session_ends_the_earlier_one_without_a_word() {
    let (net, network) = start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.pause_at(3);
    net.gateway.send(&interview("old", &["one", "two"]));
    wait_for_prompt(&net, "one").await;
    reconnect(&net, &network, 2).await;
    net.gateway.send(&interview("new", &["three"]));
    wait_for_prompt(&net, "three").await;
    net.ollama.go_on();
    assert_eq!(errors(&result(&net.gateway, "new").await), [None]);
    undelivered(&net, 0.0).await;
    assert_eq!(results(&net.gateway, "old"), 0);
    assert_eq!(prompts(&net), ["one", "three"]);
}

#[tokio::test]
async fn an_interview_has_the_slot_of_the_one_that_it_replaces_before_a_chat_that_waits() {
    let (net, network) = start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.pause_at(3);
    net.gateway.send(&interview("old", &["one", "two"]));
    wait_for_prompt(&net, "one").await;
    let _chat = net.chat("chat");
    round_trip(&net.gateway).await;
    reconnect(&net, &network, 2).await;
    net.gateway.send(&interview("new", &["three"]));
    wait_for_prompt(&net, "three").await;
    net.ollama.go_on();
    wait_for_prompt(&net, "chat").await;
    assert_eq!(prompts(&net), ["one", "three", "chat"]);
}

#[tokio::test]
async fn a_chat_and_an_interview_of_one_id_are_two_requests() {
    let net = Net::start(&[]).await;
    net.ollama.pause_at(3);
    let _chat = net.gateway.chat_with_id("same", chat("chat"));
    wait_for_prompt(&net, "chat").await;
    net.gateway.send(&interview("same", &["one"]));
    wait_for_prompt(&net, "one").await;
    // Cancelled is the chat.
    net.gateway.cancel("same");
    round_trip(&net.gateway).await;
    net.ollama.go_on();
    assert_eq!(errors(&result(&net.gateway, "same").await), [None]);
    undelivered(&net, 0.0).await;
    assert_eq!(net.gateway.books().deliveries("same").responses, 0);
    assert_eq!(net.sidecar.metric("cancelled_requests_total").await, 1.0);
}

#[tokio::test]
async fn a_cancelled_interview_frees_its_slot_and_is_never_heard_of_again() {
    let net = Net::start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.pause_at(3);
    net.gateway.send(&interview("i", &["one", "two"]));
    wait_for_prompt(&net, "one").await;
    net.gateway.cancel("i");
    let mut chat = net.chat("chat");
    wait_for_prompt(&net, "chat").await;
    net.ollama.go_on();
    chat.outcome().await.result();
    round_trip(&net.gateway).await;
    assert_eq!(results(&net.gateway, "i"), 0);
    assert_eq!(prompts(&net), ["one", "chat"]);
}

#[tokio::test]
async fn a_drain_lets_an_interview_finish_and_says_nothing_of_one_that_it_has_to_cut() {
    for (limit, results_told) in [("10s", 1), ("100ms", 0)] {
        let mut net = Net::start(&[("PIN_DRAIN_TIMEOUT", limit)]).await;
        net.ollama.pause_at(3);
        net.gateway.send(&interview("i", &["one"]));
        wait_for_prompt(&net, "one").await;
        net.gateway.send(&interview("waits", &["two"]));
        round_trip(&net.gateway).await;
        net.sidecar.begin_drain();
        net.sidecar.wait_until_pending("Draining").await;
        net.gateway.send(&interview("late", &["three"]));
        assert_eq!(
            errors(&result(&net.gateway, "late").await),
            [Some("draining")]
        );
        if results_told == 1 {
            net.ollama.go_on();
        }
        let Net {
            gateway, sidecar, ..
        } = net;
        sidecar.drained().await;
        assert_eq!(results(&gateway, "i"), results_told, "{limit}");
        assert_eq!(results(&gateway, "waits"), 0);
    }
}

#[tokio::test]
async fn the_acknowledgement_of_its_id_proves_a_result() {
    let net = Net::start(&[]).await;
    net.gateway.set_policy(|policy| {
        policy.acknowledge_results = false;
        policy.acknowledge_heartbeats = false;
        policy.acknowledge_models = false;
        policy.answer_pings = false;
    });
    net.gateway.send(&interview("i", &["one"]));
    nth_result(&net.gateway, "i", 0).await;
    round_trip(&net.gateway).await;
    undelivered(&net, 1.0).await;
    net.gateway.acknowledge("another");
    round_trip(&net.gateway).await;
    assert_eq!(net.sidecar.metric("undelivered_results").await, 1.0);
    net.gateway.acknowledge("i");
    undelivered(&net, 0.0).await;
}
