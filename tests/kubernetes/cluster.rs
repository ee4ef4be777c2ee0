//! The cluster of `tools/test-cluster`, and its clients.

use std::{
    ffi::OsStr,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tokio::io::AsyncWriteExt as _;

/// Names the script.
const SCRIPT: &str = "TEST_CLUSTER";

/// Where pods reach this machine.
pub(crate) const HERE: &str = "10.241.0.1";

/// The one that all tests of this process have.
pub(crate) struct Cluster {
    environment: Vec<(String, String)>,
}

impl Cluster {
    /// Starts it if it does not run; `None`, and a word, where there is none.
    pub(crate) fn find() -> Option<&'static Self> {
        static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
        let cluster = CLUSTER.get_or_init(|| Some(Self::start(&std::env::var_os(SCRIPT)?)));
        if cluster.is_none() {
            devnet::skip_without("a Kubernetes (TEST_CLUSTER)");
        }
        cluster.as_ref()
    }

    fn start(script: &OsStr) -> Self {
        let output = Command::new("bash")
            .args(["-euc", r#""$0" up; eval "$("$0" env)"; env"#])
            .arg(script)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let ours = |name: &str| name == "PATH" || name == "KUBECONFIG" || name.starts_with("HELM_");
        let environment = lines
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| ours(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { environment }
    }

    /// One of its clients, for those who run it themselves.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path_of(program));
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }

    /// Runs a client; it must succeed. Gives its standard output.
    pub(crate) async fn run(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let output = self.try_run(program, arguments, input).await;
        let told = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {told}{said}"
        );
        said.into_owned()
    }

    /// Runs a client, whatever comes of it.
    pub(crate) async fn try_run(&self, program: &str, arguments: &[&str], input: &str) -> Output {
        let mut child = tokio::process::Command::from(self.command(program, arguments))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that wants no input may be gone before it is written.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    /// A program is looked for in this process' own PATH, whatever the child's is.
    fn path_of(&self, program: &str) -> String {
        let (_, path) = self
            .environment
            .iter()
            .find(|(name, _)| name == "PATH")
            .unwrap();
        path.split(':')
            .map(|directory| format!("{directory}/{program}"))
            .find(|file| std::path::Path::new(file).is_file())
            .unwrap_or_else(|| panic!("there is no {program} in {path}"))
    }
}
