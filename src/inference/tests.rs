//! What holds whatever a backend does, shown with one that does the worst.

#![allow(clippy::unwrap_used)]

use std::{
    future::{pending, ready},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::value::RawValue;
use tokio::time::advance;

use super::{Inference, Stop};
use crate::{
    backend::{
        AskError, Backend, ChatStream, Guide, Model, ModelServer, Prepared, Seen, Suitability,
        tests::{GUIDE, allowing},
    },
    clock::SystemClock,
    config::{AdmissionSettings, JobSettings, OutboxSettings},
    history::History,
    label::Label as _,
    link::Outgoing,
    node::{Node, tests::node_settings},
    outbox::{Outbox, SessionNumber},
    protocol::{Code, Failure, Generation, Operation, RequestId, encode},
    service::Service,
    shared::Shared,
    telemetry::{BackendMetrics, Metrics, RecentErrors},
    transport::http::HttpError,
};

/// A model server that panics, or never answers, by the name of the model.
struct Treacherous;

impl ModelServer for Treacherous {
    fn mode(&self) -> &'static str {
        "treacherous"
    }

    fn guide(&self) -> &'static Guide {
        &GUIDE
    }

    fn look(&self) -> BoxFuture<'_, Result<Seen, HttpError>> {
        let model = |name: &str| (Model::named(name), Suitability::Suits);
        let models = ["hangs", "panics"].map(model).into();
        let seen = Seen {
            models,
            ..Seen::default()
        };
        ready(Ok(seen)).boxed()
    }

    fn answers(&self) -> BoxFuture<'_, bool> {
        ready(true).boxed()
    }

    fn why_silent(&self, error: &HttpError) -> String {
        error.to_string()
    }

    fn why_nothing(&self, models: usize, _: Option<&str>) -> String {
        models.to_string()
    }

    fn prepare(&self, _: &[u8], model: &Model) -> Result<Prepared, Failure> {
        assert_ne!(&*model.name, "panics", "as it was told to");
        Ok(Prepared::new(model, Bytes::new()))
    }

    fn load<'a>(&'a self, _: &'a Model) -> BoxFuture<'a, Result<(), AskError>> {
        ready(Ok(())).boxed()
    }

    fn chat(&self, _: Prepared) -> BoxFuture<'_, Result<ChatStream, AskError>> {
        pending().boxed()
    }
}

/// Has been looked at.
fn treacherous(metrics: &Arc<Metrics>) -> Backend {
    let long = Duration::from_secs(600);
    let backend = Backend::new(
        Arc::new(Treacherous),
        allowing("*"),
        long,
        BackendMetrics::new(metrics, "gpu", "ollama"),
    );
    backend.look_now().now_or_never().unwrap();
    backend
}

struct Bench {
    session: SessionNumber,
    inference: Arc<Inference>,
    service: Service,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
}

fn bench(capacity: usize) -> Bench {
    let metrics = Arc::new(Metrics::new());
    let settings = OutboxSettings {
        max_bytes: 1 << 20,
        result_ttl: Duration::from_secs(600),
    };
    let outbox = Arc::new(Outbox::new(settings, Arc::clone(&metrics)));
    let session = outbox.open();
    let shared = Shared {
        nodes: [Node::new(node_settings(capacity), treacherous(&metrics))]
            .into_iter()
            .collect(),
        outbox: Arc::clone(&outbox),
        metrics: Arc::clone(&metrics),
        recent_errors: Arc::<RecentErrors>::default(),
        history: Arc::new(History::new(0)),
        clock: Arc::new(SystemClock),
    };
    let long = Duration::from_secs(600);
    let admission = AdmissionSettings {
        queue: capacity,
        queue_bytes: 1 << 20,
        queue_timeout: long,
    };
    let job = JobSettings {
        first_token_timeout: Duration::from_secs(60),
        token_timeout: long,
        request_timeout: long,
        max_result_bytes: 1 << 20,
        orphan_grace: Duration::from_secs(30),
    };
    let service = Service::new(long, Arc::new(SystemClock), Arc::clone(&metrics));
    Bench {
        session,
        inference: Inference::new(
            shared,
            Generation::Operator,
            service.stages(),
            admission,
            job,
        ),
        service,
        outbox,
        metrics,
    }
}

impl Bench {
    async fn ask(&self, request_id: &str, model: &str) {
        let payload = format!(r#"{{"model":"{model}","messages":[{{}}]}}"#);
        let payload = RawValue::from_string(payload).unwrap();
        self.inference
            .receive(
                self.session,
                Operation::Chat,
                RequestId::new(request_id).unwrap(),
                Some(payload),
            )
            .await;
    }

    /// The next frame that is sent, once there is one.
    async fn next_frame(&self) -> String {
        loop {
            if let Some(mut batch) = self.outbox.take() {
                let first = batch.outgoing.remove(0);
                self.outbox.written(&batch);
                return encode(match &first {
                    Outgoing::Refusal(reply) => reply,
                    Outgoing::Answer(_, reply) => reply.as_ref(),
                    other => panic!("{other:?}"),
                });
            }
            self.outbox.filled().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_panics_answers_internal_and_harms_no_other() {
    let bench = bench(2);
    bench.ask("calm", "hangs").await;
    bench.ask("mad", "panics").await;
    assert_eq!(
        bench.next_frame().await,
        r#"{"type":"INFERENCE_ERROR","request_id":"mad","error":"internal: a defect of the sidecar; its log has the place"}"#
    );
    assert_eq!(
        bench
            .metrics
            .request_failures_total
            .of(Operation::Chat, Code::Internal)
            .get(),
        1
    );
    assert_eq!(bench.inference.load().running, 1);
    assert!(
        bench
            .next_frame()
            .await
            .contains(r#""request_id":"calm","error":"timeout: "#)
    );
    assert_eq!(bench.inference.load().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_what_waits_and_cuts_short_what_runs_when_it_is_told_to() {
    let bench = bench(1);
    bench.ask("runs", "hangs").await;
    tokio::task::yield_now().await;
    bench.ask("waits", "hangs").await;
    drop(bench.service.request_drain());
    bench.inference.refuse_waiting();
    bench.ask("late", "hangs").await;
    let refused = [bench.next_frame().await, bench.next_frame().await];
    for request_id in ["waits", "late"] {
        let answer = format!(
            r#"{{"type":"INFERENCE_ERROR","request_id":"{request_id}","error":"draining: this node is shutting down"}}"#
        );
        assert!(refused.contains(&answer), "{refused:?}");
    }
    assert_eq!(bench.inference.load().running, 1);
    bench.inference.stop();
    bench.inference.ended().await;
    assert!(
        bench
            .next_frame()
            .await
            .contains(r#""request_id":"runs","error":"draining: "#)
    );
}

#[tokio::test(start_paused = true)]
async fn requests_are_shown_while_they_wait_and_run_and_for_a_while_after_their_end() {
    let bench = bench(1);
    let shown = || bench.inference.requests().list();
    assert_eq!(shown().last_at, None);
    for id in ["runs", "waits", "has no place"] {
        bench.ask(id, "hangs").await;
        tokio::task::yield_now().await;
        advance(Duration::from_secs(2)).await;
    }
    let running = shown().running;
    let ids: Vec<_> = running.iter().map(|request| request.id.as_str()).collect();
    assert_eq!(ids, ["runs", "waits"], "oldest first");
    assert!(running.iter().all(|r| r.model.as_deref() == Some("hangs")));
    let waits = running.iter().map(|request| request.wait_ms);
    assert_eq!(waits.collect::<Vec<_>>(), [Some(0), None]);
    assert_eq!((running[0].age_ms, running[1].age_ms), (6_000, 4_000));
    bench.inference.cancel(&RequestId::new("runs").unwrap());
    tokio::task::yield_now().await;
    advance(Duration::from_secs(3)).await;
    let running = shown().running;
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!(running[0].wait_ms, Some(4_000));
    bench.inference.stop();
    bench.inference.ended().await;
    let shown = shown();
    let ended = shown.recent.iter().map(|r| (r.id.as_str(), r.outcome));
    let newest_first = [
        ("waits", "draining"),
        ("runs", "cancelled"),
        ("has no place", "busy"),
    ];
    assert_eq!(ended.collect::<Vec<_>>(), newest_first);
    assert_eq!(shown.recent[0].duration_ms, 7_000);
    assert!(shown.running.is_empty());
    assert!(shown.last_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn fifty_requests_are_remembered_however_many_are_refused() {
    let bench = bench(1);
    for n in 0..200 {
        bench.ask(&format!("r{n}"), "").await;
    }
    let recent = bench.inference.requests().list().recent;
    assert_eq!(recent.len(), 50);
    assert_eq!((&*recent[0].id, &*recent[49].id), ("r199", "r150"));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_cancelled_is_new_work_when_it_comes_again() {
    let bench = bench(1);
    bench.ask("r", "hangs").await;
    bench.inference.cancel(&RequestId::new("r").unwrap());
    tokio::task::yield_now().await;
    bench.ask("r", "panics").await;
    assert!(
        bench
            .next_frame()
            .await
            .contains(r#""request_id":"r","error":"internal: "#)
    );
    assert_eq!(bench.metrics.requests_total.total(), 2);
    assert_eq!(bench.metrics.cancelled_requests_total.get(), 1);
    assert_eq!(bench.metrics.duplicate_requests_total.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cancelled_says_nothing_though_the_drain_stops_it_in_the_same_moment() {
    let bench = bench(2);
    bench.ask("cancelled", "hangs").await;
    bench.ask("stopped", "hangs").await;
    tokio::task::yield_now().await;
    bench.inference.stop();
    bench
        .inference
        .cancel(&RequestId::new("cancelled").unwrap());
    bench.inference.ended().await;
    let only = bench.next_frame().await;
    assert!(only.contains(r#""request_id":"stopped","error":"draining: "#));
    assert!(bench.outbox.take().is_none());
    assert_eq!(bench.outbox.undelivered(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_reasons_to_stop_a_job_the_first_is_what_it_answers() {
    let bench = bench(1);
    bench.ask("r", "hangs").await;
    tokio::task::yield_now().await;
    bench.inference.requests.jobs.stop_all(Stop::Draining);
    bench.inference.requests.jobs.stop_all(Stop::Orphaned);
    let answer = bench.next_frame().await;
    assert!(answer.contains(r#""error":"draining: "#), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn every_request_that_failed_is_among_the_requests_that_there_were() {
    let bench = bench(1);
    let id = |id| RequestId::new(id).unwrap();
    bench
        .inference
        .refuse_unreadable(Operation::Chat, &id("unreadable"), "it is not JSON")
        .await;
    let (operation, request_id) = (Operation::Speech, id("speech"));
    bench
        .inference
        .receive(bench.session, operation, request_id, None)
        .await;
    bench.ask("panics", "panics").await;
    bench.next_frame().await;
    bench.inference.cancel(&id("unknown"));
    for request_id in ["runs", "waits", "has no place"] {
        bench.ask(request_id, "hangs").await;
    }
    bench.inference.stop();
    bench.inference.ended().await;
    let failures = &bench.metrics.request_failures_total;
    let operations = [Operation::Chat, Operation::Speech];
    let failed: u64 = operations
        .iter()
        .flat_map(|operation| Code::ALL.iter().map(move |code| (operation, code)))
        .map(|(operation, code)| failures.of(*operation, *code).get())
        .sum();
    assert_eq!(failed, 6);
    assert_eq!(bench.metrics.requests_total.total(), failed);
}
