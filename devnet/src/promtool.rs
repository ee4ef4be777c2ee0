//! Prometheus' own checks, for tests.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::skip_without;

/// Runs `promtool` with these arguments on these files, or skips the check where it is not installed.
///
/// # Panics
/// It finds something: with its findings.
pub fn run<P: AsRef<Path>>(arguments: &[&str], files: &[P]) {
    let files = files.iter().map(AsRef::as_ref);
    let output = Command::new("promtool")
        .args(arguments)
        .args(files)
        .output();
    let Ok(output) = output else {
        return skip_without("promtool");
    };
    let findings = [output.stdout, output.stderr].concat();
    let findings = String::from_utf8_lossy(&findings);
    assert!(output.status.success(), "{findings}");
}

/// Has `promtool check metrics` read what `/metrics` gives, or skips the check where it is not installed.
///
/// # Panics
/// It finds something, be it a matter of style: with its findings.
pub fn check_metrics(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return skip_without("promtool");
    };
    let input = promtool.stdin.take();
    let written = input.map(|mut input| input.write_all(text.as_bytes()));
    assert!(matches!(written, Some(Ok(()))), "promtool does not read");
    let output = promtool.wait_with_output().expect("it was started");
    let findings = [output.stdout, output.stderr].concat();
    let findings = String::from_utf8_lossy(&findings);
    assert!(output.status.success() && findings.is_empty(), "{findings}");
}
