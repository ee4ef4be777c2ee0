//! Asks a sidecar whether it is healthy: for HEALTHCHECK in an image that has no shell, and `helm test`.
//!
//! Invariant: it ends within three seconds, and what it prints of an answer is a few plain sentences.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Uri,
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use crate::transport::{NameError, Resolver};

/// The whole of it, name look-up included; container engines give a check a few seconds.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// The look-up alone, so that there is time left to say which server was silent.
const NAME_LIMIT: Duration = Duration::from_secs(2);

/// As much of an answer as is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum HealthcheckTarget {
    /// The sidecar that listens on this address, on this machine.
    Own(SocketAddr),
    /// `http://host[:port][/path]`; without a path, the usual one.
    Url(String),
}

/// Why the check did not pass.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
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
    /// It took longer than three seconds.
    #[error("no answer from {0} within {limit} s", limit = TIME_LIMIT.as_secs())]
    Timeout(String),
    /// The answer says no.
    #[error("HTTP {status} from {place}{}", sentences(.pending))]
    Refused {
        /// Who was asked.
        place: String,
        /// The answer's status.
        status: u16,
        /// What it waits for, where it says.
        pending: Vec<String>,
    },
    /// The system has no room for a runtime.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

fn sentences(pending: &[String]) -> String {
    pending
        .iter()
        .map(|sentence| format!("\n- {}", sentence.replace(char::is_control, " ")))
        .collect()
}

/// Asks whether the target is alive, or with `ready` whether it is ready. Blocks, so it must not be called from
/// asynchronous code.
///
/// # Errors
/// Any answer but 200, and none within three seconds.
pub fn healthcheck(target: &HealthcheckTarget, ready: bool) -> Result<(), HealthcheckError> {
    let question = Question::new(target, ready)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(HealthcheckError::Runtime)?;
    let late = || HealthcheckError::Timeout(question.place.clone());
    runtime.block_on(async {
        timeout(TIME_LIMIT, question.ask())
            .await
            .unwrap_or_else(|_| Err(late()))
    })
}

/// What to ask, and whom.
struct Question {
    /// Hosts to try, in this order.
    hosts: Vec<String>,
    port: u16,
    /// The path, with its query.
    path: String,
    /// The target, as people read it.
    place: String,
}

impl Question {
    fn new(target: &HealthcheckTarget, ready: bool) -> Result<Self, HealthcheckError> {
        let path = if ready { "/readyz" } else { "/healthz" };
        match target {
            HealthcheckTarget::Own(addr) => Ok(Self::of_address(*addr, path)),
            HealthcheckTarget::Url(url) => Self::of_url(url, path).ok_or(HealthcheckError::Url),
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

    async fn ask(&self) -> Result<(), HealthcheckError> {
        let stream = self.connect().await?;
        let http = |error| HealthcheckError::Http(self.place.clone(), error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let mut answer = pin!(async {
            let response = sender.send_request(self.request()).await?;
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
        self.judge(answer.map_err(http)?)
    }

    async fn connect(&self) -> Result<TcpStream, HealthcheckError> {
        let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
        for address in self.addresses().await? {
            result = TcpStream::connect(address).await;
            if result.is_ok() {
                break;
            }
        }
        result.map_err(|error| HealthcheckError::Connect(self.place.clone(), error))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, HealthcheckError> {
        let resolver = Resolver::default();
        let mut addresses = Vec::new();
        for host in &self.hosts {
            let found = resolver.resolve(host, self.port, NAME_LIMIT).await;
            addresses
                .extend(found.map_err(|error| HealthcheckError::Name(self.place.clone(), error))?);
        }
        Ok(addresses)
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        // Both were part of something valid when they came in, so neither falls back.
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(place) = self.place.parse() {
            headers.insert(HOST, place);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        request
    }

    fn judge(&self, (status, body): (u16, Bytes)) -> Result<(), HealthcheckError> {
        #[derive(Default, Deserialize)]
        struct Answer {
            #[serde(default)]
            pending: Vec<String>,
        }
        if status == 200 {
            return Ok(());
        }
        let answer: Answer = serde_json::from_slice(&body).unwrap_or_default();
        Err(HealthcheckError::Refused {
            place: self.place.clone(),
            status,
            pending: answer.pending,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers one request with these bytes; gives the address and, at the end, what was asked.
    fn answering(bytes: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(bytes.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        (addr, asked)
    }

    #[test]
    fn an_address_for_everybody_is_asked_on_loopback() {
        let (addr, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        let own = SocketAddr::from((Ipv6Addr::UNSPECIFIED, addr.port()));
        assert!(healthcheck(&HealthcheckTarget::Own(own), false).is_ok());
        assert!(
            asked
                .join()
                .unwrap()
                .starts_with("GET /healthz HTTP/1.1\r\n")
        );
    }

    #[test]
    fn a_sidecar_that_is_not_ready_says_what_it_waits_for() {
        let (addr, asked) = answering(
            "HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n\
             37\r\n{\"ready\":false,\"pending\":[\"Ollama does\\u001b answer.\"]}\r\n0\r\n\r\n",
        );
        let error =
            healthcheck(&HealthcheckTarget::Url(format!("http://{addr}/")), true).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("HTTP 503 from {addr}\n- Ollama does  answer.")
        );
        assert!(
            asked
                .join()
                .unwrap()
                .starts_with("GET /readyz HTTP/1.1\r\n")
        );
    }

    #[test]
    fn a_path_that_is_given_is_asked() {
        let (addr, asked) = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        let error = healthcheck(
            &HealthcheckTarget::Url(format!("http://{addr}/a?b=c")),
            true,
        )
        .unwrap_err();
        assert!(
            matches!(error, HealthcheckError::Refused { status: 404, .. }),
            "{error}"
        );
        assert!(asked.join().unwrap().starts_with("GET /a?b=c HTTP/1.1\r\n"));
    }

    #[test]
    fn nobody_there_and_no_http_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = listener.local_addr().unwrap();
        drop(listener);
        let error = healthcheck(&HealthcheckTarget::Own(nobody), false).unwrap_err();
        assert!(matches!(error, HealthcheckError::Connect(..)), "{error}");
        let (addr, asked) = answering("SSH-2.0-OpenSSH_9.6\r\n\r\n");
        let error = healthcheck(&HealthcheckTarget::Own(addr), false).unwrap_err();
        assert!(matches!(error, HealthcheckError::Http(..)), "{error}");
        asked.join().unwrap();
    }

    #[test]
    fn a_name_without_an_address_is_told() {
        let target = HealthcheckTarget::Url("http://pin-sidecar.invalid:9464".to_owned());
        let error = healthcheck(&target, false).unwrap_err();
        assert!(matches!(error, HealthcheckError::Name(..)), "{error}");
        let words = "no connection to pin-sidecar.invalid:9464: its name cannot be resolved";
        assert!(error.to_string().starts_with(words), "{error}");
    }

    #[test]
    fn a_url_that_needs_tls_or_has_a_password_is_refused() {
        for url in [
            "https://localhost:9464",
            "localhost:9464",
            "http://",
            "http://user:password@localhost",
        ] {
            let error = healthcheck(&HealthcheckTarget::Url(url.to_owned()), false).unwrap_err();
            assert!(matches!(error, HealthcheckError::Url), "{url}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let question = Question::new(
            &HealthcheckTarget::Own(listener.local_addr().unwrap()),
            false,
        )
        .unwrap();
        assert!(timeout(TIME_LIMIT, question.ask()).await.is_err());
    }
}
