//! Why there is no session, for metrics and in a sentence for the operator.

use super::active::End;
use crate::{
    link::{CloseFrame, OpenError},
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
            Self::Ended(end) => ended_sentence(end.reason, end.close.as_ref()),
        }
    }
}

/// What an operator reads of a session that has ended, with the gateway's own words where it had any.
fn ended_sentence(reason: DisconnectReason, close: Option<&CloseFrame>) -> String {
    let sentence = match reason {
        DisconnectReason::Closed => "The gateway closed the session{}; a new one is being opened.",
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
            "The gateway ended the session{} and asked to stay away for a while."
        }
        DisconnectReason::Shutdown => "The session was closed for shutdown.",
    };
    let close = close.filter(|close| tells_something(close));
    let said = close.map_or_else(String::new, |close| format!(" with {close}"));
    sentence.replace("{}", &said)
}

/// Whether a Close has more than its code, or a code that is no ordinary end (RFC 6455, section 7.4.1).
fn tells_something(close: &CloseFrame) -> bool {
    !close.reason.is_empty() || !matches!(close.code, 1000 | 1001 | 1005)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: DisconnectReason, code: u16, words: &str) -> String {
        let close = CloseFrame {
            code,
            reason: words.to_owned(),
        };
        ended_sentence(reason, Some(&close))
    }

    #[test]
    fn why_the_gateway_closed_a_session_is_told_in_its_own_words() {
        for (code, words, said) in [
            (
                1008,
                "payment overdue",
                "session with code 1008 (payment overdue); a",
            ),
            (
                4003,
                "account suspended",
                "session with code 4003 (account suspended); a",
            ),
            (
                1000,
                "back at 12:00",
                "session with code 1000 (back at 12:00); a",
            ),
            (4009, "", "session with code 4009; a"),
            (1001, "", "session; a"),
            (1005, "", "session; a"),
        ] {
            let told = told(DisconnectReason::Closed, code, words);
            assert!(told.contains(said), "{told}");
        }
        let away = told(DisconnectReason::RetryAfter, 1012, "back at 12:00");
        assert_eq!(
            away,
            "The gateway ended the session with code 1012 (back at 12:00) and asked to stay away for a while."
        );
    }
}
