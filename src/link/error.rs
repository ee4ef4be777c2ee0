//! Why no link came about, and what to do about it.

use std::time::Duration;

use super::LinkEnd;
use crate::{
    protocol::RetryAfter,
    telemetry::ConnectFailure,
    transport::{DialError, Endpoint, Step},
};

/// The gateway could not be reached, or does not speak as it should.
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
        retry_after: Option<RetryAfter>,
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

/// No link came about.
#[derive(Debug)]
pub enum OpenError {
    /// The gateway could not be reached.
    Connect(ConnectError),
    /// It said no to the login: a human must act.
    Refused(String),
    /// It was reached, and the login's answer did not come.
    Unanswered {
        /// What failed, as metrics name it.
        failure: ConnectFailure,
        /// Why, as the end of a sentence.
        reason: String,
    },
}

impl OpenError {
    /// The login was not answered within `limit`.
    pub(super) fn login_timed_out(limit: Duration) -> Self {
        let step = Step::Login;
        Self::Connect(DialError::Timeout { step, limit }.into())
    }

    /// The link ended before the login was answered.
    pub(super) fn login_cut(end: &LinkEnd) -> Self {
        let (failure, reason) = match end {
            LinkEnd::Reset => (ConnectFailure::Tcp, end.to_string()),
            LinkEnd::Closed(Some(close)) => (
                ConnectFailure::Protocol,
                format!("it closed the link with code {}", close.code),
            ),
            LinkEnd::Finished
            | LinkEnd::Closed(None)
            | LinkEnd::TooLarge
            | LinkEnd::NotUtf8
            | LinkEnd::Protocol => (ConnectFailure::Protocol, end.to_string()),
        };
        Self::Unanswered { failure, reason }
    }

    /// The step that failed, as metrics name it.
    pub fn failure(&self) -> ConnectFailure {
        match self {
            Self::Connect(error) => error.failure(),
            Self::Refused(_) => ConnectFailure::Auth,
            Self::Unanswered { failure, .. } => *failure,
        }
    }

    /// How long the gateway wants us to stay away, where it has said so.
    pub fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Self::Connect(ConnectError::Http { retry_after, .. }) => *retry_after,
            Self::Connect(
                ConnectError::Dial(_) | ConnectError::Closed | ConnectError::Protocol(_),
            )
            | Self::Refused(_)
            | Self::Unanswered { .. } => None,
        }
    }

    /// What an operator reads.
    pub fn sentence(&self, gateway: &Endpoint) -> String {
        match self {
            Self::Connect(error) => format!("The gateway {gateway} cannot be used: {error}."),
            Self::Unanswered { reason, .. } => {
                format!("The gateway {gateway} did not answer the login: {reason}.")
            }
            Self::Refused(message) => format!(
                "The gateway refused the login ({message}). Check PIN_CLIENT_ID, the secret and this machine's clock."
            ),
        }
    }
}
