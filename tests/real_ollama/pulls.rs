//! Pulls by a real Ollama, from a registry of devnet's.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use devnet::registry::Registry;
use pin_sidecar::relay::Outcome as Drain;
use serde_json::{Value, json};
use tokio_rustls::rustls::ServerConfig;

use crate::{
    Net, payload,
    server::{Real, Server, script},
    support::{CLIENT, Sidecar, self_signed},
};

/// What the layer weighs that a real Ollama has to fetch.
const LAYER: usize = 2_000_000;

/// What a registry needs to speak TLS, and its certificate as a file for Ollama to trust.
fn registry_tls(folder: &Path) -> (Arc<ServerConfig>, PathBuf) {
    let (tls, pem) = self_signed(&["127.0.0.1"]);
    let certificate = folder.join("registry.pem");
    std::fs::write(&certificate, pem).unwrap();
    (tls, certificate)
}

/// A registry with a model of which Ollama lacks one layer.
async fn registry(real: &Real, tls: Arc<ServerConfig>) -> Registry {
    let layer = vec![b'x'; LAYER].into();
    let repository = real
        .repository()
        .with_layer("application/vnd.ollama.image.license", layer);
    let registry = Registry::start("library/copy", repository, tls).await;
    registry.unwrap()
}

/// The state of each pull.
fn pulls(status: &Value) -> Vec<&str> {
    let pulls = status["pulls"].as_array().unwrap().iter();
    pulls.map(|pull| pull["state"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_real_pull_goes_on_where_it_was_and_disturbs_nothing() {
    let Some(script) = script() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (tls, certificate) = registry_tls(folder.path());
    let real = Real::reserve(script).with("SSL_CERT_FILE", certificate);
    let real = real.up().await;
    let registry = registry(&real, tls).await;
    registry.stop_at(LAYER / 4);
    let copy = registry.model("library/copy");
    let models = format!("tiny,{copy},{}", registry.model("library/nope"));
    let settings = [("PIN_PULL_MODELS", models.as_str())];
    let mut net = Net::start(CLIENT, Server::Real(real), &settings).await;
    registry.wait_for_sending(1).await;
    let status = net
        .sidecar
        .wait_for_status(|status| status["pulls"][1]["completed_bytes"].as_u64() > Some(0))
        .await;
    assert_eq!(pulls(&status), ["done", "pulling", "waiting"]);
    net.ask(payload(3)).await.result();

    // A drain ends the request, and with it what Ollama does for it.
    assert_eq!(net.sidecar.drain().await, Drain::Drained);
    registry.wait_for_sending(0).await;
    registry.go_on();
    net.sidecar = Sidecar::start(CLIENT, &net.gateway.url(), &net.server.url(), &settings);
    net.sidecar
        .wait_for_status(|status| pulls(status) == ["done", "done", "failed"])
        .await;
    let asked = registry.asked();
    assert!(
        asked[0].start == 0 && asked.last().unwrap().start > 0,
        "{asked:?}"
    );
    net.sidecar
        .wait_for_status(|status| status["models"].as_array().unwrap().len() == 2)
        .await;
    let mut payload = payload(3);
    payload["model"] = json!(copy);
    net.ask(payload).await.result();
    let Server::Real(real) = &net.server else {
        return;
    };
    let asked = real.requests_ended("/api/pull");
    assert_eq!(
        asked, 3,
        "tiny was there, and what is nowhere is not asked for again soon"
    );
}

#[tokio::test]
async fn what_a_real_ollama_cannot_pull_fails_and_disturbs_nothing() {
    let Some(script) = script() else { return };
    // Nothing listens there; a name that has to be resolved may take its time where there is no DNS.
    let real = Real::reserve(script).up().await;
    let settings = [("PIN_PULL_MODELS", "127.0.0.1:9/library/nope,tiny")];
    let net = Net::start(CLIENT, Server::Real(real), &settings).await;
    net.sidecar
        .wait_for_status(|status| pulls(status) == ["failed", "done"])
        .await;
    net.ask(payload(3)).await.result();
}
