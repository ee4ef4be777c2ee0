//! What we say of speech servers, asked of a real one, and of the stand-in, so that it stays honest.
//!
//! Every case runs against the stand-in. Where `SPEECH_SCRIPT` names the script that starts a real speech server (see
//! CONTRIBUTING.md), it runs against that as well; without it a line says that it did not.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use data_encoding::BASE64;
use devnet::{
    gateway::{Deliveries, Frame, Gateway},
    http,
    speech::{SPEECH, SpeechServer},
};
use pin_sidecar::relay::Outcome as Drain;
use serde_json::{Value, json};
use support::{CLIENT, MODEL, Net, gateway, ollama, round_trip};

/// Declares a case: a test with the stand-in and one with the real server.
macro_rules! cases {
    ($($name:ident)+) => {
        mod stand_in { $(
            #[tokio::test]
            async fn $name() {
                super::$name(super::Server::stand_in().await).await;
            }
        )+ }
        mod real { $(
            #[tokio::test]
            async fn $name() {
                if let Some(script) = super::script() {
                    super::$name(super::Server::Real(super::Real::up(script).await)).await;
                }
            }
        )+ }
    };
}

cases! {
    a_clip_is_the_servers_own_bytes_in_the_format_that_was_asked_for
    any_model_and_voice_is_spoken_and_other_keys_do_no_harm
    what_the_server_refuses_is_told_in_its_own_words
    a_cancel_leaves_the_slot_to_the_next
    a_server_that_goes_away_is_not_offered_until_it_is_back
    a_drain_lets_running_speech_finish
}

/// The speech server that a case runs against.
enum Server {
    StandIn(SpeechServer),
    Real(Real),
}

/// A real one of its own, which goes away with this.
struct Real {
    script: PathBuf,
    port: u16,
}

impl Real {
    async fn up(script: PathBuf) -> Self {
        // Free a moment ago; the script says so if somebody was quicker.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let real = Self { script, port };
        real.tell("up").await;
        real
    }

    async fn tell(&self, what: &'static str) {
        let mut script = Command::new("bash");
        script
            .arg(&self.script)
            .args([what, &self.port.to_string()]);
        let told = tokio::task::spawn_blocking(move || {
            let output = script.stdin(Stdio::null()).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{what}: {told}");
        });
        told.await.unwrap();
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // A failure of the test's own says more than one of this.
        let _ = Command::new("bash")
            .arg(&self.script)
            .args(["down", &self.port.to_string()])
            .output();
    }
}

impl Server {
    async fn stand_in() -> Self {
        Self::StandIn(SpeechServer::start().await.unwrap())
    }

    fn url(&self) -> String {
        match self {
            Self::StandIn(speech) => speech.url(),
            Self::Real(real) => format!("http://127.0.0.1:{}", real.port),
        }
    }

    async fn stop(&self) {
        match self {
            Self::StandIn(speech) => speech.stop().await,
            Self::Real(real) => real.tell("down").await,
        }
    }

    async fn start_again(&self) {
        match self {
            Self::StandIn(speech) => speech.start_again().await.unwrap(),
            Self::Real(real) => real.tell("up").await,
        }
    }

    /// What it answers when nobody stands between.
    async fn ask(&self, body: &str) -> http::Answer {
        let headers = [("content-type", "application/json")];
        let url = format!("{}{SPEECH}", self.url());
        http::post_with(&url, &headers, body.to_owned())
            .await
            .unwrap()
    }
}

/// The real server's script, if there is one here.
fn script() -> Option<PathBuf> {
    let script = std::env::var_os("SPEECH_SCRIPT").map(PathBuf::from);
    if script.is_none() {
        devnet::skip_without("a real speech server (SPEECH_SCRIPT)");
    }
    script
}

/// A sidecar that offers `tts:tiny`.
async fn start(server: &Server, settings: &[(&str, &str)]) -> Net {
    let url = server.url();
    let necessary = [
        ("PIN_TTS_URL", url.as_str()),
        ("PIN_TTS_MODELS", "tiny"),
        ("PIN_MODEL_REFRESH_INTERVAL", "100ms"),
    ];
    let settings = [&necessary, settings].concat();
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    wait_for_list(&net.gateway, 0, &json!([MODEL, "tts:tiny"])).await;
    net
}

async fn wait_for_list(gateway: &Gateway, from: usize, models: &Value) {
    let is_it =
        |frame: &Frame| frame.is_from_agent("MODEL_LIST") && frame.value["models"] == *models;
    gateway.wait_for_since(from, is_it).await;
}

fn speech(text: &str, format: &str) -> Value {
    json!({"model": "tiny", "input": text, "response_format": format})
}

async fn a_clip_is_the_servers_own_bytes_in_the_format_that_was_asked_for(server: Server) {
    let net = start(&server, &[]).await;
    for (format, content_type, beginning) in [
        ("wav", "audio/wav", &b"RIFF"[..]),
        ("pcm", "audio/pcm_s16le", b""),
        ("mp3", "audio/mpeg", b"ID3"),
        ("opus", "audio/ogg", b"OggS"),
        ("flac", "audio/flac", b"fLaC"),
        ("aac", "audio/aac", b"\xff\xf1"),
    ] {
        let payload = speech("once upon a time", format);
        let direct = server.ask(&payload.to_string()).await;
        assert_eq!(direct.status, 200, "{}", direct.text());
        assert_eq!(direct.headers["content-type"], content_type);
        let outcome = net.gateway.speech(payload).outcome().await;
        let result = outcome.result();
        assert_eq!(
            (&result["format"], &result["content_type"]),
            (&json!(format), &json!(content_type))
        );
        let audio = BASE64
            .decode(result["audio_b64"].as_str().unwrap().as_bytes())
            .unwrap();
        assert!(audio.starts_with(beginning), "{format}");
        assert_eq!(result["bytes"], audio.len());
        // An Ogg stream has a number of its own each time.
        if format == "opus" {
            assert_eq!(audio.len(), direct.body.len());
        } else {
            assert_eq!(audio, direct.body, "{format}");
        }
    }
}

async fn any_model_and_voice_is_spoken_and_other_keys_do_no_harm(server: Server) {
    let net = start(
        &server,
        &[
            ("PIN_TTS_VOICE", "whoever"),
            ("PIN_TTS_MODEL_MAP", "tiny=hexgrad/x"),
        ],
    )
    .await;
    for more in [
        json!({"voice": "alloy"}),
        json!({"voice": "default", "speed": 1.5}),
        json!({"stream": true, "instructions": "cheerful", "stream_format": "sse"}),
    ] {
        let mut payload = speech("hello", "wav");
        payload
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let outcome = net.gateway.speech(payload).outcome().await;
        assert_eq!(outcome.result()["format"], "wav");
    }
}

async fn what_the_server_refuses_is_told_in_its_own_words(server: Server) {
    for (body, words) in [
        ("{nope", "JSON decode error"),
        (
            r#"{"model":"m","input":"  "}"#,
            "invalid request field 'input': Value error, input must not be blank",
        ),
    ] {
        let answer = server.ask(body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["message"]),
            (400, &json!(words))
        );
    }
    let net = start(&server, &[]).await;
    let refused = net.gateway.speech(speech("hello", "midi")).outcome().await;
    assert_eq!(
        refused.error(),
        "rejected: invalid request field 'response_format': Value error, response_format must be one of: wav, pcm, mp3, \
         flac, aac, opus"
    );
    assert!(refused.frame.is_from_agent("TTS_ERROR"));
}

/// As long a text as the real one takes, in the format that costs it most: some ten seconds.
async fn a_cancel_leaves_the_slot_to_the_next(server: Server) {
    let net = start(&server, &[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    if let Server::StandIn(speech) = &server {
        speech.pause_at(0);
    }
    let _long = net
        .gateway
        .speech_with_id("long", speech(&"and then ".repeat(800), "aac"));
    let runs = |running: f64| running == 1.0;
    net.sidecar.wait_for_metric("requests_running", runs).await;
    net.gateway.cancel("long");
    round_trip(&net.gateway).await;
    assert_eq!(net.sidecar.metric("requests_running").await, 0.0);
    if let Server::StandIn(speech) = &server {
        speech.go_on();
    }
    net.gateway
        .speech(speech("hello", "wav"))
        .outcome()
        .await
        .result();
    assert_eq!(
        net.gateway.books().deliveries("long"),
        Deliveries::default()
    );
}

async fn a_server_that_goes_away_is_not_offered_until_it_is_back(server: Server) {
    let net = start(&server, &[]).await;
    let seen = net.gateway.frames().len();
    server.stop().await;
    wait_for_list(&net.gateway, seen, &json!([MODEL])).await;
    let seen = net.gateway.frames().len();
    server.start_again().await;
    wait_for_list(&net.gateway, seen, &json!([MODEL, "tts:tiny"])).await;
    net.gateway
        .speech(speech("hello", "wav"))
        .outcome()
        .await
        .result();
}

async fn a_drain_lets_running_speech_finish(server: Server) {
    let net = start(&server, &[]).await;
    let mut running = net.gateway.speech(speech(&"and then ".repeat(200), "mp3"));
    let taken = |requests: f64| requests > 0.0;
    net.sidecar
        .wait_for_metric("messages_received_total{message=\"TTS_REQUEST\"}", taken)
        .await;
    assert_eq!(net.sidecar.drain().await, Drain::Drained);
    running.outcome().await.result();
}
