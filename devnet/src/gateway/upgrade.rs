//! From a TCP connection to a WebSocket: TLS, the path, and the policies that go wrong here.

use std::sync::{Arc, atomic::Ordering};

use async_tungstenite::{
    WebSocketStream,
    tokio::{TokioAdapter, accept_hdr_async_with_config},
    tungstenite::{
        self,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{hub::Hub, muffle::Muffled, policy::Login};

/// Where the gateway's WebSocket is.
pub(super) const PATH: &str = "/api/v1/pin/ws";

/// A connection with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) type Socket = WebSocketStream<TokioAdapter<Muffled>>;

/// Upgrades, or answers as the policy wants, or with 429 an agent that comes too often; an error means that the connection is done with.
pub(super) async fn upgrade(
    hub: &Arc<Hub>,
    stream: Box<dyn Stream>,
    too_often: bool,
) -> Result<Socket, tungstenite::Error> {
    let stream = match &hub.tls {
        Some(acceptor) => Box::new(acceptor.accept(stream).await?),
        None => stream,
    };
    let mut login = hub.policy.borrow().login.clone();
    if too_often {
        login = too_many_attempts();
    }
    if login == Login::HangUpgrade {
        std::future::pending::<()>().await;
    }
    let date = httpdate::fmt_http_date(hub.now());
    // The callback's type is tungstenite's, and so is the size of its error.
    #[allow(clippy::result_large_err)]
    let answer =
        move |request: &Request, response: Response| answer(&login, &date, request, response);
    let stream = Muffled::new(stream, Arc::clone(hub));
    let gate = stream.gate();
    let socket = accept_hdr_async_with_config(stream, answer, Some(limits())).await?;
    gate.store(true, Ordering::Relaxed);
    Ok(socket)
}

fn too_many_attempts() -> Login {
    Login::Http {
        status: 429,
        retry_after: None,
        body: "too many connection attempts".to_owned(),
    }
}

/// The gateway takes whatever an agent sends: limits are for the agent under test to keep.
fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None)
}

#[allow(clippy::result_large_err)]
fn answer(
    login: &Login,
    date: &str,
    request: &Request,
    mut response: Response,
) -> Result<Response, ErrorResponse> {
    let mut refusal = if let Login::Http {
        status,
        retry_after,
        body,
    } = login
    {
        let mut refusal = refuse(*status, body);
        if let Some(value) = retry_after
            .as_deref()
            .and_then(|text| HeaderValue::from_str(text).ok())
        {
            refusal.headers_mut().insert(header::RETRY_AFTER, value);
        }
        refusal
    } else if request.uri().path() != PATH {
        refuse(404, "404 page not found")
    } else {
        response.headers_mut().extend(date_header(date));
        return Ok(response);
    };
    refusal.headers_mut().extend(date_header(date));
    Err(refusal)
}

fn refuse(status: u16, body: &str) -> ErrorResponse {
    let mut refusal = ErrorResponse::new(Some(body.to_owned()));
    *refusal.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refusal
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    refusal
}

fn date_header(date: &str) -> Option<(header::HeaderName, HeaderValue)> {
    HeaderValue::from_str(date)
        .ok()
        .map(|value| (header::DATE, value))
}
