//! Models that the operator names are loaded and kept loaded, beside everything else.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::time::Duration;

use devnet::{
    gateway::Frame,
    ollama::{CHAT, Fault, ModelShape, Ollama, Pullable},
};
use pin_sidecar::relay::Outcome;
use serde_json::{Value, json};
use support::{CLIENT, MODEL, Net, Sidecar, chat, gateway, poll};
use tokio::time::Instant;

/// Ollama is looked at often.
const OFTEN: (&str, &str) = ("PIN_MODEL_REFRESH_INTERVAL", "50ms");

const OTHER: &str = "other:latest";

/// An Ollama with two models.
async fn two() -> Ollama {
    let ollama = Ollama::builder()
        .model(MODEL, ModelShape::default())
        .model(OTHER, ModelShape::default());
    ollama.start().await.unwrap()
}

async fn start(ollama: Ollama, settings: &[(&str, &str)]) -> Net {
    Net::with(CLIENT, gateway().await, ollama, settings).await
}

async fn loaded(ollama: &Ollama, model: &str) {
    poll(|| async { ollama.is_loaded(model) }, |is_loaded| *is_loaded).await;
}

/// Waits until Ollama has been looked at so often from now on.
async fn looks(ollama: &Ollama, more: usize) {
    let looks = || async {
        let requests = ollama.requests();
        requests
            .iter()
            .filter(|request| request.path == "/api/ps")
            .count()
    };
    let before = looks().await;
    poll(looks, |looks| *looks >= before + more).await;
}

fn chat_with(model: &str) -> Value {
    let mut payload = chat("one");
    payload["model"] = json!(model);
    payload
}

#[tokio::test]
async fn every_request_for_a_preloaded_model_asks_for_it_to_be_kept_and_none_for_another() {
    let settings = [("PIN_PRELOAD_MODELS", "llama3.2"), OFTEN];
    let net = start(two().await, &settings).await;
    loaded(&net.ollama, MODEL).await;
    net.gateway
        .chat(chat_with("LLAMA3.2"))
        .outcome()
        .await
        .result();
    let mut wish = chat_with(MODEL);
    wish["keep_alive"] = json!(0);
    wish["options"] = json!({"num_ctx": 2048});
    net.gateway.chat(wish).outcome().await.result();
    net.gateway
        .chat(chat_with("other"))
        .outcome()
        .await
        .result();
    let kept: Vec<_> = net
        .asked()
        .iter()
        .map(|body| body["keep_alive"].clone())
        .collect();
    assert_eq!(
        kept,
        [json!("30m"), json!("30m"), json!("30m"), Value::Null]
    );
    assert_eq!(
        net.ollama.load_requests(),
        [json!({"model": MODEL, "stream": false, "keep_alive": "30m"})]
    );
    assert_eq!((net.ollama.loads(MODEL), net.ollama.loads(OTHER)), (2, 1));
}

#[tokio::test]
async fn a_load_carries_what_every_request_for_its_model_carries() {
    let settings = [
        ("PIN_PRELOAD_MODELS", "other"),
        ("PIN_MAX_CONTEXT", "2048"),
        OFTEN,
    ];
    let net = start(two().await, &settings).await;
    loaded(&net.ollama, OTHER).await;
    net.gateway.chat(chat_with(OTHER)).outcome().await.result();
    assert_eq!(
        net.ollama.load_requests()[0]["options"],
        json!({"num_ctx": 2048})
    );
    assert_eq!(net.ollama.loads(OTHER), 1);
}

#[tokio::test]
async fn by_default_the_model_to_interview_is_loaded_and_first_in_the_list() {
    let settings = [("PIN_INTERVIEW_MODEL", "Other"), OFTEN];
    let net = start(two().await, &settings).await;
    loaded(&net.ollama, OTHER).await;
    let list = |frame: &Frame| {
        frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([OTHER, MODEL])
    };
    net.gateway.wait_for(list).await;
    assert!(!net.ollama.is_loaded(MODEL));
}

#[tokio::test]
async fn by_default_nothing_is_loaded_where_nothing_is_and_what_is_loaded_is_kept() {
    let net = start(two().await, &[OFTEN]).await;
    looks(&net.ollama, 3).await;
    assert_eq!(net.ollama.load_requests(), [] as [Value; 0]);
    net.gateway.chat(chat_with(OTHER)).outcome().await.result();
    let settings = [("PIN_NODE_ALIAS", "node-2"), OFTEN];
    let second = Sidecar::start(CLIENT, &net.gateway.url(), &net.ollama.url(), &settings);
    let loads = || async { net.ollama.load_requests() };
    poll(loads, |loads| {
        loads.len() == 1 && loads[0]["model"] == OTHER
    })
    .await;
    assert_eq!(net.ollama.loads(OTHER), 1);
    drop(second);
}

#[tokio::test]
async fn a_model_that_is_pulled_first_is_loaded_once_it_is_there_and_never_before() {
    let ollama = Ollama::builder()
        .model(OTHER, ModelShape::default())
        .pullable(MODEL, Pullable::of([900_000]))
        .behaviour(|behaviour| behaviour.pull_stops_at = Some(1000));
    let ollama = ollama.start().await.unwrap();
    let settings = [
        ("PIN_PULL_MODELS", "llama3.2"),
        ("PIN_PRELOAD_MODELS", "llama3.2,other"),
        OFTEN,
    ];
    let net = start(ollama, &settings).await;
    net.ollama.wait_for_request("/api/pull").await;
    // The pull of one does not hold up the other.
    loaded(&net.ollama, OTHER).await;
    looks(&net.ollama, 3).await;
    assert_eq!(net.ollama.load_requests().len(), 1);
    net.ollama
        .set_behaviour(|behaviour| behaviour.pull_stops_at = None);
    loaded(&net.ollama, MODEL).await;
}

#[tokio::test]
async fn a_restart_of_ollama_has_its_models_loaded_again_however_short_it_is() {
    // Nothing but the restart itself tells of it.
    let settings = [
        ("PIN_PRELOAD_MODELS", "llama3.2"),
        ("PIN_MODEL_REFRESH_INTERVAL", "1h"),
    ];
    let net = start(two().await, &settings).await;
    for time in 1..=3 {
        poll(|| async { net.ollama.loads(MODEL) }, |loads| *loads == time).await;
        net.sidecar
            .wait_for_status(|status| status["models"][0]["loaded"] == true)
            .await;
        net.ollama.stop().await;
        net.ollama.start_again().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_thrown_out_stays_out_until_a_chat_loads_it() {
    let settings = [("PIN_PRELOAD_MODELS", "llama3.2"), OFTEN];
    let net = start(two().await, &settings).await;
    loaded(&net.ollama, MODEL).await;
    net.ollama.unload(MODEL);
    looks(&net.ollama, 5).await;
    assert!(!net.ollama.is_loaded(MODEL));
    net.chat("one").outcome().await.result();
    assert!(net.ollama.is_loaded(MODEL));
    assert_eq!(net.ollama.load_requests().len(), 1);
    assert_eq!(net.asked().last().unwrap()["keep_alive"], "30m");
}

#[tokio::test]
async fn models_for_which_there_is_no_room_do_not_push_each_other_out_for_ever() {
    let ollama = two().await;
    ollama.set_behaviour(|behaviour| behaviour.room = 1);
    let settings = [("PIN_PRELOAD_MODELS", "other,llama3.2"), OFTEN];
    let net = start(ollama, &settings).await;
    loaded(&net.ollama, MODEL).await;
    looks(&net.ollama, 5).await;
    assert_eq!((net.ollama.loads(OTHER), net.ollama.loads(MODEL)), (1, 1));
    assert!(!net.ollama.is_loaded(OTHER));
}

#[tokio::test]
async fn a_load_that_fails_is_tried_again_and_disturbs_nobody() {
    let ollama = two().await;
    let full = r#"{"error":"model requires more system memory (9 GiB) than is available (1 GiB)"}"#;
    ollama.fail_next(CHAT, 2, Fault::answer(500, "application/json", full));
    let settings = [("PIN_PRELOAD_MODELS", "llama3.2"), OFTEN];
    let net = start(ollama, &settings).await;
    loaded(&net.ollama, MODEL).await;
    assert_eq!(net.ollama.load_requests().len(), 3);
    net.gateway.chat(chat_with(OTHER)).outcome().await.result();
}

#[tokio::test]
async fn a_context_that_ollama_cannot_give_fails_its_own_chat_and_no_other() {
    let net = start(two().await, &[OFTEN]).await;
    net.chat("one").outcome().await.result();
    let full = r#"{"error":"model requires more system memory"}"#;
    net.ollama
        .fail_next(CHAT, 1, Fault::answer(500, "application/json", full));
    let mut greedy = chat("two");
    greedy["options"] = json!({"num_ctx": 8192});
    net.gateway.chat(greedy).outcome().await.error();
    net.chat("three").outcome().await.result();
    let asked: Vec<_> = net
        .asked()
        .iter()
        .map(|body| body["options"]["num_ctx"].clone())
        .collect();
    assert_eq!(asked, [Value::Null, json!(8192), Value::Null]);
    assert_eq!(net.ollama.loads(MODEL), 1);
}

#[tokio::test]
async fn a_load_takes_no_slot_and_ends_at_once_with_the_sidecar() {
    let ollama = two().await;
    ollama.fail_next(CHAT, 1, Fault::HangBeforeHeaders);
    let settings = [
        ("PIN_PRELOAD_MODELS", "llama3.2"),
        ("PIN_CAPACITY", "1"),
        ("PIN_QUEUE", "0"),
    ];
    let net = start(ollama, &settings).await;
    let load = net.ollama.wait_for_request(CHAT).await;
    net.gateway.chat(chat_with(OTHER)).outcome().await.result();
    let begun = Instant::now();
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
    load.wait_until_left().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_load_ends_with_the_order_to_drain_and_not_with_the_drain() {
    let ollama = two().await;
    ollama.fail_next(CHAT, 1, Fault::HangBeforeHeaders);
    let settings = [("PIN_PRELOAD_MODELS", "llama3.2")];
    let mut net = start(ollama, &settings).await;
    let load = net.ollama.wait_for_request(CHAT).await;
    net.ollama.pause_at(1);
    let mut payload = chat_with(OTHER);
    payload["stream"] = json!(true);
    let mut running = net.gateway.chat(payload);
    running.next().await;
    net.sidecar.begin_drain();
    load.wait_until_left().await;
    net.ollama.go_on();
    running.outcome().await.result();
    assert_eq!(net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test]
async fn a_node_that_is_drained_by_order_leaves_its_models_loaded() {
    let settings = [("PIN_PRELOAD_MODELS", "llama3.2"), OFTEN];
    let net = start(two().await, &settings).await;
    loaded(&net.ollama, MODEL).await;
    let url = format!("http://{}/drain", net.sidecar.admin);
    assert_eq!(devnet::http::post(&url, "").await.unwrap().status, 200);
    looks(&net.ollama, 3).await;
    assert!(net.ollama.is_loaded(MODEL));
    assert_eq!(net.ollama.load_requests().len(), 1);
}
