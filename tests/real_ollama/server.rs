//! The Ollama that a case runs against: the stand-in, or a real one of its own.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use devnet::{
    gateway::Chat,
    http,
    ollama::{ModelShape, Ollama},
    registry::Repository,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support;

/// Nothing comes for so long of a model that is stopped, once all that it had given is there.
const SILENCE: Duration = Duration::from_millis(100);

/// The Ollama that a case runs against.
pub(crate) enum Server {
    StandIn(Ollama),
    Real(Real),
}

/// A real Ollama of its own, which goes away with this.
pub(crate) struct Real {
    script: PathBuf,
    pub(crate) port: u16,
    log: PathBuf,
    /// Its own settings.
    settings: Vec<(&'static str, OsString)>,
}

impl Real {
    pub(crate) fn reserve(script: PathBuf) -> Self {
        // Free a moment ago; the script says so if somebody was quicker.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            script,
            port: listener.local_addr().unwrap().port(),
            log: PathBuf::new(),
            settings: vec![("TZ", "UTC".into())],
        }
    }

    /// Gives it a setting.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    pub(crate) async fn up(mut self) -> Self {
        tokio::task::spawn_blocking(|| {
            let told = self.tell("up");
            // The script's last words are where the log is.
            self.log = told.trim().rsplit(", log ").next().unwrap().into();
            self
        })
        .await
        .unwrap()
    }

    pub(crate) fn tell(&self, what: &str) -> String {
        let output = Command::new("bash")
            .arg(&self.script)
            .args([what, &self.port.to_string()])
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{what}: {told}");
        told
    }

    /// How many chats Ollama is done with: it logs a request when it ends.
    pub(crate) fn chats_ended(&self) -> usize {
        self.requests_ended("/api/chat")
    }

    pub(crate) fn requests_ended(&self, path: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.matches(&format!("\"{path}\"")).count()
    }

    /// How often it has loaded a model since it was started.
    fn loads(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.matches("msg=\"loaded runners\"").count()
    }

    /// Ends it as a container's runtime does, and starts it again with what it had.
    async fn restart(self) -> Self {
        for pid in self.processes("\0serve") {
            let sent = Command::new("kill").arg(pid.to_string()).status().unwrap();
            assert!(sent.success());
        }
        support::poll(|| async { self.processes("") }, Vec::is_empty).await;
        self.up().await
    }

    /// The tiny model as a registry would have it, from the files that Ollama keeps beside its log.
    pub(crate) fn repository(&self) -> Repository {
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
    pub(crate) fn runners(&self) -> Vec<u32> {
        self.processes("runner")
    }

    /// Its processes that have this in their command line.
    fn processes(&self, command: &str) -> Vec<u32> {
        let ours = |pid: &u32| {
            let read =
                |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let contains =
                |text: Vec<u8>, part: &str| String::from_utf8_lossy(&text).contains(part);
            contains(
                read("environ"),
                &format!("OLLAMA_HOST=127.0.0.1:{}", self.port),
            ) && contains(read("cmdline"), command)
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(ours)
            .collect()
    }

    pub(crate) fn signal_runner(&self, signal: &str) {
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
    pub(crate) fn url(&self) -> String {
        match self {
            Self::StandIn(ollama) => ollama.url(),
            Self::Real(real) => format!("http://127.0.0.1:{}", real.port),
        }
    }

    pub(crate) async fn stand_in() -> Self {
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

    /// Gives it a model made from the one that it has, with this template, which is what it can do to a real Ollama.
    pub(crate) async fn add_model(
        &self,
        name: &str,
        template: &str,
        capabilities: &[&'static str],
    ) {
        match self {
            Self::StandIn(ollama) => {
                let capabilities = capabilities.to_vec();
                let shape = ModelShape {
                    capabilities,
                    ..ModelShape::default()
                };
                ollama.add_model(name, shape);
            }
            Self::Real(_) => {
                let model =
                    json!({"model": name, "from": "tiny", "template": template, "stream": false});
                let url = format!("{}/api/create", self.url());
                let made = http::post(&url, model.to_string()).await.unwrap();
                assert_eq!(made.status, 200, "{:?}", made.json());
            }
        }
    }

    /// Waits until Ollama is done with so many chats, however they ended.
    pub(crate) async fn wait_for_chats_ended(&self, chats: usize) {
        let ended = || async {
            match self {
                Self::StandIn(ollama) => ollama.chats().ever - ollama.chats().running,
                Self::Real(real) => real.chats_ended(),
            }
        };
        support::poll(ended, |ended| *ended >= chats).await;
    }

    /// Stops the model in the middle of an answer and takes all that it had given, where Ollama is a real one.
    pub(crate) async fn stop_generating(&self, answer: &mut Chat) {
        if let Self::Real(real) = self {
            real.signal_runner("STOP");
            while timeout(SILENCE, answer.next()).await.is_ok() {}
        }
    }

    pub(crate) fn go_on_generating(&self) {
        if let Self::Real(real) = self {
            real.signal_runner("CONT");
        }
    }

    /// How many chats Ollama was ever asked for; those that run are not counted by a real one.
    pub(crate) async fn chats_begun(&self) -> usize {
        match self {
            Self::StandIn(ollama) => ollama.chats().ever,
            Self::Real(real) => real.chats_ended(),
        }
    }

    /// How often it has loaded the model since it was started.
    pub(crate) fn loads(&self) -> usize {
        match self {
            Self::StandIn(ollama) => ollama.loads("tiny:latest"),
            Self::Real(real) => real.loads(),
        }
    }

    /// How often the list of its models was asked for.
    pub(crate) fn looks(&self) -> usize {
        match self {
            Self::StandIn(ollama) => {
                let requests = ollama.requests();
                let looks = requests
                    .iter()
                    .filter(|request| request.path == "/api/tags");
                looks.count()
            }
            Self::Real(real) => real.requests_ended("/api/tags"),
        }
    }

    /// Throws the model out of memory, as `ollama stop` does.
    pub(crate) async fn stop_model(&self) {
        let body = r#"{"model":"tiny","messages":[],"keep_alive":0}"#;
        let url = format!("{}/api/chat", self.url());
        assert_eq!(http::post(&url, body).await.unwrap().status, 200);
        support::poll(|| self.loaded(), |loaded| loaded == &json!([])).await;
    }

    /// Restarts it, in less time than the sidecar lets pass between two looks at it.
    pub(crate) async fn restart(self) -> Self {
        match self {
            Self::StandIn(ollama) => {
                ollama.stop().await;
                ollama.start_again().await.unwrap();
                Self::StandIn(ollama)
            }
            Self::Real(real) => Self::Real(real.restart().await),
        }
    }

    /// Ollama's own word on which models are loaded, and with which context.
    pub(crate) async fn loaded(&self) -> Value {
        http::get(&format!("{}/api/ps", self.url()))
            .await
            .unwrap()
            .json()["models"]
            .clone()
    }
}

/// The real Ollama's script, if there is one here.
pub(crate) fn script() -> Option<PathBuf> {
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
                super::$name(crate::server::Server::stand_in().await).await;
            }
        )+ }
        mod real { $(
            #[tokio::test]
            async fn $name() {
                if let Some(script) = crate::server::script() {
                    let real = crate::server::Real::reserve(script).up().await;
                    super::$name(crate::server::Server::Real(real)).await;
                }
            }
        )+ }
    };
}

pub(crate) use cases;
