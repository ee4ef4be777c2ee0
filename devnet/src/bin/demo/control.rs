//! `--serve`: everything runs until Ctrl-C, with a loopback port to chat through and to break things with.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use devnet::gateway::{Chat, ChatEvent, Gateway};
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

use crate::{Trouble, interrupted, stage::Stage, terminal::Terminal};

/// What can be asked of the control port.
const VERBS: &str = "POST /chat, /ollama/stop|start, /gateway/stop|start, /network/cut|stall|mend";

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A chat that somebody pastes is not longer.
const MAX_BODY: usize = 4 << 20;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves until Ctrl-C, or until the sidecar ends by itself.
pub(crate) async fn serve(
    stage: &Stage,
    port: u16,
    terminal: &mut Terminal,
) -> Result<(), Trouble> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener
        .map_err(|error| format!("port {port} cannot be had ({error}): give another --port"))?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    explain(stage, &format!("http://{addr}"), terminal);
    tokio::select! {
        never = accept(&listener, stage) => match never {},
        () = interrupted() => Ok(()),
        ended = stage.sidecar.wait_for(Duration::MAX) => match ended {
            Some(status) => Err(format!("the sidecar ended by itself with {status}: its log says why")),
            None => Err("the sidecar cannot be watched".to_owned()),
        },
    }
}

fn explain(stage: &Stage, control: &str, terminal: &mut Terminal) {
    terminal.part("Chat");
    terminal.verbatim(&format!(
        "curl -N {control}/chat -d '{{\"prompt\": \"Why is the sky blue?\"}}'"
    ));
    terminal.part("Break and mend");
    terminal.verbatim(&format!(
        "curl -X POST {control}/network/cut     # or stall, mend"
    ));
    terminal.verbatim(&format!(
        "curl -X POST {control}/gateway/stop    # or start"
    ));
    if stage.model_server.stand_in.is_some() {
        terminal.verbatim(&format!(
            "curl -X POST {control}/ollama/stop     # or start"
        ));
    }
    terminal.part("Watch");
    for path in ["/readyz", "/status", "/metrics"] {
        terminal.verbatim(&format!("curl {}", stage.sidecar.url(path)));
    }
    terminal.part("Ctrl-C drains the sidecar and ends");
}

/// Takes connections and serves them, all in this task.
async fn accept(listener: &TcpListener, stage: &Stage) -> Infallible {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => connections.push(serve_connection(connection, stage)),
                // The reason is nearly always a lack of file descriptors, which passes.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(()) = connections.next() => {}
        }
    }
}

async fn serve_connection(connection: TcpStream, stage: &Stage) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(stage, request).await));
    // How a client ends its connection is no concern of a server.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn answer(stage: &Stage, request: Request<Incoming>) -> Response<Body> {
    // A web page has no business here.
    if request.headers().contains_key(ORIGIN) {
        return say(403, "not for web pages");
    }
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, "/chat") => chat(stage, request)
            .await
            .unwrap_or_else(|(status, trouble)| say(status, &trouble)),
        (&Method::POST, verb) => match act(stage, verb).await {
            Ok(done) => say(200, done),
            Err((status, trouble)) => say(status, &trouble),
        },
        (_, "/") => say(200, VERBS),
        _ => say(404, VERBS),
    }
}

async fn act(stage: &Stage, verb: &str) -> Result<&'static str, (u16, Trouble)> {
    let ollama = stage
        .model_server
        .stand_in
        .as_ref()
        .ok_or((409, "this Ollama is a real one: not ours".to_owned()));
    let failed = |error: io::Error| (500, error.to_string());
    match verb {
        "/ollama/stop" => ollama?.stop().await,
        "/ollama/start" => ollama?.start_again().await.map_err(failed)?,
        "/gateway/stop" => stage.gateway.stop().await,
        "/gateway/start" => stage.gateway.start_again().await.map_err(failed)?,
        "/network/cut" => stage.network.cut().await,
        "/network/stall" => stage.network.stall(),
        "/network/mend" => stage.network.mend().await.map_err(failed)?,
        _ => return Err((404, VERBS.to_owned())),
    }
    Ok("done")
}

async fn chat(stage: &Stage, request: Request<Incoming>) -> Result<Response<Body>, (u16, Trouble)> {
    let wrong = |trouble| (400, trouble);
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| wrong(error.to_string()))?.to_bytes();
    let payload = payload(&body, &stage.model_server.model).map_err(wrong)?;
    let chat = stage
        .gateway
        .try_chat(&payload)
        .ok_or((503, "no sidecar is logged in".to_owned()))?;
    let talk = Talk {
        chat,
        gateway: Arc::clone(&stage.gateway),
        streamed: false,
        over: false,
    };
    let pieces = stream::unfold(talk, async |mut talk| {
        let text = talk.next().await?;
        Some((Ok(Frame::data(Bytes::from(text))), talk))
    });
    Ok(respond(200, StreamBody::new(pieces).boxed_unsync()))
}

/// A chat payload as it is, with the model filled in; or a prompt.
fn payload(body: &[u8], model: &str) -> Result<Value, Trouble> {
    let read = serde_json::from_slice(body);
    let mut payload: Value =
        read.map_err(|error| format!("the body must be JSON such as {{\"prompt\": …}}: {error}"))?;
    let fields = payload
        .as_object_mut()
        .ok_or("the body must be a JSON object")?;
    if let Some(prompt) = fields.remove("prompt") {
        fields.insert(
            "messages".to_owned(),
            json!([{"role": "user", "content": prompt}]),
        );
    }
    fields.entry("model").or_insert_with(|| json!(model));
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
            ChatEvent::Error(error) => {
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
        let chat =
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(payload(br#"{"prompt": "hi"}"#, "m").unwrap(), chat);
        let whole = json!({"model": "other", "stream": false, "messages": []});
        assert_eq!(payload(whole.to_string().as_bytes(), "m").unwrap(), whole);
        assert!(payload(b"hi", "m").is_err());
    }
}
