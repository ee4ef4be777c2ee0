//! A whole sidecar in this process, between a gateway and an Ollama of devnet's, over real sockets.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::{ffi::OsString, net::SocketAddr, sync::Arc, time::Duration};

use devnet::{
    gateway::{Chat, Gateway},
    ollama::{ModelShape, Ollama},
};
use pin_sidecar::{
    app::App,
    clock::WallClock,
    config::{Config, Surroundings},
    relay::{Outcome, World},
    transport::{self, Resolver, TcpDialer},
};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

pub const CLIENT: &str = "op_test";
pub const DESKTOP: &str = "pin_test";
pub const SECRET: &str = "s3cret";
pub const MODEL: &str = "llama3.2:latest";

/// Everything that a test of the main job needs.
pub struct Net<S = Sidecar> {
    pub gateway: Gateway,
    pub ollama: Ollama,
    pub sidecar: S,
}

/// Something that counts, as Prometheus would read it.
pub trait Counts {
    /// All of it.
    fn counts(&self) -> impl Future<Output = String>;

    /// A metric's value, by its name with labels and without the prefix.
    async fn metric(&self, series: &str) -> f64 {
        let text = self.counts().await;
        let name = format!("pin_sidecar_{series} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
            .parse()
            .unwrap()
    }

    /// Waits until a metric is what `holds` wants; gives its value.
    async fn wait_for_metric(&self, series: &str, holds: impl Fn(f64) -> bool) -> f64 {
        poll(|| self.metric(series), |value| holds(*value)).await
    }
}

/// A running sidecar.
pub struct Sidecar {
    pub admin: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    run: JoinHandle<std::io::Result<Outcome>>,
}

/// What a server of these names needs to speak TLS, and its certificate as PEM, for others to trust.
pub fn self_signed(names: &[&str]) -> (Arc<ServerConfig>, String) {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}

/// A gateway that knows both clients.
pub async fn gateway() -> Gateway {
    Gateway::builder()
        .secret(CLIENT, SECRET)
        .secret(DESKTOP, SECRET)
        .start()
        .await
        .unwrap()
}

/// An Ollama with one model that chats.
pub async fn ollama() -> Ollama {
    Ollama::builder()
        .model(MODEL, ModelShape::default())
        .start()
        .await
        .unwrap()
}

impl Net {
    /// A sidecar of generation 2 that is logged in, with these settings beside the necessary ones.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_as(CLIENT, settings).await
    }

    /// The same for another client id.
    pub async fn start_as(client_id: &str, settings: &[(&str, &str)]) -> Self {
        Self::with(client_id, gateway().await, ollama().await, settings).await
    }

    /// The same between a gateway and an Ollama of the test's own.
    pub async fn with(
        client_id: &str,
        gateway: Gateway,
        ollama: Ollama,
        settings: &[(&str, &str)],
    ) -> Self {
        let sidecar = Sidecar::start(client_id, &gateway.url(), &ollama.url(), settings);
        gateway.wait_for_session(1).await;
        let net = Self {
            gateway,
            ollama,
            sidecar,
        };
        net.gateway
            .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
            .await;
        net
    }
}

impl<S> Net<S> {
    /// Sends a chat with one message.
    pub fn chat(&self, prompt: &str) -> Chat {
        self.gateway.chat(chat(prompt))
    }

    /// Sends a chat that is to be streamed.
    pub fn streamed(&self, prompt: &str) -> Chat {
        let mut payload = chat(prompt);
        payload["stream"] = json!(true);
        self.gateway.chat(payload)
    }

    /// The bodies that Ollama was given for chats, so far.
    pub fn asked(&self) -> Vec<Value> {
        self.ollama
            .chat_requests()
            .iter()
            .map(|request| request.json())
            .collect()
    }
}

/// When this returns the agent has dealt with all that the gateway said before.
pub async fn round_trip(gateway: &Gateway) {
    let seen = gateway.frames().len();
    gateway.send(&json!({"type": "PING"}));
    gateway
        .wait_for_since(seen, |frame| frame.is_from_agent("PONG"))
        .await;
}

/// A chat with one message.
pub fn chat(prompt: &str) -> Value {
    json!({"model": MODEL, "messages": [{"role": "user", "content": prompt}]})
}

impl Sidecar {
    /// Starts one. Whether it logs in is the gateway's matter.
    pub fn start(client_id: &str, gateway: &str, ollama: &str, settings: &[(&str, &str)]) -> Self {
        Self::run(App::build(Self::config(client_id, gateway, ollama, settings)).unwrap())
    }

    /// The same where it is as late as the test wants.
    pub fn start_by(
        clock: Arc<dyn WallClock>,
        client_id: &str,
        gateway: &str,
        ollama: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let config = Self::config(client_id, gateway, ollama, settings);
        let world = World {
            clock,
            ..World::real(&config).unwrap()
        };
        Self::run(App::build_in(world, config).unwrap())
    }

    /// The same where names mean what these say.
    pub fn start_with_names(
        client_id: &str,
        gateway: &str,
        ollama: &str,
        names: Resolver,
        settings: &[(&str, &str)],
    ) -> Self {
        let config = Self::config(client_id, gateway, ollama, settings);
        let tls = transport::client_config(None).unwrap();
        let dialler = Arc::new(TcpDialer::new(tls, names, config.gateway.connect_timeout));
        let world = World {
            gateway: dialler.clone(),
            backend: dialler,
            ..World::real(&config).unwrap()
        };
        Self::run(App::build_in(world, config).unwrap())
    }

    pub fn config(
        client_id: &str,
        gateway: &str,
        ollama: &str,
        settings: &[(&str, &str)],
    ) -> Config {
        let necessary = [
            ("PIN_CLIENT_ID", client_id),
            ("PIN_API_SECRET", SECRET),
            ("PIN_SERVER_URL", gateway),
            ("PIN_OLLAMA_URL", ollama),
            ("PIN_LISTEN_ADDR", "127.0.0.1:0"),
            ("PIN_NODE_ALIAS", "node-1"),
            // Most tests break more sessions than a network stands; those of the limit itself set it.
            ("PIN_CONNECTS_PER_MINUTE", "0"),
        ];
        // A file takes the place of the value that it holds.
        let given = |name: &str| {
            settings
                .iter()
                .any(|(given, _)| given.trim_end_matches("_FILE") == name)
        };
        let vars = necessary
            .iter()
            .filter(|(name, _)| !given(name))
            .chain(settings);
        config(vars.map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    fn run(app: App) -> Self {
        let admin = app.admin_addr();
        let (shutdown, told) = oneshot::channel();
        let run = tokio::spawn(app.run(async { drop(told.await) }));
        Self {
            admin,
            shutdown: Some(shutdown),
            run,
        }
    }

    /// Begins to drain.
    pub fn begin_drain(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits for the drain's end.
    pub async fn drained(self) -> Outcome {
        self.run.await.unwrap().unwrap()
    }

    /// Drains.
    pub async fn drain(mut self) -> Outcome {
        self.begin_drain();
        self.drained().await
    }

    /// A body and its status from the admin server.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.admin, path).await
    }

    /// What `/readyz` still waits for.
    pub async fn pending(&self) -> Vec<String> {
        let (_, body) = self.get("/readyz").await;
        let readiness: Value = serde_json::from_str(&body).unwrap();
        readiness["pending"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| reason.as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until `/readyz` names a reason that contains `words`; empty: until it names none.
    pub async fn wait_until_pending(&self, words: &str) -> Vec<String> {
        let holds = |pending: &Vec<String>| {
            if words.is_empty() {
                pending.is_empty()
            } else {
                pending.iter().any(|reason| reason.contains(words))
            }
        };
        poll(|| self.pending(), holds).await
    }

    /// Waits until `/status` shows something.
    pub async fn wait_for_status(&self, holds: impl Fn(&Value) -> bool) -> Value {
        poll(
            || async { serde_json::from_str(&self.get("/status").await.1).unwrap() },
            holds,
        )
        .await
    }

    /// Waits until a metric is what `holds` wants; gives its value.
    pub async fn wait_for_metric(&self, series: &str, holds: impl Fn(f64) -> bool) -> f64 {
        Counts::wait_for_metric(self, series, holds).await
    }

    /// A metric's value, by its name with labels and without the prefix.
    pub async fn metric(&self, series: &str) -> f64 {
        Counts::metric(self, series).await
    }
}

impl Counts for Sidecar {
    async fn counts(&self) -> String {
        self.get("/metrics").await.1
    }
}

fn config(vars: impl Iterator<Item = (OsString, OsString)>) -> Config {
    let surroundings = Surroundings {
        secret_files: vec!["/nonexistent/pin_api_secret".into()],
        ..Surroundings::default()
    };
    Config::from_env_in(&surroundings, vars).unwrap()
}

/// Asks again and again, since a server that is asked cannot tell by itself, until the answer is right.
pub async fn poll<T: std::fmt::Debug, F: Future<Output = T>>(
    ask: impl Fn() -> F,
    holds: impl Fn(&T) -> bool,
) -> T {
    let mut last = ask().await;
    let found = tokio::time::timeout(devnet::PATIENCE, async {
        while !holds(&last) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            last = ask().await;
        }
    });
    assert!(found.await.is_ok(), "the last answer was {last:?}");
    last
}

/// Asks over HTTP; gives status and body.
pub async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let answer = devnet::http::get(&format!("http://{addr}{path}"))
        .await
        .unwrap();
    (answer.status, answer.text())
}
