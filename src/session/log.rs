//! What the log says of the session's comings and goings.
//!
//! Invariant: a gateway that is away, refuses or keeps hanging up has a handful of lines an hour; a change of what is
//! wrong is told at once, and so is a session that stays.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::{active::End, no_session::NoSession};
use crate::{
    outbox::SessionNumber,
    secret::SecretError,
    telemetry::{ConnectFailure, DisconnectReason, Repeats, Told, printable},
};

/// Tells what is new.
pub(super) struct SessionLog {
    troubles: Repeats<String>,
    secret: Repeats<String>,
}

impl SessionLog {
    pub(super) fn new() -> Self {
        Self {
            troubles: Repeats::outage(),
            secret: Repeats::outage(),
        }
    }

    /// There is a session. Where the last ones have hardly lived, its coming is told only once it has settled.
    pub(super) fn up(&mut self, session: SessionNumber, node_id: Option<&str>) {
        let session = session.get();
        let told = self.troubles.gone();
        if told.is_none() && self.troubles.is_on() {
            return debug!(session, node_id, "session up");
        }
        let Told { attempts, since_s } = told.unwrap_or_default();
        info!(session, node_id, attempts, since_s, "session up");
    }

    /// The session has lived for as long as a healthy one.
    pub(super) fn settled(&mut self, session: SessionNumber) {
        if let Some(Told { attempts, since_s }) = self.troubles.gone() {
            let session = session.get();
            info!(session, attempts, since_s, "session up, and stays up");
        }
    }

    /// No session came about, or one has ended that ought not to.
    pub(super) fn no_session(&mut self, why: &NoSession, sentence: &str, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match why {
            NoSession::NotOpened(error) => self.not_opened(error.failure(), sentence, wait_ms),
            NoSession::Ended(end) => self.down(end, sentence, wait_ms),
        }
    }

    fn not_opened(&mut self, reason: ConnectFailure, sentence: &str, wait_ms: u64) {
        match self.troubles.seen(sentence.to_owned()) {
            Some(Told { attempts, since_s }) => {
                warn!(%reason, wait_ms, attempts, since_s, "no session: {sentence}");
            }
            None => debug!(%reason, wait_ms, "no session: {sentence}"),
        }
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
        let kind = format!("{sentence} {}", said.as_deref().unwrap_or_default());
        match self.troubles.seen(kind) {
            Some(Told { attempts, since_s }) => warn!(
                %reason, session, lasted_s, code, said, wait_ms, attempts, since_s, "session down: {sentence}"
            ),
            None => {
                debug!(%reason, session, lasted_s, code, said, wait_ms, "session down: {sentence}");
            }
        }
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
                if let Some(Told { attempts, since_s }) = self.secret.seen(error.to_string()) {
                    warn!(%error, attempts, since_s, "the secret cannot be read: the last good one is used");
                }
            }
            None => {
                if let Some(Told { attempts, since_s }) = self.secret.gone() {
                    info!(attempts, since_s, "the secret can be read again");
                }
            }
        }
    }
}
