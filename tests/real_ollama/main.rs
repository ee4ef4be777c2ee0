//! What we say of Ollama, asked of Ollama itself, and of the stand-in, so that it stays honest.
//!
//! Every case runs against the stand-in. Where `OLLAMA_SCRIPT` names the script that starts a real Ollama (see
//! CONTRIBUTING.md), it runs against that as well; without it a line says that it did not.

#![allow(clippy::unwrap_used, missing_docs)]

mod dialect;
mod pulls;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod warm;

use devnet::{gateway::Deliveries, http, network::Proxy};
use pin_sidecar::relay::Outcome as Drain;
use serde_json::{Value, json};
use server::{Real, Server, cases, script};
use support::{CLIENT, DESKTOP, Sidecar, gateway};

/// The model that both have. It never ends by itself: `num_predict` ends it.
const TINY: &str = "tiny";

cases! {
    a_chat_is_answered_for_either_generation
    a_streamed_chat_is_the_same_as_its_answer
    an_unknown_model_is_not_found
    a_feature_that_the_model_lacks_is_refused_in_ollamas_words
    a_cancel_frees_ollama_for_the_next
    an_answer_whose_link_was_cut_comes_with_the_next_session_and_is_run_once
    a_drain_lets_the_running_answer_finish
    keys_that_ollama_would_fold_change_nothing
    a_consumer_can_not_unload_a_model
    openais_dialect_is_understood
    a_pull_that_cannot_be_is_refused_in_ollamas_words
}

struct Net {
    gateway: devnet::gateway::Gateway,
    sidecar: Sidecar,
    server: Server,
}

impl Net {
    async fn start(client: &str, server: Server, settings: &[(&str, &str)]) -> Self {
        let gateway = gateway().await;
        let sidecar = Sidecar::start(client, &gateway.url(), &server.url(), settings);
        gateway.wait_for_session(1).await;
        sidecar.wait_until_pending("").await;
        Self {
            gateway,
            sidecar,
            server,
        }
    }

    async fn ask(&self, payload: Value) -> devnet::gateway::Outcome {
        self.gateway.chat(payload).outcome().await
    }
}

fn payload(tokens: u64) -> Value {
    json!({
        "model": TINY,
        "messages": [{"role": "user", "content": "once upon a time"}],
        "options": {"num_predict": tokens, "seed": 1},
    })
}

fn streamed(tokens: u64) -> Value {
    let mut payload = payload(tokens);
    payload["stream"] = json!(true);
    payload
}

async fn a_chat_is_answered_for_either_generation(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let outcome = net.ask(payload(20)).await;
    assert!(!outcome.text().is_empty());
    assert_eq!(outcome.result()["choices"][0]["finish_reason"], "length");
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 20);
    assert!(outcome.result()["usage"]["prompt_tokens"].as_u64().unwrap() > 0);

    let desktop = Net::start(DESKTOP, net.server, &[]).await;
    let outcome = desktop.ask(payload(20)).await;
    assert!(!outcome.text().is_empty());
    let result = outcome.result();
    assert_eq!(result["done"], true);
    assert_eq!(result["done_reason"], "length");
    assert_eq!(result["eval_count"], 20);
    assert_eq!(net.sidecar.drain().await, Drain::Drained);
}

async fn a_streamed_chat_is_the_same_as_its_answer(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let outcome = net.ask(streamed(60)).await;
    assert!(!outcome.chunks.is_empty());
    assert_eq!(outcome.streamed("content"), outcome.text());
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 60);
}

async fn an_unknown_model_is_not_found(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let mut payload = payload(5);
    payload["model"] = json!("nope");
    let outcome = net.ask(payload).await;
    assert_eq!(
        outcome.error(),
        "model_not_found: this node does not offer that model"
    );
}

async fn a_feature_that_the_model_lacks_is_refused_in_ollamas_words(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let mut thinking = payload(5);
    thinking["think"] = json!(true);
    assert_eq!(
        net.ask(thinking).await.error(),
        r#"rejected: "tiny" does not support thinking"#
    );
    let mut wrong = payload(5);
    wrong["options"] = json!({"num_predict": "many"});
    let outcome = net.ask(wrong).await;
    assert_eq!(
        outcome.error(),
        r#"backend: option "num_predict" must be of type integer"#
    );
}

async fn a_cancel_frees_ollama_for_the_next(server: Server) {
    let settings = [("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")];
    let net = Net::start(CLIENT, server, &settings).await;
    let mut endless = net.gateway.chat(streamed(1_000_000));
    endless.next().await;
    // Ollama (seen with 0.17.4) may lose the slot for good if its client goes while a line waits to be written
    // (<https://github.com/ollama/ollama/issues/17131>). Where a model gives 2,000 tokens a second, that is one time in twelve.
    net.server.stop_generating(&mut endless).await;
    net.gateway.cancel(endless.id());
    net.server.wait_for_chats_ended(1).await;
    net.server.go_on_generating();
    net.ask(payload(5)).await.result();
    assert_eq!(
        net.gateway.books().deliveries(endless.id()),
        Deliveries::default()
    );
}

async fn an_answer_whose_link_was_cut_comes_with_the_next_session_and_is_run_once(server: Server) {
    let gateway = gateway().await;
    let network = Proxy::start(gateway.addr()).await.unwrap();
    let url = gateway.url_at(network.addr());
    let quick = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];
    let sidecar = Sidecar::start(CLIENT, &url, &server.url(), &quick);
    sidecar.wait_until_pending("").await;
    let mut chat = gateway.chat(streamed(1500));
    chat.next().await;
    network.cut().await;
    server.wait_for_chats_ended(1).await;
    network.mend().await.unwrap();
    let outcome = chat.outcome().await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 1500);
    assert!(outcome.frame.connection > 1, "it came before the cut");
    // Asked for again, it is told again.
    let again = gateway
        .chat_with_id(chat.id(), streamed(1500))
        .outcome()
        .await;
    assert_eq!(again.frame.bytes, outcome.frame.bytes);
    assert_eq!(sidecar.drain().await, Drain::Drained);
    server.wait_for_chats_ended(1).await;
    assert_eq!(server.chats_begun().await, 1);
    assert_eq!(gateway.books().bills(), 1);
}

async fn a_drain_lets_the_running_answer_finish(server: Server) {
    let mut net = Net::start(CLIENT, server, &[]).await;
    let mut chat = net.gateway.chat(streamed(1500));
    chat.next().await;
    net.sidecar.begin_drain();
    let refused = net.ask(payload(1)).await;
    assert!(
        refused.error().starts_with("draining: "),
        "{}",
        refused.error()
    );
    let outcome = chat.outcome().await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 1500);
    assert_eq!(net.sidecar.drained().await, Drain::Drained);
    assert_eq!(net.server.chats_begun().await, 1);
}

async fn keys_that_ollama_would_fold_change_nothing(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    net.ask(payload(1)).await.result();
    let before = net.server.loaded().await;
    for key in ["MODEL", "Keep_Alive", "\u{212a}eep_alive", "OPTIONS"] {
        let payload = format!(
            r#"{{"model":"tiny","messages":[{{"role":"user","content":"x"}}],"options":{{"num_predict":1}},"{key}":0}}"#
        );
        let outcome = net.gateway.chat_with_text(&payload).outcome().await;
        assert!(
            outcome.error().starts_with("invalid: "),
            "{key}: {}",
            outcome.error()
        );
    }
    assert_eq!(net.server.loaded().await, before);
}

async fn a_consumer_can_not_unload_a_model(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    net.ask(payload(1)).await.result();
    let mut unload = payload(1);
    unload["keep_alive"] = json!(0);
    net.ask(unload).await.result();
    let empty = json!({"model": TINY, "messages": [], "keep_alive": 0});
    assert!(net.ask(empty).await.error().starts_with("invalid: "));
    assert_eq!(net.server.loaded().await.as_array().unwrap().len(), 1);
}

async fn openais_dialect_is_understood(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let outcome = net
        .ask(json!({
            "model": "TINY",
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "once upon"}, {"type": "text", "text": " a time"}]},
            ],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": "never said",
            "reasoning_effort": "low",
        }))
        .await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 7);
}

async fn a_pull_that_cannot_be_is_refused_in_ollamas_words(server: Server) {
    for (body, words) in [
        ("", "missing request body"),
        ("{}", "invalid model name"),
        (r#"{"model":"a b"}"#, "invalid model name"),
        (r#"{"name":"tiny*"}"#, "invalid model name"),
    ] {
        let url = server.url() + "/api/pull";
        let answer = http::post(&url, body).await.unwrap();
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({"error": words}))
        );
    }
}

#[tokio::test]
async fn a_real_ollama_may_start_after_the_sidecar() {
    let Some(script) = script() else { return };
    let real = Real::reserve(script);
    let gateway = gateway().await;
    let url = format!("http://127.0.0.1:{}", real.port);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &url, &[]);
    gateway.wait_for_session(1).await;
    sidecar.wait_until_pending("Ollama does not answer").await;
    let real = real.up().await;
    sidecar.wait_until_pending("").await;
    gateway.chat(payload(3)).outcome().await.result();
    drop(real);
}

#[tokio::test]
async fn a_runner_that_is_killed_costs_its_answer_and_no_more() {
    let Some(script) = script() else { return };
    let real = Real::reserve(script).up().await;
    let net = Net::start(CLIENT, Server::Real(real), &[]).await;
    let mut chat = net.gateway.chat(streamed(1_000_000));
    chat.next().await;
    let Server::Real(real) = &net.server else {
        return;
    };
    real.signal_runner("KILL");
    let outcome = chat.outcome().await;
    assert!(
        outcome.error().starts_with("backend: "),
        "{}",
        outcome.error()
    );
    net.ask(payload(3)).await.result();
}
