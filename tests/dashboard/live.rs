//! The dashboard in use: a sidecar that has a day with some trouble, a real Prometheus that reads it, and every question
//! of every panel.

use std::{fs, time::Duration};

use devnet::{
    gateway::Gateway,
    ollama::{CHAT, Fault, ModelShape, Ollama, Pullable},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    page::{Panel, panels},
    prometheus::{Prometheus, unix_time},
    questions::filled_in,
    support::{CLIENT, MODEL, Net, chat, gateway},
};

/// Panels that may have nothing to show, and why.
const MAY_BE_EMPTY: [(&str, &str); 1] = [("Alerts", "none fires, which is normal")];

/// A model that is pulled meanwhile.
const PULLED: &str = "qwen3:latest";

const SETTINGS: [(&str, &str); 4] = [
    ("PIN_CAPACITY", "4"),
    ("PIN_HEARTBEAT_INTERVAL", "200ms"),
    ("PIN_RECONNECT_MIN", "10ms"),
    ("PIN_PULL_MODELS", PULLED),
];

async fn ollama() -> Ollama {
    let builder = Ollama::builder()
        .model(MODEL, ModelShape::default())
        .pullable(PULLED, Pullable::of([900_000, 99_000]))
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
    // The series are there before the first chat, which is an increase of them.
    prometheus
        .wait_until("sum(pin_sidecar_requests_total) == 0")
        .await;
    some_chats(net).await;
    prometheus
        .wait_until("sum(increase(pin_sidecar_requests_total[5m])) >= 3")
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
        "pin_sidecar_model_pull_bytes_completed > 0",
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
    the_picture_can_be_drawn(&prometheus).await;
    drop(prometheus);
    net.sidecar.drain().await;
}

/// The tool that draws what Grafana would knows every kind of panel that there is.
async fn the_picture_can_be_drawn(prometheus: &Prometheus) {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("dashboard.svg");
    let drawing = Command::new("python3")
        .arg("tools/draw-dashboard")
        .arg(prometheus.url())
        .arg(&picture)
        .args(["--minutes", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await;
    let Ok(drawing) = drawing else {
        return devnet::skip_without("python3");
    };
    let complaint = String::from_utf8_lossy(&drawing.stderr);
    assert!(drawing.status.success(), "{complaint}");
    let drawn = fs::read_to_string(&picture).unwrap();
    assert!(drawn.contains(">State of each node<") && drawn.ends_with("</svg>\n"));
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
