//! The upgrade: an HTTP request for a WebSocket, and its answer read as HTTP is.
//!
//! Invariant: of what follows a yes no byte is lost, and the answer's head is bounded, in time too.

use async_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderName},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::refusal::refusal;
use crate::{
    config::GatewaySettings,
    link::{ConnectBudget, OpenError},
    transport::{DialError, Metered, Step},
};

/// The most that the head of the answer may have, in bytes. Real ones have a few hundred, behind a CDN some thousand.
const MAX_HEAD: usize = 64 * 1024;

/// A connection that speaks WebSocket from now on, and what has been read of that.
pub(super) struct Upgraded {
    pub(super) stream: Metered,
    pub(super) read: Bytes,
}

/// Asks for a WebSocket over this connection, which costs one of the `budget`. `answered` is given the head of the answer,
/// whatever that says.
///
/// # Errors
/// The peer does not upgrade, or not in time.
pub(super) async fn upgrade(
    stream: Metered,
    gateway: &GatewaySettings,
    budget: &ConnectBudget,
    answered: impl FnOnce(&HeaderMap),
) -> Result<Upgraded, OpenError> {
    let key = generate_key();
    let request = request(gateway, &key)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Headers have no case, but there are servers that do not know it.
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let answer = async {
        budget.spend(Instant::now());
        let response = ask(&mut sender, request, gateway).await?;
        answered(response.headers());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        accepted(response.headers(), &key).map_err(|flaw| OpenError::Protocol(flaw.to_owned()))?;
        upgraded(response).await
    };
    // It hands the connection over and ends, or ends with the error that the answer has too.
    let connection = async {
        let _ = connection.with_upgrades().await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        never = connection => never,
    }
}

fn request(gateway: &GatewaySettings, key: &str) -> Result<Request<Empty<Bytes>>, OpenError> {
    Request::get(gateway.url.path_and_query())
        .header(header::HOST, gateway.url.origin().authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::USER_AGENT, gateway.user_agent.clone())
        .body(Empty::new())
        .map_err(|error| OpenError::Protocol(error.to_string()))
}

async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    gateway: &GatewaySettings,
) -> Result<Response<Incoming>, OpenError> {
    let limit = gateway.connect_timeout;
    match timeout(limit, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|error| broken(&error)),
        Err(_) => Err(DialError::Timeout {
            step: Step::Upgrade,
            limit,
        }
        .into()),
    }
}

/// Whether the peer has understood what it said yes to (RFC 6455, section 4.1); else what is wrong.
fn accepted(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return Err("it upgraded to something else than WebSocket");
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err("its 101 has no `Connection: Upgrade`");
    }
    let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| *accept != derive_accept_key(key.as_bytes())) {
        return Err("its Sec-WebSocket-Accept does not answer our key");
    }
    if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Err("it chose a subprotocol, and was offered none");
    }
    Ok(())
}

/// Whether a list of tokens has this one. A list may go over several lines (RFC 9110, section 5.3).
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter();
    let mut tokens = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
}

async fn upgraded(response: Response<Incoming>) -> Result<Upgraded, OpenError> {
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| broken(&error))?;
    // It is what was given to hyper, which wraps nothing around it.
    let parts = upgraded
        .downcast::<TokioIo<Metered>>()
        .map_err(|_| OpenError::Closed)?;
    Ok(Upgraded {
        stream: parts.io.into_inner(),
        read: parts.read_buf,
    })
}

fn broken(error: &hyper::Error) -> OpenError {
    if error.is_parse() || error.is_parse_too_large() {
        OpenError::Protocol(error.to_string())
    } else {
        OpenError::Closed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use prometheus::IntCounter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::{config::tests::config, protocol::RetryAfter, transport::Meter};

    /// More than any answer here has.
    const PIPE: usize = 64 * 1024;

    /// What a gateway's host does with a connection.
    struct Peer(DuplexStream);

    impl Peer {
        /// The head of the request.
        async fn asked(&mut self) -> String {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                self.0.read_buf(&mut request).await.unwrap();
            }
            String::from_utf8(request).unwrap()
        }

        async fn say(&mut self, text: &str) {
            // It may have been left.
            let _ = self.0.write_all(text.as_bytes()).await;
        }
    }

    /// Upgrades with a peer that does this.
    async fn upgrade_with(peer: impl AsyncFnOnce(&mut Peer)) -> Result<Upgraded, OpenError> {
        let settings = [
            ("PIN_SERVER_URL", "ws://127.0.0.1:9"),
            ("PIN_USER_AGENT", "my node/1 (a cellar)"),
        ];
        let gateway = config(&settings).gateway;
        let (ours, theirs) = duplex(PIPE);
        let counter = || IntCounter::new("bytes", "bytes").unwrap();
        let stream = Metered {
            stream: Box::new(ours),
            meter: Meter::new(counter(), counter()),
        };
        let budget = ConnectBudget::new(1);
        let mut theirs = Peer(theirs);
        let behaviour = async {
            peer(&mut theirs).await;
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            outcome = upgrade(stream, &gateway, &budget, |_| ()) => outcome,
            () = behaviour => unreachable!(),
        };
        assert!(!budget.held(Instant::now()).is_zero(), "the request counts");
        outcome
    }

    /// Upgrades with a peer that answers this.
    async fn upgrade_to(answer: &str) -> Result<Upgraded, OpenError> {
        upgrade_with(async |peer| {
            peer.asked().await;
            peer.say(answer).await;
        })
        .await
    }

    async fn refusal_of(answer: &str) -> OpenError {
        upgrade_to(answer).await.err().unwrap()
    }

    /// The answer that a request is to get, with these lines in place of the usual ones.
    fn yes(request: &str, lines: &str) -> String {
        let key = request
            .lines()
            .find_map(|line| line.strip_prefix("Sec-Websocket-Key: "));
        let accept = derive_accept_key(key.unwrap().as_bytes());
        format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n{lines}\r\n")
    }

    const USUAL: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";

    #[tokio::test]
    async fn a_gateway_is_asked_under_our_name_for_a_websocket_and_nothing_that_follows_is_lost() {
        let upgraded = upgrade_with(async |peer| {
            let request = peer.asked().await;
            for line in [
                "GET /api/v1/pin/ws HTTP/1.1\r\n",
                "\r\nHost: 127.0.0.1:9\r\n",
                "\r\nUser-Agent: my node/1 (a cellar)\r\n",
                "\r\nSec-Websocket-Version: 13\r\n",
            ] {
                assert!(request.contains(line), "no {line:?} in {request}");
            }
            peer.say(&format!("{}at once", yes(&request, USUAL))).await;
        });
        let mut upgraded = upgraded.await.unwrap();
        let mut rest = upgraded.read.to_vec();
        while rest.len() < "at once".len() {
            upgraded.stream.read_buf(&mut rest).await.unwrap();
        }
        assert_eq!(rest, b"at once");
    }

    #[tokio::test]
    async fn an_answer_is_read_as_http_is() {
        for (before, lines) in [
            ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", USUAL),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
                USUAL,
            ),
            (
                "",
                "upgrade: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n",
            ),
            (
                "",
                "Upgrade: h2c, websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n",
            ),
        ] {
            let upgraded = upgrade_with(async |peer| {
                let request = peer.asked().await;
                peer.say(&format!("{before}{}", yes(&request, lines))).await;
            });
            assert!(upgraded.await.is_ok(), "{before}{lines}");
        }
        let old = refusal_of("HTTP/1.0 503 Busy\r\nRetry-After: 7\r\n\r\n").await;
        assert!(
            matches!(old, OpenError::Http { status: 503, .. }),
            "{old:?}"
        );
        assert_eq!(old.retry_after(), Some(Duration::from_secs(7).into()));
    }

    #[tokio::test]
    async fn whoever_says_yes_to_something_else_does_not_speak_the_protocol() {
        for (lines, told) in [
            ("Upgrade: h2c\r\nConnection: Upgrade\r\n", "something else"),
            (
                "Upgrade: websocket\r\nConnection: close\r\n",
                "no `Connection: Upgrade`",
            ),
            (
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: chat\r\n",
                "subprotocol",
            ),
        ] {
            let upgraded = upgrade_with(async |peer| {
                let request = peer.asked().await;
                peer.say(&yes(&request, lines)).await;
            });
            let error = upgraded.await.err().unwrap();
            assert!(
                matches!(&error, OpenError::Protocol(flaw) if flaw.contains(told)),
                "{error}"
            );
        }
        let stale = format!("HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: AAAA\r\n{USUAL}\r\n");
        let error = refusal_of(&stale).await;
        assert!(error.to_string().contains("our key"), "{error}");
        let error = refusal_of("SSH-2.0-OpenSSH_9.6\r\n").await;
        assert!(matches!(error, OpenError::Protocol(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_answer_is_given_up_after_the_connect_timeout() {
        let began = Instant::now();
        let error = refusal_of("HTTP/1.1 101 Switching").await;
        assert!(
            matches!(
                error,
                OpenError::Dial(DialError::Timeout {
                    step: Step::Upgrade,
                    ..
                })
            ),
            "{error}"
        );
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn a_time_to_stay_away_is_read_from_every_error() {
        let date =
            "Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:28:20 GMT\r\n";
        for (status, head, expected) in [
            (401, "Retry-After: 20\r\n", Some(20)),
            (403, "Retry-After: 20\r\n", Some(20)),
            (404, "Retry-After: 20\r\n", Some(20)),
            (429, "Retry-After:  20 \r\n", Some(20)),
            (500, date, Some(20)),
            (503, date, Some(20)),
            (503, "Retry-After: soon\r\n", None),
            (503, "Retry-After: 99999999999999999999\r\n", Some(3600)),
            (302, "Retry-After: 20\r\n", None),
        ] {
            let answer = format!("HTTP/1.1 {status} No\r\n{head}Content-Length: 0\r\n\r\n");
            let retry_after = refusal_of(&answer).await.retry_after();
            let expected = expected.map(|seconds| RetryAfter::from(Duration::from_secs(seconds)));
            assert_eq!(retry_after, expected, "{answer}");
        }
    }

    fn with_body(status: u16, head: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status} No\r\n{head}Content-Length: {length}\r\n\r\n{body}")
    }

    const HTML: &str = "Content-Type: text/html; charset=UTF-8\r\n";

    #[tokio::test]
    async fn a_403_with_a_page_is_an_edge_that_does_not_let_us_through() {
        for (head, body) in [
            (HTML, "<!DOCTYPE html><title>Just a moment...</title>"),
            ("", "\u{feff}\n <!doctype HTML><head>"),
            ("", "<HTML><body>blocked</body></HTML>"),
            (HTML, "Sorry, you have been blocked"),
            ("Content-Type: text/plain\r\n", "error code: 1010"),
            ("", "Error code: 1020\n"),
        ] {
            let error = refusal_of(&with_body(403, head, body)).await;
            assert!(matches!(error, OpenError::Edge { .. }), "{body}: {error:?}");
            assert_eq!(error.failure().to_string(), "http");
        }
        let chunked =
            "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<html>\r\n0\r\n\r\n";
        let error = refusal_of(chunked).await;
        assert!(matches!(error, OpenError::Edge { .. }), "{error:?}");
    }

    #[tokio::test]
    async fn a_401_and_every_other_403_is_a_refused_login_and_nothing_of_its_body_is_shown() {
        for (status, head, body) in [
            (403, "", ""),
            (403, HTML, ""),
            (403, "", "unknown operator"),
            (403, "", r#"{"error":"banned"}"#),
            (403, "", "error code: 7"),
            (401, "", ""),
            (401, HTML, "<html>Unauthorized</html>"),
            (401, "", "error code: 1010"),
        ] {
            let error = refusal_of(&with_body(status, head, body)).await;
            assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
            assert_eq!(error.to_string(), format!("HTTP {status}"));
            assert_eq!(error.failure().to_string(), "auth");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_whose_body_does_not_end_is_judged_by_how_it_begins() {
        let began = Instant::now();
        let endless = upgrade_with(async |peer| {
            peer.asked().await;
            peer.say("HTTP/1.1 403 No\r\n\r\n<html>").await;
            loop {
                peer.say(&"x".repeat(1_024)).await;
            }
        });
        let error = endless.await.err().unwrap();
        assert!(matches!(error, OpenError::Edge { .. }), "{error:?}");
        assert_eq!(began.elapsed(), Duration::ZERO);

        let stalled = refusal_of("HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nbanned").await;
        assert_eq!(stalled.to_string(), "HTTP 403");
        assert!(
            began.elapsed() <= Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    }
}
