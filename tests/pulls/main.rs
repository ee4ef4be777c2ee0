//! Models that the operator names are pulled through Ollama, while everything else goes on.

#![allow(clippy::unwrap_used, missing_docs)]

mod silence;
#[path = "../support/mod.rs"]
mod support;

use devnet::{
    gateway::Gateway,
    ollama::{Fault, ModelShape, Ollama, PULL, Pullable},
};
use pin_sidecar::relay::Outcome;
use serde_json::{Value, json};
use support::{CLIENT, MODEL, Net, Sidecar, chat, gateway, ollama};

const BIG: &str = "big:latest";

/// Where a pull stops until the test lets it go on, out of [`large`].
const MIDWAY: u64 = 340_000;

fn large() -> Pullable {
    Pullable::of([900_000, 99_000, 1_000])
}

/// An Ollama that can pull, and stops midway.
async fn slow_ollama() -> Ollama {
    let ollama = ollama().await;
    ollama.publish(BIG, large());
    stop_midway(&ollama);
    ollama
}

fn stop_midway(ollama: &Ollama) {
    ollama.set_behaviour(|behaviour| behaviour.pull_stops_at = Some(MIDWAY));
}

fn go_on(ollama: &Ollama) {
    ollama.set_behaviour(|behaviour| behaviour.pull_stops_at = None);
}

fn sidecar(gateway: &Gateway, ollama: &Ollama, models: &str) -> Sidecar {
    // What is done to Ollama by hand is noticed soon.
    let settings = [
        ("PIN_PULL_MODELS", models),
        ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
    ];
    Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings)
}

/// The state of each pull.
fn states(status: &Value) -> Vec<&str> {
    let pulls = status["pulls"].as_array().unwrap();
    pulls
        .iter()
        .map(|pull| pull["state"].as_str().unwrap())
        .collect()
}

async fn wait_for_states(sidecar: &Sidecar, expected: &[&str]) -> Value {
    sidecar
        .wait_for_status(|status| states(status) == expected)
        .await
}

async fn wait_until_midway(sidecar: &Sidecar) {
    sidecar
        .wait_for_status(|status| status["pulls"][0]["completed_bytes"] == MIDWAY)
        .await;
}

/// Waits until Ollama was asked so often for a model to pull.
async fn wait_for_pulls(ollama: &Ollama, times: usize) {
    let asked = || async { ollama.pull_requests().len() };
    support::poll(asked, |asked| *asked >= times).await;
}

async fn wait_until_offered(gateway: &Gateway, model: &str) {
    gateway
        .wait_for(|frame| {
            let models = frame.value["models"].as_array();
            frame.is_from_agent("MODEL_LIST")
                && models.is_some_and(|models| models.iter().any(|name| *name == model))
        })
        .await;
}

#[tokio::test]
async fn without_the_setting_nothing_is_pulled() {
    let net = Net::start(&[]).await;
    let status = net.sidecar.wait_for_status(|_| true).await;
    assert_eq!(status["pulls"], json!([]));
    assert!(net.ollama.pull_requests().is_empty());
}

#[tokio::test]
async fn chats_are_served_while_a_model_is_pulled_and_it_is_offered_as_soon_as_it_is_there() {
    let (ollama, settings) = (
        slow_ollama().await,
        // Were it not looked for at once, it would be offered after an hour.
        [
            ("PIN_PULL_MODELS", "big"),
            ("PIN_MODEL_REFRESH_INTERVAL", "1h"),
        ],
    );
    let net = Net::with(CLIENT, gateway().await, ollama, &settings).await;
    wait_until_midway(&net.sidecar).await;
    let load = net.sidecar.wait_for_status(|_| true).await;
    assert_eq!(load["load"]["running"], 0, "a pull takes no slot");
    for _ in 0..3 {
        net.chat("one").outcome().await.result();
    }
    net.sidecar.wait_until_pending("").await;
    go_on(&net.ollama);
    wait_until_offered(&net.gateway, BIG).await;
    wait_for_states(&net.sidecar, &["done"]).await;
    let mut payload = chat("one");
    payload["model"] = json!("big");
    net.gateway.chat(payload).outcome().await.result();
    assert_eq!(net.ollama.pull_requests(), [BIG]);
}

#[tokio::test]
async fn how_far_a_pull_is_shows_in_status_and_metrics_and_in_why_there_is_nothing_to_offer() {
    let builder = Ollama::builder().pullable(BIG, large());
    let (gateway, ollama) = (gateway().await, builder.start().await.unwrap());
    stop_midway(&ollama);
    let sidecar = sidecar(&gateway, &ollama, "big,next");
    wait_until_midway(&sidecar).await;
    let status = sidecar.wait_for_status(|_| true).await;
    assert_eq!(
        status["pulls"],
        json!([
            {"model": BIG, "state": "pulling", "completed_bytes": MIDWAY, "total_bytes": 900_000},
            {"model": "next:latest", "state": "waiting", "completed_bytes": 0, "total_bytes": 0},
        ])
    );
    for (series, bytes) in [
        (
            "model_pull_bytes_completed{model=\"big:latest\"}",
            340_000.0,
        ),
        ("model_pull_bytes_expected{model=\"big:latest\"}", 900_000.0),
        ("model_pull_bytes_completed{model=\"next:latest\"}", 0.0),
        ("model_pull_bytes_expected{model=\"next:latest\"}", 0.0),
    ] {
        sidecar
            .wait_for_metric(series, |value| value == bytes)
            .await;
    }
    sidecar
        .wait_until_pending("Ollama is pulling big:latest (37 %).")
        .await;
    go_on(&ollama);
    sidecar.wait_until_pending("").await;
    let status = sidecar
        .wait_for_status(|status| states(status)[0] == "done")
        .await;
    assert_eq!(status["pulls"][0]["completed_bytes"], 1_000_000);
    assert_eq!(status["pulls"][0]["total_bytes"], 1_000_000);
}

#[tokio::test]
async fn what_ollama_has_is_not_pulled() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let sidecar = sidecar(&gateway, &ollama, "LLAMA3.2, llama3.2:latest");
    let status = wait_for_states(&sidecar, &["done"]).await;
    let size = ModelShape::default().size;
    assert_eq!(status["pulls"][0]["completed_bytes"], size);
    assert_eq!(status["pulls"][0]["total_bytes"], size);
    // Whoever removes it wants it gone.
    ollama.remove_model(MODEL);
    ollama.add_model("other", ModelShape::default());
    wait_until_offered(&gateway, "other:latest").await;
    assert!(ollama.pull_requests().is_empty());
}

#[tokio::test]
async fn models_are_pulled_one_after_the_other_in_the_order_of_the_setting() {
    let (gateway, ollama) = (gateway().await, slow_ollama().await);
    for name in ["second", "third"] {
        ollama.publish(name, Pullable::of([10_000]));
    }
    let sidecar = sidecar(&gateway, &ollama, "big,llama3.2,third,second");
    wait_until_midway(&sidecar).await;
    wait_for_states(&sidecar, &["pulling", "done", "waiting", "waiting"]).await;
    go_on(&ollama);
    wait_for_states(&sidecar, &["done"; 4]).await;
    let asked = ollama.pull_requests();
    assert_eq!(asked, [BIG, "third:latest", "second:latest"]);
}

#[tokio::test]
async fn a_pull_goes_on_where_it_was_when_ollama_comes_back() {
    let (gateway, ollama) = (gateway().await, slow_ollama().await);
    let sidecar = sidecar(&gateway, &ollama, "big");
    wait_until_midway(&sidecar).await;
    ollama.stop().await;
    sidecar.wait_until_pending("Ollama does not answer").await;
    let status = sidecar.wait_for_status(|_| true).await;
    assert_eq!(
        status["pulls"][0]["completed_bytes"], MIDWAY,
        "it is still there"
    );
    ollama.start_again().await.unwrap();
    wait_for_pulls(&ollama, 2).await;
    // The stand-in keeps what it has, as Ollama does: nothing arrives beyond it before it may.
    wait_until_midway(&sidecar).await;
    go_on(&ollama);
    wait_for_states(&sidecar, &["done"]).await;
    wait_until_offered(&gateway, BIG).await;
}

#[tokio::test]
async fn a_pull_goes_on_where_it_was_when_the_sidecar_comes_back() {
    let (gateway, ollama) = (gateway().await, slow_ollama().await);
    let first = sidecar(&gateway, &ollama, "big");
    wait_until_midway(&first).await;
    assert_eq!(first.drain().await, Outcome::Drained);
    let second = sidecar(&gateway, &ollama, "big");
    wait_until_midway(&second).await;
    go_on(&ollama);
    wait_for_states(&second, &["done"]).await;
}

#[tokio::test]
async fn an_ollama_that_starts_later_is_asked_then() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.publish(BIG, large());
    ollama.stop().await;
    let sidecar = sidecar(&gateway, &ollama, "big");
    gateway.wait_for_session(1).await;
    sidecar.wait_until_pending("Ollama does not answer").await;
    wait_for_states(&sidecar, &["waiting"]).await;
    ollama.start_again().await.unwrap();
    wait_until_offered(&gateway, BIG).await;
    assert_eq!(ollama.pull_requests(), [BIG]);
}

#[tokio::test]
async fn a_model_that_nobody_has_holds_nothing_up() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.publish(BIG, large());
    let sidecar = sidecar(&gateway, &ollama, "nope,big");
    wait_for_states(&sidecar, &["failed", "done"]).await;
    gateway.chat(chat("one")).outcome().await.result();
    assert_eq!(ollama.pull_requests(), ["nope:latest", BIG]);
    // Somebody pulls it by hand.
    ollama.add_model("nope", ModelShape::default());
    wait_for_states(&sidecar, &["done", "done"]).await;
    assert_eq!(ollama.pull_requests().len(), 2);
}

#[tokio::test]
async fn without_any_model_it_is_told_that_the_pull_failed() {
    let builder = Ollama::builder().start();
    let (gateway, ollama) = (gateway().await, builder.await.unwrap());
    let sidecar = sidecar(&gateway, &ollama, "nope");
    sidecar
        .wait_until_pending("pulling nope:latest failed: the log says why")
        .await;
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_pull_it_is_tried_again_and_succeeds() {
    let error = |error: &str| Fault::ErrorLine {
        after: 2,
        error: error.to_owned(),
    };
    for fault in [
        Fault::answer(503, "text/html", "<html>"),
        Fault::answer(500, "application/json", r#"{"error":"disk full"}"#),
        error("max retries exceeded: unexpected EOF"),
        Fault::Cut { after: 2 },
        Fault::EndWithoutDone { after: 2 },
        Fault::HalfLine { after: 2 },
        Fault::Garbage { bytes: u64::MAX },
        Fault::script(["{\"status\":7}"]),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        ollama.publish(BIG, large());
        ollama.fail_next(PULL, 1, fault);
        let sidecar = sidecar(&gateway, &ollama, "big");
        wait_for_states(&sidecar, &["done"]).await;
        assert_eq!(ollama.pull_requests(), [BIG, BIG]);
    }
}

#[tokio::test]
async fn a_drain_ends_a_pull_at_once_and_does_not_wait_for_it() {
    let (gateway, ollama) = (gateway().await, slow_ollama().await);
    let mut sidecar = sidecar(&gateway, &ollama, "big");
    wait_until_midway(&sidecar).await;
    ollama.pause_at(3);
    let mut running = gateway.chat(json!({
        "model": MODEL, "messages": [{"role": "user", "content": "one"}], "stream": true,
    }));
    running.next().await;
    sidecar.begin_drain();
    // Before the chat that the drain still waits for.
    ollama.wait_for_request(PULL).await.wait_until_left().await;
    wait_for_states(&sidecar, &["waiting"]).await;
    ollama.go_on();
    running.outcome().await.result();
    assert_eq!(sidecar.drained().await, Outcome::Drained);
    assert_eq!(ollama.pull_requests(), [BIG]);
}

#[tokio::test]
async fn a_model_that_may_not_be_offered_is_pulled_and_not_served() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.publish(BIG, large());
    let settings = [("PIN_PULL_MODELS", "big"), ("PIN_DENY_MODELS", "big")];
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    let status = wait_for_states(&sidecar, &["done"]).await;
    assert_eq!(status["models"].as_array().unwrap().len(), 1);
}
