//! The jobs that have not answered yet, by request id.
//!
//! Invariant: an id is in here from its admission until its job has answered or has been told to stop without an answer;
//! the first reason to stop is the one that counts.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::protocol::RequestId;

/// Why a job is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The gateway no longer wants it: nothing more is said of it.
    Cancelled,
    /// The session it came by has ended, and with it whoever could read the answer.
    SessionLost,
    /// The node is going away: the answer says so.
    Draining,
}

/// What outsiders hold of a job.
#[derive(Debug, Default)]
pub(super) struct Handle {
    stop: OnceLock<Stop>,
    pub(super) token: CancellationToken,
    runs: AtomicBool,
}

impl Handle {
    /// Why it was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<Stop> {
        self.stop.get().copied()
    }

    /// It has left the waiting room.
    pub(super) fn runs_now(&self) {
        self.runs.store(true, Ordering::Relaxed);
    }

    fn stop(&self, reason: Stop) {
        // A second reason comes too late to matter.
        let _ = self.stop.set(reason);
        self.token.cancel();
    }
}

#[derive(Default)]
pub(super) struct Registry(Mutex<HashMap<RequestId, Arc<Handle>>>);

impl Registry {
    /// Enters a new job; `None` if one with this id has not answered yet.
    pub(super) fn enter(&self, request_id: &RequestId) -> Option<Arc<Handle>> {
        let mut jobs = self.lock();
        if jobs.contains_key(request_id) {
            return None;
        }
        let handle = Arc::<Handle>::default();
        jobs.insert(request_id.clone(), Arc::clone(&handle));
        Some(handle)
    }

    pub(super) fn contains(&self, request_id: &RequestId) -> bool {
        self.lock().contains_key(request_id)
    }

    /// A job has ended. Its id may have been taken again since it was cancelled.
    pub(super) fn leave(&self, request_id: &RequestId, handle: &Arc<Handle>) {
        let mut jobs = self.lock();
        if jobs
            .get(request_id)
            .is_some_and(|current| Arc::ptr_eq(current, handle))
        {
            jobs.remove(request_id);
        }
    }

    /// Stops one job and forgets its id; tells whether there was one.
    pub(super) fn cancel(&self, request_id: &RequestId) -> bool {
        let job = self.lock().remove(request_id);
        if let Some(job) = &job {
            job.stop(Stop::Cancelled);
        }
        job.is_some()
    }

    /// Stops those that wait for a slot.
    pub(super) fn stop_waiting(&self, reason: Stop) {
        self.stop_where(reason, |job| !job.runs.load(Ordering::Relaxed));
    }

    /// Stops all.
    pub(super) fn stop_all(&self, reason: Stop) {
        self.stop_where(reason, |_| true);
    }

    fn stop_where(&self, reason: Stop, matches: impl Fn(&Handle) -> bool) {
        for job in self.lock().values().filter(|job| matches(job)) {
            job.stop(reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Arc<Handle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
