//! One job: from its place in the queue to its answer.
//!
//! Invariant: it ends with one answer, or with silence if it was cancelled; whatever goes wrong in it, a panic included,
//! stays in it.

use std::{panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};

use super::{
    Inference,
    admission::Reservation,
    answer_reader::overdue,
    jobs::{Handle, Stop},
    record::{Ended, Record},
    work::{Done, Progress, Task, Work, without_result},
};
use crate::{
    backend::RequestHead,
    node::{Offered, Slot, Slots},
    protocol::{Code, Failure, RequestId},
};

/// An admitted request.
pub(super) struct Job {
    pub(super) work: &'static dyn Work,
    pub(super) request_id: RequestId,
    pub(super) head: RequestHead,
    /// Where its model is offered; nowhere, where the backends have to be asked once more.
    pub(super) offering: Vec<Offered>,
    pub(super) payload: Bytes,
    pub(super) reservation: Reservation,
    pub(super) received: Instant,
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
        let work = job.work;
        let mut record = Record::new(&job, self.shared.nodes.sole());
        let mut progress = Progress::default();
        let performed = AssertUnwindSafe(self.perform(job, handle, &mut record, &mut progress));
        // Told to stop it does nothing more, not even what could be done at once.
        let performed = tokio::select! {
            biased;
            () = handle.token.cancelled() => None,
            performed = performed.catch_unwind() => Some(performed),
        };
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
        record.times = progress.times;
        if handle.stopped() == Some(Stop::Cancelled) {
            self.count_request(&record);
            return record.log(handle.session(), Ended::Cancelled);
        }
        self.count(&record, &outcome);
        record.log(handle.session(), Ended::of(&outcome));
        let (reply, earning) = match outcome {
            Ok(done) => {
                let earning = record.earning(&done);
                (done.reply, earning)
            }
            Err(failure) => (without_result(work, record.request_id, &failure), None),
        };
        self.shared.outbox.answer(reply, earning);
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
        mut job: Job,
        handle: &Handle,
        record: &mut Record,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let deadline = job.received + self.settings.request_timeout;
        let offering = std::mem::take(&mut job.offering);
        let admitted = self.admitted(offering, &job.head.model, job.reservation, record);
        let (on, _slot) = timeout_at(deadline, admitted)
            .await
            .unwrap_or_else(|_| Err(overdue(&self.settings)))?;
        handle.runs_now();
        self.show_load();
        progress.times.started = Some(Instant::now());
        let task = Task {
            request_id: &job.request_id,
            payload: job.payload,
            stream: job.head.stream,
            on: &on,
            deadline,
            handle,
            settings: &self.settings,
            shared: &self.shared,
            generation: self.generation,
        };
        job.work.perform(task, progress).await
    }

    /// Finds out where a job runs, and waits for its slot there.
    async fn admitted(
        &self,
        mut offering: Vec<Offered>,
        model: &str,
        reservation: Reservation,
        record: &mut Record,
    ) -> Result<(Offered, Slot), Failure> {
        if offering.is_empty() {
            offering = self.shared.nodes.offering_now(model).await;
        }
        record.offered_by(offering.first().ok_or_else(model_not_found)?);
        let slots = slots_of(&offering);
        let slot = reservation.slot(&slots, self.shared.outbox.room()).await?;
        let is_here = |offered: &Offered| slot.is_of(&offered.node.slots);
        let on = offering
            .into_iter()
            .find(is_here)
            .ok_or_else(model_not_found)?;
        record.offered_by(&on);
        Ok((on, slot))
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
        if let Some(first) = times.first_token {
            metrics
                .time_to_first_token_seconds
                .observe(seconds(record.received, first));
        }
        match outcome {
            Ok(done) => {
                metrics
                    .prompt_tokens_total
                    .of(model)
                    .inc_by(done.prompt_tokens);
                metrics
                    .generation_tokens_total
                    .of(model)
                    .inc_by(done.generation_tokens);
                if let Some(per_token) = times.per_token(done.generation_tokens) {
                    metrics
                        .time_per_output_token_seconds
                        .observe(per_token.as_secs_f64());
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
}
