//! The HTTP of the stand-in: what is where, and how it is answered.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::{
    Method, Response, Version,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Notify, oneshot},
    time::sleep,
};

use super::{
    Behaviour, CHAT, MODELS,
    answer::Answer,
    asked::Asked,
    events::Voice,
    fault::{Fault, Fixture},
    refusal::Refusal,
    speak::{Speaker, recite, speak},
    state::State,
    style::Style,
};
use crate::{
    journal::lock,
    listener::Reset,
    model_server::{Body, ChatGuard, Request, body, canned, respond, whole},
    sim::wire::End as WireEnd,
};

/// How long a connection stays open behind a stream where it is closed then: the shortest sleep that there is.
const CLOSES_AFTER: Duration = Duration::from_millis(1);

/// One connection.
#[derive(Clone)]
struct Connection {
    state: Arc<State>,
    reset: Option<Arc<Reset>>,
    /// Told where it is to be closed behind the answer that is being sent.
    closing: Arc<Notify>,
}

impl Connection {
    fn new(state: Arc<State>, reset: Option<Reset>) -> Self {
        Self {
            state,
            reset: reset.map(Arc::new),
            closing: Arc::default(),
        }
    }
}

pub(super) async fn serve_tcp(state: Arc<State>, tcp: TcpStream) {
    // A socket on which this fails is gone, and reading it will tell.
    let _ = tcp.set_nodelay(true);
    if let Some(bytes) = lock(&state.behaviour).send_buffer {
        let _ = SockRef::from(&tcp).set_send_buffer_size(bytes);
    }
    let reset = Reset::of(&tcp).ok();
    serve(Connection::new(state, reset), tcp).await;
}

pub(super) async fn serve_wire(state: Arc<State>, end: WireEnd) {
    let reset = Reset::of_wire(&end);
    serve(Connection::new(state, Some(reset)), end).await;
}

async fn serve(
    connection: Connection,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let keep_alive = !connection.state.style.manners().http_1_0;
    let closing = Arc::clone(&connection.closing);
    let service = service_fn(|request| {
        let connection = connection.clone();
        Box::pin(async move {
            let answered = connection.answer(request).await;
            answered.map_err(|Abandoned| std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        })
    });
    let mut served = hyper::server::conn::http1::Builder::new()
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    // How a client ends its connection is no concern of a server.
    tokio::select! {
        _ = &mut served => return,
        () = closing.notified() => {}
    }
    // No more is read; what the client writes until it hears of the end is lost.
    Pin::new(&mut served).graceful_shutdown();
    let _ = poll_fn(|context| served.poll_without_shutdown(context)).await;
    sleep(CLOSES_AFTER).await;
}

/// The connection ends without an answer.
struct Abandoned;

impl Connection {
    async fn answer(&self, request: hyper::Request<Incoming>) -> Result<Response<Body>, Abandoned> {
        let (head, incoming) = request.into_parts();
        let Ok(bytes) = incoming.collect().await.map(|body| body.to_bytes()) else {
            return Err(Abandoned);
        };
        let path = head.uri.path().to_owned();
        let request = Request::new(head.method.to_string(), path, head.headers, bytes);
        let request = Arc::new(request);
        let state = &self.state;
        if lock(&state.behaviour).record {
            state.requests.push(Arc::clone(&request));
        }
        let style = state.style;
        let mut response = match self.admit(&request) {
            Err(refusal) => refusal.answer(style),
            Ok(()) if head.method == Method::POST && request.path == CHAT => {
                self.chat(&request).await?
            }
            Ok(()) => match state.faults.take(&request) {
                Some(fault) => self.fail(fault).await?,
                None => self.look_up(&head.method, &request.path),
            },
        };
        if style.manners().http_1_0 {
            *response.version_mut() = Version::HTTP_10;
        }
        if state.is_loading() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok(response)
    }

    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        if self.state.is_loading() {
            return Err(Refusal::loading());
        }
        self.state.authorize(request)
    }

    /// Everything but chats, which have a way of their own.
    fn look_up(&self, method: &Method, path: &str) -> Response<Body> {
        let (style, behaviour) = (self.state.style, lock(&self.state.behaviour).clone());
        match (method, path) {
            (&Method::GET, MODELS) => {
                let models = lock(&self.state.models);
                let list = models.list(style, behaviour.router, behaviour.context);
                json_ok(&list)
            }
            (&Method::GET, "/health") => match style {
                Style::Vllm => whole(200, "text/plain", ""),
                Style::Ollama => whole(404, "text/plain", "404 page not found"),
                Style::LlamaServer | Style::Mlx | Style::Transformers => {
                    json_ok(&json!({"status": "ok"}))
                }
            },
            (&Method::GET, "/") if style == Style::Ollama => {
                whole(200, "text/plain; charset=utf-8", "Ollama is running")
            }
            (&Method::GET, "/props") if style == Style::LlamaServer => {
                json_ok(&json!({"is_sleeping": *lock(&self.state.asleep)}))
            }
            _ => no_such_path(style),
        }
    }

    async fn chat(&self, request: &Arc<Request>) -> Result<Response<Body>, Abandoned> {
        let state = &self.state;
        let guard = ChatGuard::start(request, &state.chats);
        let behaviour = lock(&state.behaviour).clone();
        let fault = match state.faults.take(request) {
            Some(Fault::Fixture(fixture)) => {
                return self.recite(fixture, behaviour, guard).await;
            }
            Some(
                fault @ (Fault::Answer { .. }
                | Fault::HangBeforeHeaders
                | Fault::ResetBeforeHeaders),
            ) => {
                let failed = self.fail(fault).await;
                guard.finish();
                return failed;
            }
            fault => fault,
        };
        match self.understand(request, &behaviour) {
            Ok((asked, voice)) => self.reply(&asked, voice, fault, behaviour, guard).await,
            Err(refusal) => {
                guard.finish();
                Ok(refusal.answer(state.style))
            }
        }
    }

    fn understand(
        &self,
        request: &Request,
        behaviour: &Behaviour,
    ) -> Result<(Asked, Voice), Refusal> {
        let (state, style) = (&self.state, self.state.style);
        let rules = state.rules(behaviour);
        rules.check_head(&request.headers)?;
        let asked = rules.read(&request.body)?;
        let models = lock(&state.models);
        let found = models.find(style, behaviour.router, asked.model.as_deref())?;
        let voice = Voice {
            style,
            model: behaviour.model_in_answers.clone().unwrap_or(found),
            reasoning: behaviour.reasoning.unwrap_or(style.manners().reasoning),
        };
        Ok((asked, voice))
    }

    async fn reply(
        &self,
        asked: &Asked,
        voice: Voice,
        fault: Option<Fault>,
        behaviour: Behaviour,
        guard: ChatGuard,
    ) -> Result<Response<Body>, Abandoned> {
        self.load(asked.model.as_deref().unwrap_or_default(), &behaviour)
            .await;
        let answer = Answer::new(asked, voice, &behaviour);
        if asked.stream {
            let begun = self.stream(behaviour, guard, |speaker, guard| {
                speak(speaker, answer, fault, guard)
            });
            return begun
                .await
                .map(|body| respond(200, "text/event-stream", body));
        }
        let tokens = u32::try_from(answer.len()).unwrap_or(u32::MAX);
        sleep(behaviour.first_token_delay + behaviour.token_delay * tokens).await;
        guard.finish();
        Ok(whole(200, "application/json", answer.whole()))
    }

    /// A sleeping server wakes up, and the router loads what it is asked for.
    async fn load(&self, model: &str, behaviour: &Behaviour) {
        let state = &self.state;
        let routed = behaviour.router && lock(&state.models).is_unloaded(model);
        if routed || *lock(&state.asleep) {
            sleep(behaviour.load_delay).await;
            lock(&state.models).load(model);
            *lock(&state.asleep) = false;
        }
    }

    async fn recite(
        &self,
        fixture: Fixture,
        behaviour: Behaviour,
        guard: ChatGuard,
    ) -> Result<Response<Body>, Abandoned> {
        let (status, content_type) = (fixture.status, fixture.content_type);
        let old = fixture.http_1_0;
        let begun = self.stream(behaviour, guard, |speaker, guard| {
            recite(speaker, fixture, guard)
        });
        let mut response = respond(status, content_type, begun.await?);
        if old {
            *response.version_mut() = Version::HTTP_10;
        }
        Ok(response)
    }

    /// A body that somebody writes from now on; given when its head is to be sent.
    async fn stream<F: Future<Output = ()> + Send + 'static>(
        &self,
        behaviour: Behaviour,
        guard: ChatGuard,
        write: impl FnOnce(Speaker, ChatGuard) -> F,
    ) -> Result<Body, Abandoned> {
        let (writer, body) = body(guard.request(), self.state.pause.subscribe());
        let (begun, head) = oneshot::channel();
        let speaker = Speaker {
            behaviour,
            manners: self.state.style.manners(),
            writer,
            reset: self.reset.clone(),
            begun: Some(begun),
        };
        tokio::spawn(write(speaker, guard));
        head.await.map_err(|_| Abandoned)?;
        Ok(if self.state.style.manners().closes_behind_streams {
            self.closed_behind(body)
        } else {
            body
        })
    }

    /// A body behind which the connection is closed. Its head is under way by then, and says nothing of it.
    fn closed_behind(&self, body: Body) -> Body {
        let closing = Arc::clone(&self.closing);
        let end = stream::poll_fn(move |_| {
            closing.notify_one();
            Poll::Ready(None)
        });
        StreamBody::new(BodyStream::new(body).chain(end)).boxed_unsync()
    }

    async fn fail(&self, fault: Fault) -> Result<Response<Body>, Abandoned> {
        match fault {
            Fault::Answer {
                status,
                headers,
                body,
            } => Ok(canned(status, &headers, body)),
            Fault::HangBeforeHeaders => std::future::pending().await,
            Fault::ResetBeforeHeaders => {
                if let Some(reset) = &self.reset {
                    reset.on_drop();
                }
                Err(Abandoned)
            }
            other => {
                let message = format!("devnet: only a chat can have the fault {other:?}");
                Ok(whole(500, "text/plain", message))
            }
        }
    }
}

fn no_such_path(style: Style) -> Response<Body> {
    match style {
        Style::LlamaServer => Refusal::new(404, "not_found_error", "File Not Found").answer(style),
        Style::Vllm | Style::Transformers => {
            whole(404, "application/json", r#"{"detail":"Not Found"}"#)
        }
        Style::Mlx => whole(404, "application/json", "Not Found"),
        Style::Ollama => whole(404, "text/plain", "404 page not found"),
    }
}

fn json_ok(value: &Value) -> Response<Body> {
    whole(200, "application/json", value.to_string())
}
