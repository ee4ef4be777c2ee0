//! The last things that went wrong, for people who look.
//!
//! Invariant: reasons from closed sets and times, no texts; and never more than a few.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer};

use super::reasons::{ConnectFailure, DisconnectReason};
use crate::{label::Label, protocol::Code};

/// Something that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What it was.
    #[serde(flatten)]
    pub what: What,
    /// When, in Unix seconds.
    pub at: u64,
}

/// What went wrong: `{"what": "request", "reason": "timeout"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", content = "reason", rename_all = "snake_case")]
pub enum What {
    /// A request was refused or failed.
    Request(#[serde(serialize_with = "one_word")] Code),
    /// An attempt to connect failed.
    Connect(#[serde(serialize_with = "one_word")] ConnectFailure),
    /// A session ended.
    Disconnect(#[serde(serialize_with = "one_word")] DisconnectReason),
}

/// The last things that went wrong.
#[derive(Debug, Default)]
pub struct RecentTroubles(Mutex<VecDeque<Trouble>>);

impl RecentTroubles {
    /// How many are remembered: enough to see a pattern.
    pub const MAX: usize = 20;

    /// Remembers one, and forgets the oldest where there are too many.
    pub fn push(&self, what: What, at: u64) {
        let mut troubles = self.lock();
        troubles.truncate(Self::MAX - 1);
        troubles.push_front(Trouble { what, at });
    }

    /// Those that are remembered, newest first.
    pub fn list(&self) -> Vec<Trouble> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Trouble>> {
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
        let troubles = RecentTroubles::default();
        for at in 0..100 {
            troubles.push(What::Request(Code::QueueTimeout), at);
        }
        troubles.push(What::Disconnect(DisconnectReason::Silent), 100);
        let list = troubles.list();
        assert_eq!(list.len(), RecentTroubles::MAX);
        assert_eq!(
            serde_json::to_string(&list[..2]).unwrap(),
            r#"[{"what":"disconnect","reason":"silent","at":100},{"what":"request","reason":"queue_timeout","at":99}]"#
        );
    }
}
