//! How long a pull may say nothing new, on a clock that jumps: an Ollama in memory, and no gateway at all.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use pin_sidecar::{
    clock::SystemClock,
    relay::{Relay, World},
    transport::{Dial, DialError, Endpoint, Stream},
};
use tokio::{
    io::duplex,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::support::{CLIENT, Sidecar};

type Lines = BoxStream<'static, String>;

/// What every request to pull is answered with.
type Script = Arc<dyn Fn() -> Lines + Send + Sync>;

/// An Ollama without a model.
struct Memory {
    script: Script,
    /// Is told when a pull was asked for.
    asked: mpsc::UnboundedSender<Instant>,
}

impl Dial for Memory {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        if endpoint.host != "ollama" {
            return std::future::pending().boxed();
        }
        let (ours, theirs) = duplex(64 * 1024);
        let (script, asked) = (Arc::clone(&self.script), self.asked.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(answer(&request, &script, &asked)))
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(ours), service).await;
        });
        std::future::ready(Ok(Box::new(theirs) as Stream)).boxed()
    }
}

fn answer(
    request: &Request<Incoming>,
    script: &Script,
    asked: &mpsc::UnboundedSender<Instant>,
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let whole = |text: &'static str| Response::new(Full::from(text).boxed_unsync());
    match request.uri().path() {
        "/api/version" => whole(r#"{"version":"0.17.4"}"#),
        "/api/pull" => {
            let _ = asked.send(Instant::now());
            let frame = |line: String| Ok(Frame::data(Bytes::from(line + "\n")));
            Response::new(StreamBody::new(script().map(frame)).boxed_unsync())
        }
        _ => whole(r#"{"models":[]}"#),
    }
}

/// When Ollama was asked to pull, from the first time on, as far as it was within `limit`.
async fn asked_within(
    limit: Duration,
    script: impl Fn() -> Lines + Send + Sync + 'static,
) -> Vec<Duration> {
    let (asked, mut times) = mpsc::unbounded_channel();
    let settings = [("PIN_PULL_MODELS", "big")];
    let config = Sidecar::config(CLIENT, "ws://127.0.0.1:1", "http://ollama:1", &settings);
    let world = World {
        dial: Arc::new(Memory {
            script: Arc::new(script),
            asked,
        }),
        clock: Arc::new(SystemClock),
        random: fastrand::Rng::with_seed(7),
    };
    let relay = Relay::new(world, config).unwrap();
    let seen = Arc::<Mutex<Vec<Instant>>>::default();
    let listening = async {
        while let Some(time) = times.recv().await {
            seen.lock().unwrap().push(time);
        }
    };
    let run = relay.run(std::future::pending());
    let _ = timeout(limit, async { tokio::join!(run, listening) }).await;
    let seen = seen.lock().unwrap();
    seen.iter().map(|time| *time - seen[0]).collect()
}

fn layer(completed: u64, total: u64) -> String {
    format!(r#"{{"status":"pulling","digest":"sha256:a","total":{total},"completed":{completed}}}"#)
}

/// Nothing more, and no end.
fn then_silence(lines: impl IntoIterator<Item = String>) -> Lines {
    let lines: Vec<_> = lines.into_iter().collect();
    stream::iter(lines).chain(stream::pending()).boxed()
}

fn assert_given_up_after_two_minutes(asked: &[Duration]) {
    let (begin, end) = (Duration::from_secs(120), Duration::from_secs(122));
    assert!(asked.len() >= 2, "{asked:?}");
    assert!(asked[1] >= begin && asked[1] <= end, "{asked:?}");
}

const LONG: Duration = Duration::from_secs(240);

#[tokio::test(start_paused = true)]
async fn a_pull_that_falls_silent_is_begun_anew() {
    assert_given_up_after_two_minutes(&asked_within(LONG, || then_silence([])).await);
    let silent = || then_silence([layer(10, 100)]);
    assert_given_up_after_two_minutes(&asked_within(LONG, silent).await);
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_says_the_same_over_and_over_is_begun_anew() {
    let repeat = || {
        let tick = || async { sleep(Duration::from_millis(60)).await };
        let lines = stream::repeat_with(|| layer(10, 100));
        lines.then(move |line| tick().map(|()| line)).boxed()
    };
    assert_given_up_after_two_minutes(&asked_within(LONG, repeat).await);
}

#[tokio::test(start_paused = true)]
async fn a_slow_pull_is_left_alone() {
    let slow = || {
        stream::iter(0..20)
            .then(|percent| sleep(Duration::from_secs(100)).map(move |()| layer(percent, 100)))
            .chain(stream::pending())
            .boxed()
    };
    let half_an_hour = Duration::from_secs(20 * 100);
    assert_eq!(asked_within(half_an_hour, slow).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_large_model_has_time_for_its_digests() {
    let forty_gigabytes = 40_000_000_000;
    let verifying = move || then_silence([layer(forty_gigabytes, forty_gigabytes)]);
    let (patient, too_long) = (Duration::from_secs(19 * 60), Duration::from_secs(30 * 60));
    assert_eq!(asked_within(patient, verifying).await.len(), 1);
    assert!(asked_within(too_long, verifying).await.len() > 1);
}
