//! An Ollama whose answers do not end with their last line, and one that goes away.

use std::time::Duration;

use devnet::ollama::{Fault, ModelShape, Ollama, spoken};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    MOMENT,
    support::{Counts, chat},
    wire,
};

/// Soon for a person, and for whoever waits for an answer.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Longer than anybody waits for anything.
const DAY: Duration = Duration::from_secs(24 * 3_600);

const SHOW: &str = "/api/show";

/// The models that it was asked to describe, in order.
fn described(ollama: &Ollama) -> Vec<String> {
    let requests = ollama.requests();
    let shows = requests.iter().filter(|request| request.path == SHOW);
    shows
        .map(|request| request.json()["model"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_ollama_is_used_again_though_its_answer_ends_a_moment_after_its_last_line()
{
    let (net, _wire) = wire::start(&[]).await;
    let to_ollama = &net.sidecar.to_ollama.0;
    let before = to_ollama.dialled();
    net.ollama
        .set_behaviour(|behaviour| behaviour.end_delay = Duration::from_millis(10));
    for prompt in ["one", "two", "three"] {
        net.chat(prompt).outcome().await.result();
    }
    assert_eq!(to_ollama.dialled(), before);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_delivered_at_once_though_ollama_never_ends_it_after_its_last_line() {
    let (net, _wire) = wire::start(&[]).await;
    net.ollama.set_behaviour(|behaviour| {
        behaviour.tokens = 1;
        behaviour.end_delay = DAY;
    });
    let asked = Instant::now();
    let answer = net.chat("why").outcome().await;
    assert_eq!(answer.text(), spoken("why", 1));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_ollama_that_a_chat_finds_gone_is_no_longer_offered_at_once() {
    let (net, _wire) = wire::start(&[("PIN_MODEL_REFRESH_INTERVAL", "10m")]).await;
    // It has just been asked whether it is there, so that it would be asked again only in three seconds.
    let begun = Instant::now();
    net.ollama
        .wait_for(|request| request.path == "/api/version" && request.at > begun)
        .await;
    sleep(MOMENT).await;
    net.sidecar.to_ollama.cut();
    let gone = Instant::now();
    let seen = net.gateway.frames().len();
    net.chat("why").outcome().await.error();
    let (_, list) = net
        .gateway
        .wait_for_since(seen, |frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    assert_eq!(list.value["models"], json!([]));
    assert!(gone.elapsed() < AT_ONCE, "{:?}", gone.elapsed());
    assert_eq!(net.sidecar.metric("ollama_up").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn models_that_were_described_are_not_described_again_because_a_look_was_cut_short() {
    let (net, _wire) = wire::start(&[("PIN_MODEL_REFRESH_INTERVAL", "10m")]).await;
    let before = described(&net.ollama).len();
    let names = ["a", "b", "c"].map(|name| format!("{name}:latest"));
    for name in &names {
        net.ollama.add_model(name, ModelShape::default());
    }
    net.ollama
        .fail_always_for(SHOW, "b:latest", Fault::HangBeforeHeaders);
    let mut for_nobody = chat("why");
    for_nobody["model"] = json!("nobody");
    // A chat for a model that is not on the list, which is older than a second, has it look.
    sleep(Duration::from_secs(2)).await;
    let cancelled = net.gateway.chat(for_nobody.clone());
    sleep(AT_ONCE).await;
    assert_eq!(described(&net.ollama)[before..], names);
    net.gateway.cancel(cancelled.id());
    sleep(AT_ONCE).await;

    net.ollama.clear_faults();
    let outcome = net.gateway.chat(for_nobody).outcome().await;
    assert_eq!(
        outcome.error(),
        "model_not_found: this node does not offer that model"
    );
    assert_eq!(described(&net.ollama)[before + names.len()..], ["b:latest"]);
    assert_eq!(net.sidecar.metric("ollama_models").await, 4.0);
}
