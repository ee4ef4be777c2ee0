//! One job: from its place in the queue to its answer.
//!
//! Invariant: it ends with one answer, or with silence if it was cancelled; whatever goes wrong in it, a panic included,
//! stays in it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Frame as Piece;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Inference,
    admission::Place,
    chunks::Chunks,
    patience::{Patience, Silent},
    record::{Ended, Record, Times},
    registry::{Handle, Stop},
};
use crate::{
    backend::{Answering, Chat, ChatHead, Completion, Deltas, Envelope, Model},
    outbox::{Earning, Frame},
    protocol::{Code, Failure, RequestId, ToGateway},
    telemetry::Operation,
};

/// How long the end of a body is waited for that has given its whole answer. It usually comes with it.
const END_WAIT: Duration = Duration::from_millis(20);

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

/// What a running job hears of.
enum Heard {
    /// The backend: the next piece of its answer, or the end.
    Backend(Option<Result<Piece<Bytes>, hyper::Error>>),
    /// The gateway: the request has come again by another session.
    Gateway,
}

pub(super) fn model_not_found() -> Failure {
    Failure::new(Code::ModelNotFound, "this node does not offer that model")
}

impl Inference {
    /// Runs a job to its end and sends its answer.
    pub(super) async fn run(&self, job: Job, handle: &Handle) {
        let mut record = Record::new(&job);
        let work = AssertUnwindSafe(self.work(job, handle, &mut record)).catch_unwind();
        // Told to stop it does nothing more, not even what could be done at once.
        let done = tokio::select! {
            biased;
            () = handle.token.cancelled() => None,
            done = work => Some(done),
        };
        let outcome = match done {
            Some(Ok(outcome)) => outcome,
            Some(Err(_panic)) => Err(Failure::new(
                Code::Internal,
                "a defect of the sidecar; its log has the place",
            )),
            None => Err(match handle.stopped() {
                Some(Stop::Draining) => Failure::new(Code::Draining, "this node is shutting down"),
                Some(Stop::Orphaned) => {
                    let grace = humantime::format_duration(self.settings.orphan_grace);
                    let sentence = format!("the session was down for longer than {grace}");
                    Failure::new(Code::Orphaned, sentence)
                }
                Some(Stop::Cancelled) | None => {
                    self.count_request(&record);
                    record.log(&self.parts.node, handle.session(), Ended::Cancelled);
                    return;
                }
            }),
        };
        self.count(&record, &outcome);
        record.log(&self.parts.node, handle.session(), Ended::of(&outcome));
        self.answer(&record, &outcome);
    }

    async fn work(
        &self,
        mut job: Job,
        handle: &Handle,
        record: &mut Record,
    ) -> Result<Completion, Failure> {
        let limit = self.settings.request_timeout;
        let deadline = job.received + limit;
        let work = async {
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
            let chat = Chat {
                payload: std::mem::take(&mut job.payload),
                model,
            };
            let _slot = job.place.slot().await?;
            handle.runs_now();
            self.show_load();
            record.times.started = Some(Instant::now());
            let body = self.parts.backend.prepare(&chat)?;
            drop(chat);
            let chunks = Chunks::new(&self.parts.outbox, &job.request_id, handle, job.head.stream);
            self.generate(body, chunks, handle, &record.request_id, &mut record.times)
                .await
        };
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            Err(Failure::new(
                Code::Timeout,
                format!("not answered within {limit}"),
            ))
        })
    }

    /// Has the backend answer.
    async fn generate(
        &self,
        body: Bytes,
        mut chunks: Chunks<'_>,
        handle: &Handle,
        request_id: &RequestId,
        times: &mut Times,
    ) -> Result<Completion, Failure> {
        let mut patience = Patience::new(self.settings.first_token_timeout);
        let asked = patience
            .wait(self.parts.backend.chat(body))
            .await
            .map_err(silent_before_token)?;
        let Answering {
            mut body,
            mut decoder,
        } = asked?;
        let mut deltas = Deltas::default();
        let mut size = 0;
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    () = handle.attached() => Heard::Gateway,
                    frame = body.frame() => Heard::Backend(frame),
                }
            };
            let heard = patience
                .wait(next)
                .await
                .map_err(|silent| match times.first_token {
                    None => silent_before_token(silent),
                    Some(_) => silent_after_token(silent),
                })?;
            let frame = match heard {
                Heard::Backend(Some(frame)) => frame,
                Heard::Backend(None) => break,
                Heard::Gateway => {
                    chunks.send(&mut deltas, decoder.as_ref()).await;
                    continue;
                }
            };
            let frame = frame.map_err(|_| {
                Failure::new(
                    Code::Backend,
                    "the connection broke in the middle of the answer",
                )
            })?;
            let Some(bytes) = frame.data_ref() else {
                continue;
            };
            size += bytes.len();
            if size > self.settings.max_result_bytes {
                return Err(Failure::new(
                    Code::TooLarge,
                    "the answer is larger than PIN_MAX_RESULT_BYTES",
                ));
            }
            decoder.feed(bytes, &mut deltas)?;
            if !deltas.is_empty() {
                times.token();
                chunks.send(&mut deltas, decoder.as_ref()).await;
            }
            if decoder.is_complete() {
                // Read to its end the connection can be used again; but nobody is kept waiting for that.
                let _ = timeout(END_WAIT, body.frame()).await;
                break;
            }
            if times.first_token.is_some() {
                patience.renew(self.settings.token_timeout);
            }
        }
        let envelope = Envelope {
            generation: self.parts.generation,
            request_id: request_id.as_str().to_owned(),
            created: self.parts.clock.unix_seconds(),
        };
        let completion = decoder.finish(&mut deltas, &envelope)?;
        chunks.send_rest(&mut deltas).await;
        Ok(completion)
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

fn silent_before_token(Silent(limit): Silent) -> Failure {
    let limit = humantime::format_duration(limit);
    Failure::new(
        Code::Timeout,
        format!("the backend gave no token within {limit}"),
    )
}

fn silent_after_token(Silent(limit): Silent) -> Failure {
    let limit = humantime::format_duration(limit);
    Failure::new(
        Code::Timeout,
        format!("the backend gave no further token for {limit}"),
    )
}
