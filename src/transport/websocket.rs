//! A link of frames over WebSocket: upgrade, then a sender and a receiver that work at once.
//!
//! Invariant: nothing that the peer sends makes the link hold more than one message of `max_frame_bytes`. Pings of the
//! peer are answered by the receiver itself, whatever the sender is doing.

use std::{sync::Arc, time::Duration};

use async_tungstenite::{
    WebSocketReceiver, WebSocketSender, WebSocketStream,
    tokio::{TokioAdapter, client_async_with_config},
    tungstenite::{
        self, Message, Utf8Bytes,
        client::IntoClientRequest,
        error::ProtocolError,
        handshake::client::{Request, Response},
        http::{StatusCode, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;

use super::{AGENT, ConnectError, DialError, Meter, Step, Stream, meter::Metered};
use crate::{config::GatewayUrl, protocol::RetryAfter};

/// Enough for the head of a frame and many small ones. Larger buffers only cost an idle operator memory.
const READ_BUFFER: usize = 32 * 1024;

/// Bounds of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    /// The largest message that is read, in bytes.
    pub max_frame_bytes: usize,
    /// How long the upgrade may take.
    pub upgrade_timeout: Duration,
}

/// What can be sent.
#[derive(Clone, Debug)]
pub enum Item {
    /// A frame of the protocol.
    Frame(Utf8Bytes),
    /// A WebSocket Ping; the peer's Pong repeats the payload.
    Ping(u64),
}

/// What can be received while the link is up.
#[derive(Debug)]
pub enum Received {
    /// A frame of the protocol.
    Frame(Utf8Bytes),
    /// A message that is not text, which the protocol does not know.
    Binary,
    /// The answer to the [`Item::Ping`] with this payload.
    Pong(u64),
    /// A Ping, which has been answered, or a Pong to nothing of ours.
    Control,
    /// The peer's Close; its answer is written with the next [`Sender::flush`]. Nothing but the end follows.
    Close {
        /// The code of RFC 6455, section 7.4; 1005 where there was none.
        code: u16,
        /// Why, in the peer's words; often empty.
        reason: Utf8Bytes,
    },
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// Both sides have said Close.
    #[error("closed")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Reset,
    /// A message is larger than is read.
    #[error("a frame is larger than PIN_MAX_FRAME_BYTES")]
    TooLarge,
    /// A text is not UTF-8.
    #[error("a frame is not UTF-8")]
    NotUtf8,
    /// The peer broke WebSocket's rules.
    #[error("it broke the WebSocket protocol")]
    Protocol,
}

impl LinkEnd {
    /// The code to close with, where the peer is to be told why.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::TooLarge => Some(CloseCode::Size.into()),
            Self::NotUtf8 => Some(CloseCode::Invalid.into()),
            Self::Protocol => Some(CloseCode::Protocol.into()),
            Self::Closed | Self::Reset => None,
        }
    }
}

/// The half of a link that writes.
pub struct Sender(WebSocketSender<TokioAdapter<Metered>>);

/// The half of a link that reads.
pub struct Receiver(WebSocketReceiver<TokioAdapter<Metered>>);

/// Upgrades a connection to a link with the gateway.
///
/// # Errors
/// The peer does not upgrade, or not in time.
pub async fn connect(
    stream: Stream,
    meter: Arc<Meter>,
    url: &GatewayUrl,
    limits: LinkLimits,
) -> Result<(Sender, Receiver), ConnectError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(limits.max_frame_bytes))
        .max_frame_size(Some(limits.max_frame_bytes));
    let upgrade = client_async_with_config(request(url)?, Metered { stream, meter }, Some(config));
    match timeout(limits.upgrade_timeout, upgrade).await {
        Ok(Ok((socket, _))) => {
            let (sender, receiver) = socket.split();
            Ok((Sender(sender), Receiver(receiver)))
        }
        Ok(Err(error)) => Err(refusal(error)),
        Err(_) => Err(DialError::Timeout {
            step: Step::Upgrade,
            limit: limits.upgrade_timeout,
        }
        .into()),
    }
}

fn request(url: &GatewayUrl) -> Result<Request, ConnectError> {
    let scheme = if url.origin().tls() { "wss" } else { "ws" };
    let uri = format!(
        "{scheme}://{}{}",
        url.origin().authority(),
        url.path_and_query()
    );
    let mut request = uri
        .into_client_request()
        .map_err(|error| ConnectError::Protocol(error.to_string()))?;
    let agent = header::HeaderValue::from_static(AGENT);
    request.headers_mut().insert(header::USER_AGENT, agent);
    Ok(request)
}

fn refusal(error: tungstenite::Error) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) => ConnectError::Http {
            status: response.status().as_u16(),
            retry_after: retry_after(&response),
        },
        tungstenite::Error::Io(_)
        | tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => ConnectError::Closed,
        error => ConnectError::Protocol(error.to_string()),
    }
}

/// `Retry-After`, where the status gives it a meaning (RFC 9110, section 10.2.3; RFC 6585, section 4): seconds, or a
/// date, which is read against the answer's own `Date`.
fn retry_after(response: &Response) -> Option<RetryAfter> {
    if !matches!(
        response.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        return None;
    }
    let text = |name| response.headers().get(name)?.to_str().ok().map(str::trim);
    let date = |text| httpdate::parse_http_date(text).ok();
    let retry_after = text(header::RETRY_AFTER)?;
    let is_number = !retry_after.is_empty() && retry_after.bytes().all(|b| b.is_ascii_digit());
    if is_number {
        // More seconds than can be counted are more than anybody may ask for.
        let seconds = retry_after.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).into());
    }
    date(retry_after)?
        .duration_since(date(text(header::DATE)?)?)
        .ok()
        .map(RetryAfter::from)
}

impl Sender {
    /// Writes all of `items` and waits until the socket has taken them. They leave together.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn send(&mut self, items: impl IntoIterator<Item = Item>) -> Result<(), LinkEnd> {
        for item in items {
            let message = match item {
                Item::Frame(text) => Message::text(text),
                Item::Ping(payload) => {
                    Message::Ping(Bytes::copy_from_slice(&payload.to_be_bytes()))
                }
            };
            self.0.feed(message).await.map_err(|error| end(&error))?;
        }
        self.flush().await
    }

    /// Waits until the socket has taken all that is to be written, such as the answer to a Close.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn flush(&mut self) -> Result<(), LinkEnd> {
        self.0.flush().await.map_err(|error| end(&error))
    }

    /// Says Close. The peer's own Close, if it comes, comes to the receiver.
    ///
    /// # Errors
    /// The link has ended.
    pub async fn close(&mut self, code: u16) -> Result<(), LinkEnd> {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::default(),
        };
        self.0.close(Some(frame)).await.map_err(|error| end(&error))
    }

    /// Says Close over a link whose input cannot be read as frames any more, and throws away what still comes until the
    /// peer hangs up. A socket that is closed over unread input is reset, and the reset would overtake the Close (RFC
    /// 6455, section 7.1.1). How long the peer may take is the caller's to bound.
    pub async fn leave(mut self, receiver: Receiver, code: u16) {
        if self.close(code).await.is_err() {
            return;
        }
        if let Ok(socket) = WebSocketStream::reunite(self.0, receiver.0) {
            let mut connection = socket.into_inner().into_inner();
            // However it ends, it has ended.
            let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
        }
    }
}

impl Receiver {
    /// The next message.
    ///
    /// # Errors
    /// The link has ended, for the reason given.
    pub async fn next(&mut self) -> Result<Received, LinkEnd> {
        match self.0.next().await {
            None => Err(LinkEnd::Closed),
            Some(Err(error)) => Err(end(&error)),
            Some(Ok(message)) => Ok(match message {
                Message::Text(text) => Received::Frame(text),
                Message::Binary(_) => Received::Binary,
                Message::Pong(payload) => <[u8; 8]>::try_from(payload.as_ref())
                    .map_or(Received::Control, |n| Received::Pong(u64::from_be_bytes(n))),
                Message::Ping(_) | Message::Frame(_) => Received::Control,
                Message::Close(None) => Received::Close {
                    code: CloseCode::Status.into(),
                    reason: Utf8Bytes::default(),
                },
                Message::Close(Some(frame)) => Received::Close {
                    code: frame.code.into(),
                    reason: frame.reason,
                },
            }),
        }
    }
}

fn end(error: &tungstenite::Error) -> LinkEnd {
    use tungstenite::Error;
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => LinkEnd::Closed,
        Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            LinkEnd::Reset
        }
        Error::Protocol(ProtocolError::SendAfterClosing) => LinkEnd::Closed,
        Error::Capacity(_) => LinkEnd::TooLarge,
        Error::Utf8(_) => LinkEnd::NotUtf8,
        _ => LinkEnd::Protocol,
    }
}
