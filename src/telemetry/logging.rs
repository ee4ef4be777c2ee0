//! The log: one event a line on standard error, as text on a terminal and as JSON elsewhere.
//!
//! Invariant: other crates log at most at `info`, whatever the operator asks for, since some of them log whole messages
//! below that; and a panic tells its place only, since its message may quote what was being worked on.
//!
//! Besides `timestamp`, `level`, `target` and `message`, a line has these fields and no others, each only where there is
//! something to say. `_ms` are milliseconds, `_s` seconds, both whole numbers.
//!
//! | field | is |
//! |---|---|
//! | `request_id` | the network's id of a request |
//! | `model` | a model that is offered, by its full name |
//! | `node` | the node's alias, as the operator set it |
//! | `operation` | `chat`, `speech` or `interview` |
//! | `outcome` | `ok`; `cancelled`, or `superseded` by another interview; or the code that the error begins with |
//! | `session` | the session's number, 1 for the first; of a request the last that it came by |
//! | `queue_ms`, `first_token_ms`, `duration_ms` | from a request's receipt until it ran, had its first token, ended |
//! | `prompt_tokens`, `generation_tokens` | as the backend counted them |
//! | `attempts`, `since_s` | how often it happened and how long ago that began, where a line sums up |
//! | `reason` | why: of a failed login or a session's end as in the metrics, else a few words |
//! | `error` | what the system or the backend reports |
//! | `said` | what the gateway says, cut to 200 characters |
//! | `code` | of the gateway's Close |
//! | `wait_ms` | until the next attempt to connect |
//! | `lasted_s` | how long a session was up |
//! | `retry_after_s` | how long the gateway wants the node to stay away |
//! | `node_id`, `alias` | what the network calls this node |
//! | `tier`, `accuracy`, `tokens_per_second` | what an interview has found |
//! | `prompts`, `failed` | how many an interview had, and how many of them gave no answer |
//! | `frame` | the type of a frame |
//! | `bytes` | the size of an answer |
//! | `completed_bytes`, `total_bytes` | of a model that is pulled, as far as Ollama has told |
//! | `running` | chats that a drain cuts short |
//! | `models`, `version` | what is offered; Ollama's version, at the start the sidecar's |
//! | `address` | where probes are answered |
//! | `secret`, `proxy`, `settings` | at the start: where the secret is from, the way out, and the effective settings |
//! | `place` | where in the source it panicked |
//! | `dropped` | lines that were lost, since nobody read the log fast enough |

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{
        self, MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
};

use super::log_writer::{LogGuard, LogWriter};

/// The target that all our events begin with.
const OURS: &str = "pin_sidecar";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One flat object a line.
    Json,
}

/// Starts logging for the whole process, and makes panics tell their place in the log instead of their message.
/// Without a format it is text on a terminal, else JSON. Lines may be lost unless the guard is dropped or flushed at
/// the end.
///
/// # Errors
/// Logging was started before, or the thread that writes cannot be started.
pub fn init(filter: Targets, format: Option<LogFormat>) -> io::Result<LogGuard> {
    let terminal = io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let (writer, guard) =
        LogWriter::start(io::stderr(), move |dropped| dropped_line(format, dropped))?;
    tracing::subscriber::set_global_default(subscriber(filter, format, terminal, writer))
        .map_err(io::Error::other)?;
    panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

/// The filter with every target but ours lowered to `info`. A level that is set for everything, or for a prefix of our
/// name, still holds for us.
pub fn capped(filter: Targets) -> Targets {
    let ours = our_level(&filter);
    let default = filter.default_level().unwrap_or(LevelFilter::OFF);
    let others = Targets::new()
        .with_default(default.min(LevelFilter::INFO))
        .with_target(OURS, ours);
    filter.into_iter().fold(others, |capped, (target, level)| {
        let level = if is_ours(&target) {
            level
        } else {
            level.min(LevelFilter::INFO)
        };
        capped.with_target(target, level)
    })
}

fn is_ours(target: &str) -> bool {
    target == OURS
        || target
            .strip_prefix(OURS)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// The level that the filter has for our crate as a whole: that of the longest prefix.
fn our_level(filter: &Targets) -> LevelFilter {
    let prefixes = filter.iter().filter(|(target, _)| OURS.starts_with(target));
    let longest = prefixes
        .max_by_key(|(target, _)| target.len())
        .map(|(_, level)| level);
    longest
        .or(filter.default_level())
        .unwrap_or(LevelFilter::OFF)
}

fn subscriber<W>(
    filter: Targets,
    format: LogFormat,
    colours: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Told errors of its own would go to standard error with `eprintln!`, which panics when that is closed.
    let layer = fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer = match format {
        // Only switched off, never on, so that `NO_COLOR` is respected.
        LogFormat::Text if colours => layer.boxed(),
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    Registry::default().with(layer.with_filter(capped(filter)))
}

/// The line that tells of lost lines; made by hand, since the queue that leads here was full.
fn dropped_line(format: LogFormat, dropped: u64) -> String {
    let mut now = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut now));
    let message = "log lines were dropped, because standard error was not read fast enough";
    match format {
        LogFormat::Text => format!("{now}  WARN {OURS}: {message} dropped={dropped}"),
        LogFormat::Json => {
            format!(
                r#"{{"timestamp":"{now}","level":"WARN","message":"{message}","dropped":{dropped},"target":"{OURS}"}}"#
            )
        }
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(|location| format!("{}:{}", location.file(), location.line()));
    tracing::error!(
        place = place.as_deref(),
        "panicked: this is a defect of the sidecar"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::Write,
        process::Command,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::Value;
    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(filter.parse().unwrap(), format, false, move || {
            writer.clone()
        });
        tracing::subscriber::with_default(subscriber, work);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn enables(filter: &str, target: &str, level: Level) -> bool {
        capped(filter.parse().unwrap()).would_enable(target, &level)
    }

    #[test]
    fn other_crates_never_log_below_info_whatever_is_asked_for() {
        for filter in [
            "trace",
            "tungstenite=trace",
            "trace,tungstenite::protocol=debug",
            "t=trace",
        ] {
            for target in ["tungstenite::protocol", "hyper", "rustls::client"] {
                assert!(
                    !enables(filter, target, Level::DEBUG),
                    "{filter} lets {target} log at debug"
                );
            }
        }
        assert!(enables("trace", "hyper", Level::INFO));
        assert!(!enables("hyper=error", "hyper", Level::WARN));
    }

    #[test]
    fn our_own_level_is_what_the_operator_says() {
        assert!(enables("trace", "pin_sidecar::session", Level::TRACE));
        assert!(enables("pin=debug", "pin_sidecar::session", Level::DEBUG));
        assert!(enables(
            "info,pin_sidecar::session=trace",
            "pin_sidecar::session",
            Level::TRACE
        ));
        assert!(!enables(
            "info,pin_sidecar::session=trace",
            "pin_sidecar::backend",
            Level::DEBUG
        ));
        assert!(!enables("error", "pin_sidecar", Level::WARN));
        assert!(!enables(
            "debug,pin_sidecar=warn",
            "pin_sidecar",
            Level::INFO
        ));
        assert!(!enables("pin_sidecar=off", "pin_sidecar", Level::ERROR));
    }

    #[test]
    fn a_json_line_is_one_flat_object_with_the_time_in_utc() {
        let text = logged("info", LogFormat::Json, || {
            tracing::info!(target: "pin_sidecar::session", attempts = 3, "a \"quoted\"\nmessage");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "a \"quoted\"\nmessage");
        assert_eq!(line["attempts"], 3);
        assert_eq!(line["level"], "INFO");
        let time = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn every_line_tells_when_it_happened() {
        // A line has microseconds and no more.
        let before = std::time::SystemTime::now() - Duration::from_micros(1);
        let event = |format| logged("info", format, || tracing::info!(target: OURS, "message"));
        let [text, json] =
            [LogFormat::Text, LogFormat::Json].map(|f| [event(f), dropped_line(f, 7)]);
        let after = std::time::SystemTime::now();
        let first_word = |line: String| line.split(' ').next().unwrap().to_owned();
        let timestamp = |line: String| {
            let line: Value = serde_json::from_str(&line).unwrap();
            line["timestamp"].as_str().unwrap().to_owned()
        };
        for time in text.map(first_word).into_iter().chain(json.map(timestamp)) {
            let told = humantime::parse_rfc3339(&time).unwrap();
            assert!(before <= told && told <= after, "{time}");
        }
    }

    #[test]
    fn the_line_that_tells_of_lost_lines_reads_as_any_other() {
        let line: Value = serde_json::from_str(&dropped_line(LogFormat::Json, 7)).unwrap();
        assert_eq!(
            (&line["dropped"], &line["level"]),
            (&7.into(), &"WARN".into())
        );
        assert!(humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
        assert!(dropped_line(LogFormat::Text, 7).ends_with("dropped=7"));
    }

    /// Not a test of its own: what the next one runs in a process apart, since a panic hook is the process's.
    #[test]
    #[ignore = "run by a_panic_tells_its_place_and_never_its_message"]
    fn panic_in_a_process_apart() {
        let guard = init(Targets::new().with_default(LevelFilter::INFO), None).unwrap();
        assert!(
            std::thread::spawn(|| panic!("a prompt, word for word"))
                .join()
                .is_err()
        );
        drop(guard);
    }

    #[test]
    fn a_panic_tells_its_place_and_never_its_message() {
        let name = "telemetry::logging::tests::panic_in_a_process_apart";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{log}");
        let line: Value = serde_json::from_str(log.trim()).unwrap();
        assert!(
            line["place"].as_str().unwrap().contains("logging.rs:"),
            "{line}"
        );
        assert!(!log.contains("word for word"), "{log}");
    }
}
