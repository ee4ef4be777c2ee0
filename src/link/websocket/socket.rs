//! A WebSocket: a sender and a receiver that work at once. It knows nothing of what its messages mean.
//!
//! Invariant: nothing that the peer sends makes it hold more than one message of `PIN_MAX_FRAME_BYTES`. Pings of the peer are
//! answered by the receiver itself, whatever the sender is doing.

use async_tungstenite::{
    WebSocketReceiver, WebSocketSender, WebSocketStream,
    tokio::TokioAdapter,
    tungstenite::{
        self, Utf8Bytes,
        error::ProtocolError,
        protocol::{self, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::HeaderMap;

use super::upgrade::{Upgraded, upgrade};
use crate::{
    config::GatewaySettings,
    link::{CloseFrame, ConnectBudget, LinkEnd, OpenError},
    transport::Metered,
};

/// Enough for the head of a frame and many small ones. Larger buffers only cost an idle operator memory.
const READ_BUFFER: usize = 32 * 1024;

/// What can be received while the socket is open.
#[derive(Debug)]
pub(super) enum Message {
    /// A frame of the protocol.
    Text(Utf8Bytes),
    /// A message that is not text, which the protocol does not know.
    Binary,
    /// The answer to the Ping with this payload.
    Pong(u64),
    /// A Ping, which has been answered, or a Pong to nothing of ours.
    Control,
    /// The peer's Close; its answer is written with the next [`Sender::flush`]. Nothing but the end follows.
    Close(CloseFrame),
}

/// The half of a socket that writes.
pub(super) struct Sender(WebSocketSender<TokioAdapter<Metered>>);

/// The half of a socket that reads.
pub(super) struct Receiver(WebSocketReceiver<TokioAdapter<Metered>>);

/// Has the gateway make a WebSocket of a connection. `answered` is given the head of its answer.
///
/// # Errors
/// It does not, or not in time.
pub(super) async fn connect(
    stream: Metered,
    gateway: &GatewaySettings,
    budget: &ConnectBudget,
    answered: impl FnOnce(&HeaderMap),
) -> Result<(Sender, Receiver), OpenError> {
    let Upgraded { stream, read } = upgrade(stream, gateway, budget, answered).await?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(gateway.max_frame_bytes))
        .max_frame_size(Some(gateway.max_frame_bytes));
    let stream = TokioAdapter::new(stream);
    let socket =
        WebSocketStream::from_partially_read(stream, read.into(), Role::Client, Some(config)).await;
    let (sender, receiver) = socket.split();
    Ok((Sender(sender), Receiver(receiver)))
}

impl Sender {
    /// Takes a frame in to be written, now or with what follows; see [`Sender::flush`].
    ///
    /// # Errors
    /// The link has ended.
    pub(super) async fn feed(&mut self, text: String) -> Result<(), LinkEnd> {
        self.write(protocol::Message::text(text)).await
    }

    /// Takes a Ping in to be written; the peer's Pong repeats the payload.
    ///
    /// # Errors
    /// The link has ended.
    pub(super) async fn feed_ping(&mut self, payload: u64) -> Result<(), LinkEnd> {
        let payload = Bytes::copy_from_slice(&payload.to_be_bytes());
        self.write(protocol::Message::Ping(payload)).await
    }

    async fn write(&mut self, message: protocol::Message) -> Result<(), LinkEnd> {
        self.0.feed(message).await.map_err(|error| end(&error))
    }

    /// Waits until the socket has taken all that is to be written, such as the answer to a Close.
    ///
    /// # Errors
    /// The link has ended.
    pub(super) async fn flush(&mut self) -> Result<(), LinkEnd> {
        self.0.flush().await.map_err(|error| end(&error))
    }

    /// Says Close. The peer's own Close, if it comes, comes to the receiver.
    ///
    /// # Errors
    /// The link has ended.
    pub(super) async fn close(&mut self, code: u16) -> Result<(), LinkEnd> {
        let frame = protocol::CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::default(),
        };
        self.0.close(Some(frame)).await.map_err(|error| end(&error))
    }

    /// Says Close over a link whose input cannot be read as frames any more, and throws away what still comes until the
    /// peer hangs up. A socket that is closed over unread input is reset, and the reset would overtake the Close (RFC
    /// 6455, section 7.1.1). How long the peer may take is the caller's to bound.
    pub(super) async fn leave(mut self, receiver: Receiver, code: u16) {
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
    pub(super) async fn next(&mut self) -> Result<Message, LinkEnd> {
        match self.0.next().await {
            None => Err(LinkEnd::Closed(None)),
            Some(Err(error)) => Err(end(&error)),
            Some(Ok(message)) => Ok(match message {
                protocol::Message::Text(text) => Message::Text(text),
                protocol::Message::Binary(_) => Message::Binary,
                protocol::Message::Pong(payload) => <[u8; 8]>::try_from(payload.as_ref())
                    .map_or(Message::Control, |n| Message::Pong(u64::from_be_bytes(n))),
                protocol::Message::Ping(_) | protocol::Message::Frame(_) => Message::Control,
                protocol::Message::Close(frame) => Message::Close(close_frame(frame)),
            }),
        }
    }
}

fn close_frame(frame: Option<protocol::CloseFrame>) -> CloseFrame {
    frame.map_or_else(
        || CloseFrame {
            code: CloseCode::Status.into(),
            reason: String::new(),
        },
        |frame| CloseFrame {
            code: frame.code.into(),
            reason: frame.reason.to_string(),
        },
    )
}

/// The code to close with, where the peer is to be told why.
pub(super) fn close_code(end: &LinkEnd) -> Option<u16> {
    match end {
        LinkEnd::TooLarge => Some(CloseCode::Size.into()),
        LinkEnd::NotUtf8 => Some(CloseCode::Invalid.into()),
        LinkEnd::Protocol => Some(CloseCode::Protocol.into()),
        LinkEnd::Finished | LinkEnd::Closed(_) | LinkEnd::Reset => None,
    }
}

fn end(error: &tungstenite::Error) -> LinkEnd {
    use tungstenite::Error;
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::SendAfterClosing) => LinkEnd::Closed(None),
        Error::Io(_) | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            LinkEnd::Reset
        }
        Error::Capacity(_) => LinkEnd::TooLarge,
        Error::Utf8(_) => LinkEnd::NotUtf8,
        _ => LinkEnd::Protocol,
    }
}
