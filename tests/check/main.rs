//! `POST /check`: a sidecar that runs tries its model server as the network would, and disturbs nobody by it.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

use devnet::{
    gateway::Login,
    http::{self, Answer},
    ollama::{CHAT, Fault, Request},
};
use serde_json::Value;
use tokio::join;

use support::{CLIENT, Net, Sidecar, gateway, ollama};

const NAMES: [&str; 4] = ["login", "backend", "models", "answer"];

async fn post(sidecar: &Sidecar, path: &str) -> Answer {
    let url = format!("http://{}{path}", sidecar.admin);
    http::post(&url, "").await.unwrap()
}

/// The answer's status, and the report.
async fn checked(sidecar: &Sidecar) -> (u16, Value) {
    let answer = post(sidecar, "/check").await;
    let report = answer.json();
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, NAMES);
    assert_eq!(report["passed"], answer.status == 200, "{report}");
    (answer.status, report)
}

fn expect(report: &Value, name: &str, outcome: &str, words: &str) {
    let step = &report["steps"][NAMES.iter().position(|known| *known == name).unwrap()];
    let found = step["found"].as_str().unwrap();
    assert!(
        step["outcome"] == outcome && found.contains(words),
        "{name} is not {outcome} with {words:?}: {report}"
    );
}

/// How many chats Ollama was asked for that were more than the loading of a model.
fn asked(net: &Net) -> usize {
    let bodies = net.asked();
    let is_chat = |body: &&Value| {
        body["messages"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    };
    bodies.iter().filter(is_chat).count()
}

#[tokio::test]
async fn a_sidecar_that_serves_passes_with_a_real_answer_and_counts_nothing() {
    let net = Net::start(&[]).await;
    let (status, report) = checked(&net.sidecar).await;
    assert_eq!(status, 200, "{report}");
    expect(&report, "login", "passed", "Logged in since");
    expect(&report, "answer", "passed", "tokens/s");
    assert_eq!((asked(&net), net.gateway.sessions().ever), (1, 1));
    assert_eq!(net.sidecar.metric("requests_running").await, 0.0);
    let (_, metrics) = net.sidecar.get("/metrics").await;
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("pin_sidecar_requests_total{"));
    for count in counts {
        assert!(count.ends_with(" 0"), "{count}");
    }
}

#[tokio::test]
async fn what_fails_is_503_and_says_what() {
    let net = Net::start(&[]).await;
    net.ollama.fail_always(
        CHAT,
        Fault::answer(500, "application/json", r#"{"error":"no memory"}"#),
    );
    let (status, report) = checked(&net.sidecar).await;
    assert_eq!(status, 503);
    expect(&report, "answer", "failed", "no memory");
    net.ollama.stop().await;
    let (_, report) = checked(&net.sidecar).await;
    expect(&report, "backend", "failed", "Ollama does not answer");
    expect(&report, "answer", "skipped", "no model to ask");
}

#[tokio::test]
async fn a_session_that_is_not_there_is_told_as_readyz_does() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| policy.login = Login::Refuse("Invalid signature".to_owned()));
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[]);
    sidecar.wait_until_pending("refused the login").await;
    let (status, report) = checked(&sidecar).await;
    assert_eq!(status, 503);
    expect(
        &report,
        "login",
        "failed",
        "The gateway refused the login (Invalid signature)",
    );
    expect(&report, "answer", "passed", "tokens/s");
}

#[tokio::test]
async fn while_requests_have_every_slot_no_answer_is_tried_and_nothing_is_made_of_theirs() {
    let net = Net::start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama.pause_at(1);
    let mut chat = net.chat("hello");
    net.sidecar
        .wait_for_metric("requests_running", |running| running == 1.0)
        .await;
    let (status, report) = checked(&net.sidecar).await;
    assert_eq!(status, 200);
    let reason = "Not tried, since requests have every slot. Check again";
    expect(&report, "answer", "skipped", reason);
    net.ollama.go_on();
    assert!(!chat.outcome().await.text().is_empty());
}

/// Waits until Ollama is asked for the answer that a check wants.
async fn wait_for_trial(net: &Net) {
    let is_trial =
        |request: &Request| request.path == CHAT && request.json()["options"]["num_predict"] == 32;
    net.ollama.wait_for(is_trial).await;
}

#[tokio::test]
async fn a_check_holds_a_slot_for_as_long_as_it_asks() {
    let net = Net::start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    net.ollama.pause_at(1);
    let meanwhile = async {
        wait_for_trial(&net).await;
        let running = net.sidecar.metric("requests_running").await;
        let mut refused = net.chat("hello");
        let error = refused.outcome().await.error().to_owned();
        net.ollama.go_on();
        (running, error)
    };
    let ((status, _), (running, error)) = join!(checked(&net.sidecar), meanwhile);
    assert_eq!((status, running), (200, 1.0));
    assert!(error.starts_with("busy: "), "{error}");
    assert_eq!(net.sidecar.metric("requests_running").await, 0.0);
}

#[tokio::test]
async fn a_paused_sidecar_asks_nothing_of_the_gpu() {
    let net = Net::start(&[]).await;
    assert_eq!(post(&net.sidecar, "/session/disconnect").await.status, 200);
    net.sidecar.wait_until_pending("Paused").await;
    let before = net.ollama.chat_requests().len();
    let (status, report) = checked(&net.sidecar).await;
    assert_eq!(status, 200, "{report}");
    expect(&report, "login", "skipped", "Paused");
    expect(&report, "answer", "skipped", "Paused");
    assert_eq!(net.ollama.chat_requests().len(), before);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_check() {
    let net = Net::start(&[]).await;
    net.ollama.pause_at(1);
    let drained = async {
        wait_for_trial(&net).await;
        post(&net.sidecar, "/drain").await
    };
    let ((_, report), drained) = join!(checked(&net.sidecar), drained);
    expect(&report, "answer", "skipped", "Draining");
    assert_eq!(drained.status, 200);
}
