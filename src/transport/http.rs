//! Asking one server over HTTP/1.1, on connections that are kept and used again.
//!
//! Invariant: a redirect is never followed, a proxy never used, and dropping an answer closes its connection.

use std::{
    error::Error,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioIo, TokioTimer},
};
use tokio::{io::AsyncReadExt, time::timeout};
use tower_service::Service;

use super::{Connections, Dial, DialError, Endpoint, Stream};
use crate::config::BackendUrl;

/// Idle connections are not used for longer, so that no request meets one that its server is just closing and is lost with it.
/// Node and uvicorn close theirs after 5 s, load balancers after 60 s and more, Ollama never.
const IDLE: Duration = Duration::from_secs(4);

/// What a connection reads ahead at most, in bytes. The library's own limit would be 400 KiB, for each chat that a slow
/// gateway holds up.
const BUFFER: usize = 64 * 1024;

/// No answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The server could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke")]
    Broken,
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
}

impl HttpClient {
    /// A client of the server at `url`, whose connections are among `connections`.
    pub fn new(dial: Arc<dyn Dial>, url: BackendUrl, connections: Connections) -> Self {
        let endpoint = Arc::new(Endpoint::from(url.origin()));
        let client = Client::builder(connections)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(BUFFER)
            .set_host(false)
            .build(Connector {
                dial: Arc::clone(&dial),
                endpoint: Arc::clone(&endpoint),
            });
        Self {
            client,
            dial,
            endpoint,
            url,
        }
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
            .header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = self.url.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        // The URL was checked when the settings were read, so that only a defect could make this fail.
        let request = request
            .body(Full::new(body))
            .map_err(|_| HttpError::Broken)?;
        self.client
            .request(request)
            .await
            .map_err(|error| reason(&error))
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
        Err(_) => Err(HttpError::Broken),
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
        .map_err(|_| HttpError::Broken)
        .boxed()
}

fn reason(error: &hyper_util::client::legacy::Error) -> HttpError {
    error
        .source()
        .and_then(|source| source.downcast_ref::<DialError>())
        .map_or(HttpError::Broken, |dial| HttpError::Dial(dial.clone()))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncWriteExt, DuplexStream, duplex},
        time::sleep,
    };

    use super::*;
    use crate::config::tests::config;

    /// As much as the network holds.
    const PIPE: usize = 1024 * 1024;

    /// The one connection that there is.
    struct OneConnection(Mutex<Option<DuplexStream>>);

    impl Dial for OneConnection {
        fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
            let end = self.0.lock().unwrap().take();
            let dialled = end.map(|end| Box::new(end) as Stream);
            async { dialled.ok_or(DialError::Refused) }.boxed()
        }
    }

    fn client(connection: DuplexStream) -> HttpClient {
        client_by(Arc::new(OneConnection(Mutex::new(Some(connection)))))
    }

    fn client_by(dial: Arc<dyn Dial>) -> HttpClient {
        let config = config(&[("PIN_OLLAMA_URL", "http://127.0.0.1:1")]);
        HttpClient::new(dial, config.backend.url, Connections::default())
    }

    /// As many connections as are wanted, to a server whose answers are empty. Counts them.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Dial for Counted {
        fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let (ours, theirs) = duplex(PIPE);
            tokio::spawn(answer_all(theirs));
            async { Ok(Box::new(ours) as Stream) }.boxed()
        }
    }

    async fn answer_all(mut connection: DuplexStream) {
        loop {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            connection.write_all(answer).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_used_for_four_seconds_and_no_longer() {
        for (idle, connections) in [(3_900, 1), (4_100, 2)] {
            let dial = Arc::new(Counted::default());
            let client = client_by(Arc::clone(&dial) as Arc<dyn Dial>);
            for _ in 0..2 {
                let answer = client.get("/").await.unwrap();
                read_body(answer.into_body(), 0).await.unwrap();
                sleep(Duration::from_millis(idle)).await;
            }
            assert_eq!(dial.0.load(Ordering::Relaxed), connections, "{idle} ms");
        }
    }

    /// Answers one request with a body that never ends, as fast as it is taken; counts its bytes.
    async fn answer_without_end(mut connection: DuplexStream, written: Arc<AtomicUsize>) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            connection.read_buf(&mut request).await.unwrap();
        }
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        connection.write_all(head).await.unwrap();
        while let Ok(bytes) = connection.write(&[b'x'; BUFFER]).await {
            written.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn little_is_read_ahead_of_an_answer_that_nobody_takes_any_more() {
        let (ours, theirs) = duplex(PIPE);
        let written = Arc::new(AtomicUsize::new(0));
        tokio::spawn(answer_without_end(theirs, Arc::clone(&written)));
        let mut body = client(ours).get("/").await.unwrap().into_body();
        // It flows for a while, or the buffers would not have grown.
        let mut taken = 0;
        while taken < 16 * PIPE {
            taken += body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len();
        }
        // The clock jumps once there is nothing left to do.
        sleep(Duration::from_secs(1)).await;
        let held = written.load(Ordering::Relaxed) - taken - PIPE;
        // What is being read, and the piece that waits to be taken.
        assert!(held <= 2 * BUFFER, "{} KiB are held", held / 1024);
    }
}
