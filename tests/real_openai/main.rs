//! What we say of servers with OpenAI's interface, asked of real ones, and of the stand-in, so that it stays honest.
//!
//! Every case runs against the stand-in in each style. Where `OPENAI_SCRIPT` names the script that starts real servers and
//! `OPENAI_ENGINES` those to start (`llama,mlx`), or `OLLAMA_SCRIPT` that of a real Ollama, it runs against that as well (see
//! CONTRIBUTING.md); without it a line says that it did not.

#![allow(clippy::unwrap_used, missing_docs)]

mod dialect;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod variants;

use std::time::Duration;

use devnet::gateway::{Deliveries, Gateway, Outcome};
use pin_sidecar::relay::Outcome as Drain;
use serde_json::{Value, json};
use server::{Place, Server, cases};
use support::{CLIENT, DESKTOP, Sidecar, gateway, poll};

/// So long that it does not end before it is ended.
const ENDLESS: u64 = 20_000;

cases! {
    llama mlx transformers vllm ollama => {
        a_chat_is_answered_for_either_generation
        a_streamed_chat_is_the_same_as_its_answer
        an_unknown_model_is_not_found
        a_cancel_frees_the_server
        a_server_that_is_killed_costs_its_answer_and_no_more
        a_server_may_start_after_the_sidecar
        an_interview_is_passed
        a_difficult_chat_is_taken
    }
}

struct Net {
    gateway: Gateway,
    sidecar: Sidecar,
    server: Server,
    /// The name under which the model is offered.
    model: String,
}

impl Net {
    async fn start(client: &str, server: Server, settings: &[(&str, &str)]) -> Self {
        let mut net = Self::begin(client, server, settings).await;
        net.sidecar.wait_until_pending("").await;
        net.model = poll(
            || async { net.gateway.models() },
            |models| !models.is_empty(),
        )
        .await[0]
            .clone();
        net
    }

    /// The same where it may have nothing to offer.
    async fn begin(client: &str, server: Server, settings: &[(&str, &str)]) -> Self {
        let gateway = gateway().await;
        let own = [
            ("PIN_API_MODE", "openai"),
            ("PIN_MODEL_REFRESH_INTERVAL", "100ms"),
        ];
        let named = server.has_no_list();
        let named = named.as_deref().map(|name| ("PIN_ALLOW_MODELS", name));
        let settings = [&own, settings, named.as_slice()].concat();
        let sidecar = Sidecar::start(client, &gateway.url(), &server.url(), &settings);
        gateway.wait_for_session(1).await;
        Self {
            gateway,
            sidecar,
            server,
            model: String::new(),
        }
    }

    /// A chat of so many tokens, with this beside.
    fn payload(&self, tokens: u64, more: &Value) -> Value {
        let mut payload = json!({
            "model": self.model, "messages": [{"role": "user", "content": "once upon a time"}],
            "max_tokens": tokens, "seed": 1,
        });
        let more = more.as_object().unwrap().clone();
        payload.as_object_mut().unwrap().extend(more);
        payload
    }

    async fn ask(&self, tokens: u64, more: &Value) -> Outcome {
        let payload = self.payload(tokens, more);
        self.gateway.chat(payload).outcome().await
    }
}

async fn a_chat_is_answered_for_either_generation(place: Place) {
    let net = Net::start(CLIENT, place.start().await, &[]).await;
    let outcome = net.ask(20, &json!({})).await;
    assert!(!outcome.text().is_empty());
    let result = outcome.result();
    assert_eq!(result["choices"][0]["finish_reason"], "length");
    assert_eq!(result["usage"]["completion_tokens"], 20);
    assert!(result["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
    assert_eq!(result["model"], net.model);
    assert_eq!(net.sidecar.drain().await, Drain::Drained);

    let desktop = Net::start(DESKTOP, net.server, &[]).await;
    let outcome = desktop.ask(20, &json!({})).await;
    assert!(!outcome.text().is_empty());
    let result = outcome.result();
    assert_eq!(
        (&result["done"], &result["done_reason"]),
        (&json!(true), &json!("length"))
    );
    assert_eq!(result["eval_count"], 20);
}

async fn a_streamed_chat_is_the_same_as_its_answer(place: Place) {
    let net = Net::start(CLIENT, place.start().await, &[]).await;
    let outcome = net.ask(60, &json!({"stream": true})).await;
    assert!(!outcome.chunks.is_empty());
    assert_eq!(outcome.streamed("content"), outcome.text());
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 60);
}

async fn an_unknown_model_is_not_found(place: Place) {
    let net = Net::start(CLIENT, place.start().await, &[]).await;
    let outcome = net.ask(5, &json!({"model": "nope"})).await;
    assert_eq!(
        outcome.error(),
        "model_not_found: this node does not offer that model"
    );
}

async fn a_cancel_frees_the_server(place: Place) {
    let settings = [("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")];
    let net = Net::start(CLIENT, place.endless().start().await, &settings).await;
    let mut endless = net
        .gateway
        .chat(net.payload(ENDLESS, &json!({"stream": true})));
    endless.next().await;
    net.gateway.cancel(endless.id());
    net.server.wait_until_idle().await;
    let deliveries = net.gateway.books().deliveries(endless.id());
    assert_eq!(deliveries, Deliveries::default());
    // What does not stream for the consumer is freed as well.
    if net.server.tells_what_runs() {
        let endless = net.gateway.chat(net.payload(ENDLESS, &json!({})));
        net.server.wait_until_busy().await;
        net.gateway.cancel(endless.id());
        net.server.wait_until_idle().await;
    }
    if !net.server.may_lose_a_slot() {
        net.ask(5, &json!({})).await.result();
    }
}

async fn a_server_that_is_killed_costs_its_answer_and_no_more(place: Place) {
    let mut net = Net::start(CLIENT, place.endless().start().await, &[]).await;
    let mut chat = net
        .gateway
        .chat(net.payload(ENDLESS, &json!({"stream": true})));
    chat.next().await;
    net.server.kill().await;
    let outcome = chat.outcome().await;
    let error = outcome.error();
    assert!(error.starts_with("backend: "), "{error}");
    net.sidecar.wait_until_pending("does not answer").await;
    net.server = net.server.up_again().await;
    net.sidecar.wait_until_pending("").await;
    net.ask(3, &json!({})).await.result();
}

async fn a_server_may_start_after_the_sidecar(place: Place) {
    let server = place.later().await;
    let mut net = Net::begin(CLIENT, server, &[]).await;
    net.sidecar.wait_until_pending("does not answer").await;
    net.server = net.server.up_again().await;
    net.sidecar.wait_until_pending("").await;
}

async fn an_interview_is_passed(place: Place) {
    let net = Net::start(CLIENT, place.start().await, &[]).await;
    let prompts =
        ["one", "two", "three"].map(|text| json!({"id": text, "prompt": text, "max_tokens": 20}));
    net.gateway.send(&json!({
        "type": "INTERVIEW_REQUEST", "interview_id": "i", "model": net.model, "timeout_ms": 60_000, "prompts": prompts,
    }));
    let result = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("INTERVIEW_RESULT"))
        .await;
    let results = result.value["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for result in results {
        assert_eq!(result["error"], Value::Null, "{result}");
        assert!(!result["response"].as_str().unwrap().is_empty());
        assert!(result["tokens_generated"].as_u64().unwrap() > 0, "{result}");
        let (first, total) = (&result["ttft_ms"], &result["total_ms"]);
        assert!(
            first.as_u64().unwrap() <= total.as_u64().unwrap(),
            "{result}"
        );
    }
}

/// As a consumer's library may write it, with all that some server refuses.
async fn a_difficult_chat_is_taken(place: Place) {
    let net = Net::start(CLIENT, place.start().await, &[]).await;
    let difficult = json!({
        "top_p": null, "stop": null, "tools": null, "max_completion_tokens": 4,
        "messages": [
            {"role": "user", "content": "what time is it"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "now", "arguments": {}}},
            ]},
            {"role": "tool", "tool_call_id": "c", "content": "noon"},
            {"role": "user", "content": [{"type": "text", "text": "once upon a time"}]},
        ],
    });
    let outcome = net.ask(9, &difficult).await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 4);
}

/// How long a server may take to notice that nobody listens any more.
const NOTICED: Duration = Duration::from_secs(5);
