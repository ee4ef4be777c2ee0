//! What a check leaves alone where a sidecar runs beside it.

use serde_json::json;

use super::Check;
use crate::{
    program::{Net, program, run, with, with_arguments},
    support::{MODEL, chat},
};

fn address(net: &Net) -> String {
    net.agent.url("").trim_start_matches("http://").to_owned()
}

#[tokio::test]
async fn beside_a_sidecar_that_runs_the_login_is_left_out_unless_it_is_asked_for() {
    let net = Net::start(&[]).await;
    let address = address(&net);
    let settings = [("PIN_LISTEN_ADDR", &*address)];
    let check = Check::of(&net.gateway, &net.ollama, &settings);
    let report = check.json(&[]).await;
    report.expect("clock", "passed", "agree");
    report.expect("login", "skipped", "a sidecar runs at");
    report.expect("answer", "passed", "tokens/s");
    assert_eq!(net.gateway.sessions().ever, 1);
    let report = check.json(&["--login"]).await;
    report.expect("login", "passed", "accepted");
    assert_eq!(net.gateway.sessions().ever, 2);
}

#[tokio::test]
async fn while_chats_have_every_slot_of_the_sidecar_no_answer_is_tried() {
    let net = Net::start(&[("PIN_CAPACITY", "1")]).await;
    let address = address(&net);
    let settings = [("PIN_LISTEN_ADDR", &*address)];
    let check = Check::of(&net.gateway, &net.ollama, &settings);
    net.ollama.pause_at(1);
    let mut running = net.gateway.chat(chat("hello"));
    net.ollama.wait_for_chats(1).await;
    let asked = net.ollama.chat_requests().len();
    for options in [&["--offline"][..], &["--login"]] {
        let report = check.json(options).await;
        report.expect("models", "passed", MODEL);
        report.expect("answer", "skipped", "requests have every slot");
    }
    assert_eq!(net.ollama.chat_requests().len(), asked);
    net.ollama.go_on();
    running.outcome().await.result();
    let report = check.json(&["--offline"]).await;
    report.expect("answer", "passed", "tokens/s");
}

#[tokio::test]
async fn a_sidecar_that_is_paused_or_pauses_is_given_no_work_by_a_check() {
    let net = Net::start(&[("PIN_PRELOAD_MODELS", "none")]).await;
    let address = address(&net);
    let settings = [("PIN_LISTEN_ADDR", &*address)];
    let check = Check::of(&net.gateway, &net.ollama, &settings);
    net.ollama.pause_at(1);
    let mut running = net.gateway.chat(chat("hello"));
    net.ollama.wait_for_chats(1).await;
    let asked = net.ollama.chat_requests().len();
    let pause = run(with(with_arguments(program(), &["pause"]), &settings)).await;
    assert_eq!(pause.code, Some(0), "{}", pause.output);
    let report = check.json(&["--offline"]).await;
    report.expect("answer", "skipped", "Pausing: running chats finish");
    net.ollama.go_on();
    running.outcome().await.result();
    net.wait_until_pending("Paused until").await;
    let report = check.json(&["--offline"]).await;
    report.expect("answer", "skipped", "Paused until somebody ends that");
    assert_eq!(report.0["passed"], json!(true));
    assert_eq!(net.ollama.chat_requests().len(), asked);
}
