//! The server that a case runs against: the stand-in in a style, or a real one of its own.

use std::{
    collections::HashSet,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use devnet::{
    http,
    openai::{OpenAi, Style},
};
use serde_json::json;

use crate::{NOTICED, support::poll};

/// The one that lists nothing.
const TRANSFORMERS: &str = "transformers";

/// Which server, and how it is to be started.
#[derive(Clone)]
pub(crate) struct Place {
    engine: &'static str,
    /// What starts a real one; `None`: the stand-in.
    script: Option<PathBuf>,
    /// llama-server's chat template.
    template: &'static str,
    key: Option<&'static str>,
    endless: bool,
}

/// The server that a case runs against.
pub(crate) enum Server {
    StandIn {
        server: OpenAi,
        engine: &'static str,
    },
    Real(Real),
}

/// A real server of its own, which goes away with this.
pub(crate) struct Real {
    place: Place,
    script: PathBuf,
    port: u16,
    log: PathBuf,
    /// What it calls its model.
    model: String,
    loading: Option<Loading>,
}

/// A llama-server that loads for as long as this lives: what it is to load is a pipe that nobody writes to.
struct Loading {
    server: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Loading {
    fn drop(&mut self) {
        // It has ended by itself if it cannot be killed.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Place {
    pub(crate) fn stand_in(engine: &'static str) -> Self {
        Self {
            engine,
            script: None,
            template: "chat",
            key: None,
            endless: false,
        }
    }

    /// The real server, if there is one here.
    pub(crate) fn real(engine: &'static str) -> Option<Self> {
        let (variable, wanted) = match engine {
            "ollama" => ("OLLAMA_SCRIPT", true),
            _ => {
                let engines = std::env::var("OPENAI_ENGINES").unwrap_or_default();
                (
                    "OPENAI_SCRIPT",
                    engines.split(',').any(|wanted| wanted.trim() == engine),
                )
            }
        };
        let script = std::env::var_os(variable).filter(|_| wanted);
        if script.is_none() {
            devnet::skip_without(&format!("a real {engine} ({variable}, OPENAI_ENGINES)"));
        }
        Some(Self {
            script: Some(script?.into()),
            ..Self::stand_in(engine)
        })
    }

    /// All that it says is thought.
    pub(crate) fn thinking(mut self) -> Self {
        self.template = "think";
        self
    }

    /// It calls a tool.
    pub(crate) fn calling(mut self) -> Self {
        self.template = "tools";
        self
    }

    /// It wants a key.
    pub(crate) fn with_key(mut self, key: &'static str) -> Self {
        self.key = Some(key);
        self
    }

    /// Its context is large enough for an answer that does not end before it is ended.
    pub(crate) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Starts it.
    pub(crate) async fn start(self) -> Server {
        if self.script.is_none() {
            return self.stand_in_server().await;
        }
        self.later().await.up_again().await
    }

    /// The same where nobody has started it yet.
    pub(crate) async fn later(self) -> Server {
        let Some(script) = self.script.clone() else {
            let server = self.stand_in_server().await;
            if let Server::StandIn { server, .. } = &server {
                server.stop().await;
            }
            return server;
        };
        // Free a moment ago; the script says so if somebody was quicker.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut real = Real {
            place: self,
            script,
            port,
            log: PathBuf::new(),
            model: String::new(),
            loading: None,
        };
        if real.place.engine == TRANSFORMERS {
            real.model = real.ask("model");
        }
        Server::Real(real)
    }

    /// Starts a llama-server that loads until [`Server::loaded`].
    pub(crate) async fn loading(self) -> Server {
        if self.script.is_none() {
            let server = self.start().await;
            if let Server::StandIn { server, .. } = &server {
                server.load_for(Duration::from_secs(3600));
            }
            return server;
        }
        let mut server = self.later().await;
        if let Server::Real(real) = &mut server {
            real.load();
        }
        let answer = || async { http::get(&(server.url() + "/health")).await.ok() };
        poll(answer, Option::is_some).await;
        server
    }

    async fn stand_in_server(self) -> Server {
        let engine = self.engine;
        let style = match engine {
            "llama" => Style::LlamaServer,
            "vllm" => Style::Vllm,
            "mlx" => Style::Mlx,
            TRANSFORMERS => Style::Transformers,
            _ => Style::Ollama,
        };
        let name = if style == Style::Transformers {
            "owner/tiny"
        } else {
            "tiny"
        };
        let server = OpenAi::builder()
            .style(style)
            .model(name)
            .token_delay(Duration::from_millis(1))
            .behaviour(|behaviour| {
                behaviour.thinks = self.template == "think";
                behaviour.tool_arguments =
                    (self.template == "tools").then(|| json!({"city": "Bern"}));
                behaviour.api_key = self.key.map(str::to_owned);
                if self.endless {
                    behaviour.context = 1_000_000;
                }
            });
        let server = server.start().await.unwrap();
        Server::StandIn { server, engine }
    }

    /// What a real one is told beside its port.
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = match self.engine {
            "llama" if self.endless => {
                let context = "llama.context_length=int:30000";
                vec!["-c", "30000", "--override-kv", context]
            }
            "vllm" if self.endless => vec!["--max-model-len", "30000"],
            _ => Vec::new(),
        };
        if let Some(key) = self.key {
            arguments.extend(["--api-key", key]);
        }
        arguments
    }
}

impl Real {
    fn tell(&self, what: &str, arguments: &[&str]) -> Output {
        Command::new("bash")
            .arg(&self.script)
            .args([what, &self.port.to_string()])
            .args(arguments)
            .env("ENGINE", self.place.engine)
            .env("TEMPLATE", self.place.template)
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn ask(&self, what: &str) -> String {
        let told = self.tell(what, &[]);
        String::from_utf8(told.stdout).unwrap().trim().to_owned()
    }

    fn up(mut self) -> Self {
        let output = self.tell("up", &self.place.arguments());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        // The script's last words are where the log is.
        let words = told.lines().last().unwrap_or_default();
        self.log = words.rsplit(", log ").next().unwrap().into();
        let model = words.split("with the model ").nth(1).unwrap_or_default();
        self.model = model.split(' ').next().unwrap_or_default().to_owned();
        self
    }

    fn load(&mut self) {
        let program = self.ask("bin");
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("model.gguf");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let server = Command::new(program)
            .arg("-m")
            .arg(&pipe)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.loading = Some(Loading {
            server,
            _folder: folder,
        });
    }

    /// Its processes: those with the mark that the script gives them in their environment, and the sessions of these, since
    /// a process that sets its title (vLLM's engine) writes over its environment.
    fn processes(&self) -> Vec<u32> {
        let place = self.log.parent().unwrap().display().to_string();
        let marks = [
            format!("OPENAI_TEST_SERVER={place}"),
            format!("OLLAMA_MODELS={place}/models"),
        ];
        let is_marked = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment);
            environment
                .split('\0')
                .any(|variable| marks.iter().any(|mark| mark == variable))
        };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let marked = pids.iter().filter(|pid| is_marked(pid));
        let sessions: HashSet<_> = marked.filter_map(|pid| session_of(*pid)).collect();
        let is_ours =
            |pid: &u32| session_of(*pid).is_some_and(|session| sessions.contains(&session));
        pids.into_iter().filter(is_ours).collect()
    }

    /// How many chats run, where it tells.
    async fn running(&self) -> Option<usize> {
        match self.place.engine {
            "llama" => self.gauge("llamacpp:requests_processing").await,
            "vllm" => self.gauge("vllm:num_requests_running").await,
            "ollama" => {
                // It logs a request when it ends.
                let log = std::fs::read_to_string(&self.log).unwrap();
                Some(usize::from(!log.contains("\"/v1/chat/completions\"")))
            }
            _ => None,
        }
    }

    /// A number of its metrics, whatever its labels.
    async fn gauge(&self, name: &str) -> Option<usize> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let metrics = http::get(&url).await.unwrap().text();
        let series = metrics.lines().find(|line| line.starts_with(name))?;
        let value = series.rsplit(' ').next()?;
        value.trim_end_matches(".0").parse().ok()
    }
}

/// The session that a process is in (`proc_pid_stat(5)`: the fourth field after its name), while it runs.
fn session_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_the_name) = stat.rsplit_once(") ")?;
    behind_the_name.split(' ').nth(3)?.parse().ok()
}

impl Drop for Real {
    fn drop(&mut self) {
        // A failure of the test's own says more than one of this.
        let _ = self.tell("down", &[]);
    }
}

impl Server {
    pub(crate) fn url(&self) -> String {
        match self {
            Self::StandIn { server, .. } => server.url(),
            Self::Real(real) => format!("http://127.0.0.1:{}", real.port),
        }
    }

    pub(crate) fn engine(&self) -> &'static str {
        match self {
            Self::StandIn { engine, .. } => engine,
            Self::Real(real) => real.place.engine,
        }
    }

    /// What it calls its model.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::StandIn { server, engine } => server.model_id(if *engine == TRANSFORMERS {
                "owner/tiny"
            } else {
                "tiny"
            }),
            Self::Real(real) => real.model.clone(),
        }
    }

    /// What to name to the sidecar where the server lists nothing.
    pub(crate) fn has_no_list(&self) -> Option<String> {
        (self.engine() == TRANSFORMERS).then(|| self.id())
    }

    /// Whether a chat that is cancelled may take a slot with it for good
    /// (<https://github.com/ollama/ollama/issues/17131>).
    pub(crate) fn may_lose_a_slot(&self) -> bool {
        matches!(self, Self::Real(real) if real.place.engine == "ollama")
    }

    /// How many chats run, where it tells.
    async fn running(&self) -> Option<usize> {
        match self {
            Self::StandIn { server, .. } => Some(server.chats().running),
            Self::Real(real) => real.running().await,
        }
    }

    /// Whether it tells how many chats run, and not only when one has ended.
    pub(crate) fn tells_what_runs(&self) -> bool {
        matches!(self.engine(), "llama" | "vllm") || matches!(self, Self::StandIn { .. })
    }

    pub(crate) async fn wait_until_busy(&self) {
        poll(|| self.running(), |running| *running != Some(0)).await;
    }

    /// Waits until no chat runs, as the server itself tells it.
    pub(crate) async fn wait_until_idle(&self) {
        let idle = poll(
            || self.running(),
            |running| matches!(running, None | Some(0)),
        );
        let noticed = tokio::time::timeout(NOTICED, idle).await;
        assert!(noticed.is_ok(), "it goes on for nobody");
    }

    /// Ends it as a lack of memory does.
    pub(crate) async fn kill(&self) {
        match self {
            Self::StandIn { server, .. } => server.stop().await,
            Self::Real(real) => {
                let pids = real.processes();
                let pids = pids.iter().map(ToString::to_string);
                let sent = Command::new("kill")
                    .args(["-s", "KILL"])
                    .args(pids)
                    .status();
                assert!(sent.unwrap().success());
                poll(|| async { real.processes() }, Vec::is_empty).await;
            }
        }
    }

    /// It has loaded what it was loading.
    pub(crate) async fn loaded(mut self) -> Self {
        match &mut self {
            Self::StandIn { server, .. } => server.loaded(),
            Self::Real(real) => {
                real.loading = None;
                return self.up_again().await;
            }
        }
        self
    }

    /// Starts it where it was not started yet, or was killed.
    pub(crate) async fn up_again(self) -> Self {
        match self {
            Self::StandIn { server, engine } => {
                server.start_again().await.unwrap();
                Self::StandIn { server, engine }
            }
            Self::Real(real) => {
                let up = tokio::task::spawn_blocking(|| real.up());
                Self::Real(up.await.unwrap())
            }
        }
    }
}

/// Declares cases: for each server a test with the stand-in and one with the real thing.
macro_rules! cases {
    ($($engine:ident)+ => $names:tt) => { $(
        mod $engine {
            $crate::server::cases_of! { $engine $names }
        }
    )+ };
}

macro_rules! cases_of {
    ($engine:ident { $($name:ident)+ }) => {
        mod stand_in { $(
            #[tokio::test]
            async fn $name() {
                let place = crate::server::Place::stand_in(stringify!($engine));
                super::super::$name(place).await;
            }
        )+ }
        mod real { $(
            #[tokio::test]
            async fn $name() {
                if let Some(place) = crate::server::Place::real(stringify!($engine)) {
                    super::super::$name(place).await;
                }
            }
        )+ }
    };
}

pub(crate) use {cases, cases_of};
