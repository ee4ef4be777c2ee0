//! What is shown while it builds, on stderr as cargo's own: on a terminal rows that are drawn again, elsewhere a line now
//! and then. Nothing at all before there is something to build.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::{build::Job, cargo_says::Said};

/// Between two lines where no line can be drawn again.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Between two looks of the same rows.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);

/// How long a build may wait without a word. Two that start at the same time wait for each other a little.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// What fits everywhere.
const COLUMNS: usize = 79;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const CYAN: &str = "36";

/// The last step of the sidecar's release build.
const WHOLE_PROGRAM: &str = "pin-sidecar(bin)";

/// A build, as it is shown.
#[derive(Default)]
struct Row {
    name: &'static str,
    about: &'static str,
    /// It has something to do.
    busy: bool,
    /// Another cargo is in its way.
    waits: bool,
    over: bool,
    steps: Option<(usize, usize)>,
    now: String,
}

pub(crate) struct Screen {
    begun: Instant,
    /// How long all of it takes the first time.
    usual: &'static str,
    rows: Vec<Row>,
    moving: bool,
    drawn: usize,
    /// When it was last shown.
    last: Duration,
}

impl Screen {
    pub(crate) fn new<'a>(jobs: impl IntoIterator<Item = &'a Job>, usual: &'static str) -> Self {
        let rows = jobs.into_iter().map(|job| Row {
            name: job.name,
            about: job.about,
            ..Row::default()
        });
        Self {
            begun: Instant::now(),
            usual,
            rows: rows.collect(),
            moving: io::stderr().is_terminal()
                && std::env::var_os("TERM").is_some_and(|term| term != "dumb"),
            drawn: 0,
            last: Duration::ZERO,
        }
    }

    /// Takes note of what a build says.
    pub(crate) fn hear(&mut self, index: usize, said: Said) {
        let was_busy = self.rows[index].busy;
        self.rows[index].hear(said);
        if self.rows[index].busy && !was_busy {
            self.explain(index);
        }
    }

    pub(crate) fn over(&mut self, index: usize) {
        self.rows[index].over = true;
    }

    /// Shows where the builds are, if it is time to.
    pub(crate) fn show(&mut self) {
        let elapsed = self.begun.elapsed();
        if elapsed >= SHORT_WAIT {
            self.admit_waiting();
        }
        if self.moving {
            if self.is_busy() && elapsed >= self.last + REDRAW_INTERVAL {
                self.last = elapsed;
                self.draw(elapsed);
            }
        } else if elapsed >= self.last + PLAIN_INTERVAL && self.is_busy() {
            self.last = elapsed;
            let states: Vec<String> = self.busy_rows().map(Row::short).collect();
            write(&format!(
                "  {} s: {}\n",
                elapsed.as_secs(),
                states.join("; ")
            ));
        }
    }

    fn admit_waiting(&mut self) {
        for index in 0..self.rows.len() {
            let row = &mut self.rows[index];
            if row.waits && !row.busy && !row.over {
                row.busy = true;
                self.explain(index);
            }
        }
    }

    /// Nothing is built any more; `well` if all of it is there.
    pub(crate) fn end(&mut self, well: bool) {
        self.clear();
        if well && self.is_busy() {
            let seconds = self.begun.elapsed().as_secs_f64();
            write(&format!("  built after {seconds:.0} s\n\n"));
        }
    }

    fn is_busy(&self) -> bool {
        self.busy_rows().next().is_some()
    }

    fn busy_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.busy)
    }

    /// Says once for each build what it is, and before the first how long it will take.
    fn explain(&mut self, index: usize) {
        self.clear();
        if self.busy_rows().count() == 1 {
            let usual = self.usual;
            let title = self.paint(BOLD, "Building");
            write(&format!(
                "{title}: some {usual} on two cores, the first time\n"
            ));
        }
        let row = &self.rows[index];
        let name = self.paint(CYAN, &format!("{:9}", row.name));
        write(&format!("  {name} {}\n", row.about));
    }

    fn draw(&mut self, elapsed: Duration) {
        let rows = self.busy_rows().enumerate().map(|(nth, row)| {
            let clock = if nth == 0 {
                format!("{:>4} s", elapsed.as_secs())
            } else {
                String::new()
            };
            self.paint(DIM, &cut(&format!("{clock:6}  {}", row.long()), COLUMNS))
        });
        let rows: Vec<String> = rows.collect();
        // Without wrapping, so that on a narrow terminal too a row is a row.
        let mut frame = self.up() + "\x1b[?7l";
        for row in &rows {
            frame += &format!("\x1b[2K{row}\n");
        }
        self.drawn = rows.len();
        write(&(frame + "\x1b[?7h"));
    }

    /// Takes the rows away.
    fn clear(&mut self) {
        if self.drawn > 0 {
            write(&(self.up() + "\x1b[J"));
            self.drawn = 0;
        }
    }

    fn up(&self) -> String {
        match self.drawn {
            0 => String::new(),
            rows => format!("\x1b[{rows}A\r"),
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        paint(self.moving, colour, text)
    }
}

impl Row {
    fn hear(&mut self, said: Said) {
        match said {
            Said::Progress(done, all, crates) => {
                self.steps = Some((done, all));
                self.now = match crates.as_str() {
                    WHOLE_PROGRAM => "the whole program as one piece, the longest step".to_owned(),
                    _ => crates,
                };
                return;
            }
            Said::Compiling(name) if self.steps.is_none() => self.now = name,
            Said::Compiling(_) => {}
            Said::Fetching => "fetching crates".clone_into(&mut self.now),
            Said::Waiting => {
                self.waits = true;
                "waiting for another cargo to end".clone_into(&mut self.now);
                return;
            }
            Said::Idle | Said::Blank | Said::Other => return,
        }
        self.busy = true;
    }

    fn short(&self) -> String {
        match (self.over, self.steps) {
            (true, _) => format!("{} is built", self.name),
            (false, Some((done, all))) => format!("{} {done} of {all}", self.name),
            (false, None) => format!("{} {}", self.name, self.now),
        }
    }

    fn long(&self) -> String {
        let Self { name, now, .. } = self;
        match (self.over, self.steps) {
            (true, _) => format!("{name:8} built"),
            (false, Some((done, all))) => format!("{name:8} {done:>3} of {all}  {now}"),
            (false, None) => format!("{name:8} {now}"),
        }
    }
}

/// A text that is not longer than this; what is left out is told by an ellipsis.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    kept + "…"
}

/// Whether a text about a build fits on its line.
#[cfg(test)]
pub(crate) fn fits_behind_a_name(text: &str) -> bool {
    text.len() <= COLUMNS - 12
}

/// Says what went wrong, after what cargo said of it.
pub(crate) fn complain(trouble: &str) {
    let word = paint(io::stderr().is_terminal(), RED, "error:");
    write(&format!("\n{word} {trouble}\n"));
}

/// Passes on what cargo said.
pub(crate) fn pass_on(lines: &[String]) {
    for line in lines {
        write(&format!("{line}\n"));
    }
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if colour && !plain {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn write(text: &str) {
    let mut out = io::stderr().lock();
    // With nobody there to read, the builds go on all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pieces: &[&str]) -> Row {
        let mut row = Row {
            name: "sidecar",
            ..Row::default()
        };
        for piece in pieces {
            row.hear(Said::read(piece));
        }
        row
    }

    #[test]
    fn a_build_that_has_nothing_to_do_is_not_shown() {
        assert!(!row(&["    Finished `release` profile", "warning: old news"]).busy);
        assert!(
            !row(&["    Building [=>] 3/9: "]).busy,
            "cargo looks what is fresh"
        );
        assert!(row(&["   Compiling syn v3.0.10"]).busy);
        let waiting = row(&["    Blocking waiting for file lock on package cache"]);
        assert!(waiting.waits && !waiting.busy);
    }

    #[test]
    fn a_row_says_what_is_compiled_now() {
        assert_eq!(row(&["   Compiling syn v3.0.10"]).long(), "sidecar  syn");
        let bar = "    Building [=>   ] 7/112: ring, syn";
        let bars = ["   Compiling syn v3.0.10", bar, "   Compiling libc v0.2.1"];
        assert_eq!(row(&bars).long(), "sidecar    7 of 112  ring, syn");
        assert_eq!(row(&bars).short(), "sidecar 7 of 112");
        let last = row(&["    Building [=> ] 111/112: pin-sidecar(bin)"]).long();
        assert!(last.ends_with("the longest step"), "{last}");
        assert!(last.len() + 8 <= COLUMNS, "{last}");
    }

    #[test]
    fn a_long_row_is_cut() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
    }
}
