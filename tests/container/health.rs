//! Health as Docker sees it: of the process, and of nothing else.

use serde_json::Value;

use crate::{
    docker::Container,
    lab,
    node::{HARDENED, Node},
    support::chat,
};

/// The image's own check, asked more often than it says.
const OFTEN: [&str; 2] = ["--health-interval", "300ms"];

fn is_healthy(state: &Value) -> bool {
    state["Health"]["Status"] == "healthy"
}

/// When the last check was.
fn last_check(state: &Value) -> String {
    let checks = state["Health"]["Log"].as_array().unwrap();
    checks
        .last()
        .map_or_else(String::new, |check| check["Start"].to_string())
}

/// Waits for a check that begins from now on.
async fn next_check(container: &Container) -> Value {
    let last = last_check(&container.state().await);
    container
        .wait_for_state(|state| last_check(state) != last)
        .await
}

#[tokio::test]
async fn a_container_without_privileges_answers_chats() {
    if !lab::enter() {
        return;
    }
    let node = Node::start(&HARDENED, &[]).await;
    let outcome = node
        .gateway
        .chat(chat("why is the sky blue"))
        .outcome()
        .await;
    assert!(!outcome.text().is_empty());
}

#[tokio::test]
async fn it_becomes_healthy_and_stays_so_while_the_gateway_and_ollama_are_away() {
    if !lab::enter() {
        return;
    }
    let node = Node::start(&[&HARDENED[..], &OFTEN].concat(), &[]).await;
    node.container.wait_for_state(is_healthy).await;
    node.gateway.stop().await;
    node.ollama.stop().await;
    node.container
        .wait_until_pending("nothing listens there")
        .await;
    // As many as the image needs to be told unhealthy by.
    for _ in 0..3 {
        let state = next_check(&node.container).await;
        assert!(is_healthy(&state), "{state}");
    }
    let ready = node
        .container
        .exec(&["/pin-sidecar", "healthcheck", "--ready"])
        .await;
    assert_eq!(ready.status.code(), Some(1));
}

#[tokio::test]
async fn without_ipv6_it_listens_on_ipv4() {
    if !lab::enter() {
        return;
    }
    // As on a kernel that was started without IPv6: there is no such family of sockets.
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("no-ipv6.json");
    const AF_INET6: u32 = 10;
    const EAFNOSUPPORT: u32 = 97;
    let rules = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EAFNOSUPPORT,
            "args": [{"index": 0, "value": AF_INET6, "op": "SCMP_CMP_EQ"}],
        }],
    });
    std::fs::write(&profile, rules.to_string()).unwrap();
    let seccomp = format!("seccomp={}", profile.display());
    let options = [&["--security-opt", &seccomp][..], &OFTEN].concat();
    let node = Node::start(&options, &[]).await;
    node.container.wait_for_state(is_healthy).await;
    let log = node.container.log().await;
    assert!(log.contains("0.0.0.0:9464"), "{log}");
}
