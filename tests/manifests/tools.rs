//! Helm and kubectl, and directories for them to work on.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A program for Kubernetes.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    Helm,
    Kubectl,
}

impl Tool {
    /// The variable that names it, and its name.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Helm => ("HELM", "helm"),
            Self::Kubectl => ("KUBECTL", "kubectl"),
        }
    }

    fn program(self) -> OsString {
        let (variable, name) = self.names();
        std::env::var_os(variable).unwrap_or_else(|| name.into())
    }

    /// Whether it is there; says so where it is not.
    pub(crate) fn is_there(self) -> bool {
        let (variable, name) = self.names();
        let found = Command::new(self.program())
            .arg("version")
            .arg(match self {
                Self::Helm => "--short",
                Self::Kubectl => "--client",
            })
            .output();
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                devnet::skip_without(&format!("{name} (on the PATH, or {variable})"));
                false
            }
            found => {
                assert!(found.unwrap().status.success(), "{name} does not run");
                true
            }
        }
    }

    /// Runs it, and gives what it says.
    ///
    /// # Panics
    /// If it fails, with its complaint.
    pub(crate) fn run(self, arguments: &str) -> String {
        let mut command = Command::new(self.program());
        command.args(arguments.split_whitespace());
        expect_success(&mut command)
    }
}

/// Runs a command to its end, and gives what it says.
pub(crate) fn expect_success(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {said}{complaint}");
    said.into_owned()
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A copy of deploy/kubernetes, to be edited as its readers do.
pub(crate) struct Copied {
    directory: TempDir,
}

impl Copied {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        expect_success(
            Command::new("cp")
                .arg("-R")
                .arg(repository("deploy/kubernetes/."))
                .arg(directory.path()),
        );
        Self { directory }
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What `kubectl apply -k` would apply. Keys are sorted and comments gone, whoever wrote it.
    pub(crate) fn kustomize(&self, directory: &str) -> String {
        Tool::Kubectl.run(&format!("kustomize {}", self.path(directory).display()))
    }
}
