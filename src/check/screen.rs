//! What a check shows while it goes on: a line a step for people, or one JSON document at its end.
//!
//! Invariant: standard output has steps or the document and nothing else. A reader that has gone away is no failure.

use std::{
    io::{self, IsTerminal as _, Write},
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, interval};

use super::{Outcome, Report, Step};

/// Wide enough for the longest word of an outcome, and name of a step.
const WIDTHS: (usize, usize) = (7, 8);

/// Where the text of a step begins.
const INDENT: usize = 2 + WIDTHS.0 + 1 + WIDTHS.1 + 1;

/// Gathers the steps, and shows them.
pub(super) struct Screen {
    steps: Vec<Step>,
    is_json: bool,
    /// Whether somebody looks at standard error, where progress is shown.
    is_watched: bool,
}

impl Screen {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            steps: Vec::new(),
            is_json,
            is_watched: io::stderr().is_terminal(),
        }
    }

    /// Shows steps that are done.
    pub(super) fn show(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            if !self.is_json {
                print(&line(&step));
            }
            self.steps.push(step);
        }
    }

    /// Shows what is being done, and for how long, until it is.
    pub(super) async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut clock = interval(Duration::from_secs(1));
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    self.progress("");
                    return done;
                }
                _ = clock.tick() => {
                    self.progress(&format!("{what} ({} s)", began.elapsed().as_secs()));
                }
            }
        }
    }

    /// Replaces the last line of a terminal.
    fn progress(&self, text: &str) {
        if self.is_watched {
            let _ = write!(io::stderr(), "\r\x1b[2K{}", harmless(text));
        }
    }

    /// Shows what it all comes to.
    pub(super) fn finish(self) -> Report {
        let report = Report::of(self.steps);
        if self.is_json {
            // Its keys are names, so it can be written.
            print(&serde_json::to_string(&report).unwrap_or_default());
        } else {
            print(&sum(&report));
        }
        report
    }
}

fn print(text: &str) {
    // Standard output may be closed, and `println!` would panic.
    let _ = writeln!(io::stdout(), "{text}");
}

fn line(step: &Step) -> String {
    let (mark, word) = match step.outcome {
        Outcome::Passed => ('✓', "passed"),
        Outcome::Warned => ('!', "warned"),
        Outcome::Failed => ('✗', "failed"),
        Outcome::Skipped => ('-', "skipped"),
    };
    let (words, names) = WIDTHS;
    let name = step.name;
    let indent = format!("\n{:INDENT$}", "");
    let found: Vec<_> = step.found.lines().map(harmless).collect();
    let mut line = format!("{mark} {word:words$} {name:names$} {}", found.join(&indent));
    if let Some(advice) = &step.advice {
        line.push_str(&indent);
        line.push_str(&harmless(advice));
    }
    line
}

/// Names of models are others' text, and a terminal obeys what it is given.
fn harmless(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn sum(report: &Report) -> String {
    let of = |outcome| {
        report
            .steps
            .iter()
            .filter(|step| step.outcome == outcome)
            .count()
    };
    match (of(Outcome::Failed), of(Outcome::Warned)) {
        (0, 0) => "Nothing failed.".to_owned(),
        (0, n) => format!("Nothing failed; to look at: {n}."),
        (n, _) => format!("Failed: {n}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_by_mark_and_word_and_cannot_command_a_terminal() {
        let step = Step::warned("models", "a\x1b[2Jb\nsecond", "Mend it.");
        let indent = " ".repeat(INDENT);
        let expected = format!("! warned  models   a [2Jb\n{indent}second\n{indent}Mend it.");
        assert_eq!(line(&step), expected);
    }
}
