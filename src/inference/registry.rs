//! The jobs that have not answered yet, by request id.
//!
//! Invariant: an id is in here from its admission until its job has answered or has been told to stop without an answer.
//! Of several reasons to stop the first counts, save that whoever is cancelled says nothing, whatever came before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{outbox::SessionNumber, protocol::RequestId};

/// Why a job is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The gateway no longer wants it: nothing more is said of it.
    Cancelled,
    /// The session has been down for longer than `PIN_ORPHAN_GRACE`.
    Orphaned,
    /// The node is going away: the answer says so.
    Draining,
}

/// What outsiders hold of a job.
#[derive(Debug)]
pub(super) struct Handle {
    stop: Mutex<Option<Stop>>,
    pub(super) token: CancellationToken,
    runs: AtomicBool,
    /// The last session that its request came by: chunks go over that one and no other.
    session: Mutex<SessionNumber>,
    attached: Notify,
}

impl Handle {
    fn new(session: SessionNumber) -> Self {
        Self {
            stop: Mutex::default(),
            token: CancellationToken::new(),
            runs: AtomicBool::new(false),
            session: Mutex::new(session),
            attached: Notify::new(),
        }
    }

    /// Why it was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<Stop> {
        *self.lock_stop()
    }

    /// It has left the waiting room.
    pub(super) fn runs_now(&self) {
        self.runs.store(true, Ordering::Relaxed);
    }

    /// The session that chunks may go over.
    pub(super) fn session(&self) -> SessionNumber {
        *self.lock_session()
    }

    /// Waits until its request has come again by another session, perhaps in vain.
    pub(super) async fn attached(&self) {
        self.attached.notified().await;
    }

    fn attach(&self, session: SessionNumber) {
        let earlier = std::mem::replace(&mut *self.lock_session(), session);
        if earlier != session {
            self.attached.notify_one();
        }
    }

    fn lock_session(&self) -> MutexGuard<'_, SessionNumber> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, reason: Stop) {
        {
            let mut stop = self.lock_stop();
            if stop.is_none() || reason == Stop::Cancelled {
                *stop = Some(reason);
            }
        }
        self.token.cancel();
    }

    fn lock_stop(&self) -> MutexGuard<'_, Option<Stop>> {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct Registry(Mutex<BTreeMap<RequestId, Arc<Handle>>>);

impl Registry {
    /// Enters a new job that came by this session. There is none of this id; see [`Registry::attach`].
    pub(super) fn enter(&self, request_id: &RequestId, session: SessionNumber) -> Arc<Handle> {
        let handle = Arc::new(Handle::new(session));
        self.lock().insert(request_id.clone(), Arc::clone(&handle));
        handle
    }

    /// A request has come: if it is being worked on, that work is for this session from now on. Tells whether it is.
    pub(super) fn attach(&self, request_id: &RequestId, session: SessionNumber) -> bool {
        let jobs = self.lock();
        let job = jobs.get(request_id);
        if let Some(job) = job {
            job.attach(session);
        }
        job.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RequestId, Arc<Handle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
