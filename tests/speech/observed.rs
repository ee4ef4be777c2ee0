//! What an operator sees of speech.

use devnet::http;

use super::{support::MODEL, *};

#[tokio::test]
async fn a_check_while_speech_has_the_only_slot_says_nothing_of_chats() {
    let speaking = Speaking::start(&[("PIN_CAPACITY", "1")]).await;
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::HangBeforeHeaders);
    let _spoken = speaking.say("hello");
    speaking.speech.wait_for_request(SPEECH).await;
    let url = format!("http://{}/check", speaking.net.sidecar.admin);
    let report = http::post(&url, "").await.unwrap().json();
    let steps = report["steps"].as_array().unwrap();
    let answer = steps.iter().find(|step| step["name"] == "answer").unwrap();
    assert_eq!(
        (&answer["outcome"], &answer["found"]),
        (
            &json!("skipped"),
            &json!(
                "Not tried, since requests have every slot. Check again when the node is less busy."
            )
        )
    );
}

#[tokio::test]
async fn speech_is_counted_by_the_name_that_is_offered_and_no_tokens_of_it_are() {
    let speaking = Speaking::start(&[]).await;
    let sidecar = &speaking.net.sidecar;
    let spoken = r#"requests_total{model="tts:Kokoro",operation="speech"}"#;
    assert_eq!(
        sidecar.metric(spoken).await,
        0.0,
        "it is there before its first use"
    );
    speaking.ask(json!({"model": "KOKORO"})).await.unwrap();
    speaking.ask(json!({"model": "tts:kokoro"})).await.unwrap();
    speaking.ask(json!({"model": "unknown"})).await.unwrap_err();
    speaking
        .speech
        .fail_next(SPEECH, 1, Fault::answer(503, "text/plain", "loading"));
    speaking.ask(json!({})).await.unwrap_err();
    assert_eq!(sidecar.metric(spoken).await, 3.0);
    assert_eq!(
        sidecar
            .metric(r#"requests_total{model="other",operation="speech"}"#)
            .await,
        1.0
    );
    let failures =
        |reason| format!(r#"request_failures_total{{operation="speech",reason="{reason}"}}"#);
    assert_eq!(sidecar.metric(&failures("backend")).await, 1.0);
    assert_eq!(sidecar.metric(&failures("model_not_found")).await, 1.0);
    assert_eq!(
        sidecar
            .metric(r#"request_duration_seconds_count{operation="speech"}"#)
            .await,
        3.0
    );
    assert_eq!(
        sidecar.metric("time_to_first_token_seconds_count").await,
        0.0
    );
    let (_, metrics) = sidecar.get("/metrics").await;
    for family in [
        "prompt_tokens_total",
        "generation_tokens_total",
        "earnings_estimate_usd_total",
    ] {
        assert!(
            !metrics.contains(&format!(r#"{family}{{model="tts:"#)),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn status_shows_speech_models_behind_the_others_and_what_became_of_requests() {
    let speaking = Speaking::start(&[]).await;
    speaking.say("a secret text").outcome().await.result();
    let status = speaking.net.sidecar.wait_for_status(|status| {
        let recent = status["requests"]["recent"].as_array().unwrap();
        !recent.is_empty()
    });
    let status = status.await;
    let models = status["models"].as_array().unwrap();
    let names: Vec<_> = models
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [MODEL, "tts:Kokoro", "tts:tts-1"]);
    let spoken = &status["requests"]["recent"][0];
    assert_eq!(spoken["operation"], "speech");
    assert_eq!(spoken["model"], "tts:Kokoro");
    assert_eq!(spoken["outcome"], "ok");
    assert_eq!(spoken["generation_tokens"], json!(null));
    let text = status.to_string();
    assert!(!text.contains("secret text") && !text.contains(&speaking.speech.addr().to_string()));
}

#[tokio::test]
async fn heartbeats_count_what_is_listed() {
    let speaking = Speaking::start(&[("PIN_HEARTBEAT_INTERVAL", "20ms")]).await;
    let counts_all =
        |frame: &Frame| frame.is_from_agent("HEARTBEAT") && frame.value["health"]["models"] == 3;
    speaking.net.gateway.wait_for(counts_all).await;
}

#[tokio::test]
async fn each_outage_of_a_server_is_among_the_last_errors_once_and_by_its_kind() {
    let speaking = Speaking::start(&[QUICK]).await;
    let sidecar = &speaking.net.sidecar;
    let outages = |status: &Value, what: &str| {
        let errors = status["last_errors"].as_array().unwrap().iter();
        let reasons = errors.filter(|error| error["what"] == what);
        reasons
            .map(|error| error["reason"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for times in 1..=2 {
        speaking.net.ollama.stop().await;
        speaking.speech.stop().await;
        let told = |status: &Value| {
            ["model_server", "speech_server"].map(|what| outages(status, what).len()) == [times; 2]
        };
        let status = sidecar.wait_for_status(told).await;
        for what in ["model_server", "speech_server"] {
            assert_eq!(outages(&status, what), vec!["down"; times]);
        }
        speaking.net.ollama.start_again().await.unwrap();
        speaking.speech.start_again().await.unwrap();
        // Longer than a second: that it is back is seen once in one.
        let is_back = |status: &Value| status["backend"]["up"] == json!(true);
        let back = sidecar.wait_for_status(is_back).await["now"].clone();
        let seen = |status: &Value| status["now"].as_u64() > back.as_u64().map(|at| at + 1);
        let status = sidecar.wait_for_status(seen).await;
        assert!(told(&status), "{status}");
    }
}
