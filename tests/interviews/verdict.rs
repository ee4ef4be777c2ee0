//! What the network makes of an interview, and what operators see of it.

use super::*;

#[tokio::test]
async fn a_tier_is_shown_in_status_and_metrics() {
    let net = Net::start(&[]).await;
    net.gateway.send(&json!({
        "type": "INTERVIEW_COMPLETE", "interview_id": "i", "node_id": "node-1", "tier": "elite", "accuracy": 0.8,
        "tokens_per_sec": 112.5, "reason": "passed",
    }));
    let status = net
        .sidecar
        .wait_for_status(|status| !status["nodes"][0]["interview"].is_null())
        .await;
    let node = &status["nodes"][0];
    assert_eq!(node["quality_tier"], "elite");
    assert_eq!(node["interview"]["passed"], true);
    assert_eq!(node["interview"]["accuracy"], 0.8);
    assert_eq!(node["interview"]["tokens_per_second"], 112.5);
    assert_eq!(node["interview"]["retry_at"], Value::Null);
    assert_eq!(net.sidecar.metric("interviews_total").await, 1.0);
    assert_eq!(net.sidecar.metric("interview_failures_total").await, 0.0);
}

#[tokio::test]
async fn a_node_that_failed_stays_away_for_as_long_as_the_network_says_and_readyz_tells_why() {
    let net = Net::start(&[]).await;
    net.gateway.send(&json!({
        "type": "INTERVIEW_FAILED", "reason": "recently_failed", "retry_after_seconds": 259,
        "required_models": ["qwen3:32b", "llama3.3:70b"],
    }));
    net.gateway.close_sessions(1000, "");
    let pending = net.sidecar.wait_until_pending("failed the interview").await;
    let told = pending
        .iter()
        .find(|told| told.contains("interview"))
        .unwrap();
    let expected = "The network failed the interview of node node-1 (recently_failed; the network wants one of these \
                    models: qwen3:32b, llama3.3:70b). It wants to see the node again at ";
    assert!(told.starts_with(expected), "{told}");
    let status = net
        .sidecar
        .wait_for_status(|status| status["session"]["state"] == "waiting")
        .await;
    let (at, retry_at) = (
        status["nodes"][0]["interview"]["at"].as_u64().unwrap(),
        status["nodes"][0]["interview"]["retry_at"]
            .as_u64()
            .unwrap(),
    );
    assert_eq!(retry_at, at + 259);
    assert!(status["session"]["backoff_until"].as_u64().unwrap() >= retry_at - 1);
    assert!(!status.to_string().contains("recently_failed"), "{status}");
    assert_eq!(net.sidecar.metric("interview_failures_total").await, 1.0);
}

#[tokio::test]
async fn a_node_is_registered_once_a_session_when_it_first_has_a_model() {
    let ollama = devnet::ollama::Ollama::builder().start().await.unwrap();
    let settings = [("PIN_MODEL_REFRESH_INTERVAL", "50ms")];
    let net = Net::with(CLIENT, gateway().await, ollama, &settings).await;
    let registrations = || {
        let frames = net.gateway.frames();
        let registrations = frames
            .iter()
            .filter(|frame| frame.is_from_agent("REGISTER_NODE"));
        registrations
            .map(|frame| frame.value["models"].clone())
            .collect::<Vec<_>>()
    };
    assert!(registrations().is_empty());
    for model in ["b:latest", "a:latest"] {
        net.ollama.add_model(model, Default::default());
        let listed = |frame: &Frame| {
            let models = frame.value["models"].as_array();
            frame.is_from_agent("MODEL_LIST")
                && models.is_some_and(|list| list.contains(&json!(model)))
        };
        net.gateway.wait_for(listed).await;
    }
    net.ollama.remove_model("b:latest");
    let only_a = |frame: &Frame| {
        frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!(["a:latest"])
    };
    net.gateway.wait_for(only_a).await;
    assert_eq!(registrations(), [json!(["b:latest"])]);
}
