//! Why there is no session, for metrics and in a sentence for the operator.

use std::time::Duration;

use super::{live::End, login::LoginError};
use crate::{
    protocol::RetryAfter,
    telemetry::{ConnectFailure, DisconnectReason},
    transport::{ConnectError, DialError, Endpoint, LinkEnd, Step},
};

/// What the operator reads when the gateway ends one young session after the other.
const PUSHED_OUT: &str = "The gateway keeps ending the session without saying why: another agent may be using this \
     client id. Stop it, or give this one an id of its own.";

/// Why there is no session.
pub(super) enum Trouble {
    /// No link came about.
    Connect(ConnectError),
    /// The gateway said no to the login: a human must act.
    Refused(String),
    /// The link was there, and the login's answer did not come.
    LoginFailed {
        failure: ConnectFailure,
        sentence: String,
    },
    /// There was a session.
    Ended(End),
}

impl Trouble {
    pub(super) fn of_login(error: LoginError, limit: Duration) -> Self {
        let step = Step::Login;
        let failed = |failure, sentence: String| Self::LoginFailed { failure, sentence };
        match error {
            LoginError::Refused(message) => Self::Refused(message),
            LoginError::TimedOut => Self::Connect(DialError::Timeout { step, limit }.into()),
            LoginError::Closed(code) => failed(
                ConnectFailure::Protocol,
                format!("it closed the link with code {code}"),
            ),
            LoginError::Ended(LinkEnd::Reset) => {
                failed(ConnectFailure::Tcp, LinkEnd::Reset.to_string())
            }
            LoginError::Ended(end) => failed(ConnectFailure::Protocol, end.to_string()),
        }
    }

    /// Whether it is none: the session was closed because nothing was left to do.
    pub(super) fn is_shutdown(&self) -> bool {
        matches!(self, Self::Ended(end) if end.reason == DisconnectReason::Shutdown)
    }

    /// How long the gateway wants us to stay away, where it has said so.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Self::Connect(ConnectError::Http { retry_after, .. }) => *retry_after,
            Self::Ended(end) => end.retry_after,
            Self::Connect(_) | Self::Refused(_) | Self::LoginFailed { .. } => None,
        }
    }

    /// The step of connecting that failed; `None` where a session came about.
    pub(super) fn failure(&self) -> Option<ConnectFailure> {
        match self {
            Self::Connect(error) => Some(error.failure()),
            Self::Refused(_) => Some(ConnectFailure::Auth),
            Self::LoginFailed { failure, .. } => Some(*failure),
            Self::Ended(_) => None,
        }
    }

    /// What an operator reads. `pushed_out`: the gateway keeps ending young sessions without a word.
    pub(super) fn sentence(&self, gateway: &Endpoint, pushed_out: bool) -> String {
        match self {
            Self::Connect(error) => format!("The gateway {gateway} cannot be used: {error}."),
            Self::LoginFailed { sentence, .. } => {
                format!("The gateway {gateway} did not answer the login: {sentence}.")
            }
            Self::Refused(message) => format!(
                "The gateway refused the login ({message}). Check PIN_CLIENT_ID, the secret and this machine's clock."
            ),
            Self::Ended(_) if pushed_out => PUSHED_OUT.to_owned(),
            Self::Ended(end) => ended_sentence(end.reason).to_owned(),
        }
    }
}

/// What an operator reads of a session that has ended.
pub(super) fn ended_sentence(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::Closed => "The gateway closed the session; a new one is being opened.",
        DisconnectReason::Reset => {
            "The connection to the gateway broke; a new one is being opened."
        }
        DisconnectReason::Silent => {
            "The gateway was silent for PIN_HEARTBEAT_TIMEOUT, so the link was given up; a new one is being opened."
        }
        DisconnectReason::Stuck => {
            "The gateway took nothing for PIN_HEARTBEAT_TIMEOUT, so the link was given up; a new one is being opened."
        }
        DisconnectReason::Protocol => {
            "The gateway sent a frame that may not be read (larger than PIN_MAX_FRAME_BYTES, or not WebSocket); a new \
             session is being opened."
        }
        DisconnectReason::RetryAfter => {
            "The gateway ended the session and asked to stay away for a while."
        }
        DisconnectReason::Shutdown => "The session was closed for shutdown.",
    }
}
