//! From a request to its answer: checks, admission, the job, and what can cut it short.
//!
//! Invariant: every request whose id could be read gets one answer or one refusal, unless the gateway cancels it. It is
//! never worked on twice at once, and never again after a response.

mod admission;
mod answering;
mod chunks;
mod job;
mod patience;
mod record;
mod refusals;
mod registry;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Load};

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::{
    admission::Place,
    job::Job,
    refusals::{Refusal, Refusals},
    registry::{Registry, Stop},
};
use crate::{
    backend::{Backend, chat},
    clock::WallClock,
    config::{AdmissionSettings, JobSettings},
    outbox::{Frame, Outbox, Repeat, SessionNumber},
    protocol::{Code, Failure, Generation, RequestId, ToGateway},
    service::Stages,
    telemetry::{Metrics, Operation, RecentTroubles, What},
};

/// What jobs are given.
pub struct Parts {
    /// Who answers.
    pub backend: Arc<Backend>,
    /// Where answers go.
    pub outbox: Arc<Outbox>,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// Where failures are remembered.
    pub troubles: Arc<RecentTroubles>,
    /// What time it is.
    pub clock: Arc<dyn WallClock>,
    /// The shape of results.
    pub generation: Generation,
    /// The name of the node whose requests these are, for the log.
    pub node: Box<str>,
    /// What the node asks for 1,000 tokens, in US dollars.
    pub price_per_thousand_tokens: f64,
}

/// What is known of a request's id.
enum Known {
    /// Nothing, or nothing that counts: it is new work.
    New,
    /// It is worked on or was answered: the answer will come.
    Answers,
    /// It was answered, and the answer is no longer held.
    Forgotten,
}

/// Serves the requests that come down a session. It outlives sessions.
pub struct Inference {
    parts: Parts,
    settings: JobSettings,
    admission: Arc<Admission>,
    jobs: Registry,
    refusals: Refusals,
    tasks: TaskTracker,
    stages: Stages,
    /// Since when there has been no session, once there was one.
    down_since: watch::Sender<Option<Instant>>,
}

impl Inference {
    /// Serves with these parts and bounds, and takes work while the node is open.
    pub fn new(
        parts: Parts,
        stages: Stages,
        admission: AdmissionSettings,
        settings: JobSettings,
    ) -> Arc<Self> {
        parts
            .metrics
            .capacity_requests
            .set(i64::try_from(admission.capacity).unwrap_or(i64::MAX));
        Arc::new(Self {
            refusals: Refusals::new(&parts.node),
            parts,
            settings,
            admission: Arc::new(Admission::new(admission)),
            jobs: Registry::default(),
            tasks: TaskTracker::new(),
            stages,
            down_since: watch::Sender::default(),
        })
    }

    /// Takes a chat in that came by this session, refuses it, or gives it the answer it has had before. Waits only while
    /// too many refusals wait to be sent.
    pub async fn receive(
        self: &Arc<Self>,
        session: SessionNumber,
        request_id: RequestId,
        payload: Option<&RawValue>,
    ) {
        match self.known(&request_id, session) {
            Known::Answers => return self.count_duplicate(&request_id),
            Known::Forgotten => {
                self.count_duplicate(&request_id);
                let sentence = "this request was answered before, and the answer is no longer held";
                let failure = Failure::new(Code::Duplicate, sentence);
                return self.refuse(&request_id, None, &failure).await;
            }
            Known::New => {}
        }
        match self.admit(&request_id, payload.map_or("", RawValue::get)) {
            Ok(job) => self.start(session, request_id, job),
            Err((model, failure)) => {
                self.refuse(&request_id, model.as_deref(), &failure).await;
            }
        }
    }

    /// Refuses a request that never became one, since it could not be read.
    pub async fn refuse_unreadable(&self, request_id: &RequestId, failure: &Failure) {
        self.refuse(request_id, None, failure).await;
    }

    async fn refuse(&self, request_id: &RequestId, model: Option<&str>, failure: &Failure) {
        let frame = ToGateway::InferenceError {
            request_id: request_id.as_str(),
            error: &failure.text(),
        };
        let refusal = Refusal {
            request_id,
            model,
            operation: Operation::Chat,
            code: failure.code,
        };
        self.send_refusal(refusal, &frame).await;
    }

    /// Refuses a request for speech, which no backend here gives.
    pub async fn refuse_speech(&self, request_id: &RequestId) {
        let failure = Failure::new(Code::ModelNotFound, "this node has no speech backend");
        let frame = ToGateway::TtsError {
            request_id: request_id.as_str(),
            error: &failure.text(),
        };
        let refusal = Refusal {
            request_id,
            model: None,
            operation: Operation::Speech,
            code: failure.code,
        };
        self.send_refusal(refusal, &frame).await;
    }

    async fn send_refusal(&self, refusal: Refusal<'_>, frame: &ToGateway<'_>) {
        self.refusals.tell(refusal);
        let requests = &self.parts.metrics.requests_total;
        requests.of(refusal.model, refusal.operation).inc();
        self.count_failure(refusal.operation, refusal.code);
        let outbox = &self.parts.outbox;
        outbox.refuse(Frame::about(refusal.request_id, frame)).await;
    }

    /// Sums refusals up in the log, for as long as it is polled.
    pub async fn sum_up_refusals(&self) -> Infallible {
        self.refusals.keep_summing().await
    }

    /// Tells the log what it has not been told: nothing more will come.
    pub fn tell_last_refusals(&self) {
        self.refusals.tell_rest();
    }

    /// The gateway no longer wants a request: its work stops and nothing more is said of it.
    pub fn cancel(&self, request_id: &RequestId) {
        if self.jobs.cancel(request_id) {
            self.parts.metrics.cancelled_requests_total.inc();
        }
        self.parts.outbox.cancel(request_id);
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
            let over = async {
                match grace_over {
                    Some(over) => sleep_until(over).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Cannot fail: `self` holds the sender.
                _ = down_since.changed() => continue,
                () = over => self.jobs.stop_all(Stop::Orphaned),
            }
            let _ = down_since.changed().await;
        }
    }

    /// Whether there is a job that has not answered.
    pub fn has_work(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Answers those that wait for a slot that the node drains.
    pub fn refuse_waiting(&self) {
        self.jobs.stop_waiting(Stop::Draining);
    }

    /// Cuts short what still runs; the answers say why.
    pub fn stop(&self) {
        self.jobs.stop_all(Stop::Draining);
    }

    /// Waits until no job is left, which is for good while the node is not open.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How busy this node is.
    pub fn load(&self) -> Load {
        self.admission.load()
    }

    /// What is known of slots and waiting room, for whoever outlives the jobs.
    pub fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.admission)
    }

    /// What is known of a request's id. If it is being worked on or has been answered, this session gets the answer too.
    fn known(&self, request_id: &RequestId, session: SessionNumber) -> Known {
        if self.jobs.attach(request_id, session) {
            return Known::Answers;
        }
        match self.parts.outbox.repeat(request_id) {
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
        self.parts.metrics.duplicate_requests_total.inc();
    }

    /// The checks of the delivery rules, "Receipt", in their order. An error comes with the model it was about, where
    /// that is one of those offered.
    fn admit(
        &self,
        request_id: &RequestId,
        payload: &str,
    ) -> Result<Job, (Option<Arc<str>>, Failure)> {
        let refusal = |code, sentence: &str| (None, Failure::new(code, sentence));
        if !self.stages.is_open() {
            return Err(refusal(Code::Draining, "this node is shutting down"));
        }
        let head = chat::inspect(payload.as_bytes()).map_err(|failure| (None, failure))?;
        let model = self.parts.backend.find(&head.model);
        if model.is_none() && self.parts.backend.is_fresh() {
            return Err((None, job::model_not_found()));
        }
        let name = model.as_ref().map(|model| Arc::clone(&model.name));
        let Some(place) = self.place(payload.len()) else {
            // There is no place to wait for a look at the backend either, so that what is known has to do.
            let failure = if model.is_none() {
                job::model_not_found()
            } else {
                Failure::new(Code::Busy, "all slots and places to wait are taken")
            };
            return Err((name, failure));
        };
        // The frame's buffer holds what came before and after it, too; a copy holds the request alone.
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        Ok(Job {
            request_id: request_id.clone(),
            head,
            model,
            payload,
            place,
            received: Instant::now(),
        })
    }

    fn place(&self, bytes: usize) -> Option<Place> {
        self.parts
            .outbox
            .has_room()
            .then(|| self.admission.enter(bytes))?
    }

    fn start(self: &Arc<Self>, session: SessionNumber, request_id: RequestId, job: Job) {
        self.parts.outbox.supersede(&request_id);
        let handle = self.jobs.enter(&request_id, session);
        let inference = Arc::clone(self);
        self.tasks.spawn(async move {
            inference.run(job, &handle).await;
            inference.jobs.leave(&request_id, &handle);
            inference.show_load();
        });
        self.show_load();
    }

    fn count_failure(&self, operation: Operation, code: Code) {
        self.parts
            .metrics
            .request_failures_total
            .of(operation, code)
            .inc();
        self.parts
            .troubles
            .push(What::Request(code), self.parts.clock.unix_seconds());
    }

    fn show_load(&self) {
        let load = self.load();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.parts.metrics.requests_running.set(gauge(load.running));
        self.parts.metrics.requests_waiting.set(gauge(load.waiting));
    }
}
