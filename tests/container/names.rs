//! Names of containers, which Docker's own resolver knows, at 127.0.0.11 in each of them.

use serde_json::json;

use crate::{
    docker::{Container, Network},
    lab,
    node::{gateway, sidecar},
    support::SECRET,
};

const OLLAMA: &str = "ollama/ollama:0.17.4";
const BUSYBOX: &str = "busybox:1.37";

#[tokio::test]
async fn a_gateway_and_an_ollama_in_other_containers_are_found_by_name() {
    if !lab::enter() {
        return;
    }
    lab::make_image("busybox");
    lab::make_image("ollama");
    let network = Network::create().await;
    let on = |alias| ["--network", network.name(), "--network-alias", alias];
    let _ollama = Container::run(&on("ollama"), OLLAMA, &[]).await;
    // A container that has the gateway's name, and passes on to this process whatever comes.
    let gateway = gateway().await;
    let port = gateway.addr().port().to_string();
    let pass_on = ["nc", "-lk", "-p", "80", "-e", "nc", lab::ADDRESS, &port];
    let _gateway = Container::run(&on("pin-gateway"), BUSYBOX, &pass_on).await;
    let settings = [
        ("PIN_API_SECRET", SECRET),
        ("PIN_SERVER_URL", "ws://pin-gateway/api/v1/pin/ws"),
        ("PIN_OLLAMA_URL", "http://ollama:11434"),
    ];
    let container = sidecar(&on("pin-sidecar"), &settings).await;
    container.wait_until_pending("").await;
    let prompt = json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "once upon a time"}],
        "options": {"num_predict": 5},
    });
    let outcome = gateway.chat(prompt).outcome().await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 5);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_told_as_such() {
    if !lab::enter() {
        return;
    }
    let network = Network::create().await;
    let settings = [
        ("PIN_API_SECRET", SECRET),
        ("PIN_SERVER_URL", "ws://nobody.invalid/api/v1/pin/ws"),
        ("PIN_OLLAMA_URL", "http://nobody.invalid:11434"),
    ];
    let container = sidecar(&["--network", network.name()], &settings).await;
    container
        .wait_until_pending("its name cannot be resolved")
        .await;
}
