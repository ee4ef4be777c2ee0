//! A stack: a copy of what the repository has for Compose, and one project made of it.
//!
//! Invariant: nothing of the project outlives its `Stack`, whatever becomes of the test.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{DEMO, Lab, Run, Said, wait_for, words};

/// From `up` to ready, and from a kill to ready again. Far more than it takes, so that a busy machine is no trouble.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(180);

/// The sidecar's user.
const SIDECAR_UID: u32 = 65532;

/// The first of the ports that stacks publish. Nobody else is in the engine's network.
const FIRST_PORT: u16 = 21000;

pub(crate) struct Stack {
    pub(crate) lab: &'static Lab,
    generation: &'static str,
    arguments: String,
    folder: TempDir,
    project: String,
    /// The first of five.
    ports: u16,
    settings: Vec<(&'static str, &'static str)>,
}

impl Stack {
    /// A stack of the files that these arguments name, none of which is up yet.
    pub(crate) fn new(lab: &'static Lab, generation: &'static str, arguments: &str) -> Self {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);
        let ports = NEXT_PORT.fetch_add(5, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        // Prometheus and Grafana read what is in there, each as its own user.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["docker-compose.yml", ".env.example", "deploy"] {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(repository.join(name)).arg(folder.path());
            copy.expect_success();
        }
        Self {
            lab,
            generation,
            arguments: arguments.to_owned(),
            project: format!("test-{}-{ports}", std::process::id()),
            folder,
            ports,
            settings: Vec::new(),
        }
    }

    /// The demo, and what comes on top of it. It asks for a model that no registry can be asked for here, and does with
    /// the one that Ollama has.
    pub(crate) fn demo(lab: &'static Lab, generation: &'static str, more: &str) -> Self {
        Self::new(lab, generation, &format!("{DEMO} {more}"))
    }

    /// Sets a variable of the shell that Compose is called from.
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.settings.push((name, value));
        self
    }

    /// Publishes the sidecar where another stack does.
    pub(crate) fn at_the_port_of(mut self, other: &Self) -> Self {
        self.ports = other.ports;
        self
    }

    /// Does what docs/docker.md has an operator do before the first start.
    pub(crate) fn fill_in(&self) {
        let example = fs::read_to_string(self.path(".env.example")).unwrap();
        let filled = example.replace("PIN_CLIENT_ID=\n", "PIN_CLIENT_ID=op_test\n");
        assert_ne!(filled, example, ".env.example has no place for a client id");
        fs::write(self.path(".env"), filled).unwrap();
        self.put_secret(SIDECAR_UID, 0o400);
    }

    /// Writes into `.env` what the overlays for OpenAI-compatible servers want there.
    pub(crate) fn name_a_model_server(&self) {
        for line in [
            "LLAMA_MODEL=model.gguf",
            "LLAMA_ALIAS=my-model",
            "PIN_OLLAMA_URL=http://host.docker.internal:8000",
        ] {
            self.append(".env", line);
        }
        self.put("secrets/pin_backend_api_key", "k3y", SIDECAR_UID, 0o400);
    }

    /// Writes the secret's file.
    pub(crate) fn put_secret(&self, owner: u32, mode: u32) {
        self.put("secrets/pin_api_secret", "s3cret", owner, mode);
    }

    /// Writes the file of the token for the page's buttons, as docs/docker.md has an operator do.
    pub(crate) fn put_token(&self, token: &str) {
        self.put("secrets/pin_admin_token", token, SIDECAR_UID, 0o600);
    }

    fn put(&self, name: &str, line: &str, owner: u32, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{line}\n")).unwrap();
        chown(&path, Some(owner), None).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Adds a line to a file.
    pub(crate) fn append(&self, name: &str, line: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        fs::write(self.path(name), format!("{text}{line}\n")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compose with these arguments, each a word.
    pub(crate) fn compose(&self, arguments: &str) -> Said {
        self.command(arguments).said()
    }

    /// As [`compose`](Self::compose), where it must succeed.
    pub(crate) fn compose_well(&self, arguments: &str) -> String {
        self.command(arguments).expect_success().stdout
    }

    fn command(&self, arguments: &str) -> Command {
        let generation = ["compose", self.generation].into_iter();
        let mut command = self.lab.command(
            generation
                .chain(words(&self.arguments))
                .chain(words(arguments)),
        );
        let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| {
            let name = name.to_string_lossy();
            ["PIN_", "DEMO_", "COMPOSE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        for name in ours {
            command.env_remove(name);
        }
        command
            .current_dir(self.folder.path())
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("PIN_SIDECAR_PORT", self.port("pin-sidecar").to_string())
            .env("DEMO_PORT", self.port("gateway").to_string())
            .env("PROMETHEUS_PORT", self.port("prometheus").to_string())
            .env("GRAFANA_PORT", self.port("grafana").to_string())
            .envs(self.settings.iter().copied());
        command
    }

    fn port(&self, service: &str) -> u16 {
        let services = ["pin-sidecar", "gateway", "prometheus", "grafana"];
        let index = services.iter().position(|name| *name == service).unwrap();
        self.ports + u16::try_from(index).unwrap()
    }

    /// Where a service's published port leads, for `curl`.
    pub(crate) fn url(&self, service: &str, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port(service))
    }

    /// What a service answers to a GET.
    pub(crate) fn get(&self, service: &str, path: &str) -> Result<Value, String> {
        let said = self.lab.curl([self.url(service, path).as_str()]);
        serde_json::from_str(&said.stdout).map_err(|_| format!("{}{}", said.stdout, said.stderr))
    }

    /// What the demo's gateway says to a POST.
    pub(crate) fn post(&self, path: &str) -> Result<String, String> {
        let url = self.url("gateway", path);
        let said = self.lab.curl(["--fail", "-X", "POST", url.as_str()]);
        if said.success {
            Ok(said.stdout)
        } else {
            Err(said.stderr)
        }
    }

    /// Waits until the sidecar says of itself that it is ready.
    pub(crate) fn wait_until_ready(&self) {
        wait_for("a ready sidecar", READY_LIMIT, || {
            let ready = self.get("pin-sidecar", "/readyz")?;
            if ready["ready"] == true {
                Ok(())
            } else {
                Err(ready.to_string())
            }
        });
    }

    /// Waits until the sidecar says this in `pending`.
    pub(crate) fn wait_until_pending(&self, reason: &str) {
        wait_for(reason, READY_LIMIT, || {
            let pending = self.get("pin-sidecar", "/readyz")?["pending"].to_string();
            if pending.contains(reason) {
                Ok(())
            } else {
                Err(pending)
            }
        });
    }

    /// Waits until the sidecar's log says this.
    pub(crate) fn wait_for_log(&self, words: &str) -> String {
        wait_for(words, READY_LIMIT, || {
            let log = self.compose_well("logs pin-sidecar");
            if log.contains(words) {
                Ok(log)
            } else {
                Err(log)
            }
        })
    }

    /// Has a chat as docs/docker.md says, and gives the answer's text.
    pub(crate) fn chat(&self) -> Result<String, String> {
        let url = self.url("gateway", "/chat");
        let body = r#"{"prompt": "Why is the sky blue?", "max_tokens": 16}"#;
        let said = self.lab.curl(["-N", url.as_str(), "-d", body]);
        let text = said.stdout.trim();
        if said.success
            && !text.is_empty()
            && !text.starts_with("error")
            && !text.starts_with("no ")
        {
            Ok(text.to_owned())
        } else {
            Err(format!("{text}{}", said.stderr))
        }
    }

    /// The id of a service's container, also of one that has ended; empty where there is none.
    pub(crate) fn container(&self, service: &str) -> String {
        let filter = format!("--filter label=com.docker.compose.service={service}");
        self.of_this_project(&format!("ps --all {filter}"))
            .trim()
            .to_owned()
    }

    /// One fact of a service's container, as `docker inspect --format` gives it.
    pub(crate) fn fact(&self, service: &str, format: &str) -> String {
        let container = self.container(service);
        let inspect = format!("inspect --format {format} {container}");
        self.lab.docker(&inspect).stdout.trim().to_owned()
    }

    /// Containers, networks and volumes of this project.
    pub(crate) fn leftovers(&self) -> String {
        ["ps --all", "network ls", "volume ls"]
            .map(|list| self.of_this_project(list))
            .concat()
    }

    fn of_this_project(&self, list: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.project);
        self.lab
            .docker(&format!("{list} --quiet --filter {project}"))
            .stdout
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.compose("logs --tail 20");
            eprintln!("the end of the stack's logs:\n{}", said.stdout);
        }
        let said = self.compose("down -v --remove-orphans -t 0");
        // A file that Compose refuses has made nothing.
        if !said.success && !self.leftovers().is_empty() {
            eprintln!("{} is not gone: {}", self.project, said.stderr);
        }
    }
}
