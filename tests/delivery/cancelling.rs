//! After a cancel the gateway hears nothing more of that id, wherever it was on its way.

use devnet::{gateway::Deliveries, ollama::CHAT};

use super::*;

#[tokio::test]
async fn a_waiting_chat_leaves_the_room() {
    let (net, _network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "1")]).await;
    net.ollama.pause_at(3);
    let mut running = ask(&net, "running");
    net.ollama.wait_for_chats(1).await;
    let _waiting = ask(&net, "waiting");
    net.gateway.cancel("waiting");
    // Its place is free again.
    let mut next = ask(&net, "next");
    round_trip(&net.gateway).await;
    net.ollama.go_on();
    running.outcome().await.result();
    next.outcome().await.result();
    assert_eq!(runs(&net, "waiting"), 0);
    assert_eq!(answered(&net.gateway, 1), ["running", "next"]);
}

#[tokio::test]
async fn a_running_chat_is_closed_at_ollama_and_not_heard_of_again() {
    let (net, _network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.tokens = 1_000_000);
    let mut chat = ask_streamed(&net, "one");
    chat.next().await;
    net.gateway.cancel("one");
    round_trip(&net.gateway).await;
    let silent_from = net.gateway.frames().len();
    let request = net.ollama.wait_for_request(CHAT).await;
    request.wait_until_left().await;
    net.ollama.set_behaviour(|behaviour| behaviour.tokens = 5);
    ask(&net, "two").outcome().await.result();
    let since = &net.gateway.frames()[silent_from..];
    assert!(!since.iter().any(|frame| frame.request_id() == "one"));
    assert_eq!(net.gateway.books().deliveries("one"), Deliveries::default());
    // The same id is new work.
    ask(&net, "one").outcome().await.result();
}

#[tokio::test]
async fn an_answer_that_is_not_proven_is_not_sent_again() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    for id in ["one", "two"] {
        ask(&net, id).outcome().await.result();
    }
    net.gateway.cancel("one");
    round_trip(&net.gateway).await;
    wait_for_undelivered(&net, 1).await;
    assert_eq!(dropped(&net, "cancelled").await, 1.0);
    go_away(&net, &network).await;
    net.gateway.set_policy(|policy| *policy = Policy::default());
    come_back(&net, &network, 2).await;
    wait_for_undelivered(&net, 0).await;
    assert_eq!(answered(&net.gateway, 2), ["two"]);
}

#[tokio::test]
async fn a_delivered_answer_is_forgotten_so_that_its_id_is_new_work() {
    let (net, _network) = start(&[]).await;
    ask(&net, "one").outcome().await.result();
    wait_for_undelivered(&net, 0).await;
    net.gateway.cancel("one");
    ask(&net, "one").outcome().await.result();
    assert_eq!(runs(&net, "one"), 2);
}

#[tokio::test]
async fn a_chat_that_runs_on_for_an_earlier_session_can_be_cancelled_on_the_next() {
    let (net, network) = start(&[]).await;
    net.ollama.pause_at(3);
    let _chat = ask(&net, "one");
    let request = net.ollama.wait_for_request(CHAT).await;
    go_away(&net, &network).await;
    come_back(&net, &network, 2).await;
    net.gateway.cancel("one");
    request.wait_until_left().await;
    net.ollama.go_on();
    ask(&net, "two").outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["two"]);
}

#[tokio::test]
async fn an_unknown_id_is_not_remembered() {
    let (net, _network) = start(&[]).await;
    net.gateway.cancel("one");
    ask(&net, "one").outcome().await.result();
    assert_once(&net, &["one"]);
}
