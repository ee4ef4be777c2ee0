//! Figures at `/metrics` and `/status`, of a whole sidecar over real sockets.

use std::fs;

use devnet::ollama::{CHAT, Fault};
use serde_json::json;

use crate::support::{CLIENT, MODEL, Net, SECRET, gateway, ollama};

/// A gateway that goes away is looked for again soon.
const QUICK: (&str, &str) = ("PIN_RECONNECT_MAX", "50ms");

#[tokio::test]
async fn a_delivered_answer_earns_its_tokens_times_the_price_and_a_failed_one_nothing() {
    let net = Net::start(&[("PIN_PRICE_PER_THOUSAND_TOKENS", "0.25")]).await;
    net.chat("why is the sky blue").outcome().await.result();
    let earned = format!("earnings_estimate_usd_total{{model=\"{MODEL}\"}}");
    let earned = net
        .sidecar
        .wait_for_metric(&earned, |earned| earned > 0.0)
        .await;
    let tokens = net
        .sidecar
        .metric(&format!("prompt_tokens_total{{model=\"{MODEL}\"}}"))
        .await
        + net
            .sidecar
            .metric(&format!("generation_tokens_total{{model=\"{MODEL}\"}}"))
            .await;
    assert!(tokens > 0.0);
    assert!(
        (earned - tokens * 0.25 / 1_000.0).abs() < 1e-9,
        "{earned} for {tokens} tokens"
    );

    net.ollama.fail_next(CHAT, 1, Fault::Cut { after: 2 });
    net.chat("x").outcome().await.error();
    let status = net
        .sidecar
        .wait_for_status(|status| status["counts"]["failures"]["backend"] == 1)
        .await;
    assert_eq!(
        status["counts"]["earnings_estimate_usd"],
        json!({MODEL: earned})
    );
}

#[tokio::test]
async fn what_an_interview_found_is_shown() {
    let net = Net::start(&[QUICK]).await;
    let status: serde_json::Value =
        serde_json::from_str(&net.sidecar.get("/status").await.1).unwrap();
    assert_eq!(status["nodes"][0]["quality_tier"], json!(null));
    for (tier, accuracy) in [
        ("failed", json!(0.5)),
        ("Elite", json!(97.5)),
        ("Elite", json!("high")),
    ] {
        net.gateway.send(&json!({
            "type": "INTERVIEW_COMPLETE", "interview_id": "i", "tier": tier, "accuracy": accuracy,
            "tokens_per_sec": 42.5, "reason": "",
        }));
    }
    net.sidecar
        .wait_for_metric("interviews_total", |n| n == 3.0)
        .await;
    for (series, value) in [
        ("interview_failures_total", 1.0),
        ("quality_tier{tier=\"elite\"}", 1.0),
        ("quality_tier{tier=\"failed\"}", 0.0),
        ("interview_accuracy_ratio", 0.975),
        ("interview_tokens_per_second", 42.5),
    ] {
        assert_eq!(net.sidecar.metric(series).await, value, "{series}");
    }
    net.sidecar
        .wait_for_status(|status| status["nodes"][0]["quality_tier"] == "elite")
        .await;

    net.gateway
        .send(&json!({"type": "INTERVIEW_FAILED", "reason": "too slow"}));
    net.sidecar
        .wait_for_metric("interview_failures_total", |n| n == 2.0)
        .await;
    assert_eq!(net.sidecar.metric("interviews_total").await, 4.0);
    for (tier, value) in [("elite", 0.0), ("failed", 1.0)] {
        let series = format!("quality_tier{{tier=\"{tier}\"}}");
        assert_eq!(net.sidecar.metric(&series).await, value, "{tier}");
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_shows_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let settings = [QUICK, ("PIN_API_SECRET_FILE", file.to_str().unwrap())];
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    let reloaded = "config_last_reload_successful";
    assert_eq!(net.sidecar.metric(reloaded).await, 1.0);
    fs::remove_file(&file).unwrap();
    net.gateway.drop_sessions();
    net.sidecar
        .wait_for_metric(reloaded, |value| value == 0.0)
        .await;
    fs::write(&file, SECRET).unwrap();
    net.gateway.wait_for_session(2).await;
    net.gateway.drop_sessions();
    net.sidecar
        .wait_for_metric(reloaded, |value| value == 1.0)
        .await;
}

#[tokio::test]
async fn what_prometheus_reads_after_traffic_is_as_it_should_be() {
    let net = Net::start(&[]).await;
    net.streamed("x").outcome().await.result();
    net.ollama.fail_next(CHAT, 1, Fault::Cut { after: 1 });
    net.chat("x").outcome().await.error();
    let earned = format!("earnings_estimate_usd_total{{model=\"{MODEL}\"}}");
    net.sidecar
        .wait_for_metric(&earned, |earned| earned > 0.0)
        .await;
    let url = format!("http://{}/metrics", net.sidecar.admin);
    let answer = devnet::http::get(&url).await.unwrap();
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.text();
    for family in [
        "requests_total",
        "prompt_tokens_total",
        "generation_tokens_total",
    ] {
        let series = format!("pin_sidecar_{family}{{model=\"{MODEL}\"");
        assert!(text.contains(&series), "no {series} in\n{text}");
    }
    devnet::promtool::check_metrics(&text);
}
