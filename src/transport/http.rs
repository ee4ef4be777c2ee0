//! Asking one server over HTTP/1.1, on connections that are used again where its servers can be trusted with that.
//!
//! Invariant: a redirect is never followed, a proxy never used, and dropping an answer closes its connection.

#[cfg(test)]
mod tests;

use std::{
    error::Error,
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap,
        HeaderName, HeaderValue, TRANSFER_ENCODING,
    },
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioIo, TokioTimer},
};
use secrecy::SecretString;
use tokio::{io::AsyncReadExt, time::timeout};
use tower_service::Service;

use super::{Connections, Credentials, Dial, DialError, Endpoint, Stream};
use crate::config::BackendUrl;

/// Idle connections are not used for longer, so that no request meets one that its server is just closing and is lost with it.
/// Node and uvicorn close theirs after 5 s, load balancers after 60 s and more, Ollama never.
const IDLE: Duration = Duration::from_secs(4);

/// Whether a connection is used for more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// It is, unless it was idle for four seconds.
    Reused,
    /// Each request has one of its own, for servers that close theirs behind an answer without having said so, as
    /// llama-server does after each stream: a chat that goes out in that moment is lost, and may not be asked again, since
    /// nobody knows whether the server has it.
    Never,
}

/// What a connection reads ahead at most, in bytes. The library's own limit would be 400 KiB, for each chat that a slow
/// gateway holds up.
const BUFFER: usize = 64 * 1024;

/// No answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// What came cannot be read as HTTP; in the library's words.
    #[error("what came is not HTTP: {0}")]
    NotHttp(String),
    /// The answer came in this encoding. Only itself was asked for.
    #[error("its answer came encoded ({0}), which was not asked for")]
    Encoded(String),
    /// It answered with another status than was hoped for.
    #[error("it answers HTTP {0}")]
    Status(u16),
    /// It answered something else than its interface says.
    #[error("its answer is not what this interface gives")]
    Unexpected,
    /// The body is larger than is read.
    #[error("its answer is too large")]
    TooLarge,
    /// It did not answer in time.
    #[error("it did not answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
}

/// An answer's bytes as they come; once there is an error, nothing follows. Dropping it closes the connection.
pub type Body = BoxStream<'static, Result<Bytes, HttpError>>;

/// A client of one server.
pub struct HttpClient {
    client: Client<Connector, Full<Bytes>>,
    dial: Arc<dyn Dial>,
    endpoint: Arc<Endpoint>,
    url: BackendUrl,
    credentials: Mutex<Arc<Credentials>>,
}

impl HttpClient {
    /// A client of the server at `url`, whose connections are among `connections`.
    pub fn new(
        dial: Arc<dyn Dial>,
        url: BackendUrl,
        connections: Connections,
        keep_alive: KeepAlive,
    ) -> Self {
        let endpoint = Arc::new(Endpoint::from(url.origin()));
        let max_idle = match keep_alive {
            KeepAlive::Reused => usize::MAX,
            KeepAlive::Never => 0,
        };
        let client = Client::builder(connections)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(max_idle)
            .http1_max_buf_size(BUFFER)
            .set_host(false)
            .build(Connector {
                dial: Arc::clone(&dial),
                endpoint: Arc::clone(&endpoint),
            });
        let credentials = url.authorization().map(Credentials::basic);
        Self {
            client,
            dial,
            endpoint,
            credentials: Mutex::new(Arc::new(credentials.unwrap_or_default())),
            url,
        }
    }

    /// Asks with this token (RFC 6750) from now on.
    pub fn ask_with(&self, token: &SecretString) {
        let mut credentials = self.lock_credentials();
        if !credentials.is_bearer(token) {
            *credentials = Arc::new(Credentials::bearer(token));
        }
    }

    /// Whether the server is asked by TLS.
    pub fn is_encrypted(&self) -> bool {
        self.endpoint.tls
    }

    /// Whether its URL has a user and password, which it is asked with.
    pub fn has_password(&self) -> bool {
        self.url.authorization().is_some()
    }

    /// What the server is told of who asks, as it is now.
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.lock_credentials())
    }

    fn lock_credentials(&self) -> MutexGuard<'_, Arc<Credentials>> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// The server cannot be reached or the connection breaks before the head of the answer.
    pub async fn get(&self, path: &str) -> Result<Response<Incoming>, HttpError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks with POST and a JSON body.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Response<Incoming>, HttpError> {
        self.ask(Method::POST, path, body).await
    }

    /// Holds a connection of its own over which nothing is said, until the server closes it or says something all the same.
    /// Ends at once where none can be opened.
    pub async fn until_closed(&self) {
        if let Ok(mut connection) = self.dial.dial(&self.endpoint).await {
            // An end, an error or a byte: each is an answer.
            let _ = connection.read_u8().await;
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, HttpError> {
        let origin = self.url.origin();
        let host = origin.authority();
        let scheme = if origin.tls() { "https" } else { "http" };
        let uri = format!("{scheme}://{host}{}", self.url.path(path));
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, host)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = self.credentials().authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        // The URL was checked when the settings were read, so that only a defect could make this fail.
        let request = request
            .body(Full::new(body))
            .map_err(|_| HttpError::Broken)?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| reason(&error))?;
        match encoding(answer.headers()) {
            // What else it says is worth more than how it says so.
            Some(encoding) if answer.status().is_success() => Err(HttpError::Encoded(encoding)),
            Some(_) | None => Ok(answer),
        }
    }
}

/// Reads a whole body of at most `max` bytes.
///
/// # Errors
/// It is larger, or the connection breaks.
pub async fn read_body(body: Incoming, max: usize) -> Result<Bytes, HttpError> {
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(HttpError::TooLarge),
        Err(error) => Err(broken(&*error)),
    }
}

/// Waits for an answer that says success, and reads its body of at most `max` bytes, all within `limit`.
///
/// # Errors
/// As [`HttpClient::get`] and [`read_body`]; it says something else than success, or takes longer.
pub async fn read_answer(
    asked: impl Future<Output = Result<Response<Incoming>, HttpError>>,
    max: usize,
    limit: Duration,
) -> Result<Bytes, HttpError> {
    let answer = async {
        let answer = asked.await?;
        if !answer.status().is_success() {
            return Err(HttpError::Status(answer.status().as_u16()));
        }
        read_body(answer.into_body(), max).await
    };
    timeout(limit, answer)
        .await
        .unwrap_or(Err(HttpError::Silent(limit)))
}

/// A body's bytes as they come.
pub fn stream(body: Incoming) -> Body {
    body.into_data_stream()
        .map_err(|error| broken(&error))
        .boxed()
}

/// How a body is encoded, if it is, in any line of its head and for its way alone or not; but for chunks, which are read. As
/// much of it as anybody needs to know it by.
pub fn encoding(headers: &HeaderMap) -> Option<String> {
    let listed = |name: HeaderName| {
        let lines = headers.get_all(name).into_iter();
        lines.flat_map(|line| line.to_str().unwrap_or("?").split(','))
    };
    let is_itself = |coding: &str| {
        let itself = ["", "identity", "chunked"];
        itself.iter().any(|name| coding.eq_ignore_ascii_case(name))
    };
    let mut codings = listed(CONTENT_ENCODING).chain(listed(TRANSFER_ENCODING));
    let coding = codings.find(|coding| !is_itself(coding.trim()))?.trim();
    Some(coding.chars().take(32).collect())
}

fn reason(error: &hyper_util::client::legacy::Error) -> HttpError {
    let Some(source) = error.source() else {
        return HttpError::Broken;
    };
    match source.downcast_ref::<DialError>() {
        Some(dial) => HttpError::Dial(dial.clone()),
        None => broken(source),
    }
}

/// Why an answer, or the rest of one, does not come. Only what the library says of HTTP itself is quoted.
fn broken(error: &(dyn Error + 'static)) -> HttpError {
    let Some(error) = error.downcast_ref::<hyper::Error>() else {
        return HttpError::Broken;
    };
    if error.is_parse() {
        return HttpError::NotHttp(error.to_string());
    }
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    let is_framing = |cause: &&io::Error| {
        let kind = cause.kind();
        matches!(
            kind,
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    };
    let framing = cause.filter(is_framing);
    framing.map_or(HttpError::Broken, |cause| {
        HttpError::NotHttp(cause.to_string())
    })
}

/// Dials the one server, whatever the request's URI says.
#[derive(Clone)]
struct Connector {
    dial: Arc<dyn Dial>,
    endpoint: Arc<Endpoint>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<TokioIo<Stream>, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { dial, endpoint } = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dial.dial(&endpoint).await?)) })
    }
}

/// Nothing special that hyper would have to know of.
impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
