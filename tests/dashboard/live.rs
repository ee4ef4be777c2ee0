//! The dashboard in use: a sidecar that has a day with some trouble, a real Prometheus that reads it, and every question
//! of every panel.

use std::time::Duration;

use devnet::{
    gateway::Gateway,
    ollama::{CHAT, Fault, ModelShape, Ollama},
};
use serde_json::{Value, json};

use crate::{
    page::{Panel, panels},
    prometheus::{Prometheus, unix_time},
    questions::filled_in,
    support::{CLIENT, MODEL, Net, chat, gateway},
};

/// Panels that may have nothing to show, and why.
const MAY_BE_EMPTY: [(&str, &str); 2] = [
    ("Alerts", "none fires, which is normal"),
    ("Models being pulled", "PIN_PULL_MODELS is not set"),
];

const SETTINGS: [(&str, &str); 3] = [
    ("PIN_CAPACITY", "4"),
    ("PIN_HEARTBEAT_INTERVAL", "200ms"),
    ("PIN_RECONNECT_MIN", "10ms"),
];

async fn ollama() -> Ollama {
    let builder = Ollama::builder()
        .model(MODEL, ModelShape::default())
        .token_delay(Duration::from_millis(5))
        .load_delay(Duration::from_millis(50));
    builder.start().await.unwrap()
}

/// A chat that is answered, one that fails, one for a model that is not there, and one that is cancelled.
async fn some_chats(net: &Net) {
    net.streamed("why is the sky blue").outcome().await.result();
    net.ollama
        .fail_next(CHAT, 1, Fault::answer(500, "text/plain", "no"));
    net.chat("fail").outcome().await.error();
    let mut unknown = chat("who are you");
    unknown["model"] = json!("nobody");
    net.gateway.chat(unknown).outcome().await.error();
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 3 });
    let mut hanging = net.streamed("one");
    hanging.next().await;
    net.gateway.cancel(hanging.id());
    net.ollama.wait_until_idle().await;
}

/// What the network tells a node after an interview.
fn tell_tier(gateway: &Gateway) {
    gateway.send(&json!({
        "type": "INTERVIEW_COMPLETE", "interview_id": "i-1", "tier": "high", "accuracy": 0.9,
        "tokens_per_sec": 17.5, "reason": "fine",
    }));
}

/// Everything that the panels tell of has happened, and Prometheus has seen it happen.
async fn a_day_with_some_trouble(net: &Net, prometheus: &Prometheus) {
    prometheus.wait_until("up == 1").await;
    // The first use of a model makes its series; only what comes after it is a rate.
    some_chats(net).await;
    prometheus
        .wait_until("sum(pin_sidecar_requests_total) >= 3")
        .await;
    net.gateway.drop_sessions();
    net.gateway.wait_for_session(2).await;
    net.gateway
        .wait_for(|frame| frame.connection == 2 && frame.is_from_agent("MODEL_LIST"))
        .await;
    tell_tier(&net.gateway);
    some_chats(net).await;
    for seen in [
        "sum(rate(pin_sidecar_requests_total[5m])) > 0",
        "sum(rate(pin_sidecar_generation_tokens_total[5m])) > 0",
        "sum(pin_sidecar_request_failures_total) >= 4",
        "pin_sidecar_cancelled_requests_total >= 2",
        "sum(pin_sidecar_disconnects_total) >= 1",
        "rate(pin_sidecar_heartbeat_rtt_seconds_count[5m]) > 0",
        "pin_sidecar_session_up == 1",
    ] {
        prometheus.wait_until(seen).await;
    }
}

/// A value that can be drawn, in what Prometheus answered.
fn has_data(series: &[Value]) -> bool {
    let finite = |sample: &Value| {
        let number = sample[1].as_str().unwrap_or_default().parse::<f64>();
        number.is_ok_and(f64::is_finite)
    };
    series.iter().any(|series| match &series["values"] {
        Value::Array(samples) => samples.iter().any(finite),
        _ => finite(&series["value"]),
    })
}

/// What is wrong with a panel's answers, a sentence each.
async fn complaints(
    panel: &Panel,
    prometheus: &Prometheus,
    began: u64,
    instance: &str,
) -> Vec<String> {
    let may_be_empty = MAY_BE_EMPTY
        .iter()
        .any(|(title, _)| *title == panel.title());
    let mut complaints = Vec::new();
    for target in panel.targets() {
        let expr = filled_in(&target.expr, instance);
        let answer = match target.instant {
            true => prometheus.now(&expr).await,
            false => prometheus.since(began, &expr).await,
        };
        match answer {
            Err(error) => complaints.push(format!("{}: {error}", target.name)),
            Ok(series) if !may_be_empty && !has_data(&series) => {
                complaints.push(format!("{}: no data for {expr}", target.name));
            }
            Ok(_) => {}
        }
    }
    complaints
}

#[tokio::test]
async fn every_panel_has_an_answer_from_a_real_prometheus() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &SETTINGS).await;
    let Some(prometheus) = Prometheus::start(net.sidecar.admin).await else {
        return;
    };
    let began = unix_time();
    a_day_with_some_trouble(&net, &prometheus).await;

    // As Grafana writes them: all instances, and one that was chosen, escaped.
    let one = net.sidecar.admin.to_string().replace('.', r"\\.");
    for instance in [".+", &one] {
        let mut complaints_of_all = Vec::new();
        for panel in panels() {
            complaints_of_all.extend(complaints(&panel, &prometheus, began, instance).await);
        }
        assert!(
            complaints_of_all.is_empty(),
            "{}",
            complaints_of_all.join("\n")
        );
    }
    drop(prometheus);
    net.sidecar.drain().await;
}

#[test]
fn panels_that_may_be_empty_are_panels() {
    let panels = panels();
    for (title, _) in MAY_BE_EMPTY {
        assert!(
            panels.iter().any(|panel| panel.title() == title),
            "{title:?} is no panel"
        );
    }
}
