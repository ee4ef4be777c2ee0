//! What the network is told of speech models, and when.

use std::sync::Arc;

use devnet::{
    ollama::{ModelShape, Ollama},
    openai::OpenAi,
};
use pin_sidecar::relay::Outcome;

use super::{
    support::{DESKTOP, MODEL, chat},
    *,
};

/// The models of the last list that was sent.
fn listed(frames: &[Arc<Frame>]) -> Value {
    let mut frames = frames.iter().rev();
    let last = frames.find(|frame| frame.is_from_agent("MODEL_LIST"));
    last.unwrap().value["models"].clone()
}

#[tokio::test]
async fn speech_models_come_after_the_chat_models_in_every_list_of_either_generation() {
    let all = json!([MODEL, "tts:Kokoro", "tts:tts-1"]);
    let operator = Speaking::start(&[]).await;
    assert_eq!(listed(&operator.net.gateway.frames()), all);
    let desktop = Speaking::start_as(DESKTOP, &[]).await;
    assert_eq!(listed(&desktop.net.gateway.frames()), all);
}

#[tokio::test]
async fn a_node_without_a_chat_model_lists_its_speech_and_is_registered_with_its_first_chat_model()
{
    let speech = SpeechServer::start().await.unwrap();
    let url = speech.url();
    let settings = [&[("PIN_TTS_URL", url.as_str()), QUICK], &MODELS[..]].concat();
    let empty = Ollama::builder().start().await.unwrap();
    let net = Net::with(CLIENT, gateway().await, empty, &settings).await;
    let speaking = Speaking { net, speech };
    speaking.wait_for_list("tts:tts-1").await;
    let gateway = &speaking.net.gateway;
    assert_eq!(
        listed(&gateway.frames()),
        json!(["tts:Kokoro", "tts:tts-1"])
    );
    speaking
        .say("without a chat model")
        .outcome()
        .await
        .result();
    assert!(
        !gateway
            .frames()
            .iter()
            .any(|frame| frame.is_from_agent("REGISTER_NODE"))
    );
    speaking.net.ollama.add_model(MODEL, ModelShape::default());
    let registered = gateway
        .wait_for(|frame| frame.is_from_agent("REGISTER_NODE"))
        .await;
    assert_eq!(
        registered.value["models"],
        json!([MODEL, "tts:Kokoro", "tts:tts-1"])
    );
}

#[tokio::test]
async fn a_speech_server_that_is_away_is_not_offered_and_readiness_does_not_depend_on_it() {
    let speaking = Speaking::start(&[QUICK]).await;
    let gateway = &speaking.net.gateway;
    speaking.speech.stop().await;
    gateway
        .wait_for(|frame| {
            frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([MODEL])
        })
        .await;
    let (status, ready) = speaking.net.sidecar.get("/readyz").await;
    assert_eq!(status, 200, "{ready}");
    let warning = "The speech server does not answer: nothing listens there (connection refused). \
                   Start it, or correct PIN_TTS_URL.";
    assert!(ready.contains(warning), "{ready}");
    let refused = speaking.say("hello").outcome().await;
    assert_eq!(
        refused.error(),
        "model_not_found: this node does not offer that model"
    );
    speaking.net.chat("still here").outcome().await.result();

    let seen = gateway.frames().len();
    speaking.speech.start_again().await.unwrap();
    let (_, back) = gateway
        .wait_for_since(seen, |frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    assert_eq!(
        back.value["models"],
        json!([MODEL, "tts:Kokoro", "tts:tts-1"])
    );
    speaking.say("back").outcome().await.result();
    let (_, ready) = speaking.net.sidecar.get("/readyz").await;
    assert!(!ready.contains("speech"), "{ready}");
}

#[tokio::test]
async fn a_request_that_finds_the_speech_server_gone_is_told_so_and_it_is_no_longer_offered() {
    let speaking = Speaking::start(&[("PIN_MODEL_REFRESH_INTERVAL", "10m")]).await;
    speaking.speech.stop().await;
    let refused = speaking.say("hello").outcome().await;
    assert_eq!(
        refused.error(),
        "backend: the speech server cannot be reached"
    );
    speaking
        .net
        .gateway
        .wait_for(|frame| {
            frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([MODEL])
        })
        .await;
    speaking.speech.start_again().await.unwrap();
    let looks = || {
        let requests = speaking.speech.requests();
        requests
            .iter()
            .filter(|request| request.path == LIST)
            .count()
    };
    support::poll(|| async { looks() }, |looks| *looks > 1).await;
    speaking.say("back").outcome().await.result();
}

#[tokio::test]
async fn whatever_a_speech_server_answers_to_a_look_shows_that_it_is_there() {
    for (status, body) in [
        (404, "Not Found"),
        (400, ""),
        (405, ""),
        (429, ""),
        (500, ""),
        (200, "<html>"),
    ] {
        let speaking = Speaking::answering_looks_with(status, body).await;
        speaking.wait_for_list("tts:Kokoro").await;
        speaking.say("hello").outcome().await.result();
    }
}

#[tokio::test]
async fn a_speech_server_that_keeps_everybody_out_is_not_offered_and_it_is_said_what_to_do() {
    for (status, words) in [
        (
            301,
            "HTTP 301, a redirect. Redirects are not followed: PIN_TTS_URL must",
        ),
        (
            401,
            "refuses the sidecar (HTTP 401): write a user and password into PIN_TTS_URL",
        ),
        (
            403,
            "refuses the sidecar (HTTP 403): write a user and password into PIN_TTS_URL",
        ),
        (502, "The speech server is not ready (HTTP 502)"),
        (503, "The speech server is not ready (HTTP 503)"),
        (504, "The speech server is not ready (HTTP 504)"),
    ] {
        let speaking = Speaking::answering_looks_with(status, "").await;
        let warnings = || async { speaking.net.sidecar.get("/readyz").await.1 };
        support::poll(warnings, |ready| ready.contains(words)).await;
        speaking.wait_for_list(MODEL).await;
        assert_eq!(listed(&speaking.net.gateway.frames()), json!([MODEL]));
        speaking.speech.clear_faults();
        speaking.wait_for_list("tts:Kokoro").await;
    }
}

#[tokio::test]
async fn a_speech_server_that_begins_to_refuse_clips_is_looked_at_at_once() {
    let speaking = Speaking::start(&[("PIN_MODEL_REFRESH_INTERVAL", "10m")]).await;
    for path in [LIST, SPEECH] {
        let refused = Fault::answer(401, "text/plain", "no");
        speaking.speech.fail_always(path, refused);
    }
    assert!(speaking.say("hello").outcome().await.answer.is_err());
    let is_chat_alone = |frame: &Frame| {
        frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([MODEL])
    };
    speaking.net.gateway.wait_for(is_chat_alone).await;
}

#[tokio::test]
async fn a_speech_server_that_turns_others_away_while_it_speaks_stays_offered() {
    let speaking = Speaking::start(&[QUICK]).await;
    speaking.speech.pause_at(0);
    let mut long = speaking.say("a long text");
    speaking.speech.wait_for_chats(1).await;
    let busy = Fault::answer(503, "text/plain", "busy");
    speaking.speech.fail_always(LIST, busy);
    let looks = speaking.speech.requests().len() + 3;
    let seen = || async { speaking.speech.requests().len() };
    support::poll(seen, |seen| *seen > looks).await;
    let all = json!([MODEL, "tts:Kokoro", "tts:tts-1"]);
    assert_eq!(listed(&speaking.net.gateway.frames()), all);
    speaking.speech.go_on();
    long.outcome().await.result();
}

#[tokio::test]
async fn a_node_that_only_speaks_is_ready_and_says_what_is_wrong_with_its_model_server() {
    let empty = Ollama::builder().start().await.unwrap();
    let away = ollama().await;
    away.stop().await;
    for (server, why) in [
        (empty, "Ollama has no model."),
        (away, "Ollama does not answer: nothing listens there"),
    ] {
        let speech = SpeechServer::start().await.unwrap();
        let url = speech.url();
        let settings = [&[("PIN_TTS_URL", url.as_str()), QUICK], &MODELS[..]].concat();
        let net = Net::with(CLIENT, gateway().await, server, &settings).await;
        net.sidecar.wait_until_pending("").await;
        let warned = || async { net.sidecar.get("/readyz").await };
        let (status, ready) = support::poll(warned, |(_, ready)| ready.contains(why)).await;
        assert_eq!(status, 200, "{ready}");
        let shown = net
            .sidecar
            .wait_for_status(|status| status["ready"] == true);
        assert_eq!(shown.await["speech"], json!({"up": true}));
        // Without speech there is nothing left.
        speech.stop().await;
        let pending = net.sidecar.wait_until_pending(why).await;
        assert_eq!(pending.len(), 1, "{pending:?}");
        let (_, unready) = net.sidecar.get("/readyz").await;
        assert_eq!(unready.matches(why).count(), 1, "{unready}");
    }
}

#[tokio::test]
async fn a_speech_server_that_answers_nobody_while_it_speaks_stays_offered() {
    let settings = [QUICK, ("PIN_CONNECT_TIMEOUT", "200ms")];
    let speaking = Speaking::start(&settings).await;
    let gateway = &speaking.net.gateway;
    speaking.speech.pause_at(0);
    let mut long = speaking.say("a long text");
    speaking.speech.wait_for_chats(1).await;
    speaking.speech.fail_always(LIST, Fault::HangBeforeHeaders);
    let looks = speaking.speech.requests().len() + 3;
    support::poll(
        || async { speaking.speech.requests().len() },
        |seen| *seen > looks,
    )
    .await;
    assert_eq!(
        listed(&gateway.frames()),
        json!([MODEL, "tts:Kokoro", "tts:tts-1"])
    );
    speaking.speech.go_on();
    long.outcome().await.result();
    // Silence without work is what it is.
    gateway
        .wait_for(|frame| {
            frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([MODEL])
        })
        .await;
}

#[tokio::test]
async fn nothing_is_offered_while_the_node_drains() {
    let mut speaking = Speaking::start(&[]).await;
    speaking.speech.pause_at(0);
    let mut running = speaking.say("hello");
    speaking.speech.wait_for_chats(1).await;
    speaking.net.sidecar.begin_drain();
    let empty =
        |frame: &Frame| frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([]);
    speaking.net.gateway.wait_for(empty).await;
    let late = speaking.say("late").outcome().await;
    assert_eq!(late.error(), "draining: this node is shutting down");
    speaking.speech.go_on();
    running.outcome().await.result();
    assert_eq!(speaking.net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test]
async fn speech_models_neither_chat_nor_are_interviewed_and_chat_models_do_not_speak() {
    let speaking = Speaking::start(&[]).await;
    let gateway = &speaking.net.gateway;
    let unknown = "model_not_found: this node does not offer that model";
    let mut payload = chat("hello");
    for model in ["tts:Kokoro", "Kokoro"] {
        payload["model"] = json!(model);
        assert_eq!(
            gateway.chat(payload.clone()).outcome().await.error(),
            unknown
        );
    }
    let speech = json!({"model": MODEL, "input": "hello"});
    assert_eq!(gateway.speech(speech).outcome().await.error(), unknown);
    gateway.send(&json!({
        "type": "INTERVIEW_REQUEST", "interview_id": "i", "model": "tts:Kokoro", "timeout_ms": 1000,
        "prompts": [{"id": 1, "prompt": "hello", "max_tokens": 5}],
    }));
    let refused = gateway
        .wait_for(|frame| frame.is_from_agent("INTERVIEW_RESULT"))
        .await;
    let error = refused.value["results"][0]["error"].as_str().unwrap();
    assert!(error.starts_with("model_not_found"), "{error}");
    assert_eq!(speaking.speech.chats().ever, 0);
}

#[tokio::test]
async fn speech_stands_beside_a_server_of_openais_interface_as_beside_ollama() {
    let (gateway, speech) = (gateway().await, SpeechServer::start().await.unwrap());
    let chats = OpenAi::builder().model("tiny").start().await.unwrap();
    let url = speech.url();
    let settings = [
        &[("PIN_API_MODE", "openai"), ("PIN_TTS_URL", url.as_str())],
        &MODELS[..],
    ];
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &chats.url(), &settings.concat());
    wait_for_list(&gateway, "tiny").await;
    wait_for_list(&gateway, "tts:tts-1").await;
    let all = json!(["tiny", "tts:Kokoro", "tts:tts-1"]);
    assert_eq!(listed(&gateway.frames()), all);
    let spoken = gateway.speech(super::speech("hello")).outcome().await;
    assert_eq!(spoken.result()["format"], "mp3");
    let mut payload = chat("hello");
    payload["model"] = json!("tiny");
    gateway.chat(payload).outcome().await.result();
    assert_eq!(sidecar.drain().await, Outcome::Drained);
}
