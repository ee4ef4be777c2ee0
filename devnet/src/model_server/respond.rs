//! A connection of HTTP, answers that are written at once, and the head of those that are not.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Body;

/// Answers what comes over a connection, until it ends. How a client ends its connection is no concern of a server.
pub(crate) async fn serve<F: Future<Output = Response<Body>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<Incoming>) -> F,
) {
    let service = service_fn(|request| answer(request).map(Ok::<_, Infallible>));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

pub(crate) fn whole(
    status: u16,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    respond(
        status,
        content_type,
        Full::new(body.into())
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

pub(crate) fn respond(status: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A whole answer with headers of its own; without a type of its own it is plain text.
pub(crate) fn canned(
    status: u16,
    headers: &[(&'static str, String)],
    body: Bytes,
) -> Response<Body> {
    let mut response = whole(status, "text/plain", body);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}
