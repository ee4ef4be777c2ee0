//! What people may see of requests: those that wait or run, and how the last ones ended.
//!
//! Invariant: ids and times, and nothing of what was said. A request is in one of the two lists, never in both, and [`MAX`]
//! that have ended are kept.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    jobs::{Handle, Jobs},
    record::ANSWERED,
};
use crate::{
    admin::{EndedRequest, RequestsStatus},
    label::Label,
    protocol::{Code, Operation},
};

/// How many that have ended are kept.
const MAX: usize = 50;

/// The requests that are worked on, and the last that were.
#[derive(Default)]
pub struct Requests {
    pub(super) jobs: Jobs,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    last_at: Option<u64>,
    /// Newest first.
    ended: VecDeque<EndedRequest>,
}

impl Requests {
    /// One has come, new or not, at this time in Unix seconds.
    pub(super) fn came(&self, at: u64) {
        self.past().last_at = Some(at);
    }

    /// A job has ended.
    pub(super) fn ended(&self, handle: &Handle, request: EndedRequest) {
        let mut past = self.past();
        handle.end();
        past.remember(request);
    }

    /// One was refused.
    pub(super) fn refused(&self, request: EndedRequest) {
        self.past().remember(request);
    }

    /// All that may be seen.
    pub fn list(&self) -> RequestsStatus {
        let past = self.past();
        RequestsStatus {
            last_at: past.last_at,
            running: self.jobs.list(),
            recent: past.ended.iter().cloned().collect(),
        }
    }

    /// How many of a kind have failed at their server since one was answered, of those that are kept.
    pub fn failed_in_a_row(&self, operation: Operation) -> usize {
        let failures = [Code::Backend, Code::Timeout, Code::Rejected].map(Label::as_str);
        let past = self.past();
        let ended = past.ended.iter();
        ended
            .filter(|request| request.operation == operation.as_str())
            .map(|request| request.outcome)
            .take_while(|outcome| *outcome != ANSWERED)
            .filter(|outcome| failures.contains(outcome))
            .count()
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn remember(&mut self, request: EndedRequest) {
        self.ended.truncate(MAX - 1);
        self.ended.push_front(request);
    }
}
