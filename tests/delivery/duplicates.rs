//! The same id again: never a second generation while one runs or after a response.

use devnet::ollama::{CHAT, Fault};

use super::*;

async fn duplicates(net: &Net) -> f64 {
    net.sidecar.metric("duplicate_requests_total").await
}

#[tokio::test]
async fn a_repeat_while_the_first_runs_or_waits_is_answered_once() {
    let (net, _network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "1")]).await;
    net.ollama.pause_at(3);
    let mut running = ask(&net, "running");
    net.ollama.wait_for_chats(1).await;
    let mut waiting = ask(&net, "waiting");
    let _repeats = [ask(&net, "running"), ask(&net, "waiting")];
    round_trip(&net.gateway).await;
    assert_eq!(duplicates(&net).await, 2.0);
    net.ollama.go_on();
    running.outcome().await.result();
    waiting.outcome().await.result();
    ask(&net, "after").outcome().await.result();
    assert_eq!(answered(&net.gateway, 1), ["running", "waiting", "after"]);
    assert_once(&net, &["running", "waiting", "after"]);
}

#[tokio::test]
async fn a_repeat_on_the_next_session_joins_what_waits_or_runs() {
    let (net, network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "1")]).await;
    net.ollama.pause_at(3);
    let mut running = ask(&net, "running");
    net.ollama.wait_for_chats(1).await;
    let mut waiting = ask(&net, "waiting");
    round_trip(&net.gateway).await;
    go_away(&net, &network).await;
    come_back(&net, &network, 2).await;
    let _repeats = [ask(&net, "running"), ask(&net, "waiting")];
    round_trip(&net.gateway).await;
    net.ollama.go_on();
    running.outcome().await.result();
    waiting.outcome().await.result();
    ask(&net, "after").outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["running", "waiting", "after"]);
    assert_once(&net, &["running", "waiting", "after"]);
}

#[tokio::test]
async fn a_repeat_after_the_response_gets_the_same_answer_again_whether_it_was_proven_or_not() {
    for proven in [true, false] {
        let (net, _network) = start(&[]).await;
        if !proven {
            net.gateway.set_policy(proves_nothing);
        }
        let first = ask(&net, "one").outcome().await;
        wait_for_undelivered(&net, usize::from(!proven)).await;
        let again = ask(&net, "one").outcome().await;
        assert_eq!(first.frame.bytes, again.frame.bytes);
        assert_once(&net, &["one"]);
    }
}

#[tokio::test]
async fn a_repeat_on_a_later_session_gets_the_same_answer_again() {
    let (net, network) = start(&[]).await;
    let first = ask(&net, "one").outcome().await;
    wait_for_undelivered(&net, 0).await;
    go_away(&net, &network).await;
    come_back(&net, &network, 2).await;
    let again = ask(&net, "one").outcome().await;
    assert_eq!(first.frame.bytes, again.frame.bytes);
    wait_for_undelivered(&net, 0).await;
    assert_once(&net, &["one"]);
}

#[tokio::test]
async fn a_repeat_whose_answer_had_to_make_room_is_refused_and_not_run_again() {
    let (net, _network) = start(&[("PIN_OUTBOX_BYTES", "128KiB")]).await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(40 * 1024)]));
    for id in ["one", "two", "three", "four", "five"] {
        ask(&net, id).outcome().await.result();
        wait_for_undelivered(&net, 0).await;
    }
    let repeat = ask(&net, "one").outcome().await;
    assert!(
        repeat.error().starts_with("duplicate: "),
        "{}",
        repeat.error()
    );
    assert_eq!(runs(&net, "one"), 1);
    let kept = ask(&net, "five").outcome().await;
    assert_eq!(kept.text().len(), 40 * 1024);
    assert_eq!(runs(&net, "five"), 1);
}

#[tokio::test]
async fn what_was_refused_or_has_failed_is_new_work() {
    let (net, _network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    net.ollama.pause_at(3);
    let mut first = ask(&net, "first");
    net.ollama.wait_for_chats(1).await;
    let refused = ask(&net, "refused").outcome().await;
    assert!(refused.error().starts_with("busy: "), "{}", refused.error());
    net.ollama.go_on();
    first.outcome().await.result();
    ask(&net, "refused").outcome().await.result();

    net.ollama
        .fail_next(CHAT, 1, Fault::answer(500, "text/plain", "no"));
    let failed = ask(&net, "failed").outcome().await;
    assert_eq!(failed.error(), "backend: HTTP 500");
    ask(&net, "failed").outcome().await.result();
    assert_eq!(runs(&net, "failed"), 2);
    assert_eq!(net.gateway.books().bills(), 3);
}

#[tokio::test]
async fn an_error_that_was_not_delivered_gives_way_to_the_new_answer() {
    let (net, network) = start(&[]).await;
    net.gateway.set_policy(proves_nothing);
    net.ollama
        .fail_next(CHAT, 1, Fault::answer(500, "text/plain", "no"));
    ask(&net, "one").outcome().await.error();
    wait_for_undelivered(&net, 1).await;
    ask(&net, "one").outcome().await.result();
    wait_for_undelivered(&net, 1).await;
    assert_eq!(dropped(&net, "superseded").await, 1.0);

    go_away(&net, &network).await;
    net.gateway.set_policy(|policy| *policy = Policy::default());
    come_back(&net, &network, 2).await;
    wait_for_undelivered(&net, 0).await;
    let again = told(&net.gateway, 2);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(again[0].name(), "INFERENCE_RESPONSE");
    assert_eq!(net.gateway.books().bills(), 1);
}
