//! Signals, as orchestrators, terminals and people send them, and what each asks of the process.
//!
//! SIGTERM, SIGINT and SIGQUIT end it, a second one at once. SIGHUP is the end of a terminal where standard input is one,
//! and ends it as well, but hurries nothing: the kernel and the shell may both send it. Elsewhere it asks to read files
//! again. SIGUSR1, SIGUSR2 and SIGALRM ask for nothing, and must not kill. What was inherited as ignored (`nohup`) stays so.
//!
//! Invariant: no signal is lost between [`Early`], which is there before anything is read, and [`Signals`].

use std::{
    fs,
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::StreamExt;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// Signals that kill a process by default and mean nothing to this one.
const MEANINGLESS: [i32; 3] = [SIGUSR1, SIGUSR2, SIGALRM];

/// What a signal asks of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// To drain and end; at once, if it was asked before.
    End,
    /// To drain and end.
    HangUp,
    /// To read files again.
    ReadAgain,
}

/// The signals of a process that has not read its settings yet. Process 1 of a container has no default handlers: one that
/// comes that early would be lost.
pub struct Early {
    is_to_end: Arc<AtomicBool>,
    handled: Vec<i32>,
    hangs_up: bool,
}

impl Early {
    /// Takes the signals from now on.
    ///
    /// # Errors
    /// The system does not allow a handler.
    pub fn take() -> io::Result<Self> {
        let ignored = ignored_signals();
        let handled = [SIGTERM, SIGINT, SIGQUIT, SIGHUP].into_iter();
        let handled: Vec<_> = handled
            .filter(|signal| !stays_ignored(*signal, ignored))
            .collect();
        // Once the terminal has gone, nobody could tell that there was one.
        let hangs_up = io::stdin().is_terminal();
        let is_to_end = Arc::<AtomicBool>::default();
        for &signal in &handled {
            let flag = match signal {
                SIGHUP if !hangs_up => Arc::default(),
                _ => Arc::clone(&is_to_end),
            };
            signal_hook::flag::register(signal, flag)?;
        }
        for signal in MEANINGLESS {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        Ok(Self {
            is_to_end,
            handled,
            hangs_up,
        })
    }

    /// The signals from now on, for a runtime to wait for.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn into_signals(self) -> io::Result<Signals> {
        let before = self.is_to_end.load(Ordering::Relaxed);
        let stream = signal_hook_tokio::Signals::new(&self.handled)?;
        let came_before = self.is_to_end.load(Ordering::Relaxed);
        Ok(Signals {
            stream,
            hangs_up: self.hangs_up,
            came_before,
            // One that came just then may be among those that follow, too, and is not a second one.
            may_come_again: came_before && !before,
        })
    }
}

/// The signals of a process that runs.
pub struct Signals {
    stream: signal_hook_tokio::Signals,
    hangs_up: bool,
    came_before: bool,
    may_come_again: bool,
}

impl Signals {
    /// Whether the process was told to end before it could wait for that.
    pub fn came_before(&self) -> bool {
        self.came_before
    }

    /// Waits until the process is to drain and end. `read_again` is called whenever files are to be read again until then.
    pub async fn end(&mut self, read_again: impl Fn()) {
        if self.came_before {
            return;
        }
        loop {
            match self.next().await {
                Asks::End | Asks::HangUp => return,
                Asks::ReadAgain => read_again(),
            }
        }
    }

    /// Waits, once it is to end, until it is to end at once.
    pub async fn end_at_once(&mut self) {
        let signals = if self.may_come_again { 2 } else { 1 };
        for _ in 0..signals {
            while self.next().await != Asks::End {}
        }
    }

    async fn next(&mut self) -> Asks {
        match self.stream.next().await {
            Some(SIGHUP) if self.hangs_up => Asks::HangUp,
            Some(SIGHUP) => Asks::ReadAgain,
            Some(_) => Asks::End,
            // Nobody closes the stream.
            None => std::future::pending().await,
        }
    }
}

/// What a shell or `nohup` protects a process from stays so. SIGTERM and SIGINT are how one is stopped that a script has
/// put into the background.
fn stays_ignored(signal: i32, ignored: u64) -> bool {
    matches!(signal, SIGHUP | SIGQUIT) && ignored >> (signal - 1) & 1 == 1
}

/// The mask of the signals that this process ignores; none, where the system does not tell.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
