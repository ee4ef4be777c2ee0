//! The HTTP of the stand-in: what is where, and how it is answered.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use super::{Fault, MODELS, SPEECH, State};
use crate::model_server::{
    self, Body, ChatGuard, Gone, Request, Write, Writer, body, respond, whole,
};

/// Formats with what a clip begins with and its content type.
const FORMATS: [(&str, &[u8], &str); 6] = [
    ("wav", b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
    ("pcm", b"\0\0", "audio/pcm_s16le"),
    ("mp3", b"ID3\x04\0\0", "audio/mpeg"),
    ("opus", b"OggS\0\x02", "audio/ogg"),
    ("flac", b"fLaC\0\0", "audio/flac"),
    ("aac", b"\xff\xf1\x50\x80", "audio/aac"),
];

/// What a request gets that names no format.
const FORMAT: &str = "wav";

const JSON: &str = "application/json";

/// Nobody knows it by these, as it takes any name.
const LIST: &str =
    r#"{"object":"list","data":[{"id":"tts-1","object":"model","owned_by":"piper-studio-local"}]}"#;

/// A text in a format, as the stand-in speaks it; nothing in a format that it has not.
pub fn clip(text: &str, format: &str) -> Bytes {
    let known = FORMATS.iter().find(|(name, ..)| *name == format);
    let Some((_, beginning, _)) = known else {
        return Bytes::new();
    };
    [beginning, text.as_bytes()].concat().into()
}

pub(super) async fn serve_tcp(state: Arc<State>, tcp: TcpStream) {
    // A socket on which this fails is gone, and reading it will tell.
    let _ = tcp.set_nodelay(true);
    serve(state, tcp).await;
}

pub(super) async fn serve(state: Arc<State>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    model_server::serve(stream, |request| answer(&state, request)).await;
}

async fn answer(state: &Arc<State>, request: hyper::Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let Ok(bytes) = incoming.collect().await.map(|body| body.to_bytes()) else {
        return refuse("JSON decode error");
    };
    let path = head.uri.path().to_owned();
    let method = head.method.to_string();
    let request = Arc::new(Request::new(method, path, head.headers, bytes));
    state.requests.push(Arc::clone(&request));
    let fault = state.faults.take(&request);
    let is_speech = head.method == Method::POST && request.path == SPEECH;
    let guard = is_speech.then(|| ChatGuard::start(&request, &state.chats));
    match (guard, fault) {
        (guard, Some(fault @ (Fault::Answer { .. } | Fault::HangBeforeHeaders))) => {
            let failed = fail(fault).await;
            guard.into_iter().for_each(ChatGuard::finish);
            failed
        }
        (Some(guard), fault) => speak(state, &request, fault, guard),
        (None, _) if request.path == MODELS => whole(200, JSON, LIST),
        // A page of its own for whatever it does not know.
        (None, _) => whole(200, "text/html; charset=utf-8", "<!doctype html>"),
    }
}

async fn fail(fault: Fault) -> Response<Body> {
    match fault {
        Fault::Answer {
            status,
            content_type,
            body,
        } => typed(whole(status, JSON, body), content_type),
        _ => std::future::pending().await,
    }
}

/// With another content type; without one where it is empty.
fn typed(mut response: Response<Body>, content_type: &'static str) -> Response<Body> {
    let headers = response.headers_mut();
    if content_type.is_empty() {
        headers.remove(CONTENT_TYPE);
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

fn refuse(message: &str) -> Response<Body> {
    let error =
        json!({"message": message, "type": "invalid_request_error", "code": "invalid_request"});
    whole(400, JSON, json!({"error": error}).to_string())
}

/// The clip that is asked for and its content type, or why there is none.
fn read(body: &[u8]) -> Result<(Bytes, &'static str), &'static str> {
    let asked: Value = serde_json::from_slice(body).map_err(|_| "JSON decode error")?;
    let text = asked["input"].as_str().unwrap_or_default();
    if text.trim().is_empty() {
        return Err("invalid request field 'input': Value error, input must not be blank");
    }
    let format = asked["response_format"].as_str().unwrap_or(FORMAT);
    let known = FORMATS.iter().find(|(name, ..)| *name == format);
    let (.., content_type) = known.ok_or(
        "invalid request field 'response_format': Value error, response_format must be one of: wav, pcm, mp3, flac, \
         aac, opus",
    )?;
    Ok((clip(text, format), content_type))
}

fn speak(
    state: &State,
    request: &Arc<Request>,
    fault: Option<Fault>,
    guard: ChatGuard,
) -> Response<Body> {
    let (clip, content_type) = match read(&request.body) {
        Ok(read) => read,
        Err(message) => {
            guard.finish();
            return refuse(message);
        }
    };
    match fault {
        None if state.pause.borrow().is_none() => {
            guard.finish();
            whole(200, content_type, clip)
        }
        Some(Fault::ContentType(other)) => {
            guard.finish();
            typed(whole(200, content_type, clip), other)
        }
        fault => {
            let (writer, body) = body(guard.request(), state.pause.subscribe());
            tokio::spawn(async move {
                if write(&writer, clip, fault).await.is_ok() {
                    guard.finish();
                }
            });
            respond(200, content_type, body)
        }
    }
}

async fn write(writer: &Writer, mut clip: Bytes, fault: Option<Fault>) -> Result<(), Gone> {
    writer.wait_while_paused(0).await?;
    match fault {
        Some(Fault::Hang { after }) => {
            writer
                .write_parts([clip.split_to(after.min(clip.len()))])
                .await?;
            writer.closed().await
        }
        Some(Fault::Cut { after }) => {
            writer
                .write_parts([clip.split_to(after.min(clip.len()))])
                .await?;
            writer.put(Write::Cut).await
        }
        Some(Fault::Slow { piece, pause }) => {
            while !clip.is_empty() {
                writer.sleep_until(Instant::now() + pause).await?;
                let piece = clip.split_to(piece.clamp(1, clip.len()));
                writer.write_parts([piece]).await?;
            }
            Ok(())
        }
        Some(Fault::Garbage { bytes }) => writer.garbage(bytes).await,
        // The others are answered before.
        None | Some(Fault::Answer { .. } | Fault::HangBeforeHeaders | Fault::ContentType(_)) => {
            writer.write(clip).await
        }
    }
}
