//! The jobs that have not answered yet, by request id, and the state of each.
//!
//! Invariant: an id is in here from its admission until its job has answered or has been told to stop without an answer.
//! Of several reasons to stop the first counts, save that whoever is told to say nothing says nothing, whatever came before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::RunningRequest,
    clock::millis,
    label::Label,
    outbox::SessionNumber,
    protocol::{Operation, RequestId},
};

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits for a slot. Left when it has one (`Running`), or is stopped.
    Waiting,
    /// It has a slot. Left when it has answered, which ends the job, or is stopped.
    Running,
    /// It was stopped from outside; the job ends at once.
    Stopped(Stop),
}

/// Why a job is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The gateway no longer wants it: nothing more is said of it.
    Cancelled,
    /// An interview of an earlier session, instead of which the gateway has asked for another: likewise.
    Superseded,
    /// The session has been down for longer than `PIN_ORPHAN_GRACE`.
    Orphaned,
    /// The sidecar drains: the answer says so.
    Draining,
}

impl Stop {
    /// Whether a job that is stopped for this reason before it has a result says nothing. Half an interview would be judged
    /// as a failed one.
    pub(super) fn silences(self, operation: Operation) -> bool {
        match self {
            Self::Cancelled | Self::Superseded => true,
            Self::Draining => operation == Operation::Interview,
            Self::Orphaned => false,
        }
    }

    /// Whether nobody wants its result any more, should it have one.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Superseded)
    }

    /// As the log has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Orphaned => "orphaned",
            Self::Draining => "draining",
        }
    }
}

/// What is known of a job when it is entered.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) operation: Operation,
    /// The model, by its full name, as far as that is known.
    pub(super) model: Option<Arc<str>>,
    /// The node, by its alias, likewise.
    pub(super) node: Option<Arc<str>>,
    /// When its request came.
    pub(super) received: Instant,
    /// The same in Unix seconds.
    pub(super) received_at: u64,
}

/// What outsiders hold of a job.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) entry: Entry,
    /// When it had a slot, and the model that it runs.
    started: OnceLock<(Instant, Arc<str>)>,
    /// Filled in by its [`Times`](super::record::Times).
    pub(super) first_token: Arc<OnceLock<Instant>>,
    has_ended: AtomicBool,
    state: Mutex<State>,
    pub(super) token: CancellationToken,
    /// The last session that its request came by: chunks go over that one and no other.
    session: Mutex<SessionNumber>,
    attached: Notify,
}

impl Handle {
    fn new(session: SessionNumber, entry: Entry) -> Self {
        Self {
            entry,
            started: OnceLock::new(),
            first_token: Arc::default(),
            has_ended: AtomicBool::new(false),
            state: Mutex::new(State::Waiting),
            token: CancellationToken::new(),
            session: Mutex::new(session),
            attached: Notify::new(),
        }
    }

    /// Why it was stopped, if it was.
    pub(super) fn stopped(&self) -> Option<Stop> {
        match *lock(&self.state) {
            State::Waiting | State::Running => None,
            State::Stopped(stop) => Some(stop),
        }
    }

    /// It has a slot, and runs this model.
    pub(super) fn runs_now(&self, model: &Arc<str>) {
        self.started
            .get_or_init(|| (Instant::now(), Arc::clone(model)));
        let mut state = lock(&self.state);
        if *state == State::Waiting {
            *state = State::Running;
        }
    }

    fn waits(&self) -> bool {
        *lock(&self.state) == State::Waiting
    }

    /// It has ended, though it may not have left its place yet.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    fn shown(&self, id: &RequestId) -> RunningRequest {
        let entry = &self.entry;
        let started = self.started.get();
        let after = |then: Instant| millis(then - entry.received);
        let model = started.map(|(_, model)| model).or(entry.model.as_ref());
        RunningRequest {
            id: id.as_str().to_owned(),
            model: model.map(ToString::to_string),
            operation: entry.operation.as_str(),
            received: entry.received_at,
            age_ms: millis(entry.received.elapsed()),
            wait_ms: started.map(|(then, _)| after(*then)),
            first_token_ms: self.first_token.get().copied().map(after),
        }
    }

    /// The session that chunks may go over.
    pub(super) fn session(&self) -> SessionNumber {
        *lock(&self.session)
    }

    /// Waits until its request has come again by another session, perhaps in vain.
    pub(super) async fn attached(&self) {
        self.attached.notified().await;
    }

    fn attach(&self, session: SessionNumber) {
        let earlier = std::mem::replace(&mut *lock(&self.session), session);
        if earlier != session {
            self.attached.notify_one();
        }
    }

    fn stop(&self, reason: Stop) {
        {
            let mut state = lock(&self.state);
            let is_stopped = matches!(*state, State::Stopped(_));
            if !is_stopped || reason.is_final() {
                *state = State::Stopped(reason);
            }
        }
        self.token.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
pub(super) struct Jobs(Mutex<BTreeMap<RequestId, Arc<Handle>>>);

impl Jobs {
    /// Enters a new job that came by this session. There is none of this id; see [`Jobs::attach`].
    pub(super) fn enter(
        &self,
        request_id: &RequestId,
        session: SessionNumber,
        entry: Entry,
    ) -> Arc<Handle> {
        let handle = Arc::new(Handle::new(session, entry));
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
        self.stop_where(reason, Handle::waits);
    }

    /// Stops those that nobody waits for once their session is gone. An interview has a time of its own.
    pub(super) fn stop_orphans(&self) {
        self.stop_where(Stop::Orphaned, |job| {
            job.entry.operation != Operation::Interview
        });
    }

    /// Stops all.
    pub(super) fn stop_all(&self, reason: Stop) {
        self.stop_where(reason, |_| true);
    }

    /// The gateway has asked for another interview of this node by this session: stops and forgets those that only an earlier
    /// one has asked for. Tells whether there was one.
    pub(super) fn supersede_interviews(&self, node: &str, session: SessionNumber) -> bool {
        let mut jobs = self.lock();
        let before = jobs.len();
        jobs.retain(|_, job| {
            let is_interview = job.entry.operation == Operation::Interview;
            let is_its = is_interview && job.entry.node.as_deref() == Some(node);
            let stays = !is_its || job.session() >= session;
            if !stays {
                job.stop(Stop::Superseded);
            }
            stays
        });
        jobs.len() < before
    }

    /// Those that wait or run, oldest first.
    pub(super) fn list(&self) -> Vec<RunningRequest> {
        let jobs = self.lock().clone();
        let mut jobs: Vec<_> = jobs
            .iter()
            .filter(|(_, job)| !job.has_ended.load(Ordering::Relaxed))
            .collect();
        jobs.sort_by_key(|(_, job)| job.entry.received);
        jobs.into_iter().map(|(id, job)| job.shown(id)).collect()
    }

    fn stop_where(&self, reason: Stop, matches: impl Fn(&Handle) -> bool) {
        for job in self.lock().values().filter(|job| matches(job)) {
            job.stop(reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RequestId, Arc<Handle>>> {
        lock(&self.0)
    }
}
