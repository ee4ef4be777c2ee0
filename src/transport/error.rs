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

impl Step {
    /// What may be wrong where nothing comes of it.
    fn help(self) -> &'static str {
        match self {
            // The peer has taken the connection. Many servers that expect HTTP wait for more of it.
            Self::Tls => {
                "check host and port, and whether TLS is spoken there; a firewall may be in the way, too"
            }
            Self::Tcp | Self::Upgrade | Self::Login => {
                "a firewall or NetworkPolicy may be in the way"
            }
        }
    }
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
    /// The TLS handshake failed; the sentence has the cause, and what helps.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// A step took too long.
    #[error("{step} took longer than {}; {}", humantime::format_duration(*limit), step.help())]
    Timeout {
        /// Which one.
        step: Step,
        /// How long it was given.
        limit: Duration,
    },
    /// The proxy that should lead there does not.
    #[error("the proxy {proxy} (HTTPS_PROXY) {trouble}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// Why.
        trouble: ProxyError,
    },
}

/// A proxy did not open a tunnel. The texts go on where its name ends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be reached itself.
    #[error("cannot be used: {0}")]
    Unreachable(Box<DialError>),
    /// It wants to know who asks, and was not told.
    #[error(
        "wants a user and password (HTTP {0}); write them as HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
    )]
    CredentialsMissing(u16),
    /// It was told, and does not accept that.
    #[error(
        "refuses the user and password in HTTPS_PROXY (HTTP {0}), or wants another kind of login than Basic"
    )]
    CredentialsRefused(u16),
    /// It does not let anybody through to the gateway.
    #[error(
        "forbids this connection (HTTP 403); have it allow CONNECT to the gateway's host and port"
    )]
    Forbidden,
    /// It tried, and failed.
    #[error(
        "did not get through to the gateway (HTTP {0}); check PIN_SERVER_URL, and whether the proxy can resolve and \
         reach that"
    )]
    NotThrough(u16),
    /// It answered with another status that is not 2xx.
    #[error("answered CONNECT with HTTP {0}; check that HTTPS_PROXY leads to a proxy")]
    Status(u16),
    /// It closed the connection instead of answering.
    #[error("closed the connection without an answer; check scheme and port in HTTPS_PROXY")]
    Closed,
    /// It answered something else than HTTP.
    #[error("does not answer as an HTTP proxy; check scheme and port in HTTPS_PROXY")]
    NotHttp,
    /// It cannot be asked, since no host can have that name. None that was read from a URL is like that.
    #[error("cannot be asked for a host of this name; check PIN_SERVER_URL")]
    NoSuchName,
    /// It did not answer in time.
    #[error("did not answer CONNECT within {}", humantime::format_duration(*.0))]
    Silent(Duration),
}

impl DialError {
    /// The step that failed, as metrics name it.
    pub fn failure(&self) -> ConnectFailure {
        match self {
            Self::Dns(_) => ConnectFailure::Dns,
            Self::Refused | Self::Tcp(_) => ConnectFailure::Tcp,
            Self::Tls(_) => ConnectFailure::Tls,
            Self::Timeout { .. } => ConnectFailure::Timeout,
            Self::Proxy { .. } => ConnectFailure::Proxy,
        }
    }
}
