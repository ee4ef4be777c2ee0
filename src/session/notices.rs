//! What the gateway says that an operator may want to read.
//!
//! Invariant: a gateway that says the same thing over and over, or a new thing each time, cannot fill the log.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use tracing::debug;

use crate::telemetry::{LogThrottle, Occurrences, printable};

/// Types of frames that are remembered as told; beyond these, unknown types are ignored in silence.
const MAX_UNKNOWN_TYPES: usize = 64;

/// What it is about. Each is told and summed up for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Error,
    Wallet,
    InterviewEnd,
    Alias,
}

/// What has been told already. It outlives sessions, since a gateway says most of it at each login.
#[derive(Default)]
pub(super) struct Notices {
    topics: Mutex<HashMap<Topic, LogThrottle<String>>>,
    unknown_types: Mutex<HashSet<String>>,
}

impl Notices {
    /// The gateway has said something. `None`: not worth a line.
    pub(super) fn heard(&self, topic: Topic, text: &str) -> Option<Occurrences> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let repeats = topics.entry(topic).or_insert_with(LogThrottle::flood);
        repeats.seen(text.to_owned())
    }

    /// It has sent a frame of a type that nobody here has heard of, which is told once per type.
    pub(super) fn unknown_type(&self, kind: &str) {
        let mut told = self
            .unknown_types
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_UNKNOWN_TYPES && told.insert(printable(kind)) {
            debug!(
                frame = printable(kind),
                "ignored a frame of a type that this version does not know"
            );
        }
    }
}
