//! A frame as it was seen on the wire.

use std::fmt;

use async_tungstenite::tungstenite::{Bytes, Message};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The agent under test.
    Agent,
    /// This gateway.
    Gateway,
}

/// One WebSocket message, control frames included.
#[derive(Clone)]
pub struct Frame {
    /// When it was read, or given to the socket.
    pub at: Instant,
    /// Which connection it was on: 1, 2, 3… in order of their WebSocket upgrade.
    pub connection: u64,
    /// Who sent it.
    pub sender: Sender,
    /// Its bytes as they were on the wire; of a Close frame its reason.
    pub bytes: Bytes,
    /// What it says, `null` where it is not JSON; of a Close frame `{"code", "reason"}`.
    pub value: Value,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Ping,
    Pong,
    Close,
}

impl Frame {
    /// What a consumer is told by when its request is given up: no frame of the wire.
    pub(super) const GIVEN_UP: &'static str = "REQUEST_GIVEN_UP";

    pub(super) fn new(connection: u64, sender: Sender, message: Message) -> Self {
        let (kind, bytes, value) = match message {
            Message::Text(text) => (Kind::Text, Bytes::from(text), None),
            Message::Binary(bytes) => (Kind::Binary, bytes, None),
            Message::Ping(bytes) => (Kind::Ping, bytes, Some(Value::Null)),
            Message::Pong(bytes) => (Kind::Pong, bytes, Some(Value::Null)),
            Message::Close(close) => {
                let code = close.as_ref().map(|close| u16::from(close.code));
                let reason = close
                    .map(|close| close.reason.to_string())
                    .unwrap_or_default();
                (
                    Kind::Close,
                    Bytes::copy_from_slice(reason.as_bytes()),
                    Some(json!({"code": code, "reason": reason})),
                )
            }
            Message::Frame(frame) => (Kind::Binary, frame.into_payload(), Some(Value::Null)),
        };
        let value = value.unwrap_or_else(|| serde_json::from_slice(&bytes).unwrap_or(Value::Null));
        Self {
            at: Instant::now(),
            connection,
            sender,
            bytes,
            value,
            kind,
        }
    }

    /// Its `type`; a WebSocket control frame is `ping`, `pong` or `close`, what cannot be read is empty.
    pub fn name(&self) -> &str {
        match self.kind {
            Kind::Text | Kind::Binary => self.value["type"].as_str().unwrap_or_default(),
            Kind::Ping => "ping",
            Kind::Pong => "pong",
            Kind::Close => "close",
        }
    }

    /// Whether the agent sent it and its [`name`](Frame::name) is this.
    pub fn is_from_agent(&self, name: &str) -> bool {
        self.sender == Sender::Agent && self.name() == name
    }

    /// Whether the gateway sent it and its [`name`](Frame::name) is this.
    pub fn is_from_gateway(&self, name: &str) -> bool {
        self.sender == Sender::Gateway && self.name() == name
    }

    pub(super) fn is_about_a_chat(&self) -> bool {
        self.name().starts_with("INFERENCE_") || self.name() == "RESULT_ACK"
    }

    /// Its `request_id`, empty where it has none.
    pub fn request_id(&self) -> &str {
        self.value["request_id"].as_str().unwrap_or_default()
    }

    /// Whether it ends what it is about: a request, or an interview.
    pub(super) fn is_answer(&self) -> bool {
        matches!(
            self.name(),
            "INFERENCE_RESPONSE"
                | "INFERENCE_ERROR"
                | "TTS_RESPONSE"
                | "TTS_ERROR"
                | "INTERVIEW_RESULT"
        )
    }

    /// The id of the request or interview that it answers, empty where it has none.
    pub(super) fn answers_id(&self) -> &str {
        self.value[self.id_field()].as_str().unwrap_or_default()
    }

    /// The key of that id.
    pub(super) fn id_field(&self) -> &'static str {
        match self.name() {
            "INTERVIEW_RESULT" => "interview_id",
            _ => "request_id",
        }
    }

    /// What was on the wire, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let text: String = self.text().chars().take(SHOWN).collect();
        write!(
            f,
            "#{} {:?} {} {text}",
            self.connection,
            self.sender,
            self.name()
        )
    }
}
