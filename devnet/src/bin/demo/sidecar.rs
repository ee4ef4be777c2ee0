//! The sidecar itself: where its binary comes from, what it says of itself, how it ends.

use std::{path::PathBuf, process::Stdio, time::Duration};

use devnet::agent::{Agent, Signal};
use serde_json::Value;
use tokio::process::Command;

use crate::{Trouble, terminal::Terminal};

/// A drain of 25 s and the 5 s after it, with some to spare.
const DRAIN_LIMIT: Duration = Duration::from_secs(35);

/// Builds the sidecar with the cargo that runs the demo; gives its path, as cargo tells it.
pub(crate) async fn build(terminal: &mut Terminal) -> Result<PathBuf, Trouble> {
    terminal.aside("building the sidecar: the first time takes a minute or two");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--release",
        "--package",
        "pin-sidecar",
        "--bin",
        "pin-sidecar",
    ]);
    command.args(["--message-format", "json-render-diagnostics"]);
    if let Some(directory) = std::env::var_os("CARGO_MANIFEST_DIR") {
        command.current_dir(directory);
    }
    // What cargo tells the demo about itself makes build scripts that look at it (ring's) run again, and then most of
    // the sidecar is built anew after every `cargo build`.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.map_err(|error| {
        format!("cargo cannot be run ({error}): give the binary with --sidecar")
    })?;
    if !output.status.success() {
        return Err("the sidecar does not build: cargo says why above".to_owned());
    }
    executable(&output.stdout).ok_or_else(|| "cargo built no binary named pin-sidecar".to_owned())
}

/// Finds the binary in cargo's messages, one JSON object on each line.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let messages = messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut paths = messages.filter(|message| message["target"]["name"] == "pin-sidecar");
    paths.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Shows what the sidecar says of itself, as an orchestrator and Prometheus see it.
pub(crate) async fn report(sidecar: &Agent, terminal: &mut Terminal) -> Result<(), Trouble> {
    terminal.part("What the sidecar says");
    let silent = |error| {
        format!(
            "the sidecar does not answer at {}: {error}",
            sidecar.url("/")
        )
    };
    let ready = sidecar.get("/readyz").await.map_err(silent)?;
    terminal.say(
        "/readyz",
        &format!("{} {}", ready.status, ready.text().trim()),
    );
    let metrics = sidecar.get("/metrics").await.map_err(silent)?;
    if (ready.status, metrics.status) != (200, 200) {
        let (ready, metrics) = (ready.status, metrics.status);
        return Err(format!(
            "the sidecar answers {ready} at /readyz and {metrics} at /metrics instead of 200"
        ));
    }
    let text = metrics.text();
    terminal.say(
        "/metrics",
        &format!("session_up {}", number(sum(&text, "session_up"))),
    );
    for name in [
        "requests_total",
        "prompt_tokens_total",
        "generation_tokens_total",
    ] {
        terminal.say("", &format!("{name} {}", number(sum(&text, name))));
    }
    let count = sum(&text, "time_to_first_token_seconds_count");
    let mean =
        sum(&text, "time_to_first_token_seconds_sum").zip(count.filter(|count| *count > 0.0));
    let mean = mean.map(|(sum, count)| format!("{:.0} ms on average", 1000.0 * sum / count));
    terminal.say(
        "",
        &format!(
            "time_to_first_token_seconds {}",
            mean.as_deref().unwrap_or("–")
        ),
    );
    Ok(())
}

/// The sum of a metric's series; `None` if there are none.
fn sum(metrics: &str, name: &str) -> Option<f64> {
    let series = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("pin_sidecar_")?.strip_prefix(name)?;
        let value = rest
            .strip_prefix(' ')
            .or_else(|| rest.starts_with('{').then(|| rest.rsplit(' ').next())?)?;
        value.parse::<f64>().ok()
    });
    series.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| value.to_string())
}

/// Asks the sidecar to end, as an orchestrator would, and says how it did.
pub(crate) async fn drain(sidecar: &Agent, terminal: &mut Terminal) -> Result<(), Trouble> {
    terminal.part("SIGTERM");
    let begun = std::time::Instant::now();
    sidecar.signal(Signal::TERM);
    let status = sidecar.wait_for(DRAIN_LIMIT).await;
    let status = status
        .ok_or_else(|| format!("the sidecar did not end within {} s", DRAIN_LIMIT.as_secs()))?;
    match status.code() {
        Some(0) => {
            terminal.good(
                "drained",
                &format!("exit code 0 after {} ms", begun.elapsed().as_millis()),
            );
            Ok(())
        }
        _ => Err(format!(
            "the sidecar ended with {status} instead of exit code 0: its log says why"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_own_series_and_no_others() {
        let metrics = "# TYPE pin_sidecar_requests_total counter\n\
            pin_sidecar_requests_total{model=\"a b\",operation=\"chat\"} 2\n\
            pin_sidecar_requests_total{model=\"c\",operation=\"chat\"} 3\n\
            pin_sidecar_requests_total_more 7\npin_sidecar_session_up 1\n";
        assert_eq!(sum(metrics, "requests_total"), Some(5.0));
        assert_eq!(sum(metrics, "session_up"), Some(1.0));
        assert_eq!(sum(metrics, "requests"), None);
    }

    #[test]
    fn the_binary_is_where_cargo_says_it_is() {
        let messages =
            br#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/x/other"}
{"reason":"compiler-artifact","target":{"name":"pin-sidecar"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"pin-sidecar"},"executable":"/x/pin-sidecar"}
"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/x/pin-sidecar")));
    }
}
