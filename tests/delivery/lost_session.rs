//! Answers outlive the session that asked for them.

use devnet::network::{Pace, Proxy, Reach, Way};

use super::*;

#[tokio::test]
async fn an_answer_made_while_the_gateway_is_away_comes_with_the_next_session() {
    let (net, network) = start(&[]).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &network).await;
    net.ollama.go_on();
    wait_for_undelivered(&net, 1).await;

    come_back(&net, &network, 2).await;
    chat.outcome().await.result();
    wait_for_undelivered(&net, 0).await;
    assert_once(&net, &["one"]);
    assert_eq!(net.gateway.books().deliveries("one").responses, 1);
}

#[tokio::test]
async fn what_was_sent_and_not_proven_goes_again_oldest_first_and_what_was_proven_does_not() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    let ids = ["one", "two", "three", "four"];
    for id in ids {
        ask(&net, id).outcome().await.result();
    }
    net.gateway.acknowledge("two");
    round_trip(&net.gateway).await;
    wait_for_undelivered(&net, 3).await;
    assert_eq!(redelivered(&net).await, 0.0);

    go_away(&net, &network).await;
    net.gateway.set_policy(|policy| *policy = Policy::default());
    come_back(&net, &network, 2).await;
    wait_for_undelivered(&net, 0).await;
    assert_eq!(answered(&net.gateway, 2), ["one", "three", "four"]);
    assert_eq!(redelivered(&net).await, 3.0);
    assert_eq!(dropped(&net, "expired").await, 0.0);
    assert_once(&net, &ids);
}

#[tokio::test]
async fn a_live_chat_is_answered_while_old_answers_still_wait_for_their_proof() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    let old = ["one", "two", "three"];
    for id in old {
        ask(&net, id).outcome().await.result();
    }
    go_away(&net, &network).await;
    come_back(&net, &network, 2).await;
    // The session ended soon after they were sent: one by one, each proven before the next.
    wait_for_answer(&net, 2, "one").await;
    let live = ask_streamed(&net, "live").outcome().await;
    assert_eq!(live.streamed("content"), live.text());
    assert_eq!(answered(&net.gateway, 2), ["one", "live"]);
    for (proven, next) in [("one", "two"), ("two", "three")] {
        net.gateway.acknowledge(proven);
        wait_for_answer(&net, 2, next).await;
    }
    assert_eq!(answered(&net.gateway, 2), ["one", "live", "two", "three"]);
    for id in ["live", "three"] {
        net.gateway.acknowledge(id);
    }
    wait_for_undelivered(&net, 0).await;
    assert_once(&net, &["one", "two", "three", "live"]);
}

#[tokio::test]
async fn an_answer_is_kept_through_as_many_sessions_as_it_takes_where_it_was_not_sent() {
    let (net, network) = start(&[]).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    for session in 2..=6 {
        go_away(&net, &network).await;
        come_back(&net, &network, session).await;
    }
    go_away(&net, &network).await;
    net.ollama.go_on();
    wait_for_undelivered(&net, 1).await;
    come_back(&net, &network, 7).await;
    chat.outcome().await.result();
    assert_once(&net, &["one"]);
}

/// Whatever happens to the link while a chat runs, its answer arrives over the next one.
async fn survives(trouble: impl AsyncFnOnce(&Net, &Proxy)) {
    let (net, network) = start(&IMPATIENT).await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(10_000); 90]));
    net.ollama.pause_at(10);
    let mut chat = ask_streamed(&net, "one");
    chat.next().await;
    trouble(&net, &network).await;
    net.ollama.go_on();
    net.ollama.wait_until_idle().await;
    net.gateway.wait_for_session(2).await;
    assert_eq!(chat.outcome().await.text().len(), 900_000);
    wait_for_undelivered(&net, 0).await;
    assert_once(&net, &["one"]);
}

#[tokio::test]
async fn a_reset_link_costs_no_answer() {
    survives(async |_, network| {
        network.cut().await;
        network.mend().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_link_that_is_reset_in_the_middle_of_the_answer_costs_no_answer() {
    survives(async |_, network| network.reset_after(Way::Up, 300_000)).await;
}

#[tokio::test]
async fn a_link_on_which_the_answer_vanishes_costs_no_answer() {
    survives(async |_, network| network.lose(Way::Up, Reach::Open)).await;
}

#[tokio::test]
async fn a_link_on_which_the_proof_vanishes_costs_no_answer() {
    survives(async |_, network| network.lose(Way::Down, Reach::Open)).await;
}

#[tokio::test]
async fn a_link_that_is_stalled_until_it_is_given_up_costs_no_answer() {
    survives(async |net, network| {
        network.stall();
        net.sidecar
            .wait_for_metric("disconnects_total{reason=\"silent\"}", |count| count == 1.0)
            .await;
        network.mend().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_answer_gets_through_a_link_that_is_slow_or_carries_one_byte_at_a_time() {
    let (net, network) = start(&[]).await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(1_000); 20]));
    let slow = Pace::Slow {
        bytes_per_second: 100_000,
    };
    for (pace, id) in [(slow, "slow"), (Pace::Bytewise, "bytewise")] {
        network.pace(Way::Up, pace);
        network.pace(Way::Down, pace);
        let outcome = ask_streamed(&net, id).outcome().await;
        assert_eq!(outcome.text().len(), 20_000);
        assert_eq!(outcome.streamed("content").len(), 20_000);
    }
    wait_for_undelivered(&net, 0).await;
    assert_eq!(net.gateway.sessions().ever, 1);
    assert_once(&net, &["slow", "bytewise"]);
}

#[tokio::test]
async fn a_link_that_loses_what_new_sessions_say_is_tried_until_it_does_not() {
    let (net, network) =
        start(&[&IMPATIENT[..], &[("PIN_CONNECT_TIMEOUT", "200ms")]].concat()).await;
    net.ollama.pause_at(3);
    let mut chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    network.lose(Way::Up, Reach::All);
    net.ollama.go_on();
    net.sidecar
        .wait_for_metric("connect_attempts_total", |attempts| attempts >= 3.0)
        .await;
    assert_eq!(net.gateway.sessions().ever, 1);
    come_back(&net, &network, 2).await;
    chat.outcome().await.result();
    assert_once(&net, &["one"]);
}
