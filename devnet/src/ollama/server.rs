//! The HTTP of the stand-in: what is where, and how it is answered.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::{Method, Response, body::Incoming};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    VERSION,
    answer::{Answer, Dialect},
    fault::Fault,
    pull::pull,
    request::{ChatRequest, Refusal, entries},
    state::State,
    stream::speak,
    timestamp::rfc3339,
};
use crate::{
    journal::lock,
    model_server::{self, Body, ChatGuard, Request, body, canned, respond, whole},
};

const JSON: &str = "application/json; charset=utf-8";

pub(super) async fn serve_tcp(state: Arc<State>, tcp: TcpStream) {
    // A socket on which this fails is gone, and reading it will tell.
    let _ = tcp.set_nodelay(true);
    if let Some(bytes) = lock(&state.behaviour).send_buffer {
        let _ = SockRef::from(&tcp).set_send_buffer_size(bytes);
    }
    serve(state, tcp).await;
}

pub(super) async fn serve(state: Arc<State>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    model_server::serve(stream, |request| answer(&state, request)).await;
}

async fn answer(state: &Arc<State>, request: hyper::Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let Ok(bytes) = incoming.collect().await.map(|body| body.to_bytes()) else {
        return json_answer(&Refusal::new(400, "unexpected EOF"));
    };
    let path = head.uri.path().to_owned();
    let request = Arc::new(Request::new(
        head.method.to_string(),
        path,
        head.headers,
        bytes,
    ));
    if lock(&state.behaviour).record {
        state.requests.push(Arc::clone(&request));
    }
    let fault = state.faults.take(&request);
    let method = if head.method == Method::HEAD {
        Method::GET
    } else {
        head.method
    };
    match (&method, request.path.as_str()) {
        (&Method::POST, "/api/chat") => chat(state, &request, fault, false).await,
        (&Method::POST, "/v1/chat/completions") => chat(state, &request, fault, true).await,
        (&Method::POST, "/api/pull") => match fault {
            Some(fault @ (Fault::Answer { .. } | Fault::HangBeforeHeaders)) => fail(fault).await,
            fault => pull(state, &request, fault).unwrap_or_else(|refusal| json_answer(&refusal)),
        },
        _ => match fault {
            Some(fault) => fail(fault).await,
            None => look_up(state, &method, &request),
        },
    }
}

/// Everything but chats, which have a way of their own.
fn look_up(state: &State, method: &Method, request: &Request) -> Response<Body> {
    let mut models = lock(&state.models);
    match (method, request.path.as_str()) {
        (&Method::GET, "/") => whole(200, "text/plain; charset=utf-8", "Ollama is running"),
        (&Method::GET, "/api/version") => json_ok(&json!({"version": VERSION})),
        (&Method::GET, "/api/tags") => json_ok(&models.tags()),
        (&Method::GET, "/api/ps") => json_ok(&models.ps()),
        (&Method::GET, "/v1/models") => {
            whole(200, "application/json", models.openai_list().to_string())
        }
        (&Method::POST, "/api/show") => {
            drop(models);
            show(state, &request.body).unwrap_or_else(|refusal| json_answer(&refusal))
        }
        (_, "/api/version" | "/api/tags" | "/api/ps" | "/api/show" | "/api/chat" | "/api/pull") => {
            whole(405, "text/plain", "405 method not allowed")
        }
        _ => whole(404, "text/plain", "404 page not found"),
    }
}

fn show(state: &State, body: &[u8]) -> Result<Response<Body>, Refusal> {
    let entries = entries(body)?;
    let name = entries
        .get("model")
        .as_str()
        .or(entries.get("name").as_str())
        .unwrap_or_default();
    if name.is_empty() {
        return Err(Refusal::new(400, "model is required"));
    }
    let shown = lock(&state.models).show(name);
    shown
        .map(|shown| json_ok(&shown))
        .ok_or_else(|| Refusal::no_such_model(name))
}

async fn chat(
    state: &Arc<State>,
    request: &Arc<Request>,
    fault: Option<Fault>,
    openai: bool,
) -> Response<Body> {
    let guard = ChatGuard::start(request, &state.chats);
    if let Some(fault @ (Fault::Answer { .. } | Fault::HangBeforeHeaders)) = fault {
        let failed = fail(fault).await;
        guard.finish();
        return failed;
    }
    let read = if openai {
        ChatRequest::openai(&request.body)
    } else {
        ChatRequest::native(&request.body)
    };
    match read.and_then(|chat| state.admit(chat)) {
        Ok(chat) if chat.messages.is_empty() => {
            let loaded = load_only(state, &chat).await;
            guard.finish();
            loaded
        }
        Ok(chat) => reply(state, chat, fault, openai, guard).await,
        Err(refusal) => {
            guard.finish();
            if openai {
                openai_error(&refusal)
            } else {
                json_answer(&refusal)
            }
        }
    }
}

async fn reply(
    state: &Arc<State>,
    chat: ChatRequest,
    fault: Option<Fault>,
    openai: bool,
    guard: ChatGuard,
) -> Response<Body> {
    let behaviour = lock(&state.behaviour).clone();
    let dialect = if openai {
        Dialect::OpenAi {
            include_usage: chat.include_usage,
        }
    } else {
        Dialect::Native
    };
    let mut answer = Answer::new(&chat, dialect, state.thinks(&chat), &behaviour);
    let (use_of_model, load) = state.load(&chat).await;
    answer.load = load;
    let stream = chat.stream && !matches!(fault, Some(Fault::SingleObject));
    let content_type = answer.content_type(stream);
    if stream {
        let (writer, body) = body(guard.request(), state.pause.subscribe());
        tokio::spawn(async move {
            let _use_of_model = use_of_model;
            speak(answer, behaviour, fault, writer, guard).await;
        });
        return respond(200, content_type, body);
    }
    let begun = tokio::time::Instant::now();
    let tokens = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    let speaking = behaviour.first_token_delay + behaviour.token_delay * tokens;
    tokio::time::sleep(speaking + behaviour.done_delay).await;
    guard.finish();
    whole(200, content_type, answer.whole(begun))
}

/// A chat without messages only loads its model, or unloads it.
async fn load_only(state: &Arc<State>, chat: &ChatRequest) -> Response<Body> {
    let unload = chat.keep_alive == Some(Duration::ZERO);
    if unload {
        lock(&state.models).unload(&chat.model);
    } else {
        state.load(chat).await;
    }
    json_ok(&json!({
        "model": chat.model, "created_at": rfc3339(std::time::SystemTime::now()),
        "message": {"role": "assistant", "content": ""}, "done": true,
        "done_reason": if unload { "unload" } else { "load" },
    }))
}

async fn fail(fault: Fault) -> Response<Body> {
    match fault {
        Fault::Answer {
            status,
            headers,
            body,
        } => canned(status, &headers, body),
        Fault::HangBeforeHeaders => std::future::pending().await,
        other => whole(
            500,
            "text/plain",
            format!("devnet: only a chat can have the fault {other:?}"),
        ),
    }
}

fn json_ok(value: &Value) -> Response<Body> {
    whole(200, JSON, value.to_string())
}

fn json_answer(refusal: &Refusal) -> Response<Body> {
    whole(
        refusal.status,
        JSON,
        json!({"error": refusal.error}).to_string(),
    )
}

fn openai_error(refusal: &Refusal) -> Response<Body> {
    let kind = if refusal.status == 400 {
        "invalid_request_error"
    } else {
        "api_error"
    };
    let error = json!({"message": refusal.error, "type": kind, "param": null, "code": null});
    whole(
        refusal.status,
        "application/json",
        json!({"error": error}).to_string(),
    )
}
