//! What the log says of speech, and what it never says.

use data_encoding::BASE64;
use devnet::{
    agent::Signal,
    speech::{Fault, SPEECH, SpeechServer, clip},
};
use serde_json::{Value, json};

use crate::program::{Net, event};

const TEXT: &str = "Zebra-Text";
const ERROR: &str = "Zebra-Error";
const VOICE: &str = "Zebra-Voice";
const PASSWORD: &str = "Zebra-Password";

#[tokio::test]
async fn speech_leaves_a_line_a_request_and_nothing_of_what_is_said_or_where() {
    let speech = SpeechServer::start().await.unwrap();
    let address = speech.addr().to_string();
    let net = Net::start(&[
        ("PIN_LOG", "trace"),
        ("PIN_LOG_FORMAT", "json"),
        (
            "PIN_TTS_URL",
            &format!("http://ann:{PASSWORD}@{address}/v1"),
        ),
        ("PIN_TTS_MODELS", "kokoro"),
        ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
    ])
    .await;
    net.agent
        .wait_for_log(|line| line.contains("speech models offered"))
        .await;
    let payload =
        json!({"model": "Kokoro", "input": TEXT, "voice": VOICE, "response_format": "wav"});
    net.gateway.speech(payload.clone()).outcome().await.result();
    for fault in [
        Fault::answer(
            500,
            "application/json",
            &format!(r#"{{"error":"{ERROR}"}}"#),
        ),
        Fault::answer(500, "text/plain", ERROR),
        Fault::answer(200, "text/html", ERROR),
        Fault::Cut { after: 3 },
    ] {
        speech.fail_next(SPEECH, 1, fault);
        net.gateway.speech(payload.clone()).outcome().await;
    }
    speech.stop().await;
    net.agent
        .wait_for_log(|line| line.contains("no speech to offer"))
        .await;
    speech.start_again().await.unwrap();
    net.agent
        .wait_for_log(|line| line.contains("the speech server answers"))
        .await;
    let mut pages = String::new();
    for path in ["/status", "/metrics", "/readyz"] {
        pages += &net.agent.get(path).await.unwrap().text();
    }
    net.agent.signal(Signal::TERM);
    net.agent.wait().await;

    let log = net.agent.log();
    let lines = log.iter().map(|line| line.as_str());
    // The effective settings, told once at the start, are the operator's own words.
    let starting = |line: &&str| line.contains(r#""message":"starting""#);
    let told: Vec<_> = lines
        .clone()
        .filter(|line| !starting(line))
        .chain(pages.lines())
        .collect();
    let audio = BASE64.encode(&clip(TEXT, "wav"));
    for private in [TEXT, ERROR, VOICE, &audio, &address] {
        let shown = told.iter().find(|line| line.contains(private));
        assert_eq!(shown, None, "{private}");
    }
    assert!(!log.iter().any(|line| line.contains(PASSWORD)));
    let events = lines
        .map(event)
        .filter(|event| event["operation"] == "speech");
    let events: Vec<Value> = events.collect();
    let outcomes: Vec<_> = events
        .iter()
        .map(|event| event["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["ok", "backend", "backend", "backend", "backend"]);
    for event in &events {
        assert_eq!(
            (&event["model"], &event["node"]),
            (&json!("tts:kokoro"), &json!("node-1"))
        );
        assert!(event["duration_ms"].is_u64());
        assert!(event.get("prompt_tokens").is_none() && event.get("first_token_ms").is_none());
    }
}
