//! The last things that went wrong, for people who look.
//!
//! Invariant: reasons from closed sets and times, no texts; and never more than a few.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer};

use super::reasons::{ConnectFailure, DisconnectReason, ServerOutage};
use crate::{label::Label, protocol::Code};

/// Something that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecentError {
    /// What it was.
    #[serde(flatten)]
    pub what: ErrorSource,
    /// When, in Unix seconds.
    pub at: u64,
}

/// What went wrong: `{"what": "request", "reason": "timeout"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", content = "reason", rename_all = "snake_case")]
pub enum ErrorSource {
    /// A request was refused or failed.
    Request(#[serde(serialize_with = "one_word")] Code),
    /// An attempt to connect failed.
    Connect(#[serde(serialize_with = "one_word")] ConnectFailure),
    /// A session ended.
    Disconnect(#[serde(serialize_with = "one_word")] DisconnectReason),
    /// An outage of the model server began.
    ModelServer(#[serde(serialize_with = "one_word")] ServerOutage),
    /// An outage of the speech server began.
    SpeechServer(#[serde(serialize_with = "one_word")] ServerOutage),
}

/// The last things that went wrong.
#[derive(Debug, Default)]
pub struct RecentErrors(Mutex<VecDeque<RecentError>>);

impl RecentErrors {
    /// How many are remembered: enough to see a pattern.
    pub const MAX: usize = 20;

    /// Remembers one, and forgets the oldest where there are too many.
    pub fn push(&self, what: ErrorSource, at: u64) {
        let mut troubles = self.lock();
        troubles.truncate(Self::MAX - 1);
        troubles.push_front(RecentError { what, at });
    }

    /// Those that are remembered, newest first.
    pub fn list(&self) -> Vec<RecentError> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecentError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_word<S: Serializer>(label: &impl Label, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(label.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_errors_are_the_newest_and_few() {
        let troubles = RecentErrors::default();
        for at in 0..100 {
            troubles.push(ErrorSource::Request(Code::QueueTimeout), at);
        }
        troubles.push(ErrorSource::Disconnect(DisconnectReason::Silent), 100);
        let list = troubles.list();
        assert_eq!(list.len(), RecentErrors::MAX);
        assert_eq!(
            serde_json::to_string(&list[..2]).unwrap(),
            r#"[{"what":"disconnect","reason":"silent","at":100},{"what":"request","reason":"queue_timeout","at":99}]"#
        );
    }
}
