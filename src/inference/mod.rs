//! From a request to its answer: checks, admission, the job, and what can cut it short.
//!
//! Invariant: every request whose id could be read gets one answer or one refusal, unless the gateway cancels it. It is
//! never worked on twice at once, and never again after a response.

mod admission;
mod answer_reader;
mod chat;
mod chunks;
mod idle_timeout;
mod interview;
mod job;
mod jobs;
mod record;
mod refusals;
mod requests;
mod speech;
#[cfg(test)]
mod tests;
mod timed_chat;
mod work;

pub use admission::{Admission, Load};
pub use requests::Requests;
pub(crate) use timed_chat::{TimedAnswer, TimedChat};

use std::{convert::Infallible, sync::Arc};

use serde_json::value::RawValue;
use tokio::{sync::watch, task::yield_now, time::Instant};
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::{
    admission::Reservation,
    job::{Job, Place, busy, model_not_found, slots_of},
    jobs::{Entry, Stop},
    refusals::{Refusal, Refusals},
    speech::no_backend,
    work::Work,
};
use crate::{
    admin::EndedRequest,
    clock::sleep_until_any,
    config::{AdmissionSettings, JobSettings},
    label::Label,
    node::{Node, Offered, Slot, Turn},
    outbox::{Repeat, SessionNumber},
    protocol::{Code, Failure, Generation, Operation, RequestId},
    service::Stages,
    shared::Shared,
    telemetry::{ErrorSource, gauge},
};

/// What is known of a request's id.
enum Known {
    /// Nothing, or nothing that counts: it is new work.
    New,
    /// It is worked on or was answered: the answer will come.
    Answers,
    /// It was answered, and the answer is no longer held.
    Forgotten,
}

/// A slot that is no job's. Metrics show when it is taken and when it is free again.
struct Shown<'a> {
    inference: &'a Inference,
    slot: Option<Slot>,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        drop(self.slot.take());
        self.inference.show_load();
    }
}

/// Serves the requests that come down a session. It outlives sessions.
pub struct Inference {
    shared: Shared,
    /// The shape of results.
    generation: Generation,
    settings: JobSettings,
    admission: Arc<Admission>,
    requests: Arc<Requests>,
    refusals: Refusals,
    tasks: TaskTracker,
    stages: Stages,
    /// Since when there has been no session, once there was one.
    down_since: watch::Sender<Option<Instant>>,
}

impl Inference {
    /// Serves within these bounds, and takes work while the sidecar is open.
    pub fn new(
        shared: Shared,
        generation: Generation,
        stages: Stages,
        admission: AdmissionSettings,
        settings: JobSettings,
    ) -> Arc<Self> {
        let sole = shared.nodes.sole().map(|node| Arc::clone(&node.alias));
        let admission = Admission::new(shared.nodes.slots(), admission);
        let capacity = gauge(admission.capacity());
        shared.metrics.capacity_requests.set(capacity);
        Arc::new(Self {
            refusals: Refusals::new(sole),
            shared,
            generation,
            settings,
            admission: Arc::new(admission),
            requests: Arc::default(),
            tasks: TaskTracker::new(),
            stages,
            down_since: watch::Sender::default(),
        })
    }

    /// Takes a request in that came by this session, refuses it, or gives it the answer it has had before. Waits only while
    /// too many refusals wait to be sent.
    pub async fn receive(
        self: &Arc<Self>,
        session: SessionNumber,
        operation: Operation,
        request_id: RequestId,
        payload: Option<Box<RawValue>>,
    ) {
        self.requests.came(self.shared.clock.unix_seconds());
        let known = self.known(&request_id, session);
        if matches!(known, Known::Answers) {
            return self.count_duplicate(&request_id);
        }
        let work = work::read(operation, payload);
        if matches!(known, Known::Forgotten) {
            self.count_duplicate(&request_id);
            let sentence = "this request was answered before, and the answer is no longer held";
            let failure = Failure::new(Code::Duplicate, sentence);
            return self.refuse(&*work, &request_id, None, &failure).await;
        }
        match self.admit(&*work, session).await {
            Ok(place) => {
                let job = Job {
                    work,
                    request_id,
                    place,
                    received: Instant::now(),
                };
                self.start(session, job);
            }
            Err((model, failure)) => {
                let model = model.as_deref();
                self.refuse(&*work, &request_id, model, &failure).await;
            }
        }
    }

    /// Refuses a request that never became one, since it could not be read.
    pub async fn refuse_unreadable(
        &self,
        operation: Operation,
        request_id: &RequestId,
        reason: &str,
    ) {
        self.requests.came(self.shared.clock.unix_seconds());
        let sentence = format!("the frame cannot be read: {reason}");
        let failure = Failure::new(Code::Invalid, sentence);
        let work = work::read(operation, None);
        self.refuse(&*work, request_id, None, &failure).await;
    }

    async fn refuse(
        &self,
        work: &dyn Work,
        request_id: &RequestId,
        model: Option<&str>,
        failure: &Failure,
    ) {
        let operation = work.operation();
        self.refusals.tell(Refusal {
            request_id,
            model,
            operation,
            code: failure.code,
        });
        let requests = &self.shared.metrics.requests_total;
        requests.of(model, operation).inc();
        self.count_failure(operation, failure.code);
        self.requests.refused(EndedRequest {
            id: request_id.as_str().to_owned(),
            model: model.map(ToOwned::to_owned),
            operation: operation.as_str(),
            outcome: failure.code.as_str(),
            received: self.shared.clock.unix_seconds(),
            wait_ms: None,
            first_token_ms: None,
            duration_ms: 0,
            prompt_tokens: None,
            generation_tokens: None,
        });
        let reply = work.failed(request_id.clone(), failure);
        self.shared.outbox.refuse(reply).await;
    }

    /// Sums refusals up in the log, for as long as it is polled.
    pub async fn sum_up_refusals(&self) -> Infallible {
        self.refusals.keep_summing().await
    }

    /// Tells the log what it has not been told: nothing more will come.
    pub fn tell_last_refusals(&self) {
        self.refusals.tell_rest();
    }

    /// The gateway no longer wants a request: its work stops and nothing more is said of it. An interview is cancelled by its
    /// id where nothing else has it.
    pub fn cancel(&self, request_id: &RequestId) {
        if !self.cancel_one(request_id) {
            self.cancel_one(&request_id.clone().of_interview());
        }
    }

    fn cancel_one(&self, request_id: &RequestId) -> bool {
        let is_job = self.requests.jobs.cancel(request_id);
        if is_job {
            self.shared.metrics.cancelled_requests_total.inc();
        }
        self.shared.outbox.cancel(request_id) || is_job
    }

    /// A session is up.
    pub fn session_up(&self) {
        self.down_since.send_replace(None);
    }

    /// The session has ended. Jobs go on for `PIN_ORPHAN_GRACE`: the next one may be up by then.
    pub fn session_lost(&self) {
        self.down_since.send_replace(Some(Instant::now()));
    }

    /// Stops jobs whose session stays away for too long, for as long as it is polled.
    pub async fn watch_orphans(&self) {
        let mut down_since = self.down_since.subscribe();
        loop {
            let grace_over = down_since
                .borrow_and_update()
                .map(|since| since + self.settings.orphan_grace);
            let over = sleep_until_any(grace_over);
            tokio::select! {
                biased;
                // Cannot fail: `self` holds the sender.
                _ = down_since.changed() => continue,
                () = over => self.requests.jobs.stop_orphans(),
            }
            let _ = down_since.changed().await;
        }
    }

    /// Whether there is a job that has not answered.
    pub fn has_work(&self) -> bool {
        !self.requests.jobs.is_empty()
    }

    /// Answers those that wait for a slot that the sidecar drains.
    pub fn refuse_waiting(&self) {
        self.requests.jobs.stop_waiting(Stop::Draining);
    }

    /// Cuts short what still runs; the answers say why.
    pub fn stop(&self) {
        self.requests.jobs.stop_all(Stop::Draining);
    }

    /// Waits until no job is left, which is for good while the sidecar is not open.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Has something done in a slot of a node's that is free and that nobody waits for; `None` if there is none.
    pub async fn in_free_slot<T>(&self, node: &Node, work: impl Future<Output = T>) -> Option<T> {
        let slot = node.slots.take(Turn::Last)?;
        let _shown = Shown {
            inference: self,
            slot: Some(slot),
        };
        self.show_load();
        Some(work.await)
    }

    /// How busy all nodes are.
    pub fn load(&self) -> Load {
        self.admission.load()
    }

    /// What is known of slots and waiting room, for whoever outlives the jobs.
    pub fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.admission)
    }

    /// What people may see of requests, for whoever outlives the jobs.
    pub fn requests(&self) -> Arc<Requests> {
        Arc::clone(&self.requests)
    }

    /// What is known of a request's id. If it is being worked on or has been answered, this session gets the answer too.
    fn known(&self, request_id: &RequestId, session: SessionNumber) -> Known {
        if self.requests.jobs.attach(request_id, session) {
            return Known::Answers;
        }
        match self.shared.outbox.repeat(request_id) {
            Repeat::SentAgain => Known::Answers,
            Repeat::Forgotten => Known::Forgotten,
            Repeat::New => Known::New,
        }
    }

    fn count_duplicate(&self, request_id: &RequestId) {
        debug!(
            request_id = request_id.as_str(),
            "a request came again whose answer is on its way or was given"
        );
        self.shared.metrics.duplicate_requests_total.inc();
    }

    /// The checks of the delivery rules, "Receipt", in their order. An error comes with the model it was about, where
    /// that is one of those offered.
    async fn admit(
        &self,
        work: &dyn Work,
        session: SessionNumber,
    ) -> Result<Place, (Option<Arc<str>>, Failure)> {
        if !self.stages.is_open() {
            let failure = Failure::new(Code::Draining, "this node is shutting down");
            return Err((None, failure));
        }
        let head = work.head().map_err(|failure| (None, failure))?;
        let offering = self.offering(work.operation(), &head);
        if offering.is_empty() {
            self.check_unknown(work.operation(), &head.model)
                .map_err(|failure| (None, failure))?;
        }
        // Before an earlier session's interview ends for it, so that this one has its slot and no chat that waits.
        let mut reservation = self.reserve(work, &offering);
        if work.operation() == Operation::Interview
            && let Some(offered) = offering.first()
            && self
                .requests
                .jobs
                .supersede_interviews(&offered.node.alias, session)
        {
            // The earlier ones' tasks let go of their places, which this one or the next may need.
            yield_now().await;
            reservation = reservation.or_else(|| self.reserve(work, &offering));
        }
        match reservation {
            Some(reservation) => Ok(Place {
                head,
                offering,
                reservation,
            }),
            None => Err(match offering.into_iter().next() {
                Some(offered) => (Some(offered.model.name), busy()),
                // There is no place to wait for a look at the backends either, so that what is known has to do.
                None => (None, model_not_found()),
            }),
        }
    }

    /// Refuses a request for a model that nobody is known to offer, unless a look may show somebody who does. What there is
    /// of speech is known without one, but for whether its server is there.
    fn check_unknown(&self, operation: Operation, model: &str) -> Result<(), Failure> {
        let nodes = &self.shared.nodes;
        let may_be_found = match operation {
            Operation::Speech if !nodes.speak() => return Err(no_backend()),
            Operation::Speech => nodes.may_be_speaking(model),
            Operation::Chat | Operation::Interview => !nodes.are_fresh(),
        };
        if may_be_found {
            Ok(())
        } else {
            Err(model_not_found())
        }
    }

    /// A place on one of these nodes; on any, while it is not known who offers the model. `None`: there is no place. An
    /// interview has none yet while it is not known which of several nodes it is for.
    fn reserve(&self, work: &dyn Work, offering: &[Offered]) -> Option<Option<Reservation>> {
        if !self.shared.outbox.has_room() {
            return None;
        }
        if work.operation() == Operation::Interview {
            let offering = offering.first().map(|offered| &offered.node);
            return match offering.or_else(|| self.shared.nodes.sole()) {
                Some(node) => Admission::enter_interview(node).map(Some),
                None => Some(None),
            };
        }
        let slots = if offering.is_empty() {
            self.shared.nodes.slots()
        } else {
            slots_of(offering)
        };
        self.admission.enter(&slots, work.bytes()).map(Some)
    }

    fn start(self: &Arc<Self>, session: SessionNumber, job: Job) {
        let request_id = job.request_id.clone();
        self.shared.outbox.supersede(&request_id);
        let offered = job.place.offering.first();
        let entry = Entry {
            operation: job.work.operation(),
            model: offered.map(|offered| Arc::clone(&offered.model.name)),
            node: offered.map(|offered| Arc::clone(&offered.node.alias)),
            received: job.received,
            received_at: self.shared.clock.unix_seconds(),
        };
        let handle = self.requests.jobs.enter(&request_id, session, entry);
        let inference = Arc::clone(self);
        self.tasks.spawn(async move {
            inference.run(job, &handle).await;
            inference.requests.jobs.leave(&request_id, &handle);
            inference.show_load();
        });
        self.show_load();
    }

    fn count_failure(&self, operation: Operation, code: Code) {
        self.shared
            .metrics
            .request_failures_total
            .of(operation, code)
            .inc();
        self.shared
            .recent_errors
            .push(ErrorSource::Request(code), self.shared.clock.unix_seconds());
    }

    fn show_load(&self) {
        let load = self.load();
        self.shared.history.busy(load);
        self.shared
            .metrics
            .requests_running
            .set(gauge(load.running));
        self.shared
            .metrics
            .requests_waiting
            .set(gauge(load.waiting));
    }
}
