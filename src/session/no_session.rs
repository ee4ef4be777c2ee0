//! Why there is no session, for metrics and in a sentence for the operator.

use super::active::End;
use crate::{
    link::OpenError,
    protocol::RetryAfter,
    telemetry::{ConnectFailure, DisconnectReason},
    transport::Endpoint,
};

/// What the operator reads when the gateway ends one young session after the other.
const PUSHED_OUT: &str = "The gateway keeps ending the session without saying why: another agent may be using this \
     client id. Stop it, or give this one an id of its own.";

/// Why there is no session.
pub(super) enum NoSession {
    /// None came about.
    NotOpened(OpenError),
    /// There was one.
    Ended(End),
}

impl NoSession {
    /// Whether all is as it should be: the session was closed because nothing was left to do.
    pub(super) fn is_shutdown(&self) -> bool {
        matches!(self, Self::Ended(end) if end.reason == DisconnectReason::Shutdown)
    }

    /// Whether a human must act before a login can succeed.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Self::NotOpened(OpenError::Refused { .. }))
    }

    /// How long the gateway wants us to stay away, where it has said so.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Self::NotOpened(error) => error.retry_after(),
            Self::Ended(end) => end.retry_after,
        }
    }

    /// The step of connecting that failed; `None` where a session came about.
    pub(super) fn failure(&self) -> Option<ConnectFailure> {
        match self {
            Self::NotOpened(error) => Some(error.failure()),
            Self::Ended(_) => None,
        }
    }

    /// What an operator reads. `pushed_out`: the gateway keeps ending young sessions without a word.
    pub(super) fn sentence(&self, gateway: &Endpoint, pushed_out: bool) -> String {
        match self {
            Self::NotOpened(error) => error.sentence(gateway),
            Self::Ended(_) if pushed_out => PUSHED_OUT.to_owned(),
            Self::Ended(end) => ended_sentence(end.reason).to_owned(),
        }
    }
}

/// What an operator reads of a session that has ended.
fn ended_sentence(reason: DisconnectReason) -> &'static str {
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
