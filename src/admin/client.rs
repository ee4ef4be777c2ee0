//! Asks a running sidecar something, from the command line.
//!
//! Invariant: it ends in time, and reads no more of an answer than it can hold.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Method, Request, Uri,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpStream, time::timeout};

use crate::transport::{NameError, Resolver};

/// The look-up alone, so that there is time left to say which server was silent.
const NAME_LIMIT: Duration = Duration::from_secs(2);

/// As much of an answer as is read: a `/status` with thousands of models, and more.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Target {
    /// The sidecar that listens on this address, on this machine.
    Own(SocketAddr),
    /// `http://host[:port][/path]`; without a path, the usual one.
    Url(String),
}

/// What to ask.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// With its query; not heeded where the target's URL has one.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a SecretString>,
    /// How long all of it may take, name look-up included.
    pub(super) limit: Duration,
}

/// What came back.
pub(super) struct Response {
    /// Who was asked, as people read it.
    pub(super) place: String,
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not one that can be asked. It is not repeated, since it may hold a password.
    #[error(
        "the URL must be like http://host:9464/healthz: without TLS, and without user and password"
    )]
    Url,
    /// The host has no address.
    #[error("no connection to {0}: {1}")]
    Name(String, #[source] NameError),
    /// Nobody answers there.
    #[error("no connection to {0}: {1}")]
    Connect(String, #[source] io::Error),
    /// What answers does not speak HTTP, or hung up.
    #[error("no answer from {0}: {1}")]
    Http(String, #[source] hyper::Error),
    /// It took too long.
    #[error("no answer from {0} within {limit}", limit = humantime::format_duration(*.1))]
    Timeout(String, Duration),
    /// The system has no room for a runtime.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

/// Asks. Blocks, so it must not be called from asynchronous code.
pub(super) fn ask(target: &Target, question: &Question<'_>) -> Result<Response, ClientError> {
    let errand = Errand::new(target, question)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ClientError::Runtime)?;
    let late = || ClientError::Timeout(errand.place.clone(), question.limit);
    runtime.block_on(async {
        timeout(question.limit, errand.ask(question))
            .await
            .unwrap_or_else(|_| Err(late()))
    })
}

/// Whom to ask, and for which path.
struct Errand {
    /// Hosts to try, in this order.
    hosts: Vec<String>,
    port: u16,
    /// The path, with its query.
    path: String,
    /// The target, as people read it.
    place: String,
}

impl Errand {
    fn new(target: &Target, question: &Question<'_>) -> Result<Self, ClientError> {
        let path = question.path;
        match target {
            Target::Own(addr) => Ok(Self::of_address(*addr, path)),
            Target::Url(url) => Self::of_url(url, path).ok_or(ClientError::Url),
        }
    }

    fn of_address(addr: SocketAddr, path: &str) -> Self {
        let loopback = || {
            vec![
                IpAddr::from(Ipv4Addr::LOCALHOST),
                Ipv6Addr::LOCALHOST.into(),
            ]
        };
        let hosts = if addr.ip().is_unspecified() {
            loopback()
        } else {
            vec![addr.ip()]
        };
        Self {
            hosts: hosts.iter().map(IpAddr::to_string).collect(),
            port: addr.port(),
            path: path.to_owned(),
            place: format!("{addr}"),
        }
    }

    fn of_url(url: &str, default_path: &str) -> Option<Self> {
        let uri: Uri = url
            .parse()
            .ok()
            .filter(|uri: &Uri| uri.scheme_str() == Some("http"))?;
        let authority = uri
            .authority()
            .filter(|authority| !authority.as_str().contains('@'))?;
        let path = uri
            .path_and_query()
            .map(|path| path.as_str())
            .filter(|path| *path != "/");
        Some(Self {
            hosts: vec![authority.host().trim_matches(['[', ']']).to_owned()],
            port: authority.port_u16().unwrap_or(80),
            path: path.unwrap_or(default_path).to_owned(),
            place: authority.to_string(),
        })
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Response, ClientError> {
        let stream = self.connect().await?;
        let http = |error| ClientError::Http(self.place.clone(), error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let mut answer = pin!(async {
            let response = sender.send_request(self.request(question)).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
        });
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // What was wrong with the connection is the answer's error too.
            _ = connection => answer.await,
        };
        let (status, body) = answer.map_err(http)?;
        Ok(Response {
            place: self.place.clone(),
            status,
            body,
        })
    }

    async fn connect(&self) -> Result<TcpStream, ClientError> {
        let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
        for address in self.addresses().await? {
            result = TcpStream::connect(address).await;
            if result.is_ok() {
                break;
            }
        }
        result.map_err(|error| ClientError::Connect(self.place.clone(), error))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ClientError> {
        let resolver = Resolver::default();
        let mut addresses = Vec::new();
        for host in &self.hosts {
            let found = resolver.resolve(host, self.port, NAME_LIMIT).await;
            addresses.extend(found.map_err(|error| ClientError::Name(self.place.clone(), error))?);
        }
        Ok(addresses)
    }

    fn request(&self, question: &Question<'_>) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = question.method.clone();
        // Both were part of something valid when they came in, so neither falls back.
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(place) = self.place.parse() {
            headers.insert(HOST, place);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let token = question
            .token
            .map(|token| format!("Bearer {}", token.expose_secret()));
        if let Some(Ok(mut token)) = token.map(HeaderValue::try_from) {
            token.set_sensitive(true);
            headers.insert(AUTHORIZATION, token);
        }
        request
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_status_of_thousands_of_models_is_read_whole() {
        const LENGTH: usize = 1 << 20;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Own(listener.local_addr().unwrap());
        let question = Question {
            method: Method::GET,
            path: "/status",
            token: None,
            limit: Duration::from_secs(10),
        };
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What is closed with something unread in it takes what was written along.
            let _ = stream.read(&mut [0; 4_096]).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            let whole = [head.as_bytes(), &vec![b' '; LENGTH]].concat();
            stream.write_all(&whole).await.unwrap();
        };
        let errand = Errand::new(&target, &question).unwrap();
        let (response, ()) = tokio::join!(errand.ask(&question), answer);
        assert_eq!(response.unwrap().body.len(), LENGTH);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Own(listener.local_addr().unwrap());
        let question = Question {
            method: Method::GET,
            path: "/healthz",
            token: None,
            limit: Duration::from_secs(3),
        };
        let errand = Errand::new(&target, &question).unwrap();
        let asked = timeout(question.limit, errand.ask(&question)).await;
        assert!(asked.is_err());
    }
}
