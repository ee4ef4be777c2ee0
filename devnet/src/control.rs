//! A port to chat through and to break things with, for whoever sits in front of a demo, with nothing but `curl`.
//!
//! It checks nobody's rights, so it belongs on loopback. Web pages are turned away: any page may post to loopback.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HeaderValue, ORIGIN},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::{Chat, ChatEvent, Gateway, Interview, InterviewState, Tier};

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A chat that somebody pastes is not longer.
const MAX_BODY: usize = 4 << 20;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is controlled.
pub trait Controlled {
    /// All that can be asked, for a person who asked for something else.
    const HELP: &'static str;

    /// The gateway that chats are sent through.
    fn gateway(&self) -> &Arc<Gateway>;

    /// The model of a chat that names none; `None` if there is none yet.
    fn model(&self) -> Option<String>;

    /// Breaks or mends what the path of a POST names, such as `/gateway/stop`; [`act_on_gateway`] knows some.
    fn act(&self, path: &str) -> impl Future<Output = Result<(), Refusal>>;
}

/// Why something that was asked for is not done.
#[derive(Debug)]
pub enum Refusal {
    /// There is nothing of this name.
    Unknown,
    /// It was asked for in a way that cannot be read.
    Wrong(String),
    /// It cannot be done here.
    NotHere(&'static str),
    /// It may be done later.
    NotYet(&'static str),
    /// The system refused.
    Failed(io::Error),
}

/// `/gateway/stop`, `start`, `mute` (connected, and deaf and dumb), `unmute`, `cut` (every session is reset), and
/// `interview` (every node that is there is interviewed).
///
/// # Errors
/// The path is none of these, or the gateway's port cannot be had any more.
pub async fn act_on_gateway(gateway: &Gateway, path: &str) -> Result<(), Refusal> {
    match path {
        "/gateway/stop" => gateway.stop().await,
        "/gateway/start" => gateway.start_again().await.map_err(Refusal::Failed)?,
        "/gateway/mute" => gateway.stop_reading(),
        "/gateway/unmute" => gateway.read_again(),
        "/gateway/cut" => gateway.drop_sessions(),
        "/gateway/interview" => interview(gateway)?,
        _ => return Err(Refusal::Unknown),
    }
    Ok(())
}

fn interview(gateway: &Gateway) -> Result<(), Refusal> {
    let nodes = gateway.members();
    let begun = nodes
        .iter()
        .filter_map(|node| gateway.interview(&node.alias));
    if begun.count() == 0 {
        return Err(Refusal::NotYet("no node with a model is registered"));
    }
    Ok(())
}

/// Takes connections and serves them, all in this task.
pub async fn serve(listener: &TcpListener, controlled: &impl Controlled) -> Infallible {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => connections.push(serve_connection(connection, controlled)),
                // The reason is nearly always a lack of file descriptors, which passes.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(()) = connections.next() => {}
        }
    }
}

async fn serve_connection(connection: TcpStream, controlled: &impl Controlled) {
    let service =
        service_fn(async |request| Ok::<_, Infallible>(answer(controlled, request).await));
    // How a client ends its connection is no concern of a server.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn answer<C: Controlled>(controlled: &C, request: Request<Incoming>) -> Response<Body> {
    // A web page has no business here.
    if request.headers().contains_key(ORIGIN) {
        return say(403, "not for web pages");
    }
    let path = request.uri().path().to_owned();
    let done = match (request.method(), path.as_str()) {
        (&Method::GET, "/") => return say(200, C::HELP),
        (&Method::GET, "/books") => return say(200, &books(controlled.gateway()).to_string()),
        (&Method::GET, "/nodes") => return say(200, &nodes(controlled.gateway()).to_string()),
        (&Method::POST, "/chat") => chat(controlled, request).await,
        (&Method::POST, path) => controlled.act(path).await.map(|()| say(200, "done")),
        _ => Err(Refusal::Unknown),
    };
    done.unwrap_or_else(|refusal| refusal.response(C::HELP))
}

/// What a gateway has counted since it was started.
fn books(gateway: &Gateway) -> Value {
    let (books, sessions) = (gateway.books(), gateway.sessions());
    let deliveries = books.all_deliveries();
    json!({
        "sessions": {"open": sessions.open, "ever": sessions.ever},
        "models": gateway.models(),
        "responses": deliveries.responses,
        "errors": deliveries.errors,
        "billed": books.bills(),
        "altered": books.altered().len(),
        "given_up": books.given_up().len(),
        "interviews": interviews(gateway),
        "reputation": reputations(gateway),
    })
}

/// How many interviews were asked for and judged, and how many results came, repeated ones too.
fn interviews(gateway: &Gateway) -> Value {
    let all = gateway.interviews();
    let is_judged = |one: &&Interview| matches!(one.state, InterviewState::Judged(_));
    json!({
        "asked": all.len(),
        "results": gateway.books().all_interview_results(),
        "judged": all.iter().filter(is_judged).count(),
    })
}

fn reputations(gateway: &Gateway) -> Value {
    let nodes = gateway.members().into_iter();
    nodes
        .map(|node| (node.alias, json!(node.reputation)))
        .collect()
}

/// What a gateway thinks of each node.
fn nodes(gateway: &Gateway) -> Value {
    let nodes = gateway.members().into_iter();
    let nodes = nodes.map(|node| {
        json!({
            "alias": node.alias,
            "standing": node.standing.name(),
            "tier": node.tier.map(Tier::name),
            "reputation": node.reputation,
            "probes": {"sent": node.probes.sent, "answered": node.probes.answered, "missed": node.probes.missed},
        })
    });
    nodes.collect()
}

async fn chat(
    controlled: &impl Controlled,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| Refusal::Wrong(error.to_string()))?;
    let payload = payload(&body.to_bytes(), controlled.model())?;
    let gateway = controlled.gateway();
    let chat = gateway
        .try_chat(&payload)
        .ok_or(Refusal::NotYet("no sidecar is logged in"))?;
    let pieces = stream::unfold(Talk::new(gateway, chat), async |mut talk| {
        let text = talk.next().await?;
        Some((Ok(Frame::data(Bytes::from(text))), talk))
    });
    Ok(respond(200, StreamBody::new(pieces).boxed_unsync()))
}

/// A chat payload as it is, with the model filled in; or a prompt.
fn payload(body: &[u8], model: Option<String>) -> Result<Value, Refusal> {
    let unreadable = |error| format!("the body must be JSON such as {{\"prompt\": …}}: {error}");
    let mut payload: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::Wrong(unreadable(error)))?;
    let fields = payload
        .as_object_mut()
        .ok_or_else(|| Refusal::Wrong("the body must be a JSON object".to_owned()))?;
    if let Some(prompt) = fields.remove("prompt") {
        fields.insert(
            "messages".to_owned(),
            json!([{"role": "user", "content": prompt}]),
        );
    }
    if !fields.contains_key("model") {
        let model = model.ok_or(Refusal::NotYet("no sidecar has a model"))?;
        fields.insert("model".to_owned(), json!(model));
    }
    fields.entry("stream").or_insert(json!(true));
    Ok(payload)
}

/// A chat whose text somebody reads; who stops reading cancels it.
struct Talk {
    chat: Chat,
    gateway: Arc<Gateway>,
    streamed: bool,
    over: bool,
}

impl Talk {
    fn new(gateway: &Arc<Gateway>, chat: Chat) -> Self {
        Self {
            chat,
            gateway: Arc::clone(gateway),
            streamed: false,
            over: false,
        }
    }

    /// The next piece of the answer's text, and a newline at its end.
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        Some(match self.chat.event().await? {
            ChatEvent::Chunk(chunk) => {
                self.streamed = true;
                chunk.delta
            }
            ChatEvent::Response(result) => {
                self.over = true;
                let text = result["choices"][0]["message"]["content"]
                    .as_str()
                    .filter(|_| !self.streamed);
                format!("{}\n", text.unwrap_or_default())
            }
            ChatEvent::Error(error) | ChatEvent::GivenUp(error) => {
                self.over = true;
                format!("error: {error}\n")
            }
        })
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if !self.over {
            self.gateway.try_cancel(self.chat.id());
        }
    }
}

impl Refusal {
    fn response(self, help: &str) -> Response<Body> {
        match self {
            Self::Unknown => say(404, help),
            Self::Wrong(trouble) => say(400, &trouble),
            Self::NotHere(trouble) => say(409, trouble),
            Self::NotYet(trouble) => say(503, trouble),
            Self::Failed(error) => say(500, &error.to_string()),
        }
    }
}

fn say(status: u16, text: &str) -> Response<Body> {
    respond(
        status,
        Full::new(Bytes::from(format!("{text}\n")))
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

fn respond(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_becomes_a_chat_and_a_chat_stays_what_it_is() {
        let model = || Some("m".to_owned());
        let chat =
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(payload(br#"{"prompt": "hi"}"#, model()).unwrap(), chat);
        let whole = json!({"model": "other", "stream": false, "messages": []});
        assert_eq!(payload(whole.to_string().as_bytes(), None).unwrap(), whole);
        assert!(matches!(payload(b"hi", model()), Err(Refusal::Wrong(_))));
        assert!(matches!(payload(b"{}", None), Err(Refusal::NotYet(_))));
    }
}
