//! The engine of `tools/docker-lab`, and what is run on it.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Names the script.
const SCRIPT: &str = "DOCKER_LAB";

/// Those that the compose files name and that no test builds.
const IMAGES: [&str; 4] = ["ollama", "prometheus", "grafana", "busybox"];

/// What docs/docker.md has everybody write.
pub(crate) const DEMO: &str =
    "--env-file deploy/compose/demo/demo.env -f docker-compose.yml -f deploy/compose/demo.yml";

/// How often something is looked at again that cannot tell by itself.
const POLL: Duration = Duration::from_millis(200);

/// Both generations of Compose: what `docker-lab compose` calls them.
pub(crate) const GENERATIONS: [&str; 2] = ["v1", "v2"];

/// The engine, which serves all tests of this process.
pub(crate) struct Lab {
    script: PathBuf,
}

/// What a program that has ended said, and whether it was content.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Lab {
    /// Starts the engine and sees that the images are there, the first time; `None`, and a word, where there is none.
    pub(crate) fn find() -> Option<&'static Self> {
        static LAB: OnceLock<Option<Lab>> = OnceLock::new();
        let lab = LAB.get_or_init(|| {
            let script = std::env::var_os(SCRIPT)?.into();
            let lab = Self { script };
            lab.command(["up"]).expect_success();
            lab.command(["image"].iter().chain(&IMAGES))
                .expect_success();
            lab.build_if_missing();
            Some(lab)
        });
        if lab.is_none() {
            devnet::skip_without("a Docker engine (DOCKER_LAB)");
        }
        lab.as_ref()
    }

    /// For those who run these tests alone. What is there is taken as it is: it may be older than the sources.
    fn build_if_missing(&self) {
        let images = "image inspect pin-sidecar:0.1.0 pin-devnet-gateway:0.1.0";
        if !self.docker(images).success {
            self.build("v2");
        }
    }

    /// Builds the sidecar's image and the demo gateway's, as docs/docker.md says.
    pub(crate) fn build(&self, generation: &str) {
        self.command(["image", "rust"]).expect_success();
        let compose = ["compose", generation]
            .into_iter()
            .chain(words(DEMO))
            .chain(["build"]);
        let mut command = self.command(compose);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.expect_success();
    }

    /// `docker-lab` with arguments.
    pub(crate) fn command(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(&self.script)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// `docker` with arguments, each a word.
    pub(crate) fn docker(&self, arguments: &str) -> Said {
        self.command(["enter", "docker"].into_iter().chain(words(arguments)))
            .said()
    }

    /// `curl` with arguments, as somebody would who sits in front of the engine's machine.
    pub(crate) fn curl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Said {
        let curl = ["enter", "curl", "-sS", "--max-time", "60"];
        self.command(curl.into_iter().chain(arguments)).said()
    }
}

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

/// Waits until `look` finds something.
///
/// # Panics
/// Past the limit, with what was last seen.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// A command that is run to its end.
pub(crate) trait Run {
    fn said(&mut self) -> Said;
    fn expect_success(&mut self) -> Said;
}

impl Run for Command {
    fn said(&mut self) -> Said {
        Said::from(self.output().unwrap())
    }

    fn expect_success(&mut self) -> Said {
        let said = self.said();
        assert!(said.success, "{self:?}: {}{}", said.stdout, said.stderr);
        said
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}
