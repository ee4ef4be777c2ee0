//! The hook by which Kubernetes has the sidecar drain before it ends Ollama, run as the container runs it: bash, and a
//! sidecar at the other end.

use std::process::{ExitStatus, Stdio};

use devnet::gateway::Frame;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{support::Net, tools::read};

/// Every file that has the hook.
const FILES: [&str; 4] = [
    "deploy/kubernetes/components/pin-sidecar/deployment.yaml",
    "deploy/kubernetes/components/pin-sidecar/statefulset.yaml",
    "deploy/kubernetes/examples/ollama-chart-values.yaml",
    "deploy/kubernetes/sidecar/pin-sidecar.yaml",
];

/// The script of a file's hook, folded as YAML folds it.
fn script(file: &str) -> String {
    let text = read(file);
    let (_, hook) = text.split_once("preStop:").unwrap();
    let (_, script) = hook.split_once(">-\n").unwrap();
    let lines = script.lines().map(str::trim);
    let end = lines
        .clone()
        .position(|line| !line.ends_with("&&"))
        .unwrap();
    lines.take(end + 1).collect::<Vec<_>>().join(" ")
}

/// Runs the hook against a sidecar that listens on a port of the test's.
fn start(net: &Net) -> Child {
    let port = format!("/{}", net.sidecar.admin.port());
    let script = script(FILES[0]);
    assert!(script.contains("/9464"), "{script}");
    Command::new("bash")
        .args(["-c", &script.replace("/9464", &port)])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn end_of(hook: &mut Child) -> ExitStatus {
    tokio::time::timeout(devnet::PATIENCE, hook.wait())
        .await
        .expect("the hook ends")
        .unwrap()
}

/// A list of models that has none: the gateway is to send nothing more.
fn offers_nothing(frame: &Frame) -> bool {
    frame.is_from_agent("MODEL_LIST") && frame.value["models"] == Value::Array(Vec::new())
}

#[test]
fn all_have_the_same_hook() {
    let [first, others @ ..] = FILES.map(script);
    for other in others {
        assert_eq!(other, first);
    }
}

#[tokio::test]
async fn the_hook_lets_ollama_go_on_until_the_last_chat_is_answered() {
    let net = Net::start(&[]).await;
    net.ollama.pause_at(2);
    let mut running = net.streamed("one");
    running.next().await;

    let mut hook = start(&net);
    net.gateway.wait_for(offers_nothing).await;
    assert!(hook.try_wait().unwrap().is_none(), "a chat still runs");

    net.ollama.go_on();
    running.outcome().await.result();
    assert!(end_of(&mut hook).await.success());
    net.sidecar.wait_until_pending("Drained").await;
}

#[tokio::test]
async fn the_hook_does_not_hold_ollama_up_where_there_is_no_sidecar() {
    let net = Net::start(&[]).await;
    let port = net.sidecar.admin.port();
    net.sidecar.drain().await;
    let script = script(FILES[0]).replace("/9464", &format!("/{port}"));
    let mut hook = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert!(!end_of(&mut hook).await.success());
}
