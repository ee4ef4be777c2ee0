//! What is promised of a request and of its answer: nothing is lost, nothing runs twice, nothing is stuck, whatever
//! becomes of the link, of the proof and of the one who asked. Over real sockets where these have a say in it; what is
//! promised to the second, in virtual time (`wire`).

#![allow(clippy::unwrap_used, missing_docs)]

mod backpressure;
mod cancelling;
mod drain;
mod duplicates;
mod expiry;
mod lost_session;
mod orphans;
mod poison;
mod proof;
mod storm;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wire.rs"]
mod wire;

use std::sync::Arc;

use devnet::{
    gateway::{Chat, Frame, Gateway, Policy, Sender},
    network::Proxy,
};
use serde_json::json;
use support::{CLIENT, Counts, MODEL, Net, Sidecar, chat, gateway, ollama, round_trip};
use wire::{Node, Wire};

/// A gateway that goes away is looked for again soon.
const QUICK: [(&str, &str); 2] = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];

/// Silence is noticed soon.
const IMPATIENT: [(&str, &str); 2] = [
    ("PIN_HEARTBEAT_INTERVAL", "100ms"),
    ("PIN_HEARTBEAT_TIMEOUT", "400ms"),
];

/// A sidecar that is logged in, with these settings, through a network that can be broken.
async fn start(settings: &[(&str, &str)]) -> (Net, Proxy) {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let network = Proxy::start(gateway.addr()).await.unwrap();
    let sidecar = Sidecar::start(
        CLIENT,
        &gateway.url_at(network.addr()),
        &ollama.url(),
        &[&QUICK, settings].concat(),
    );
    gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    let net = Net {
        gateway,
        ollama,
        sidecar,
    };
    (net, network)
}

/// The same in virtual time.
async fn start_on_wire(settings: &[(&str, &str)]) -> (Net<Node>, Wire) {
    start_on_wire_with(settings, |_| {}).await
}

/// The same with a gateway that is like this from the beginning: a socket that has answered a Ping answers all.
async fn start_on_wire_with(
    settings: &[(&str, &str)],
    policy: impl FnOnce(&mut Policy),
) -> (Net<Node>, Wire) {
    let (net, wire) = wire::begin(&[&QUICK, settings].concat(), policy);
    net.gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    (net, wire)
}

/// A network that can be broken.
trait Network {
    /// Resets what is open and refuses what comes.
    async fn cut(&self);
    /// Carries again.
    async fn mend(&self);
}

impl Network for Proxy {
    async fn cut(&self) {
        Self::cut(self).await;
    }

    async fn mend(&self) {
        Self::mend(self).await.unwrap();
    }
}

impl Network for Wire {
    async fn cut(&self) {
        Self::cut(self);
    }

    async fn mend(&self) {
        Self::mend(self);
    }
}

/// A gateway that says nothing from which the agent could know that anything has been read.
fn proves_nothing(policy: &mut Policy) {
    policy.acknowledge_results = false;
    policy.acknowledge_heartbeats = false;
    policy.acknowledge_models = false;
    policy.acknowledge_registrations = false;
    policy.answer_pings = false;
}

/// Cuts the network; both ends know it when this returns.
async fn go_away(net: &Net<impl Counts>, network: &impl Network) {
    network.cut().await;
    net.gateway.wait_for_no_session().await;
    net.sidecar
        .wait_for_metric("session_up", |up| up == 0.0)
        .await;
}

/// Mends the network and waits for this session, the first being 1; both ends know of it when this returns.
async fn come_back(net: &Net<impl Counts>, network: &impl Network, session: usize) {
    network.mend().await;
    net.gateway.wait_for_session(session).await;
    net.sidecar
        .wait_for_metric("session_up", |up| up == 1.0)
        .await;
}

/// Sends a chat under this id.
fn ask<S>(net: &Net<S>, id: &str) -> Chat {
    net.gateway.chat_with_id(id, chat(id))
}

/// The same for a streamed one.
fn ask_streamed<S>(net: &Net<S>, id: &str) -> Chat {
    let mut payload = chat(id);
    payload["stream"] = json!(true);
    net.gateway.chat_with_id(id, payload)
}

/// Waits until so many answers are not known to have been delivered.
async fn wait_for_undelivered(net: &Net<impl Counts>, answers: usize) {
    let right = |value: f64| value == answers as f64;
    net.sidecar
        .wait_for_metric("undelivered_results", right)
        .await;
}

async fn redelivered(net: &Net<impl Counts>) -> f64 {
    net.sidecar.metric("results_redelivered_total").await
}

async fn dropped(net: &Net<impl Counts>, reason: &str) -> f64 {
    let series = format!("results_dropped_total{{reason=\"{reason}\"}}");
    net.sidecar.metric(&series).await
}

/// What the agent said of chats on one connection, in order.
fn told(gateway: &Gateway, connection: u64) -> Vec<Arc<Frame>> {
    let mut frames = gateway.frames();
    frames.retain(|frame| {
        frame.connection == connection
            && frame.sender == Sender::Agent
            && frame.name().starts_with("INFERENCE_")
    });
    frames
}

/// The ids of the answers on one connection, in order.
fn answered(gateway: &Gateway, connection: u64) -> Vec<String> {
    let frames = told(gateway, connection);
    let answers = frames
        .iter()
        .filter(|frame| frame.name() != "INFERENCE_CHUNK");
    answers.map(|frame| frame.request_id().to_owned()).collect()
}

/// Waits until the answer of this id has been read on this connection.
async fn wait_for_answer<S>(net: &Net<S>, connection: u64, id: &str) -> Arc<Frame> {
    let wanted = |frame: &Frame| {
        frame.connection == connection
            && frame.request_id() == id
            && (frame.is_from_agent("INFERENCE_RESPONSE") || frame.is_from_agent("INFERENCE_ERROR"))
    };
    net.gateway.wait_for(wanted).await
}

/// How often Ollama was asked what `chat(prompt)` asks.
fn runs<S>(net: &Net<S>, prompt: &str) -> usize {
    let asked = net.asked();
    asked
        .iter()
        .filter(|body| body["messages"][0]["content"] == prompt)
        .count()
}

/// Everything was answered with a response, billed once, run once, and repeated only byte for byte.
fn assert_once<S>(net: &Net<S>, ids: &[&str]) {
    let books = net.gateway.books();
    for id in ids {
        assert_eq!(runs(net, id), 1, "runs of {id}");
        assert!(books.bill(id).is_some(), "{id} is not billed");
        assert_eq!(books.deliveries(id).errors, 0, "errors of {id}");
    }
    assert_eq!(books.bills(), ids.len());
    assert!(books.altered().is_empty(), "{:?}", books.altered());
}
