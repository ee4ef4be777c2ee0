//! Reaches the gateway through an HTTP proxy: `CONNECT`, then TLS with the gateway as without one. The proxy resolves
//! the gateway's name, and sees nothing of what passes but where it goes.
//!
//! Invariant: of what follows the proxy's answer no byte is lost, and the answer's head is bounded, in time too.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::Empty;
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{AGENT, Dial, DialError, Endpoint, ProxyError, Stream, TcpDialer};
use crate::config::ProxyUrl;

/// The most that the head of a proxy's answer may have, in bytes. Real ones have some hundred.
const MAX_HEAD: usize = 16 * 1024;

/// Dials through a proxy, whomever it is asked for.
pub struct ProxyDialer {
    direct: Arc<TcpDialer>,
    proxy: Endpoint,
    url: ProxyUrl,
}

impl ProxyDialer {
    /// A dialer that reaches the proxy by `direct`, and whatever is beyond it with the same trust and time limits.
    pub fn new(direct: Arc<TcpDialer>, url: ProxyUrl) -> Self {
        Self {
            direct,
            proxy: Endpoint::from(url.origin()),
            url,
        }
    }

    async fn tunnel(&self, endpoint: &Endpoint) -> Result<Stream, ProxyError> {
        let unreachable = |error| ProxyError::Unreachable(Box::new(error));
        let stream = self.direct.dial(&self.proxy).await.map_err(unreachable)?;
        let limit = self.direct.step_timeout();
        timeout(limit, self.connect(stream, endpoint))
            .await
            .unwrap_or(Err(ProxyError::Silent(limit)))
    }

    async fn connect(&self, stream: Stream, endpoint: &Endpoint) -> Result<Stream, ProxyError> {
        let request = self.request(endpoint)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| no_answer(&error))?;
        let answer = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| no_answer(&error))?;
            self.refusal(response.status()).map_or(Ok(()), Err)?;
            let upgraded = hyper::upgrade::on(response).await;
            let tunnel = upgraded.map_err(|error| no_answer(&error))?;
            Ok(Box::new(TokioIo::new(tunnel)) as Stream)
        };
        // It hands the connection over and ends, or ends with the error that the answer has too.
        let connection = async {
            let _ = connection.with_upgrades().await;
            std::future::pending().await
        };
        tokio::select! {
            answer = answer => answer,
            never = connection => never,
        }
    }

    fn request(&self, endpoint: &Endpoint) -> Result<Request<Empty<Bytes>>, ProxyError> {
        let authority = endpoint.to_string();
        let mut request = Request::connect(&authority)
            .header(HOST, &authority)
            .header(USER_AGENT, AGENT);
        if let Some(authorization) = self.url.authorization() {
            let mut value =
                HeaderValue::from_str(authorization).expect("Base64 is a header's value");
            value.set_sensitive(true);
            request = request.header(PROXY_AUTHORIZATION, value);
        }
        request
            .body(Empty::new())
            .map_err(|_| ProxyError::NoSuchName)
    }

    fn refusal(&self, status: StatusCode) -> Option<ProxyError> {
        let code = status.as_u16();
        match status {
            // tinyproxy says the second where it means the first.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED => {
                Some(match self.url.authorization() {
                    Some(_) => ProxyError::CredentialsRefused(code),
                    None => ProxyError::CredentialsMissing(code),
                })
            }
            StatusCode::FORBIDDEN => Some(ProxyError::Forbidden),
            _ if status.is_success() => None,
            _ if status.is_server_error() => Some(ProxyError::NotThrough(code)),
            _ => Some(ProxyError::Status(code)),
        }
    }
}

impl Dial for ProxyDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        async move {
            let tunnel = self.tunnel(endpoint).await;
            let tunnel = tunnel.map_err(|trouble| DialError::Proxy {
                proxy: self.proxy.to_string(),
                trouble,
            })?;
            let probe = self.direct.probe();
            probe.note(|findings| findings.tunnelled = Some(Instant::now()));
            self.direct.secure(endpoint, tunnel).await
        }
        .boxed()
    }

    fn trouble(&self) -> Option<String> {
        self.direct.trouble()
    }

    fn read_again(&self) -> BoxFuture<'_, ()> {
        self.direct.read_again()
    }
}

fn no_answer(error: &hyper::Error) -> ProxyError {
    if error.is_parse() || error.is_parse_too_large() {
        ProxyError::NotHttp
    } else {
        ProxyError::Closed
    }
}
