//! What Ollama's `preStop` hook does, run by the same bash against a whole sidecar.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

use crate::{chart::Chart, support::Net};

/// The hook as it is rendered, started here: bash, but for the port, which is the test's own.
fn start(chart: &Chart, port: u16) -> Child {
    let rendered = chart.render(&json!({"topology": "sidecar"}));
    let command = &rendered.container("ollama")["lifecycle"]["preStop"]["exec"]["command"];
    let command = command
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap());
    let ["bash", "-c", script] = command.collect::<Vec<_>>()[..] else {
        panic!("{}", rendered.text)
    };
    let here = script.replace("/127.0.0.1/9464 ", &format!("/127.0.0.1/{port} "));
    assert_ne!(here, script);
    let mut bash = Command::new("bash");
    // It complains where nobody listens.
    bash.stderr(Stdio::null());
    bash.args(["-c", &here])
        .stdout(Stdio::null())
        .kill_on_drop(true);
    bash.spawn().unwrap()
}

#[tokio::test]
async fn ollama_is_told_to_end_after_the_last_chat_is_answered() {
    let Some(chart) = Chart::find() else { return };
    let net = Net::start(&[]).await;
    net.ollama.pause_at(1);
    let mut running = net.chat("running");
    net.ollama.wait_for_chats(1).await;

    let mut hook = start(chart, net.sidecar.admin.port());
    net.sidecar.wait_until_pending("rain").await;
    assert_eq!(
        hook.try_wait().unwrap(),
        None,
        "the hook did not wait for the chat"
    );
    net.ollama.go_on();
    running.outcome().await.result();
    let ended = timeout(Duration::from_secs(30), hook.wait()).await;
    assert!(ended.expect("the hook never ended").unwrap().success());

    let (ready, _) = net.sidecar.get("/readyz").await;
    let (healthy, _) = net.sidecar.get("/healthz").await;
    assert_eq!((ready, healthy), (503, 200), "the process stays");
}

#[tokio::test]
async fn a_sidecar_that_is_not_there_keeps_nobody_waiting() {
    let Some(chart) = Chart::find() else { return };
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let ended = timeout(Duration::from_secs(30), start(chart, gone.port()).wait()).await;
    assert!(!ended.unwrap().unwrap().success());
}

#[test]
fn only_an_ollama_that_is_told_first_has_a_hook() {
    let Some(chart) = Chart::find() else { return };
    let bundled = chart.render(&json!({}));
    assert_eq!(bundled.container("ollama")["lifecycle"], Value::Null);
}
