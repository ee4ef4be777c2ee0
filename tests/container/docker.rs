//! Docker's own command line, and what it made, which goes away with its handle.

use std::{
    process::{Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use devnet::http::{self, Answer};
use serde_json::Value;

use crate::lab;

pub(crate) const IMAGE: &str = "pin-sidecar:0.1.0";

/// The longest that a container may take to do something, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A container, or a network; removed when this is dropped.
pub(crate) struct Container {
    name: String,
}

pub(crate) struct Network {
    name: String,
}

/// Runs `docker`; it must succeed.
pub(crate) async fn docker(arguments: &[&str]) -> String {
    let output = try_docker(arguments).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `docker`, whatever comes of it.
pub(crate) async fn try_docker(arguments: &[&str]) -> Output {
    tokio::process::Command::new("docker")
        .args(arguments)
        .env("DOCKER_HOST", lab::engine())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

/// What `docker inspect` says of something.
pub(crate) async fn inspect(name: &str) -> Value {
    let told: Value = serde_json::from_str(&docker(&["inspect", name]).await).unwrap();
    told[0].clone()
}

/// A name that no other test and no other run has.
fn fresh_name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("pin-sidecar-test-{}-{n}", std::process::id())
}

/// For when a test ends, however it does: a failure of its own says more than one of this.
fn remove(arguments: &[&str]) {
    let _ = std::process::Command::new("docker")
        .args(arguments)
        .env("DOCKER_HOST", lab::engine())
        .stdin(Stdio::null())
        .output();
}

impl Drop for Container {
    fn drop(&mut self) {
        remove(&["container", "rm", "--force", "--volumes", &self.name]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&["network", "rm", &self.name]);
    }
}

impl Network {
    pub(crate) async fn create() -> Self {
        let network = Self { name: fresh_name() };
        docker(&["network", "create", &network.name]).await;
        network
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Container {
    /// Starts a container of an image, with these options of `docker run` and these arguments.
    pub(crate) async fn run(options: &[&str], image: &str, arguments: &[&str]) -> Self {
        let container = Self { name: fresh_name() };
        let start = ["run", "--detach", "--name", &container.name];
        let all = [&start, options, &[image], arguments].concat();
        docker(&all).await;
        container
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its state, as `docker inspect` has it.
    pub(crate) async fn state(&self) -> Value {
        inspect(&self.name).await["State"].clone()
    }

    /// Waits until its state is right.
    pub(crate) async fn wait_for_state(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let state = self.state().await;
            if holds(&state) {
                return state;
            }
            let log = self.log().await;
            assert!(tokio::time::Instant::now() < deadline, "{state}\n{log}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Its exit code, once it has ended.
    pub(crate) async fn exit_code(&self) -> i64 {
        let waited = tokio::time::timeout(PATIENCE, docker(&["wait", &self.name])).await;
        waited.expect("it goes on").trim().parse().unwrap()
    }

    /// `docker stop`, with so many seconds until it is killed.
    pub(crate) async fn stop(&self, seconds: u32) {
        docker(&["stop", "-t", &seconds.to_string(), &self.name]).await;
    }

    /// `docker logs`, of both kinds.
    pub(crate) async fn log(&self) -> String {
        let output = try_docker(&["logs", &self.name]).await;
        let all = [output.stdout, output.stderr].concat();
        String::from_utf8(all).unwrap()
    }

    /// Its log as the events that its lines must be.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let log = self.log().await;
        let event =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        log.lines().map(event).collect()
    }

    /// Runs a program in it.
    pub(crate) async fn exec(&self, command: &[&str]) -> Output {
        try_docker(&[&["exec", &self.name], command].concat()).await
    }

    /// `GET` from the sidecar in it, at the address that its network gave it.
    pub(crate) async fn get(&self, path: &str) -> std::io::Result<Answer> {
        let networks = &inspect(&self.name).await["NetworkSettings"]["Networks"];
        let first = networks.as_object().unwrap().values().next().unwrap();
        let address = first["IPAddress"].as_str().unwrap();
        http::get(&format!("http://{address}:9464{path}")).await
    }

    /// Waits until `/readyz` has these words; empty: until it is ready.
    pub(crate) async fn wait_until_pending(&self, words: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let last = match self.get("/readyz").await {
                Ok(answer) if words.is_empty() && answer.status == 200 => return,
                Ok(answer) if !words.is_empty() && answer.text().contains(words) => return,
                Ok(answer) => answer.text(),
                Err(error) => error.to_string(),
            };
            if tokio::time::Instant::now() >= deadline {
                panic!("{words:?} never came, but {last}\n{}", self.log().await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
