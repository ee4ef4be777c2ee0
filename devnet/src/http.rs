//! A small HTTP client for loopback: one request, one connection, the whole answer or its pieces as they come.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, Uri, body::Incoming, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub use hyper::http::uri::Authority;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An answer whose body is still coming. Dropping it closes the connection.
#[derive(Debug)]
pub struct Answering {
    /// The HTTP status.
    pub status: u16,
    body: Incoming,
}

impl Answering {
    /// The next piece of the body, as one read gave it; `None` at its end.
    ///
    /// # Errors
    /// The body was cut off.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// How long a whole answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// `GET url`.
///
/// # Errors
/// There was no whole answer within half a minute.
pub async fn get(url: &str) -> io::Result<Answer> {
    whole(request("GET", url, &[], Bytes::new())).await
}

/// `POST url`.
///
/// # Errors
/// There was no whole answer within half a minute.
pub async fn post(url: &str, body: impl Into<Bytes>) -> io::Result<Answer> {
    whole(request("POST", url, &[], body.into())).await
}

/// As [`post`], with headers of one's own.
///
/// # Errors
/// There was no whole answer within half a minute.
pub async fn post_with(
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> io::Result<Answer> {
    whole(request("POST", url, headers, body.into())).await
}

/// As [`post`], for an answer that takes its time.
///
/// # Errors
/// No answer began.
pub async fn post_streaming(url: &str, body: impl Into<Bytes>) -> io::Result<Answering> {
    let response = request("POST", url, &[], body.into()).await?;
    Ok(Answering {
        status: response.status().as_u16(),
        body: response.into_body(),
    })
}

async fn whole(
    request: impl Future<Output = io::Result<Response<Incoming>>>,
) -> io::Result<Answer> {
    let whole = async {
        let (head, body) = request.await?.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    };
    tokio::time::timeout(LIMIT, whole).await?
}

async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> io::Result<Response<Incoming>> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let authority = uri
        .authority()
        .ok_or_else(|| io::Error::other(format!("no host in {url}")))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).map_err(io::Error::other)?;
    let host = authority.host().trim_matches(['[', ']']);
    let tcp = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .map_err(io::Error::other)?;
    // It ends with the answer, or when that is dropped; how is told by the answer.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}
