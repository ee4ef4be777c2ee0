//! Nothing is kept for longer than PIN_RESULT_TTL.

use std::time::Duration;

use super::*;

const TTL: Duration = Duration::from_millis(400);
const SHORT: [(&str, &str); 1] = [("PIN_RESULT_TTL", "400ms")];

#[tokio::test]
async fn an_answer_that_nobody_comes_for_is_dropped_and_counted() {
    let (net, network) = start(&SHORT).await;
    net.ollama.pause_at(3);
    let _chat = ask(&net, "one");
    net.ollama.wait_for_chats(1).await;
    go_away(&net, &network).await;
    net.ollama.go_on();
    let series = "results_dropped_total{reason=\"expired\"}";
    net.sidecar
        .wait_for_metric(series, |count| count == 1.0)
        .await;
    wait_for_undelivered(&net, 0).await;
    come_back(&net, &network, 2).await;
    ask(&net, "two").outcome().await.result();
    assert_eq!(answered(&net.gateway, 2), ["two"]);
}

#[tokio::test]
async fn a_delivered_answer_is_forgotten_and_its_id_is_new_work() {
    let (net, _network) = start(&SHORT).await;
    ask(&net, "one").outcome().await.result();
    tokio::time::sleep(TTL * 4).await;
    ask(&net, "one").outcome().await.result();
    assert_eq!(runs(&net, "one"), 2);
}
