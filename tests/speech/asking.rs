//! What reaches the speech server, and what does not.

use super::{support::chat, *};

#[tokio::test]
async fn the_server_gets_its_own_name_of_the_model_and_what_speech_needs_and_no_other_key() {
    let speaking = Speaking::start(&[]).await;
    let more = json!({
        "model": "KOKORO", "voice": "af_bella", "response_format": "wav", "speed": 1.5, "stream": true,
        "instructions": "x", "keep_alive": 0, "download_format": "zip",
    });
    speaking.ask(more).await.unwrap();
    speaking.ask(json!({"model": "tts:TTS-1"})).await.unwrap();
    assert_eq!(
        speaking.asked(),
        [
            r#"{"model":"hexgrad/Kokoro-82M","input":"hello","voice":"af_bella","response_format":"wav","speed":1.5}"#,
            r#"{"model":"tts-1","input":"hello","response_format":"mp3"}"#,
        ]
    );
    let request = speaking.speech.wait_for_request(SPEECH).await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(
        request.headers["content-length"],
        request.body.len().to_string()
    );
}

#[tokio::test]
async fn the_operators_voice_is_sent_where_a_request_leaves_the_voice_to_him() {
    let speaking = Speaking::start(&[("PIN_TTS_VOICE", "My Voice.wav")]).await;
    for (voice, told) in [
        (json!(null), "default"),
        (json!("default"), "default"),
        (json!(" "), "default"),
    ] {
        let result = speaking.ask(json!({"voice": voice})).await.unwrap();
        assert_eq!(
            result["voice"], told,
            "an operator's file is nobody's business"
        );
    }
    let result = speaking.ask(json!({"voice": "alloy"})).await.unwrap();
    assert_eq!(result["voice"], "alloy");
    let asked = speaking.asked();
    let voices = asked
        .iter()
        .map(|body| serde_json::from_str::<Value>(body).unwrap()["voice"].clone());
    let expected = ["My Voice.wav", "My Voice.wav", "My Voice.wav", "alloy"];
    assert_eq!(voices.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn the_url_may_end_with_the_version_and_have_a_user_and_a_path() {
    let speech = SpeechServer::start().await.unwrap();
    for end in ["", "/", "/v1", "/v1/"] {
        let url = format!("http://ann:pw@{}{end}", speech.addr());
        let settings = [&[("PIN_TTS_URL", url.as_str())], &MODELS[..]].concat();
        let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
        wait_for_list(&net.gateway, "tts:Kokoro").await;
        net.gateway
            .speech(json!({"model": "kokoro", "input": "hello"}))
            .outcome()
            .await
            .result();
    }
    let requests = speech.requests();
    let asked: Vec<_> = requests
        .iter()
        .filter(|request| request.path == SPEECH)
        .collect();
    assert_eq!(asked.len(), 4);
    assert!(
        requests
            .iter()
            .all(|request| request.headers["authorization"] == "Basic YW5uOnB3")
    );
}

#[tokio::test]
async fn what_is_no_request_for_speech_is_refused_before_anybody_is_asked() {
    let speaking = Speaking::start(&[]).await;
    for (more, told) in [
        (json!({"input": ""}), "invalid: input is missing or blank"),
        (
            json!({"input": " \n"}),
            "invalid: input is missing or blank",
        ),
        (json!({"input": 7}), "invalid: input is no text"),
        (json!({"model": null}), "invalid: no model is named"),
        (json!({"speed": "fast"}), "invalid: speed is no number"),
        (json!({"voice": ["a"]}), "invalid: voice is no text"),
        (
            json!({"model": "other"}),
            "model_not_found: this node does not offer that model",
        ),
    ] {
        assert_eq!(speaking.ask(more).await.unwrap_err(), told);
    }
    let twice = r#"{"type":"TTS_REQUEST","request_id":"t","payload":{"model":"kokoro","input":"a","input":"b"}}"#;
    let mut ambiguous = speaking.net.gateway.listen_for("t");
    speaking.net.gateway.send_text(twice);
    let refused = ambiguous.outcome().await;
    assert_eq!(refused.error(), "invalid: a key is written twice");
    assert_eq!(speaking.speech.chats().ever, 0);
}

#[tokio::test]
async fn without_a_speech_server_a_node_speaks_for_nobody_and_chats_as_ever() {
    let net = Net::start(&[]).await;
    let refused = net.gateway.speech(speech("hello")).outcome().await;
    assert_eq!(
        refused.error(),
        "model_not_found: this node has no speech backend"
    );
    assert!(refused.frame.is_from_agent("TTS_ERROR"));
    net.gateway.chat(chat("hello")).outcome().await.result();
}
