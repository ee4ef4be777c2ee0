//! What the log says of the session's comings and goings.
//!
//! Invariant: a gateway that is away, refuses or keeps hanging up has a handful of lines an hour; a change of what is
//! wrong is told at once, and so is a session that stays.

use std::time::Duration;

use tracing::info;

use super::{active::End, no_session::NoSession};
use crate::{
    clock::millis,
    outbox::SessionNumber,
    secret::SecretError,
    telemetry::{ConnectFailure, DisconnectReason, LogThrottle, Occurrences, printable, throttled},
};

/// Tells what is new.
pub(super) struct SessionLog {
    troubles: LogThrottle<String>,
    secret: LogThrottle<String>,
}

impl SessionLog {
    pub(super) fn new() -> Self {
        Self {
            troubles: LogThrottle::outage(),
            secret: LogThrottle::outage(),
        }
    }

    /// There is a session. Where the last ones have hardly lived, its coming is told only once it has settled.
    pub(super) fn up(&mut self, session: SessionNumber, node_id: Option<&str>) {
        let session = session.get();
        let told = self.troubles.gone();
        let told = told.or((!self.troubles.is_on()).then(Occurrences::default));
        throttled!(info or debug, told, [session, node_id,] "session up");
    }

    /// The session has lived for as long as a healthy one.
    pub(super) fn settled(&mut self, session: SessionNumber) {
        let session = session.get();
        throttled!(info, self.troubles.gone(), [session,] "session up, and stays up");
    }

    /// No session came about, or one has ended that ought not to.
    pub(super) fn no_session(&mut self, why: &NoSession, sentence: &str, wait: Duration) {
        let wait_ms = millis(wait);
        match why {
            NoSession::NotOpened(error) => self.not_opened(error.failure(), sentence, wait_ms),
            NoSession::Ended(end) => self.down(end, sentence, wait_ms),
        }
    }

    fn not_opened(&mut self, reason: ConnectFailure, sentence: &str, wait_ms: u64) {
        let told = self.troubles.seen(sentence.to_owned());
        throttled!(warn or debug, told, [%reason, wait_ms,] "no session: {sentence}");
    }

    fn down(&mut self, end: &End, sentence: &str, wait_ms: u64) {
        let End { reason, .. } = end;
        let session = end.session.get();
        let lasted_s = end.lasted.as_secs();
        let (code, said) = end
            .close
            .as_ref()
            .map(|close| (close.code, printable(&close.reason)))
            .unzip();
        let told = self.troubles.seen(sentence.to_owned());
        throttled!(warn or debug, told, [%reason, session, lasted_s, code, said, wait_ms,] "session down: {sentence}");
    }

    /// A session has ended as it was to.
    pub(super) fn closed(end: &End) {
        let reason = DisconnectReason::Shutdown;
        let lasted_s = end.lasted.as_secs();
        let session = end.session.get();
        info!(%reason, session, lasted_s, "session closed");
    }

    /// The secret was read for a login, or could not be.
    pub(super) fn secret(&mut self, trouble: Option<&SecretError>) {
        match trouble {
            Some(error) => {
                let told = self.secret.seen(error.to_string());
                throttled!(warn, told, [%error,] "the secret cannot be read: the last good one is used");
            }
            None => throttled!(info, self.secret.gone(), [] "the secret can be read again"),
        }
    }
}
