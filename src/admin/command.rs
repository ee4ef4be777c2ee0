//! The verbs for a terminal, a cron job or a hook: `pause`, `resume` and `status` ask the sidecar that runs here.
//!
//! Invariant: what is printed of an answer is plain text, whatever it holds, and a verb that was not obeyed is an error.

use std::{fmt::Write as _, time::Duration};

use hyper::Method;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::client::{ClientError, Question, Response, Target, ask};
use crate::config::SpeechModel;

/// A sidecar answers at once, whatever it does.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What to have the sidecar do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Drain and stay away, for so long if a length is given (`2h`).
    Pause {
        /// As it was written.
        length: Option<String>,
    },
    /// Serve again.
    Resume,
    /// Nothing, but tell how it does.
    Status,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no answer.
    #[error("{0}; does a sidecar run there (PIN_LISTEN_ADDR)?")]
    Asking(#[from] ClientError),
    /// The sidecar does not do it.
    #[error("HTTP {status} from {place}: {}", plain(.words))]
    Refused {
        /// Who was asked.
        place: String,
        /// The answer's status.
        status: u16,
        /// Why, in the sidecar's words.
        words: String,
    },
    /// What answers is no sidecar.
    #[error("{0} does not answer as a pin-sidecar does")]
    Strange(String),
}

/// Has a running sidecar do something, and gives what to tell whoever wanted it: some lines, or with `json` what it said
/// itself. Blocks, so it must not be called from asynchronous code.
///
/// # Errors
/// It cannot be asked, or does not do it.
pub fn command(
    target: &Target,
    token: Option<&SecretString>,
    command: &Command,
    json: bool,
) -> Result<String, CommandError> {
    let said = |method, path: &str| {
        let question = Question {
            method,
            path,
            token,
            limit: TIME_LIMIT,
        };
        ask(target, &question)
    };
    let done = |path: &str| object(accepted(said(Method::POST, path)?)?);
    let done = match command {
        Command::Pause { length: None } => Some(done("/session/disconnect")?),
        Command::Pause {
            length: Some(length),
        } => {
            let length = length.replace(char::is_whitespace, "");
            Some(done(&format!("/session/disconnect?for={length}"))?)
        }
        Command::Resume => Some(done("/session/connect")?),
        Command::Status => None,
    };
    if let Some(done) = done.filter(|_| json) {
        return Ok(Value::Object(done).to_string());
    }
    let mut status = object(accepted(said(Method::GET, "/status")?)?)?;
    status.extend(object(accepted(said(Method::GET, "/readyz?always_ok")?)?)?);
    let status = Value::Object(status);
    Ok(if json {
        status.to_string()
    } else {
        summary(&status)
    })
}

/// An answer that says yes.
fn accepted(response: Response) -> Result<Response, CommandError> {
    if matches!(response.status, 200 | 202) {
        return Ok(response);
    }
    Err(CommandError::Refused {
        place: response.place,
        status: response.status,
        words: String::from_utf8_lossy(&response.body).into_owned(),
    })
}

fn object(response: Response) -> Result<Map<String, Value>, CommandError> {
    serde_json::from_slice(&response.body).map_err(|_| CommandError::Strange(response.place))
}

/// What `/status` and `/readyz` say, in a few lines.
fn summary(status: &Value) -> String {
    let mut text = String::new();
    let sentences = |key: &str| {
        let sentences = status[key].as_array().into_iter().flatten();
        sentences
            .filter_map(Value::as_str)
            .map(plain)
            .collect::<Vec<_>>()
    };
    let names = status["models"].as_array().into_iter().flatten();
    let names: Vec<_> = names
        .filter_map(|model| model["name"].as_str())
        .map(plain)
        .collect();
    let pending = sentences("pending");
    if pending.is_empty() {
        let offered = match names.iter().all(|name| SpeechModel::is_name_of_one(name)) {
            true => "speech",
            false => "models",
        };
        let _ = writeln!(text, "Online: logged in, with {offered} to offer.");
    }
    for sentence in &pending {
        let _ = writeln!(text, "{sentence}");
    }
    for sentence in sentences("warnings") {
        let _ = writeln!(text, "Warning: {sentence}");
    }
    let listed = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };
    let _ = writeln!(text, "Models: {listed}");
    let (load, now) = (&status["load"], &status["now"]);
    let _ = writeln!(
        text,
        "Requests: {} running of {}, {} waiting; {} have ended since the start {} ago; {}",
        load["running"],
        load["capacity"],
        load["waiting"],
        status["counts"]["requests"],
        ago(status["uptime_seconds"].as_u64()),
        match (now.as_u64(), status["requests"]["last_at"].as_u64()) {
            (Some(now), Some(at)) => {
                format!("the last came {} ago", ago(Some(now.saturating_sub(at))))
            }
            _ => "none has come".to_owned(),
        },
    );
    let earned = status["counts"]["earnings_estimate_usd"].as_object();
    let earned: f64 = earned
        .into_iter()
        .flatten()
        .filter_map(|(_, usd)| usd.as_f64())
        // From zero, since the sum of none is -0.
        .fold(0.0, |sum, usd| sum + usd);
    let _ = writeln!(
        text,
        "Earned since the start, by an estimate: {earned:.4} USD"
    );
    text
}

/// A length of time, to its two largest units.
fn ago(seconds: Option<u64>) -> String {
    let seconds = seconds.unwrap_or_default();
    let unit = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    humantime::format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

/// Fit for a terminal.
fn plain(text: &str) -> String {
    text.trim().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_only_speaks_is_not_said_to_chat() {
        for (models, said) in [
            (json!(["tts:kokoro"]), "with speech to offer."),
            (
                json!(["tiny:latest", "tts:kokoro"]),
                "with models to offer.",
            ),
        ] {
            let models = models.as_array().into_iter().flatten();
            let models: Vec<_> = models.map(|name| json!({"name": name})).collect();
            let told = summary(&json!({"pending": [], "models": models}));
            assert!(
                told.starts_with(&format!("Online: logged in, {said}\n")),
                "{told}"
            );
        }
    }

    #[test]
    fn who_has_earned_nothing_yet_owes_nothing_either() {
        let told = summary(&json!({"counts": {"earnings_estimate_usd": {}}}));
        assert!(told.ends_with("estimate: 0.0000 USD\n"), "{told}");
    }

    #[test]
    fn a_status_is_told_in_a_few_lines_without_what_steers_a_terminal() {
        let status = json!({
            "now": 1_704_499_300,
            "pending": ["Ollama does\u{1b}[2J answer."],
            "warnings": ["Look."],
            "models": [{"name": "tiny:latest"}, {"name": "big:7b"}],
            "load": {"running": 1, "capacity": 4, "waiting": 0},
            "counts": {"requests": 12, "earnings_estimate_usd": {"tiny:latest": 0.25, "big:7b": 0.5}},
            "requests": {"last_at": 1_704_499_240},
            "uptime_seconds": 93_784,
        });
        assert_eq!(
            summary(&status),
            "Ollama does [2J answer.\nWarning: Look.\nModels: tiny:latest, big:7b\n\
             Requests: 1 running of 4, 0 waiting; 12 have ended since the start 1day 2h ago; the last came 1m ago\n\
             Earned since the start, by an estimate: 0.7500 USD\n"
        );
    }
}
