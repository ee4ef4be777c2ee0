//! A relay, and what is at the other ends of its pipes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_tungstenite::{
    WebSocketStream,
    tokio::{TokioAdapter, accept_async},
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role},
    },
};
use bytes::Bytes;
use futures_util::{
    FutureExt, SinkExt, StreamExt,
    future::{BoxFuture, ready},
    stream,
};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use pin_sidecar::{
    clock::SystemClock,
    relay::{Outcome, Relay, World},
    service::Service,
    telemetry::Metrics,
    transport::{Dial, DialError, Endpoint, Stream},
};
use serde_json::{Value, json};
use tokio::{
    io::{DuplexStream, duplex},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    log::Log,
    support::{CLIENT, MODEL, Sidecar},
};

/// What a pipe holds of what the other end has not read, in bytes: more than any test's flood.
pub(crate) const PIPE: usize = 8 * 1024 * 1024;

/// Longer than anything is waited for, in virtual time.
const PATIENCE: Duration = Duration::from_secs(600);

/// A relay that is logged in.
pub(crate) struct Net {
    pub(crate) gateway: Gateway,
    pub(crate) ollama: Ollama,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Log,
    pub(crate) service: Arc<Service>,
    gateway_wire: Arc<Wire>,
    logins: mpsc::UnboundedReceiver<DuplexStream>,
    shutdown: Option<oneshot::Sender<()>>,
    relay: JoinHandle<Outcome>,
}

impl Net {
    /// One with these settings beside the necessary ones. It has told its models when this returns.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let log = Log::listen();
        let (gateway_wire, mut logins) = Wire::new();
        let (ollama_wire, connections) = Wire::new();
        let config = Sidecar::config(CLIENT, "ws://127.0.0.1:1", "http://127.0.0.1:2", settings);
        let world = World {
            gateway: Arc::clone(&gateway_wire) as Arc<dyn Dial>,
            backend: Arc::clone(&ollama_wire) as Arc<dyn Dial>,
            clock: Arc::new(SystemClock),
            random: fastrand::Rng::with_seed(1),
        };
        let relay = Relay::new(world, config).unwrap();
        let (metrics, service) = (relay.metrics(), relay.service());
        let ollama = Ollama::start(ollama_wire, connections);
        let (shutdown, told) = oneshot::channel();
        let relay = tokio::spawn(relay.run(async { told.await.unwrap() }));
        let mut gateway = Gateway::accept(logins.recv().await.unwrap()).await;
        gateway.wait_for("MODEL_LIST").await;
        Self {
            gateway,
            ollama,
            metrics,
            log,
            service,
            gateway_wire,
            logins,
            shutdown: Some(shutdown),
            relay,
        }
    }

    /// Waits until the relay logs in once more.
    pub(crate) async fn next_session(&mut self) {
        let connection = timeout(PATIENCE * 10, self.logins.recv()).await;
        self.gateway = Gateway::accept(connection.unwrap().unwrap()).await;
    }

    /// The gateway breaks its session off and lets nobody in any more.
    pub(crate) fn lose_gateway(&mut self) {
        *self.gateway_wire.arrivals.lock().unwrap() = None;
        let (nowhere, _) = duplex(1);
        self.gateway = Gateway(
            WebSocketStream::from_raw_socket(TokioAdapter::new(nowhere), Role::Server, None)
                .now_or_never()
                .unwrap(),
        );
    }

    /// SIGTERM.
    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// How it has ended, once it has.
    pub(crate) async fn ended(&mut self) -> Outcome {
        timeout(PATIENCE, &mut self.relay).await.unwrap().unwrap()
    }

    /// A metric's value, by its name with labels and without the prefix.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render();
        let name = format!("pin_sidecar_{series} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
            .parse()
            .unwrap()
    }
}

/// The way to a server, as long as that lets anybody in.
struct Wire {
    arrivals: Mutex<Option<mpsc::UnboundedSender<DuplexStream>>>,
    dialled: AtomicUsize,
}

impl Wire {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<DuplexStream>) {
        let (arrivals, connections) = mpsc::unbounded_channel();
        let wire = Self {
            arrivals: Mutex::new(Some(arrivals)),
            dialled: AtomicUsize::new(0),
        };
        (Arc::new(wire), connections)
    }

    fn connection(&self) -> Option<DuplexStream> {
        let (ours, theirs) = duplex(PIPE);
        let arrivals = self.arrivals.lock().unwrap();
        arrivals.as_ref()?.send(theirs).ok()?;
        self.dialled.fetch_add(1, Ordering::Relaxed);
        Some(ours)
    }
}

impl Dial for Wire {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        let connection = self.connection().map(|end| Box::new(end) as Stream);
        ready(connection.ok_or(DialError::Refused)).boxed()
    }
}

/// A gateway with one agent. It reads only while somebody waits for a frame.
pub(crate) struct Gateway(WebSocketStream<TokioAdapter<DuplexStream>>);

impl Gateway {
    async fn accept(connection: DuplexStream) -> Self {
        let mut gateway = Self(accept_async(connection).await.unwrap());
        gateway.wait_for("AUTH").await;
        let success = json!({"type": "AUTH_SUCCESS", "operator_id": CLIENT, "message": ""});
        gateway.send([success]).await;
        gateway
    }

    /// Sends frames, all at once.
    pub(crate) async fn send(&mut self, frames: impl IntoIterator<Item = Value>) {
        for frame in frames {
            self.0.feed(Message::text(frame.to_string())).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    /// Sends a chat.
    pub(crate) async fn ask(&mut self, request_id: &str) {
        self.ask_for(request_id, MODEL, false).await;
    }

    /// The same for a streamed one.
    pub(crate) async fn ask_streamed(&mut self, request_id: &str) {
        self.ask_for(request_id, MODEL, true).await;
    }

    pub(crate) async fn ask_for(&mut self, request_id: &str, model: &str, stream: bool) {
        let messages = json!([{"role": "user", "content": "why"}]);
        let payload = json!({"model": model, "messages": messages, "stream": stream});
        self.send([json!({
            "type": "INFERENCE_REQUEST", "request_id": request_id, "payload": payload,
        })])
        .await;
    }

    /// Says Close, and reads until the relay has answered.
    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.0.close(Some(frame)).await.unwrap();
        self.read_out().await;
    }

    /// Reads until the connection ends; a Close is answered.
    pub(crate) async fn read_out(&mut self) {
        timeout(PATIENCE, async {
            while let Some(Ok(_)) = self.0.next().await {}
        })
        .await
        .unwrap();
    }

    /// The next frame of this type; those before it are passed over.
    pub(crate) async fn wait_for(&mut self, name: &str) -> Value {
        let find = async {
            loop {
                if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["type"] == name {
                        return frame;
                    }
                }
            }
        };
        let found = timeout(PATIENCE, find).await;
        found.unwrap_or_else(|_| panic!("the relay never said {name}"))
    }
}

/// What an answer does next.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Rest(Duration),
    /// A token.
    Say,
    /// A token of so many bytes.
    SayLong(usize),
    /// The line that says that it is whole, with as many tokens.
    Done(u64),
    /// Nothing any more, not even an end.
    Hang,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An Ollama with one model.
pub(crate) struct Ollama {
    wire: Arc<Wire>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    answers: Mutex<VecDeque<Vec<Step>>>,
    /// How often it was asked for its version.
    pulses: watch::Sender<usize>,
    models: Mutex<Vec<String>>,
    /// The models that it was asked to describe, in order.
    described: Mutex<Vec<String>>,
    /// A model of this name it never describes.
    undescribed: Mutex<Option<String>>,
}

impl Ollama {
    fn start(wire: Arc<Wire>, mut connections: mpsc::UnboundedReceiver<DuplexStream>) -> Self {
        let shared = Arc::new(Shared {
            answers: Mutex::default(),
            pulses: watch::Sender::default(),
            models: Mutex::new(vec![MODEL.to_owned()]),
            described: Mutex::default(),
            undescribed: Mutex::default(),
        });
        let state = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Some(connection) = connections.recv().await {
                open.spawn(Arc::clone(&state).serve(connection));
            }
        });
        Self {
            wire,
            shared,
            server,
        }
    }

    /// Has the next chat that has none yet answered like this.
    pub(crate) fn plan(&self, answer: &[Step]) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.push_back(answer.to_vec());
    }

    /// How many connections there ever were.
    pub(crate) fn dialled(&self) -> usize {
        self.wire.dialled.load(Ordering::Relaxed)
    }

    /// Waits until it is asked once more whether it is there.
    pub(crate) async fn wait_for_pulse(&self) {
        let mut pulses = self.shared.pulses.subscribe();
        timeout(PATIENCE, pulses.changed()).await.unwrap().unwrap();
    }

    /// Has these models as well.
    pub(crate) fn add_models(&self, names: &[String]) {
        self.shared.models.lock().unwrap().extend_from_slice(names);
    }

    /// Hangs when it is asked to describe this model.
    pub(crate) fn never_describe(&self, name: Option<&str>) {
        *self.shared.undescribed.lock().unwrap() = name.map(str::to_owned);
    }

    /// The models that it was asked to describe, in order.
    pub(crate) fn described(&self) -> Vec<String> {
        self.shared.described.lock().unwrap().clone()
    }

    /// Refuses connections and cuts those that are open.
    pub(crate) fn stop(&self) {
        *self.wire.arrivals.lock().unwrap() = None;
        self.server.abort();
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, connection: DuplexStream) {
        let service = service_fn(|request| {
            let shared = Arc::clone(&self);
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        });
        // How a client ends its connection is no concern of a server.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(connection), service)
            .await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let body_of = request.into_body().collect().await.unwrap().to_bytes();
        let about = match path.as_str() {
            "/api/chat" => {
                let answer = self.answers.lock().unwrap().pop_front();
                return Response::new(body(answer.unwrap()));
            }
            "/api/version" => {
                self.pulses.send_modify(|pulses| *pulses += 1);
                json!({"version": "0.17.4"})
            }
            "/api/tags" => {
                let models = self.models.lock().unwrap();
                let tag = |name: &String| json!({"name": name, "model": name, "digest": name});
                json!({"models": models.iter().map(tag).collect::<Vec<_>>()})
            }
            "/api/ps" => json!({"models": []}),
            "/api/show" => {
                let asked: Value = serde_json::from_slice(&body_of).unwrap();
                let name = asked["model"].as_str().unwrap().to_owned();
                let hangs = self.undescribed.lock().unwrap().as_ref() == Some(&name);
                self.described.lock().unwrap().push(name);
                if hangs {
                    std::future::pending::<()>().await;
                }
                json!({"capabilities": ["completion"]})
            }
            path => panic!("nobody should ask for {path}"),
        };
        Response::new(about.to_string().boxed_unsync())
    }
}

fn body(answer: Vec<Step>) -> Body {
    let line = |token: &str, done: bool, count: u64| {
        let message = json!({"role": "assistant", "content": token});
        let line = json!({"model": MODEL, "message": message, "done": done, "eval_count": count});
        Some(Ok(Frame::data(Bytes::from(format!("{line}\n")))))
    };
    let steps = stream::iter(answer).then(move |step| async move {
        match step {
            Step::Rest(time) => {
                sleep(time).await;
                None
            }
            Step::Say => line("word ", false, 0),
            Step::SayLong(bytes) => line(&"x".repeat(bytes), false, 0),
            Step::Done(tokens) => line("", true, tokens),
            Step::Hang => std::future::pending().await,
        }
    });
    StreamBody::new(steps.filter_map(ready)).boxed_unsync()
}
