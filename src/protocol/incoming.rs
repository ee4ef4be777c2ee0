//! What the gateway sends. A frame is read once, into what somebody here can use.
//!
//! Invariant: no input makes reading panic, or recurse with the input's depth; what a frame is not about is not copied.
//! Unknown types and fields are not errors, and a field of the wrong type counts as missing.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Operation, RequestId, RetryAfter};
use crate::label::{Label, labels};

labels! {
    /// The types of frames that come from the gateway, as metrics name them.
    pub enum GatewayMessage {
        /// The login was accepted.
        AuthSuccess = "AUTH_SUCCESS",
        /// A refused login, or a complaint later on.
        Error = "ERROR",
        /// Asks for a PONG.
        Ping = "PING",
        /// A heartbeat was read.
        HeartbeatAck = "HEARTBEAT_ACK",
        /// A model list was read.
        ModelListAck = "MODEL_LIST_ACK",
        /// An answer was read.
        ResultAck = "RESULT_ACK",
        /// A node was registered, perhaps under another alias.
        RegisterNodeAck = "REGISTER_NODE_ACK",
        /// A payout address was taken or not.
        UpdateWalletAck = "UPDATE_WALLET_ACK",
        /// A chat to answer.
        InferenceRequest = "INFERENCE_REQUEST",
        /// A request that is no longer wanted.
        CancelRequest = "CANCEL_REQUEST",
        /// Prompts that measure this node.
        InterviewRequest = "INTERVIEW_REQUEST",
        /// The tier that an interview gave.
        InterviewComplete = "INTERVIEW_COMPLETE",
        /// An interview that went wrong; the gateway will close.
        InterviewFailed = "INTERVIEW_FAILED",
        /// Text to be spoken.
        TtsRequest = "TTS_REQUEST",
        /// Any other type, or a frame that could not be read.
        Unknown = "unknown",
    }
}

/// A frame from the gateway. Texts are the gateway's own and may be of any length.
#[derive(Debug)]
pub enum FromGateway {
    /// The session is up.
    AuthSuccess {
        /// The node that the gateway knows this session as, where it says so at login.
        node_id: Option<String>,
    },
    /// Before [`FromGateway::AuthSuccess`]: the login is refused. After it: something to log.
    Error {
        /// Why, in the gateway's words.
        message: String,
    },
    /// To be answered with PONG at once.
    Ping,
    /// The oldest unacknowledged HEARTBEAT has been read.
    HeartbeatAck,
    /// The oldest unacknowledged MODEL_LIST has been read.
    ModelListAck,
    /// An answer has been read.
    ResultAck {
        /// Which one; some gateways do not say.
        request_id: Option<RequestId>,
    },
    /// A node has been registered.
    RegisterNodeAck {
        /// The gateway's name for it.
        node_id: Option<String>,
        /// The alias that it goes by, which may differ from the one asked for.
        alias: Option<String>,
    },
    /// The payout address has been read.
    UpdateWalletAck {
        /// Whether it was accepted.
        success: bool,
        /// More about it.
        message: String,
    },
    /// Work to do.
    Request {
        /// Which kind of work.
        operation: Operation,
        /// Its id.
        request_id: RequestId,
        /// What is asked for; `None` where the frame does not say. An interview's is the frame.
        payload: Option<Box<RawValue>>,
    },
    /// Stop working on a request and say nothing more of it.
    CancelRequest {
        /// Its id.
        request_id: RequestId,
    },
    /// An interview's verdict.
    InterviewComplete {
        /// Of which node, by the gateway's id or its alias.
        node: Option<String>,
        /// The tier that the node is in now.
        tier: String,
        /// How many of the answers were right, as the gateway wrote it: a ratio or a percentage.
        accuracy: Option<f64>,
        /// The speed that the gateway measured.
        tokens_per_second: Option<f64>,
        /// More about it, in the gateway's words.
        reason: String,
    },
    /// An interview that went wrong; a close follows.
    InterviewFailed {
        /// Of which node, by the gateway's id or its alias.
        node: Option<String>,
        /// Why, in the gateway's words.
        reason: String,
        /// How long to stay away.
        retry_after: Option<RetryAfter>,
        /// Models of which the network wants one.
        required_models: Vec<String>,
    },
    /// A type that this agent has not heard of.
    Unknown {
        /// That type.
        kind: String,
    },
}

/// A frame that cannot be used. It never ends the session.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What it would have been.
    pub message: GatewayMessage,
    /// What is wrong, without quoting any of it.
    pub reason: &'static str,
    /// The kind of work that it was about to ask for, if it was.
    pub operation: Option<Operation>,
    /// The id of that, so that it can be refused, where as much could be read.
    pub request_id: Option<RequestId>,
}

impl FromGateway {
    /// Reads one frame, and gives its type beside it.
    ///
    /// # Errors
    /// It is not a JSON object with a `type`, a key that matters is written twice, or a request has no usable id.
    pub fn read(text: &str) -> Result<(GatewayMessage, Self), Unreadable> {
        let mut fields = Fields::default();
        let mut input = serde_json::Deserializer::from_str(text);
        let read = (&mut fields)
            .deserialize(&mut input)
            .and_then(|()| input.end());
        let kind = fields.get(Key::Type).and_then(string);
        let message = kind
            .as_deref()
            .and_then(GatewayMessage::of)
            .unwrap_or(GatewayMessage::Unknown);
        if read.is_err() {
            return Err(fields.unreadable(message, "it is not one JSON object, or has a key twice"));
        }
        match kind {
            None => Err(fields.unreadable(message, "it has no type")),
            Some(kind) => Ok((message, fields.frame(message, kind, text)?)),
        }
    }
}

impl GatewayMessage {
    /// The kind of work that a frame of this type asks for.
    fn operation(self) -> Option<Operation> {
        match self {
            Self::InferenceRequest => Some(Operation::Chat),
            Self::TtsRequest => Some(Operation::Speech),
            Self::InterviewRequest => Some(Operation::Interview),
            Self::AuthSuccess
            | Self::Error
            | Self::Ping
            | Self::HeartbeatAck
            | Self::ModelListAck
            | Self::ResultAck
            | Self::RegisterNodeAck
            | Self::UpdateWalletAck
            | Self::CancelRequest
            | Self::InterviewComplete
            | Self::InterviewFailed
            | Self::Unknown => None,
        }
    }
}

labels! {
    /// The keys that mean something in any frame.
    enum Key {
        Type = "type",
        RequestId = "request_id",
        InterviewId = "interview_id",
        NodeId = "node_id",
        Alias = "alias",
        Message = "message",
        Reason = "reason",
        Success = "success",
        Tier = "tier",
        Accuracy = "accuracy",
        TokensPerSec = "tokens_per_sec",
        RetryAfterSeconds = "retry_after_seconds",
        RequiredModels = "required_models",
        Payload = "payload",
    }
}

/// What the keys stand for in one frame, as it was written.
#[derive(Default)]
struct Fields<'a>([Option<&'a RawValue>; Key::ALL.len()]);

impl<'a> Fields<'a> {
    fn get(&self, key: Key) -> Option<&'a RawValue> {
        self.0[key.index()]
    }

    fn text(&self, key: Key) -> Option<String> {
        self.get(key).and_then(string).map(Cow::into_owned)
    }

    fn number(&self, key: Key) -> Option<f64> {
        self.get(key).and_then(finite)
    }

    fn id(&self) -> Option<RequestId> {
        RequestId::new(&self.get(Key::RequestId).and_then(string)?)
    }

    fn interview_id(&self) -> Option<RequestId> {
        let id = RequestId::new(&self.get(Key::InterviewId).and_then(string)?)?;
        Some(id.of_interview())
    }

    /// What a frame names that asks for this kind of work.
    fn id_of(&self, operation: Operation) -> Option<RequestId> {
        match operation {
            Operation::Chat | Operation::Speech => self.id(),
            Operation::Interview => self.interview_id(),
        }
    }

    fn needed_id(&self, message: GatewayMessage) -> Result<RequestId, Unreadable> {
        let (id, reason) = match message {
            GatewayMessage::InterviewRequest => (
                self.interview_id(),
                "its interview_id is not 1 to 256 bytes of text",
            ),
            _ => (self.id(), "its request_id is not 1 to 256 bytes of text"),
        };
        id.ok_or_else(|| self.unreadable(message, reason))
    }

    /// `text`: the whole frame, which is one JSON object.
    fn interview(&self, text: &str) -> Result<FromGateway, Unreadable> {
        Ok(FromGateway::Request {
            operation: Operation::Interview,
            request_id: self.needed_id(GatewayMessage::InterviewRequest)?,
            payload: RawValue::from_string(text.trim().to_owned()).ok(),
        })
    }

    fn reason(&self) -> String {
        let reason = self.text(Key::Reason).or_else(|| self.text(Key::Message));
        reason.unwrap_or_default()
    }

    /// The names in a list; what is no text in it is left out.
    fn names(&self, key: Key) -> Vec<String> {
        let list = self.get(key).map(|raw| serde_json::from_str(raw.get()));
        let entries: Vec<&RawValue> = list.and_then(Result::ok).unwrap_or_default();
        let names = entries.into_iter().filter_map(string);
        names.map(Cow::into_owned).collect()
    }

    fn request(
        &self,
        message: GatewayMessage,
        operation: Operation,
    ) -> Result<FromGateway, Unreadable> {
        Ok(FromGateway::Request {
            operation,
            request_id: self.needed_id(message)?,
            payload: self.get(Key::Payload).map(ToOwned::to_owned),
        })
    }

    fn unreadable(&self, message: GatewayMessage, reason: &'static str) -> Unreadable {
        let operation = message.operation();
        Unreadable {
            message,
            reason,
            operation,
            request_id: operation.and_then(|operation| self.id_of(operation)),
        }
    }

    fn frame(
        &self,
        message: GatewayMessage,
        kind: Cow<'_, str>,
        text: &str,
    ) -> Result<FromGateway, Unreadable> {
        Ok(match message {
            GatewayMessage::AuthSuccess => FromGateway::AuthSuccess {
                node_id: self.text(Key::NodeId),
            },
            GatewayMessage::Error => FromGateway::Error {
                message: self.text(Key::Message).unwrap_or_default(),
            },
            GatewayMessage::Ping => FromGateway::Ping,
            GatewayMessage::HeartbeatAck => FromGateway::HeartbeatAck,
            GatewayMessage::ModelListAck => FromGateway::ModelListAck,
            GatewayMessage::ResultAck => FromGateway::ResultAck {
                request_id: self.id(),
            },
            GatewayMessage::RegisterNodeAck => FromGateway::RegisterNodeAck {
                node_id: self.text(Key::NodeId),
                alias: self.text(Key::Alias),
            },
            GatewayMessage::UpdateWalletAck => FromGateway::UpdateWalletAck {
                success: self
                    .get(Key::Success)
                    .is_some_and(|raw| raw.get() == "true"),
                message: self.text(Key::Message).unwrap_or_default(),
            },
            GatewayMessage::CancelRequest => FromGateway::CancelRequest {
                request_id: self.needed_id(message)?,
            },
            GatewayMessage::InterviewRequest => self.interview(text)?,
            GatewayMessage::InterviewComplete => FromGateway::InterviewComplete {
                node: self.text(Key::NodeId),
                tier: self.text(Key::Tier).unwrap_or_default(),
                accuracy: self.number(Key::Accuracy),
                tokens_per_second: self.number(Key::TokensPerSec),
                reason: self.reason(),
            },
            GatewayMessage::InterviewFailed => FromGateway::InterviewFailed {
                node: self.text(Key::NodeId),
                reason: self.reason(),
                retry_after: self.get(Key::RetryAfterSeconds).and_then(seconds),
                required_models: self.names(Key::RequiredModels),
            },
            GatewayMessage::InferenceRequest => self.request(message, Operation::Chat)?,
            GatewayMessage::TtsRequest => self.request(message, Operation::Speech)?,
            GatewayMessage::Unknown => FromGateway::Unknown {
                kind: kind.into_owned(),
            },
        })
    }
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get().strip_prefix('"')?.strip_suffix('"') {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
    }
}

fn seconds(raw: &RawValue) -> Option<RetryAfter> {
    RetryAfter::from_secs_f64(number(raw)?)
}

/// A number that can be shown: not negative, and not beyond what a double holds.
fn finite(raw: &RawValue) -> Option<f64> {
    number(raw).filter(|number| number.is_finite() && *number >= 0.0)
}

/// Unlike serde_json, Rust takes a number beyond what a double holds for infinite. Of other JSON it reads none.
fn number(raw: &RawValue) -> Option<f64> {
    raw.get().parse().ok()
}

/// Fills [`Fields`] as it reads, so that what stood before a mistake is still known after it.
impl<'de> DeserializeSeed<'de> for &mut Fields<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Fields<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            match Key::of(&name).map(|key| &mut self.0[key.index()]) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(Some(_)) => return Err(A::Error::custom("key written twice")),
                Some(field) => *field = Some(map.next_value()?),
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
