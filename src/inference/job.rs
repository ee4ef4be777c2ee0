//! One job: from its place in the queue to its answer.
//!
//! Invariant: it ends with one answer, or with silence if it was cancelled; whatever goes wrong in it, a panic included,
//! stays in it.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::{
    Inference,
    admission::{Admission, Reservation, Running},
    answer_reader::overdue,
    jobs::{Handle, Stop},
    record::{Ended, Record, Times},
    work::{Done, Head, Progress, Task, Tokens, Work},
};
use crate::{
    node::{Offered, Slots},
    protocol::{Code, Failure, Operation, RequestId},
};

/// An admitted request.
pub(super) struct Job {
    pub(super) work: Box<dyn Work>,
    pub(super) request_id: RequestId,
    pub(super) place: Place,
    pub(super) received: Instant,
}

/// Where a job is to run, and its claim to.
pub(super) struct Place {
    pub(super) head: Head,
    /// Where its model is offered; nowhere, where the backends have to be asked once more.
    pub(super) offering: Vec<Offered>,
    /// None yet for an interview of which it is not known whose it is.
    pub(super) reservation: Option<Reservation>,
}

pub(super) fn busy() -> Failure {
    Failure::new(Code::Busy, "all slots and places to wait are taken")
}

pub(super) fn model_not_found() -> Failure {
    Failure::new(Code::ModelNotFound, "this node does not offer that model")
}

/// The slots of those who offer a model.
pub(super) fn slots_of(offering: &[Offered]) -> Vec<Arc<Slots>> {
    let slots = |offered: &Offered| Arc::clone(&offered.node.slots);
    offering.iter().map(slots).collect()
}

impl Inference {
    /// Runs a job to its end and sends its answer.
    pub(super) async fn run(&self, job: Job, handle: &Handle) {
        let mut record = Record::new(&job, self.shared.nodes.sole());
        let mut progress = Progress {
            times: Times::seen_by(handle),
            done: None,
        };
        let mut work = job.work;
        let performed = self.perform(&mut *work, job.place, handle, &mut record, &mut progress);
        let performed = AssertUnwindSafe(performed);
        // Told to stop it does nothing more, not even what could be done at once.
        let performed = tokio::select! {
            biased;
            () = handle.token.cancelled() => None,
            performed = performed.catch_unwind() => Some(performed),
        };
        record.times = progress.times;
        if let Some(stop) = handle.stopped()
            && (stop.is_final() || (progress.done.is_none() && stop.silences(record.operation)))
        {
            self.count_request(&record);
            return self.tell(&record, handle, Ended::Silenced(stop));
        }
        let outcome = match (progress.done, performed) {
            // What cut it short was the sending of its last chunks, and the answer has it all.
            (Some(done), _) => Ok(done),
            (None, None) => Err(self.stopped(handle)),
            (None, Some(Ok(Err(failure)))) => Err(failure),
            (None, Some(Err(_) | Ok(Ok(())))) => Err(Failure::new(
                Code::Internal,
                "a defect of the sidecar; its log has the place",
            )),
        };
        self.count(&record, &outcome);
        self.tell(&record, handle, Ended::of(&outcome));
        let (reply, earning) = match outcome {
            Ok(done) => {
                let earning = record.earning(&done);
                (done.reply, earning)
            }
            Err(failure) => (work.failed(record.request_id, &failure), None),
        };
        self.shared.outbox.answer(reply, earning);
    }

    fn tell(&self, record: &Record, handle: &Handle, ended: Ended<'_>) {
        record.log(handle.session(), ended);
        let shown = record.shown(handle.entry.received_at, ended);
        self.requests.ended(handle, shown);
    }

    /// What a job answers that was stopped.
    fn stopped(&self, handle: &Handle) -> Failure {
        if handle.stopped() == Some(Stop::Orphaned) {
            let grace = humantime::format_duration(self.settings.orphan_grace);
            let sentence = format!("the session was down for longer than {grace}");
            return Failure::new(Code::Orphaned, sentence);
        }
        Failure::new(Code::Draining, "this node is shutting down")
    }

    /// Waits until a job may run, and has its work done.
    async fn perform(
        &self,
        work: &mut dyn Work,
        place: Place,
        handle: &Handle,
        record: &mut Record,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let deadline = record.received + work.limit(&self.settings);
        let request_id = record.request_id.clone();
        let (on, _running) = timeout_at(deadline, self.admitted(place, record))
            .await
            .unwrap_or_else(|_| Err(overdue(&self.settings)))?;
        handle.runs_now(&on.model.name);
        self.show_load();
        progress.times.started = Some(Instant::now());
        let task = Task {
            request_id: &request_id,
            on: &on,
            deadline,
            handle,
            settings: &self.settings,
            shared: &self.shared,
            generation: self.generation,
        };
        work.perform(task, progress).await
    }

    /// Finds out where a job runs, and waits for its slot there.
    async fn admitted(
        &self,
        place: Place,
        record: &mut Record,
    ) -> Result<(Offered, Running), Failure> {
        let mut offering = place.offering;
        if offering.is_empty() {
            match record.operation {
                Operation::Speech => self.shared.nodes.look_for_speech().await,
                Operation::Chat | Operation::Interview => self.shared.nodes.look_now().await,
            }
            offering = self.offering(record.operation, &place.head);
        }
        let first = offering.first().ok_or_else(model_not_found)?;
        record.offered_by(first);
        let reservation = match place.reservation {
            Some(reservation) => reservation,
            None => Admission::enter_interview(&first.node).ok_or_else(busy)?,
        };
        let slots = slots_of(&offering);
        let room = self.shared.outbox.room();
        let running = reservation.slot(&slots, room).await?;
        let is_here = |offered: &Offered| running.slot.is_of(&offered.node.slots);
        let on = offering
            .into_iter()
            .find(is_here)
            .ok_or_else(model_not_found)?;
        record.offered_by(&on);
        Ok((on, running))
    }

    /// Where a request may run: speech where it is spoken, all else where there is such a model. An interview is for one node: the one that it names, if we have that, else the first that
    /// has the model.
    pub(super) fn offering(&self, operation: Operation, head: &Head) -> Vec<Offered> {
        let nodes = &self.shared.nodes;
        if operation == Operation::Speech {
            return nodes.speaking(&head.model);
        }
        let mut offering = nodes.offering(&head.model);
        if operation == Operation::Interview {
            if let Some(node) = head.node.as_deref().and_then(|name| nodes.named(name)) {
                offering.retain(|offered| Arc::ptr_eq(&offered.node, node));
            }
            offering.truncate(1);
        }
        offering
    }

    fn count_request(&self, record: &Record) {
        let requests = &self.shared.metrics.requests_total;
        requests.of(record.model.as_deref(), record.operation).inc();
    }

    fn count(&self, record: &Record, outcome: &Result<Done, Failure>) {
        let metrics = &self.shared.metrics;
        let model = record.model.as_deref();
        let times = &record.times;
        let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
        self.count_request(record);
        metrics
            .request_duration_seconds
            .of(record.operation)
            .observe(record.received.elapsed().as_secs_f64());
        if let Some(started) = times.started {
            metrics
                .request_queue_time_seconds
                .observe(seconds(record.received, started));
        }
        if let Some(first) = times.first_token() {
            self.shared.history.first_token(first - record.received);
            metrics
                .time_to_first_token_seconds
                .observe(seconds(record.received, first));
        }
        match outcome {
            Ok(done) => {
                if let Some(tokens) = done.tokens {
                    self.count_tokens(model, tokens, times);
                }
                if let Some(load) = done.load_duration {
                    metrics
                        .ollama_load_duration_seconds
                        .observe(load.as_secs_f64());
                }
            }
            Err(failure) => self.count_failure(record.operation, failure.code),
        }
    }

    fn count_tokens(&self, model: Option<&str>, tokens: Tokens, times: &Times) {
        let metrics = &self.shared.metrics;
        metrics.prompt_tokens_total.of(model).inc_by(tokens.prompt);
        metrics
            .generation_tokens_total
            .of(model)
            .inc_by(tokens.generated);
        if let Some(per_token) = times.per_token(tokens.generated) {
            metrics
                .time_per_output_token_seconds
                .observe(per_token.as_secs_f64());
        }
    }
}
