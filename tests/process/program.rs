//! Starts the program, for a moment or between a gateway and an Ollama.

use std::{fmt::Display, fs};

use devnet::{
    agent::{Agent, Builder},
    gateway::Gateway,
    ollama::Ollama,
};
use serde_json::Value;

use crate::support::{CLIENT, SECRET, gateway, ollama};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pin-sidecar");

/// A process that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// Of standard output and standard error together.
    pub(crate) output: String,
}

/// Runs to its end what should end by itself. No such run may panic or show the secret.
pub(crate) async fn run(builder: Builder) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("output");
    let agent = builder.log_file(&path).start().await.unwrap();
    let code = agent.wait().await.code();
    let output = fs::read_to_string(path).unwrap();
    assert!(
        !output.contains("panicked") && !output.contains(SECRET),
        "{output}"
    );
    Ended { code, output }
}

/// The program without a setting.
pub(crate) fn program() -> Builder {
    Agent::builder(PROGRAM).env("RUST_BACKTRACE", "0")
}

/// With these arguments.
pub(crate) fn with_arguments(builder: Builder, arguments: &[&str]) -> Builder {
    arguments
        .iter()
        .fold(builder, |builder, argument| builder.argument(argument))
}

/// With these settings.
pub(crate) fn with(builder: Builder, settings: &[(&str, &str)]) -> Builder {
    settings
        .iter()
        .fold(builder, |builder, (name, value)| builder.env(name, *value))
}

/// With all that is needed in order to log in.
pub(crate) fn between(builder: Builder, gateway: &Gateway, ollama: &Ollama) -> Builder {
    let (gateway, ollama) = (gateway.url(), ollama.url());
    let settings = [
        ("PIN_CLIENT_ID", CLIENT),
        ("PIN_API_SECRET", SECRET),
        ("PIN_SERVER_URL", &gateway),
        ("PIN_OLLAMA_URL", &ollama),
        ("PIN_NODE_ALIAS", "node-1"),
        ("PIN_CONNECTS_PER_MINUTE", "0"),
    ];
    with(builder, &settings)
}

/// A sidecar as a process, and what it talks to.
pub(crate) struct Net {
    pub(crate) gateway: Gateway,
    pub(crate) ollama: Ollama,
    pub(crate) agent: Agent,
}

impl Net {
    /// One that is ready.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let net = Self::with(gateway().await, program(), settings).await;
        net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
        net
    }

    /// One that was started just now.
    pub(crate) async fn with(
        gateway: Gateway,
        program: Builder,
        settings: &[(&str, &str)],
    ) -> Self {
        let ollama = ollama().await;
        let agent = with(between(program, &gateway, &ollama), settings)
            .start()
            .await
            .unwrap();
        Self {
            gateway,
            ollama,
            agent,
        }
    }

    /// What keeps it from being ready, once that has these words in it.
    pub(crate) async fn wait_until_pending(&self, words: &str) -> String {
        let found = tokio::time::timeout(devnet::PATIENCE, async {
            loop {
                // Nobody answers before it listens.
                let answer = self
                    .agent
                    .get("/readyz")
                    .await
                    .map(|answer| answer.text())
                    .unwrap_or_default();
                if answer.contains(words) {
                    return answer;
                }
                // A server that is asked cannot tell by itself.
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        found.await.unwrap_or_else(|_| {
            panic!(
                "/readyz never says {words:?}; the log: {:#?}",
                self.agent.log()
            )
        })
    }
}

/// Waits for a process that ends, with this code.
pub(crate) async fn ends_with(agent: &Agent, code: i32) {
    assert_eq!(agent.wait().await.code(), Some(code), "{:#?}", agent.log());
}

/// A line of a log in JSON.
pub(crate) fn event(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

/// Says so loudly where this machine does not allow a test.
pub(crate) fn skipped(what: &str, why: impl Display) {
    println!("SKIPPED: {why}, so NOTHING was tested of: {what}");
}

/// A figure of `/proc/PID/status` in KiB, such as `VmRSS`, what is in memory now, or `VmHWM`, the most that ever was.
pub(crate) fn memory_kib(agent: &Agent, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure));
    let number = line.unwrap().trim_start_matches(':').trim_end_matches("kB");
    number.trim().parse().unwrap()
}
