//! One cargo process that builds one binary: started, listened to, ended. What it says goes to one channel for all
//! builds, so that whoever waits sees them side by side.
//!
//! It stays in the terminal's process group, so that Ctrl-C ends it with its compilers; where only xtask is killed, cargo
//! ends as soon as it has something to say, since nobody listens.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::Sender,
    thread,
};

use crate::cargo_says;

/// So wide that cargo never shortens the names of the crates in its bar. They are shortened where they are shown.
const BAR_WIDTH: &str = "400";

/// All that the other build leaves of the processor, and no more: it takes 118 s so, and 150 s where both are equals.
const GIVING_WAY: &str = "19";

/// What is built, in which words, and how.
#[derive(Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Behind `cargo build`.
    pub(crate) arguments: &'static [&'static str],
    /// The other one is waited for: this one takes what is left of the processor.
    pub(crate) gives_way: bool,
}

/// News of a build.
pub(crate) enum News {
    /// A piece of cargo's stderr.
    Said(String),
    /// It is over, with the binary if all went well.
    Over(Option<PathBuf>),
}

/// A cargo process that runs.
pub(crate) struct Build {
    pid: u32,
}

impl Build {
    /// Starts it. News come with `index`; the last is [`News::Over`].
    ///
    /// # Errors
    /// Cargo cannot be run.
    pub(crate) fn start(job: &Job, index: usize, news: &Sender<(usize, News)>) -> io::Result<Self> {
        let mut child = spawn(job)?;
        let pid = child.id();
        let stderr = child.stderr.take();
        let stdout = child.stdout.take();
        let said = news.clone();
        let heard = thread::spawn(move || {
            each_piece(stderr, |piece| {
                // Fails only when nobody waits any more.
                let _ = said.send((index, News::Said(piece)));
            });
        });
        let over = news.clone();
        thread::spawn(move || {
            let lines = stdout
                .into_iter()
                .flat_map(|stdout| BufReader::new(stdout).lines());
            let messages = lines.map_while(Result::ok);
            let binary = messages
                .filter_map(|line| cargo_says::executable(&line))
                .last();
            let succeeded = child.wait().is_ok_and(|status| status.success());
            // The thread cannot panic; and what it has said must come first.
            let _ = heard.join();
            // As above.
            let _ = over.send((index, News::Over(binary.filter(|_| succeeded))));
        });
        Ok(Self { pid })
    }

    /// Ends it, and the compilers that it has started, where the system tells which these are.
    pub(crate) fn end(&self) {
        let mut family = vec![self.pid];
        family.extend(descendants(self.pid, &parents()));
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -TERM \"$@\"", "sh"]);
        kill.args(family.iter().map(u32::to_string));
        // What is over by itself cannot be ended, and that is as well.
        let _ = kill.stderr(Stdio::null()).status();
    }
}

/// As a user's own `cargo build`, and in the same folder; so it heeds all that cargo heeds.
fn spawn(job: &Job) -> io::Result<Child> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let in_nice = || {
        let mut nice = Command::new("nice");
        nice.args(["-n", GIVING_WAY]).arg(&cargo);
        nice
    };
    if job.gives_way {
        match start(in_nice(), job) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            started => return started,
        }
    }
    start(Command::new(&cargo), job)
}

fn start(mut command: Command, job: &Job) -> io::Result<Child> {
    command.arg("build").args(job.arguments);
    command.args(["--message-format", "json-render-diagnostics"]);
    let colours = ["NO_COLOR", "CARGO_TERM_COLOR"];
    if io::stderr().is_terminal() && colours.iter().all(|name| std::env::var_os(name).is_none()) {
        command.args(["--color", "always"]);
    }
    command.env("CARGO_TERM_PROGRESS_WHEN", "always");
    command.env("CARGO_TERM_PROGRESS_WIDTH", BAR_WIDTH);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_about_this_program(name)) {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn()
}

/// What cargo tells a program that it runs about that program. A build that is started with it in its environment has
/// build scripts that look at it (ring's) run again, and then most of the sidecar is built anew, here and at the next
/// plain `cargo build --release`.
fn is_about_this_program(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Pieces end at a line feed or a carriage return.
fn each_piece(source: Option<impl Read>, mut take: impl FnMut(String)) {
    let Some(mut source) = source.map(BufReader::new) else {
        return;
    };
    let mut piece = Vec::new();
    loop {
        let taken = match source.fill_buf() {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                for byte in bytes {
                    if matches!(byte, b'\n' | b'\r') {
                        take(String::from_utf8_lossy(&piece).into_owned());
                        piece.clear();
                    } else {
                        piece.push(*byte);
                    }
                }
                bytes.len()
            }
        };
        source.consume(taken);
    }
    if !piece.is_empty() {
        take(String::from_utf8_lossy(&piece).into_owned());
    }
}

/// Each process with its parent. Empty where there is no `/proc`.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes
        .filter_map(|pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent(&stat)?))
        })
        .collect()
}

/// The parent in `PID (NAME) STATE PARENT …`, where the name may have blanks and brackets.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn descendants(ancestor: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| pid),
        );
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_drawn_over_is_as_many_pieces() {
        let mut pieces = Vec::new();
        each_piece(Some(&b"one\r\xfftwo\n\nrest"[..]), |piece| {
            pieces.push(piece);
        });
        assert_eq!(pieces, ["one", "\u{fffd}two", "", "rest"]);
    }

    #[test]
    fn a_family_has_grandchildren_and_no_strangers() {
        let parents = [(1, 0), (10, 1), (11, 10), (12, 11), (13, 10), (20, 1)];
        assert_eq!(descendants(10, &parents), [11, 13, 12]);
        assert_eq!(descendants(20, &parents), []);
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("7 (a) b (c)) S 5 7 7"), Some(5));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn what_a_build_must_not_see_is_what_cargo_says_of_xtask() {
        for hidden in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(is_about_this_program(OsStr::new(hidden)), "{hidden}");
        }
        for kept in ["CARGO_TARGET_DIR", "CARGO_NET_OFFLINE", "CARGO", "PATH"] {
            assert!(!is_about_this_program(OsStr::new(kept)), "{kept}");
        }
    }
}
