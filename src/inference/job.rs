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
    admission::Place,
    answering::{Answering, overdue},
    chunks::Chunks,
    record::{Ended, Record},
    registry::{Handle, Stop},
};
use crate::{
    backend::{Completion, Envelope, Model, chat::ChatHead},
    outbox::{Earning, Frame},
    protocol::{Code, Failure, RequestId, ToGateway},
    telemetry::Operation,
};

/// An admitted request.
pub(super) struct Job {
    pub(super) request_id: RequestId,
    pub(super) head: ChatHead,
    /// `None` where the backend has to be asked once more.
    pub(super) model: Option<Model>,
    pub(super) payload: Bytes,
    pub(super) place: Place,
    pub(super) received: Instant,
}

pub(super) fn model_not_found() -> Failure {
    Failure::new(Code::ModelNotFound, "this node does not offer that model")
}

impl Inference {
    /// Runs a job to its end and sends its answer.
    pub(super) async fn run(&self, job: Job, handle: &Handle) {
        let mut record = Record::new(&job);
        let mut complete = None;
        let work = AssertUnwindSafe(self.work(job, handle, &mut record, &mut complete));
        // Told to stop it does nothing more, not even what could be done at once.
        let done = tokio::select! {
            biased;
            () = handle.token.cancelled() => None,
            done = work.catch_unwind() => Some(done),
        };
        let outcome = match (complete, done) {
            // What cut it short was the sending of its last chunks, and the answer has it all.
            (Some(completion), _) => Ok(completion),
            (None, None) => Err(self.stopped(handle)),
            (None, Some(Ok(Err(failure)))) => Err(failure),
            (None, Some(Err(_) | Ok(Ok(())))) => Err(Failure::new(
                Code::Internal,
                "a defect of the sidecar; its log has the place",
            )),
        };
        if handle.stopped() == Some(Stop::Cancelled) {
            self.count_request(&record);
            return record.log(&self.parts.node, handle.session(), Ended::Cancelled);
        }
        self.count(&record, &outcome);
        record.log(&self.parts.node, handle.session(), Ended::of(&outcome));
        self.answer(&record, &outcome);
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

    /// Has a job answered. `complete` has the answer as soon as that is whole; all that this does afterwards may be cut
    /// short.
    async fn work(
        &self,
        mut job: Job,
        handle: &Handle,
        record: &mut Record,
        complete: &mut Option<Completion>,
    ) -> Result<(), Failure> {
        let deadline = job.received + self.settings.request_timeout;
        let outbox = &*self.parts.outbox;
        let admitted = async {
            let model = match job.model.take() {
                Some(model) => model,
                None => self
                    .parts
                    .backend
                    .find_fresh(&job.head.model)
                    .await
                    .ok_or_else(model_not_found)?,
            };
            record.model = Some(Arc::clone(&model.name));
            Ok((model, job.place.slot(outbox.room()).await?))
        };
        let (model, _slot) = timeout_at(deadline, admitted)
            .await
            .unwrap_or_else(|_| Err(overdue(&self.settings)))?;
        handle.runs_now();
        self.show_load();
        record.times.started = Some(Instant::now());
        let body = self.parts.backend.prepare(&job.payload, &model)?;
        drop(job.payload);
        let chunks = Chunks::new(outbox, job.request_id, handle, job.head.stream);
        let mut answering = Answering::new(&self.settings, deadline, handle, chunks);
        let times = &mut record.times;
        let asked = self.parts.backend.chat(body);
        let decoder = answering.read(asked, times).await?;
        let envelope = Envelope {
            generation: self.parts.generation,
            request_id: record.request_id.as_str().to_owned(),
            created: self.parts.clock.unix_seconds(),
        };
        *complete = Some(answering.finish(decoder, &envelope)?);
        answering.send_last().await;
        Ok(())
    }

    fn answer(&self, record: &Record, outcome: &Result<Completion, Failure>) {
        let request_id = &record.request_id;
        let id = request_id.as_str();
        let frame = match outcome {
            Ok(completion) => {
                let response = ToGateway::InferenceResponse {
                    request_id: id,
                    result: &completion.result,
                };
                let frame = Frame::about(request_id, &response);
                match &record.model {
                    Some(model) => frame.earning(self.earning(model, completion)),
                    None => frame,
                }
            }
            Err(failure) => Frame::about(
                request_id,
                &ToGateway::InferenceError {
                    request_id: id,
                    error: &failure.text(),
                },
            ),
        };
        self.parts.outbox.answer(frame);
    }

    fn earning(&self, model: &Arc<str>, completion: &Completion) -> Earning {
        let tokens = completion
            .prompt_tokens
            .saturating_add(completion.generation_tokens);
        Earning {
            model: Arc::clone(model),
            usd: tokens as f64 * self.parts.price_per_thousand_tokens / 1_000.0,
        }
    }

    fn count_request(&self, record: &Record) {
        let requests = &self.parts.metrics.requests_total;
        requests.of(record.model.as_deref(), Operation::Chat).inc();
    }

    fn count(&self, record: &Record, outcome: &Result<Completion, Failure>) {
        let metrics = &self.parts.metrics;
        let model = record.model.as_deref();
        let times = &record.times;
        let seconds = |from: Instant, to: Instant| (to - from).as_secs_f64();
        self.count_request(record);
        metrics
            .request_duration_seconds
            .of(Operation::Chat)
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
            Ok(completion) => {
                metrics
                    .prompt_tokens_total
                    .of(model)
                    .inc_by(completion.prompt_tokens);
                metrics
                    .generation_tokens_total
                    .of(model)
                    .inc_by(completion.generation_tokens);
                if let Some(per_token) = times.per_token(completion.generation_tokens) {
                    metrics
                        .time_per_output_token_seconds
                        .observe(per_token.as_secs_f64());
                }
                if let Some(load) = completion.load_duration {
                    metrics
                        .ollama_load_duration_seconds
                        .observe(load.as_secs_f64());
                }
            }
            Err(failure) => self.count_failure(Operation::Chat, failure.code),
        }
    }
}
