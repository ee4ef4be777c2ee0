//! Why no link came about, and what to do about it.

use std::time::Duration;

use super::{CloseFrame, LinkEnd};
use crate::{
    protocol::RetryAfter,
    telemetry::ConnectFailure,
    transport::{DialError, Endpoint, Step},
};

/// No link came about.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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
    /// An edge in front of it does not let us through: no login was tried.
    #[error("an edge in front of it (Cloudflare or the like) answered HTTP 403")]
    Edge {
        /// How long it asks to stay away (`Retry-After`).
        retry_after: Option<RetryAfter>,
    },
    /// It closed the connection during the upgrade.
    #[error("it closed the connection before a session was open; it may be restarting")]
    Closed,
    /// It does not speak WebSocket as it should.
    #[error("it does not speak the protocol ({0}); check PIN_SERVER_URL")]
    Protocol(String),
    /// It said no to the login: a human must act.
    #[error("{said}")]
    Refused {
        /// How, in its own words as far as it had any.
        said: String,
        /// How long it asks to stay away (`Retry-After`).
        retry_after: Option<RetryAfter>,
    },
    /// The link ended before the login was answered.
    #[error("{}", cut_off(.0))]
    LoginCutOff(LinkEnd),
}

fn cut_off(end: &LinkEnd) -> String {
    match end {
        LinkEnd::Closed(Some(frame)) => format!("it closed the link with {frame}"),
        LinkEnd::Finished
        | LinkEnd::Closed(None)
        | LinkEnd::Reset
        | LinkEnd::TooLarge
        | LinkEnd::NotUtf8
        | LinkEnd::Protocol => end.to_string(),
    }
}

/// What kind of failure it is that a link ended before the login was answered, though that was not refused.
fn failure_of(end: &LinkEnd) -> ConnectFailure {
    match end {
        // The gateway says that what it was sent is at fault (RFC 6455, section 7.4.1).
        LinkEnd::Closed(Some(CloseFrame {
            code: 1002 | 1003 | 1007 | 1009 | 1010,
            ..
        })) => ConnectFailure::Protocol,
        LinkEnd::Closed(_) | LinkEnd::Finished | LinkEnd::Reset => ConnectFailure::Tcp,
        LinkEnd::TooLarge | LinkEnd::NotUtf8 | LinkEnd::Protocol => ConnectFailure::Protocol,
    }
}

impl OpenError {
    /// The login was not answered within `limit`.
    pub(super) fn login_timed_out(limit: Duration) -> Self {
        let step = Step::Login;
        DialError::Timeout { step, limit }.into()
    }

    /// Whether the other end took the connection and then said nothing, as an address does behind which nobody is.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::Closed | Self::Dial(DialError::Timeout { .. }) => true,
            Self::Dial(_)
            | Self::Http { .. }
            | Self::Edge { .. }
            | Self::Protocol(_)
            | Self::Refused { .. }
            | Self::LoginCutOff(_) => false,
        }
    }

    /// The step that failed, as metrics name it.
    pub fn failure(&self) -> ConnectFailure {
        match self {
            Self::Dial(error) => error.failure(),
            Self::Http { .. } | Self::Edge { .. } => ConnectFailure::Http,
            Self::Closed => ConnectFailure::Tcp,
            Self::Refused { .. } => ConnectFailure::Auth,
            Self::Protocol(_) => ConnectFailure::Protocol,
            Self::LoginCutOff(end) => failure_of(end),
        }
    }

    /// How long the gateway wants us to stay away, where it has said so.
    pub fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Self::Http { retry_after, .. }
            | Self::Edge { retry_after }
            | Self::Refused { retry_after, .. } => *retry_after,
            Self::Dial(_) | Self::Closed | Self::Protocol(_) | Self::LoginCutOff(_) => None,
        }
    }

    /// What an operator reads.
    pub fn sentence(&self, gateway: &Endpoint) -> String {
        match self {
            Self::Dial(_) | Self::Http { .. } | Self::Closed | Self::Protocol(_) => {
                format!("The gateway {gateway} cannot be used: {self}.")
            }
            Self::Edge { .. } => format!(
                "The gateway {gateway} cannot be reached: {self}. It may not let this User-Agent or this address through; set \
                 PIN_USER_AGENT to another one."
            ),
            Self::LoginCutOff(_) => {
                format!("The gateway {gateway} did not answer the login: {self}.")
            }
            Self::Refused { said, .. } => format!(
                "The gateway refused the login ({said}). Check PIN_CLIENT_ID, the secret and this machine's clock."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_before_the_login_is_answered_counts_as_a_broken_protocol_only_where_it_says_so() {
        let closed = |code| {
            let reason = String::new();
            OpenError::LoginCutOff(LinkEnd::Closed(Some(CloseFrame { code, reason }))).failure()
        };
        for code in [1000, 1001, 1005, 1008, 1011, 1012, 1013, 4400] {
            assert_eq!(closed(code), ConnectFailure::Tcp, "{code}");
        }
        for code in [1002, 1003, 1007, 1009, 1010] {
            assert_eq!(closed(code), ConnectFailure::Protocol, "{code}");
        }
        for end in [LinkEnd::Reset, LinkEnd::Finished, LinkEnd::Closed(None)] {
            assert_eq!(OpenError::LoginCutOff(end).failure(), ConnectFailure::Tcp);
        }
    }
}
