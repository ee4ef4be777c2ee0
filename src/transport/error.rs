//! Why somebody could not be reached. Each error says which step failed and, in its text, what to do about it.

use std::{fmt, io, time::Duration};

use super::NameError;
use crate::telemetry::ConnectFailure;

/// A step of connecting, each with a time limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening the connection.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// The WebSocket upgrade.
    Upgrade,
    /// The login.
    Login,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "the TCP connection",
            Self::Tls => "the TLS handshake",
            Self::Upgrade => "the WebSocket upgrade",
            Self::Login => "the answer to the login",
        })
    }
}

/// No connection could be opened. The texts do not name the other end: whoever shows one knows whether it may.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or none is known.
    #[error(transparent)]
    Dns(#[from] NameError),
    /// Nothing accepts connections there.
    #[error("nothing listens there (connection refused)")]
    Refused,
    /// The connection failed otherwise.
    #[error("it cannot be reached ({0}); a firewall or NetworkPolicy may be in the way")]
    Tcp(io::ErrorKind),
    /// The TLS handshake failed.
    #[error(
        "TLS failed: {0}; if its certificate comes from a private authority, name that in PIN_TLS_CA_FILE"
    )]
    Tls(String),
    /// A step took too long.
    #[error("{step} took longer than {}; a firewall or NetworkPolicy may be in the way", humantime::format_duration(*limit))]
    Timeout {
        /// Which one.
        step: Step,
        /// How long it was given.
        limit: Duration,
    },
}

impl DialError {
    /// The step that failed, as metrics name it.
    pub fn failure(&self) -> ConnectFailure {
        match self {
            Self::Dns(_) => ConnectFailure::Dns,
            Self::Refused | Self::Tcp(_) => ConnectFailure::Tcp,
            Self::Tls(_) => ConnectFailure::Tls,
            Self::Timeout { .. } => ConnectFailure::Timeout,
        }
    }
}

/// No link to the gateway could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The gateway could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It answered the upgrade with something other than 101.
    #[error("it answered HTTP {status} instead of opening a session; check PIN_SERVER_URL")]
    Http {
        /// The status.
        status: u16,
        /// How long it asks to stay away (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// It closed the connection during the upgrade.
    #[error("it closed the connection before a session was open; it may be restarting")]
    Closed,
    /// It does not speak WebSocket as it should.
    #[error("it does not speak the protocol ({0}); check PIN_SERVER_URL")]
    Protocol(String),
}

impl ConnectError {
    /// The step that failed, as metrics name it.
    pub fn failure(&self) -> ConnectFailure {
        match self {
            Self::Dial(error) => error.failure(),
            Self::Http { .. } => ConnectFailure::Http,
            Self::Closed => ConnectFailure::Tcp,
            Self::Protocol(_) => ConnectFailure::Protocol,
        }
    }
}
