//! What we say of Ollama, asked of Ollama itself, and of the stand-in, so that it stays honest.
//!
//! Every case runs against the stand-in. Where `OLLAMA_SCRIPT` names the script that starts a real Ollama (see
//! CONTRIBUTING.md), it runs against that as well; without it a line says that it did not.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use devnet::{
    gateway::{Chat, Deliveries},
    http,
    network::Proxy,
    ollama::{ModelShape, Ollama},
    registry::{Registry, Repository},
};
use pin_sidecar::relay::Outcome as Drain;
use serde_json::{Value, json};
use support::{CLIENT, DESKTOP, Sidecar, gateway, self_signed};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;

/// The model that both have. It never ends by itself: `num_predict` ends it.
const TINY: &str = "tiny";

/// Nothing comes for so long of a model that is stopped, once all that it had given is there.
const SILENCE: Duration = Duration::from_millis(100);

/// The Ollama that a case runs against.
enum Server {
    StandIn(Ollama),
    Real(Real),
}

/// A real Ollama of its own, which goes away with this.
struct Real {
    script: PathBuf,
    port: u16,
    log: PathBuf,
    /// Certificates that it trusts instead of the usual ones.
    trusts: Option<PathBuf>,
}

impl Real {
    fn reserve(script: PathBuf) -> Self {
        // Free a moment ago; the script says so if somebody was quicker.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            script,
            port: listener.local_addr().unwrap().port(),
            log: PathBuf::new(),
            trusts: None,
        }
    }

    async fn up(mut self) -> Self {
        tokio::task::spawn_blocking(|| {
            let told = self.tell("up");
            // The script's last words are where the log is.
            self.log = told.trim().rsplit(", log ").next().unwrap().into();
            self
        })
        .await
        .unwrap()
    }

    fn tell(&self, what: &str) -> String {
        let output = Command::new("bash")
            .arg(&self.script)
            .args([what, &self.port.to_string()])
            .envs(self.trusts.iter().map(|file| ("SSL_CERT_FILE", file)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{what}: {told}");
        told
    }

    /// How many chats Ollama is done with: it logs a request when it ends.
    fn chats_ended(&self) -> usize {
        self.requests_ended("/api/chat")
    }

    fn requests_ended(&self, path: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.matches(&format!("\"{path}\"")).count()
    }

    /// The tiny model as a registry would have it, from the files that Ollama keeps beside its log.
    fn repository(&self) -> Repository {
        let models = self.log.with_file_name("models");
        let manifest = "manifests/registry.ollama.ai/library/tiny/latest";
        let manifest = std::fs::read(models.join(manifest)).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let blobs = layers.chain([&manifest["config"]]).map(|layer| {
            let digest = layer["digest"].as_str().unwrap().to_owned();
            let file = models.join("blobs").join(digest.replace(':', "-"));
            (digest, std::fs::read(file).unwrap().into())
        });
        Repository::new(manifest.clone(), blobs.collect())
    }

    /// The processes that run models for it.
    fn runners(&self) -> Vec<u32> {
        let ours = |pid: &u32| {
            let read =
                |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let contains =
                |text: Vec<u8>, part: &str| String::from_utf8_lossy(&text).contains(part);
            contains(
                read("environ"),
                &format!("OLLAMA_HOST=127.0.0.1:{}", self.port),
            ) && contains(read("cmdline"), "runner")
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(ours)
            .collect()
    }

    fn signal_runner(&self, signal: &str) {
        let runners = self.runners();
        assert_eq!(runners.len(), 1, "{runners:?}");
        let sent = Command::new("kill")
            .args(["-s", signal, &runners[0].to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
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
    fn url(&self) -> String {
        match self {
            Self::StandIn(ollama) => ollama.url(),
            Self::Real(real) => format!("http://127.0.0.1:{}", real.port),
        }
    }

    async fn stand_in() -> Self {
        let ollama = Ollama::builder()
            .model(
                "tiny:latest",
                ModelShape {
                    context_length: 2048,
                    ..ModelShape::default()
                },
            )
            .token_delay(Duration::from_millis(1));
        Self::StandIn(ollama.start().await.unwrap())
    }

    /// Waits until Ollama is done with so many chats, however they ended.
    async fn wait_for_chats_ended(&self, chats: usize) {
        let ended = || async {
            match self {
                Self::StandIn(ollama) => ollama.chats().ever - ollama.chats().running,
                Self::Real(real) => real.chats_ended(),
            }
        };
        support::poll(ended, |ended| *ended >= chats).await;
    }

    /// Stops the model in the middle of an answer and takes all that it had given, where Ollama is a real one.
    async fn stop_generating(&self, answer: &mut Chat) {
        if let Self::Real(real) = self {
            real.signal_runner("STOP");
            while timeout(SILENCE, answer.next()).await.is_ok() {}
        }
    }

    fn go_on_generating(&self) {
        if let Self::Real(real) = self {
            real.signal_runner("CONT");
        }
    }

    /// How many chats Ollama was ever asked for; those that run are not counted by a real one.
    async fn chats_begun(&self) -> usize {
        match self {
            Self::StandIn(ollama) => ollama.chats().ever,
            Self::Real(real) => real.chats_ended(),
        }
    }

    /// Ollama's own word on which models are loaded, and with which context.
    async fn loaded(&self) -> Value {
        http::get(&format!("{}/api/ps", self.url()))
            .await
            .unwrap()
            .json()["models"]
            .clone()
    }
}

/// The real Ollama's script, if there is one here.
fn script() -> Option<PathBuf> {
    let script = std::env::var_os("OLLAMA_SCRIPT").map(PathBuf::from);
    if script.is_none() {
        devnet::skip_without("a real Ollama (OLLAMA_SCRIPT)");
    }
    script
}

/// Declares a case: a test with the stand-in and one with the real Ollama.
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
                    let real = super::Real::reserve(script).up().await;
                    super::$name(super::Server::Real(real)).await;
                }
            }
        )+ }
    };
}

cases! {
    a_chat_is_answered_for_either_generation
    a_streamed_chat_is_the_same_as_its_answer
    an_unknown_model_is_not_found
    a_feature_that_the_model_lacks_is_refused_in_ollamas_words
    a_cancel_frees_ollama_for_the_next
    an_answer_whose_link_was_cut_comes_with_the_next_session_and_is_run_once
    a_drain_lets_the_running_answer_finish
    keys_that_ollama_would_fold_change_nothing
    a_consumer_can_not_unload_a_model
    an_operators_context_is_loaded_once
    openais_dialect_is_understood
    a_pull_that_cannot_be_is_refused_in_ollamas_words
}

struct Net {
    gateway: devnet::gateway::Gateway,
    sidecar: Sidecar,
    server: Server,
}

impl Net {
    async fn start(client: &str, server: Server, settings: &[(&str, &str)]) -> Self {
        let gateway = gateway().await;
        let sidecar = Sidecar::start(client, &gateway.url(), &server.url(), settings);
        gateway.wait_for_session(1).await;
        sidecar.wait_until_pending("").await;
        Self {
            gateway,
            sidecar,
            server,
        }
    }

    async fn ask(&self, payload: Value) -> devnet::gateway::Outcome {
        self.gateway.chat(payload).outcome().await
    }
}

fn payload(tokens: u64) -> Value {
    json!({
        "model": TINY,
        "messages": [{"role": "user", "content": "once upon a time"}],
        "options": {"num_predict": tokens, "seed": 1},
    })
}

fn streamed(tokens: u64) -> Value {
    let mut payload = payload(tokens);
    payload["stream"] = json!(true);
    payload
}

async fn a_chat_is_answered_for_either_generation(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let outcome = net.ask(payload(20)).await;
    assert!(!outcome.text().is_empty());
    assert_eq!(outcome.result()["choices"][0]["finish_reason"], "length");
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 20);
    assert!(outcome.result()["usage"]["prompt_tokens"].as_u64().unwrap() > 0);

    let desktop = Net::start(DESKTOP, net.server, &[]).await;
    let outcome = desktop.ask(payload(20)).await;
    assert!(!outcome.text().is_empty());
    let result = outcome.result();
    assert_eq!(result["done"], true);
    assert_eq!(result["done_reason"], "length");
    assert_eq!(result["eval_count"], 20);
    assert_eq!(net.sidecar.drain().await, Drain::Drained);
}

async fn a_streamed_chat_is_the_same_as_its_answer(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let outcome = net.ask(streamed(60)).await;
    assert!(!outcome.chunks.is_empty());
    assert_eq!(outcome.streamed("content"), outcome.text());
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 60);
}

async fn an_unknown_model_is_not_found(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let mut payload = payload(5);
    payload["model"] = json!("nope");
    let outcome = net.ask(payload).await;
    assert_eq!(
        outcome.error(),
        "model_not_found: this node does not offer that model"
    );
}

async fn a_feature_that_the_model_lacks_is_refused_in_ollamas_words(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let mut thinking = payload(5);
    thinking["think"] = json!(true);
    assert_eq!(
        net.ask(thinking).await.error(),
        r#"rejected: "tiny" does not support thinking"#
    );
    let mut wrong = payload(5);
    wrong["options"] = json!({"num_predict": "many"});
    let outcome = net.ask(wrong).await;
    assert_eq!(
        outcome.error(),
        r#"backend: option "num_predict" must be of type integer"#
    );
}

async fn a_cancel_frees_ollama_for_the_next(server: Server) {
    let settings = [("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")];
    let net = Net::start(CLIENT, server, &settings).await;
    let mut endless = net.gateway.chat(streamed(1_000_000));
    endless.next().await;
    // Ollama (seen with 0.17.4) may lose the slot for good if its client goes while a line waits to be written
    // (<https://github.com/ollama/ollama/issues/17131>). Where a model gives 2,000 tokens a second, that is one time in twelve.
    net.server.stop_generating(&mut endless).await;
    net.gateway.cancel(endless.id());
    net.server.wait_for_chats_ended(1).await;
    net.server.go_on_generating();
    net.ask(payload(5)).await.result();
    assert_eq!(
        net.gateway.books().deliveries(endless.id()),
        Deliveries::default()
    );
}

async fn an_answer_whose_link_was_cut_comes_with_the_next_session_and_is_run_once(server: Server) {
    let gateway = gateway().await;
    let network = Proxy::start(gateway.addr()).await.unwrap();
    let url = gateway.url_at(network.addr());
    let quick = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];
    let sidecar = Sidecar::start(CLIENT, &url, &server.url(), &quick);
    sidecar.wait_until_pending("").await;
    let mut chat = gateway.chat(streamed(1500));
    chat.next().await;
    network.cut().await;
    server.wait_for_chats_ended(1).await;
    network.mend().await.unwrap();
    let outcome = chat.outcome().await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 1500);
    assert!(outcome.frame.connection > 1, "it came before the cut");
    // Asked for again, it is told again.
    let again = gateway
        .chat_with_id(chat.id(), streamed(1500))
        .outcome()
        .await;
    assert_eq!(again.frame.bytes, outcome.frame.bytes);
    assert_eq!(sidecar.drain().await, Drain::Drained);
    server.wait_for_chats_ended(1).await;
    assert_eq!(server.chats_begun().await, 1);
    assert_eq!(gateway.books().bills(), 1);
}

async fn a_drain_lets_the_running_answer_finish(server: Server) {
    let mut net = Net::start(CLIENT, server, &[]).await;
    let mut chat = net.gateway.chat(streamed(1500));
    chat.next().await;
    net.sidecar.begin_drain();
    let refused = net.ask(payload(1)).await;
    assert!(
        refused.error().starts_with("draining: "),
        "{}",
        refused.error()
    );
    let outcome = chat.outcome().await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 1500);
    assert_eq!(net.sidecar.drained().await, Drain::Drained);
    assert_eq!(net.server.chats_begun().await, 1);
}

async fn keys_that_ollama_would_fold_change_nothing(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    net.ask(payload(1)).await.result();
    let before = net.server.loaded().await;
    for key in ["MODEL", "Keep_Alive", "\u{212a}eep_alive", "OPTIONS"] {
        let payload = format!(
            r#"{{"model":"tiny","messages":[{{"role":"user","content":"x"}}],"options":{{"num_predict":1}},"{key}":0}}"#
        );
        let outcome = net.gateway.chat_with_text(&payload).outcome().await;
        assert!(
            outcome.error().starts_with("invalid: "),
            "{key}: {}",
            outcome.error()
        );
    }
    assert_eq!(net.server.loaded().await, before);
}

async fn a_consumer_can_not_unload_a_model(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    net.ask(payload(1)).await.result();
    let mut unload = payload(1);
    unload["keep_alive"] = json!(0);
    net.ask(unload).await.result();
    let empty = json!({"model": TINY, "messages": [], "keep_alive": 0});
    assert!(net.ask(empty).await.error().starts_with("invalid: "));
    assert_eq!(net.server.loaded().await.as_array().unwrap().len(), 1);
}

async fn an_operators_context_is_loaded_once(server: Server) {
    let net = Net::start(
        DESKTOP,
        server,
        &[
            ("PIN_MAX_CONTEXT", "512"),
            ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
        ],
    )
    .await;
    let first = net.ask(payload(1)).await;
    assert_eq!(net.server.loaded().await[0]["context_length"], 512);
    let loading = first.result()["load_duration"].as_u64().unwrap();
    net.sidecar
        .wait_for_status(|status| status["models"][0]["loaded"] == true)
        .await;
    for asked in [
        json!({}),
        json!({"num_ctx": 100}),
        json!({"num_ctx": 100_000}),
    ] {
        let mut again = payload(1);
        again["options"] = asked;
        again["options"]["num_predict"] = json!(1);
        let result = net.ask(again).await;
        let load = result.result()["load_duration"].as_u64().unwrap();
        assert!(
            matches!(net.server, Server::StandIn(_)) || load < loading / 3,
            "{load} ns after {loading} ns"
        );
    }
    assert_eq!(net.server.loaded().await[0]["context_length"], 512);
    if let Server::StandIn(ollama) = &net.server {
        assert_eq!(ollama.loads("tiny:latest"), 1);
    }
}

async fn openais_dialect_is_understood(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    let outcome = net
        .ask(json!({
            "model": "TINY",
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "once upon"}, {"type": "text", "text": " a time"}]},
            ],
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": "never said",
            "reasoning_effort": "low",
        }))
        .await;
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 7);
}

async fn a_pull_that_cannot_be_is_refused_in_ollamas_words(server: Server) {
    for (body, words) in [
        ("", "missing request body"),
        ("{}", "invalid model name"),
        (r#"{"model":"a b"}"#, "invalid model name"),
        (r#"{"name":"tiny*"}"#, "invalid model name"),
    ] {
        let url = server.url() + "/api/pull";
        let answer = http::post(&url, body).await.unwrap();
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({"error": words}))
        );
    }
}

#[tokio::test]
async fn a_real_ollama_may_start_after_the_sidecar() {
    let Some(script) = script() else { return };
    let real = Real::reserve(script);
    let gateway = gateway().await;
    let url = format!("http://127.0.0.1:{}", real.port);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &url, &[]);
    gateway.wait_for_session(1).await;
    sidecar.wait_until_pending("Ollama does not answer").await;
    let real = real.up().await;
    sidecar.wait_until_pending("").await;
    gateway.chat(payload(3)).outcome().await.result();
    drop(real);
}

#[tokio::test]
async fn a_runner_that_is_killed_costs_its_answer_and_no_more() {
    let Some(script) = script() else { return };
    let real = Real::reserve(script).up().await;
    let net = Net::start(CLIENT, Server::Real(real), &[]).await;
    let mut chat = net.gateway.chat(streamed(1_000_000));
    chat.next().await;
    let Server::Real(real) = &net.server else {
        return;
    };
    real.signal_runner("KILL");
    let outcome = chat.outcome().await;
    assert!(
        outcome.error().starts_with("backend: "),
        "{}",
        outcome.error()
    );
    net.ask(payload(3)).await.result();
}

/// What the layer weighs that a real Ollama has to fetch.
const LAYER: usize = 2_000_000;

/// What a registry needs to speak TLS, and its certificate as a file for Ollama to trust.
fn registry_tls(folder: &Path) -> (Arc<ServerConfig>, PathBuf) {
    let (tls, pem) = self_signed(&["127.0.0.1"]);
    let certificate = folder.join("registry.pem");
    std::fs::write(&certificate, pem).unwrap();
    (tls, certificate)
}

/// A registry with a model of which Ollama lacks one layer.
async fn registry(real: &Real, tls: Arc<ServerConfig>) -> Registry {
    let layer = vec![b'x'; LAYER].into();
    let repository = real
        .repository()
        .with_layer("application/vnd.ollama.image.license", layer);
    let registry = Registry::start("library/copy", repository, tls).await;
    registry.unwrap()
}

/// The state of each pull.
fn pulls(status: &Value) -> Vec<&str> {
    let pulls = status["pulls"].as_array().unwrap().iter();
    pulls.map(|pull| pull["state"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_real_pull_goes_on_where_it_was_and_disturbs_nothing() {
    let Some(script) = script() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (tls, certificate) = registry_tls(folder.path());
    let mut real = Real::reserve(script);
    real.trusts = Some(certificate);
    let real = real.up().await;
    let registry = registry(&real, tls).await;
    registry.stop_at(LAYER / 4);
    let copy = registry.model("library/copy");
    let models = format!("tiny,{copy},{}", registry.model("library/nope"));
    let settings = [("PIN_PULL_MODELS", models.as_str())];
    let mut net = Net::start(CLIENT, Server::Real(real), &settings).await;
    registry.wait_for_sending(1).await;
    let status = net
        .sidecar
        .wait_for_status(|status| status["pulls"][1]["completed_bytes"].as_u64() > Some(0))
        .await;
    assert_eq!(pulls(&status), ["done", "pulling", "waiting"]);
    net.ask(payload(3)).await.result();

    // A drain ends the request, and with it what Ollama does for it.
    assert_eq!(net.sidecar.drain().await, Drain::Drained);
    registry.wait_for_sending(0).await;
    registry.go_on();
    net.sidecar = Sidecar::start(CLIENT, &net.gateway.url(), &net.server.url(), &settings);
    net.sidecar
        .wait_for_status(|status| pulls(status) == ["done", "done", "failed"])
        .await;
    let asked = registry.asked();
    assert!(
        asked[0].start == 0 && asked.last().unwrap().start > 0,
        "{asked:?}"
    );
    net.sidecar
        .wait_for_status(|status| status["models"].as_array().unwrap().len() == 2)
        .await;
    let mut payload = payload(3);
    payload["model"] = json!(copy);
    net.ask(payload).await.result();
    let Server::Real(real) = &net.server else {
        return;
    };
    let asked = real.requests_ended("/api/pull");
    assert_eq!(
        asked, 3,
        "tiny was there, and what is nowhere is not asked for again soon"
    );
}

#[tokio::test]
async fn what_a_real_ollama_cannot_pull_fails_and_disturbs_nothing() {
    let Some(script) = script() else { return };
    // Nothing listens there; a name that has to be resolved may take its time where there is no DNS.
    let real = Real::reserve(script).up().await;
    let settings = [("PIN_PULL_MODELS", "127.0.0.1:9/library/nope,tiny")];
    let net = Net::start(CLIENT, Server::Real(real), &settings).await;
    net.sidecar
        .wait_for_status(|status| pulls(status) == ["failed", "done"])
        .await;
    net.ask(payload(3)).await.result();
}
