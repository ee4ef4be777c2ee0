//! The sidecar itself: what it says of itself, how it ends.

use std::time::{Duration, Instant};

use devnet::agent::{Agent, Signal};

use crate::{Trouble, terminal::Terminal};

/// A drain of 25 s and the 5 s after it, with some to spare.
const DRAIN_LIMIT: Duration = Duration::from_secs(35);

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

/// Asks the sidecar to end, as an orchestrator would, and says how it did; gives how long it took.
pub(crate) async fn drain(sidecar: &Agent, terminal: &mut Terminal) -> Result<Duration, Trouble> {
    terminal.part("SIGTERM");
    let begun = Instant::now();
    sidecar.signal(Signal::TERM);
    let status = sidecar.wait_for(DRAIN_LIMIT).await;
    let took = begun.elapsed();
    let status = status
        .ok_or_else(|| format!("the sidecar did not end within {} s", DRAIN_LIMIT.as_secs()))?;
    match status.code() {
        Some(0) => {
            let text = format!("exit code 0 after {} ms", took.as_millis());
            terminal.good("drained", &text);
            Ok(took)
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
}
