//! What others may see of the session. The supervisor writes it, the admin server reads it on its own thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::telemetry::{ConnectFailure, DisconnectReason};

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Dialling or logging in. Ends with [`Phase::Up`] or [`Phase::Waiting`].
    Connecting,
    /// Logged in. Ends when the link does.
    Up,
    /// Staying away until the time is over, or until the secret's file changes after a refused login.
    Waiting {
        /// When the next attempt begins.
        until: Instant,
        /// Whether `PIN_CONNECTS_PER_MINUTE` allows none before.
        is_paced: bool,
    },
    /// Shut down; there is no way back.
    Ended,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct SessionStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Since when, in Unix seconds.
    pub phase_since: u64,
    /// What keeps it from being up, as a sentence for the operator.
    pub why_down: Option<String>,
    /// The first such sentence since it was last up, or since it was last wanted: those that follow are often of the
    /// attempts to connect again.
    pub why_lost: Option<String>,
    /// What is wrong with the secret, though the last good one still serves.
    pub secret_error: Option<String>,
    /// When it came up, in Unix seconds, while it is.
    pub up_since: Option<u64>,
    /// How often a session was tried.
    pub attempts: u64,
    /// Why the last session ended.
    pub last_disconnect: Option<DisconnectReason>,
    /// Why the last attempt that failed did so.
    pub last_connect_failure: Option<ConnectFailure>,
}

/// Holds the newest snapshot.
pub struct StatusBoard(Mutex<SessionStatus>);

impl Default for StatusBoard {
    fn default() -> Self {
        Self(Mutex::new(SessionStatus {
            phase: Phase::Connecting,
            phase_since: 0,
            why_down: None,
            why_lost: None,
            secret_error: None,
            up_since: None,
            attempts: 0,
            last_disconnect: None,
            last_connect_failure: None,
        }))
    }
}

impl StatusBoard {
    /// The newest snapshot.
    pub fn read(&self) -> SessionStatus {
        self.lock().clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SessionStatus)) {
        change(&mut self.lock());
    }

    /// The secret was read beside a login: with what is wrong with it, if something is.
    pub(crate) fn secret_was_read(&self, trouble: Option<String>) {
        self.update(|status| status.secret_error = trouble);
    }

    fn lock(&self) -> MutexGuard<'_, SessionStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
