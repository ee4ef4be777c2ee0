//! An Ollama whose answers do not end with their last line, and one that goes away.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::world::{Net, Step};

/// Soon for a person, and for whoever waits for an answer.
const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_connection_to_ollama_is_used_again_though_its_answer_ends_a_moment_after_its_last_line()
{
    let mut net = Net::start(&[]).await;
    let before = net.ollama.dialled();
    for request_id in ["one", "two", "three"] {
        let end = Step::Rest(Duration::from_millis(10));
        net.ollama.plan(&[Step::Say, Step::Done(1), end]);
        net.gateway.ask(request_id).await;
        net.gateway.wait_for("INFERENCE_RESPONSE").await;
    }
    assert_eq!(net.ollama.dialled(), before);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_delivered_at_once_though_ollama_never_ends_it_after_its_last_line() {
    let mut net = Net::start(&[]).await;
    net.ollama.plan(&[Step::Say, Step::Done(1), Step::Hang]);
    let asked = Instant::now();
    net.gateway.ask("one").await;
    let answer = net.gateway.wait_for("INFERENCE_RESPONSE").await;
    assert_eq!(
        answer["result"]["choices"][0]["message"]["content"],
        "word "
    );
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_ollama_that_a_chat_finds_gone_is_no_longer_offered_at_once() {
    let mut net = Net::start(&[("PIN_MODEL_REFRESH_INTERVAL", "10m")]).await;
    // It has just been asked whether it is there, so that it would be asked again only in three seconds.
    net.ollama.wait_for_pulse().await;
    net.ollama.stop();
    let gone = Instant::now();
    net.gateway.ask("one").await;
    let error = net.gateway.wait_for("INFERENCE_ERROR").await;
    assert_eq!(error["request_id"], "one");
    let list = net.gateway.wait_for("MODEL_LIST").await;
    assert_eq!(list["models"].as_array().map(Vec::len), Some(0), "{list}");
    assert!(gone.elapsed() < AT_ONCE, "{:?}", gone.elapsed());
    assert_eq!(net.metric("ollama_up"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn models_that_were_described_are_not_described_again_because_a_look_was_cut_short() {
    let mut net = Net::start(&[("PIN_MODEL_REFRESH_INTERVAL", "10m")]).await;
    let before = net.ollama.described().len();
    let names = ["a", "b", "c"].map(|name| format!("{name}:latest"));
    net.ollama.add_models(&names);
    net.ollama.never_describe(Some("b:latest"));
    // A chat for a model that is not on the list, which is older than a second, has it look.
    sleep(Duration::from_secs(2)).await;
    net.gateway.ask_for("one", "nobody", false).await;
    sleep(AT_ONCE).await;
    assert_eq!(net.ollama.described()[before..], names);
    net.gateway
        .send([json!({"type": "CANCEL_REQUEST", "request_id": "one"})])
        .await;
    sleep(AT_ONCE).await;

    net.ollama.never_describe(None);
    net.gateway.ask_for("two", "nobody", false).await;
    let error = net.gateway.wait_for("INFERENCE_ERROR").await;
    assert_eq!(
        error["error"],
        "model_not_found: this node does not offer that model"
    );
    assert_eq!(net.ollama.described()[before + names.len()..], ["b:latest"]);
    assert_eq!(net.metric("ollama_models"), 4.0);
}
