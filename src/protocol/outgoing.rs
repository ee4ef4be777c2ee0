//! What the agent sends, spelled in one place.
//!
//! Invariant: every frame is one JSON object on the wire, with `type` first, in snake_case but for the three keys that
//! the protocol spells in camelCase.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::label::{Label, labels};

labels! {
    /// The types of frames that go to the gateway, as metrics name them.
    pub enum AgentMessage {
        /// The login.
        Auth = "AUTH",
        /// A sign of life with the node's load.
        Heartbeat = "HEARTBEAT",
        /// Answers PING.
        Pong = "PONG",
        /// The models that are served.
        ModelList = "MODEL_LIST",
        /// A node and its models.
        RegisterNode = "REGISTER_NODE",
        /// Where earnings go.
        UpdateWallet = "UPDATE_WALLET",
        /// A piece of an answer.
        InferenceChunk = "INFERENCE_CHUNK",
        /// A whole answer.
        InferenceResponse = "INFERENCE_RESPONSE",
        /// A refusal or a failure.
        InferenceError = "INFERENCE_ERROR",
        /// A refusal or failure of a speech request.
        TtsError = "TTS_ERROR",
    }
}

labels! {
    /// What a piece of an answer is.
    pub enum ChunkKind {
        /// Part of the answer itself.
        Content = "content",
        /// Part of the model's reasoning.
        Thinking = "thinking",
    }
}

impl Serialize for ChunkKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How busy the node is; an addition to HEARTBEAT that gateways may ignore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Jobs running and waiting.
    pub current_load: usize,
    /// Jobs that may run at once.
    pub capacity: usize,
    /// How many models are offered.
    pub models: usize,
    /// GPU memory in use by loaded models, in bytes.
    pub gpu_memory_used: u64,
}

/// A node as the network is told of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NodeRegistration<'a> {
    /// The operator's name for it.
    pub alias: &'a str,
    /// The models that it serves.
    pub models: &'a [&'a str],
    /// Jobs that may run at once.
    pub capacity: usize,
    /// Where it stands.
    pub region: &'a str,
    /// US dollars for 1,000 tokens, a JSON number in the operator's own digits.
    #[serde(rename = "pricePerThousandTokens")]
    pub price_per_thousand_tokens: &'a RawValue,
    /// The model that interviews should ask.
    #[serde(rename = "interviewModel", skip_serializing_if = "Option::is_none")]
    pub interview_model: Option<&'a str>,
    /// The backend's dialect.
    #[serde(rename = "apiMode")]
    pub api_mode: &'a str,
}

/// A frame to the gateway.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ToGateway<'a> {
    /// The login.
    Auth {
        /// Who logs in.
        client_id: &'a str,
        /// Unix seconds, in decimal.
        timestamp: &'a str,
        /// See [`sign`](super::sign).
        signature: &'a str,
    },
    /// A sign of life.
    Heartbeat {
        /// How busy the node is.
        health: Health,
    },
    /// Answers PING.
    Pong,
    /// The models that are served.
    ModelList {
        /// Their full names.
        models: &'a [&'a str],
    },
    /// A node and its models.
    RegisterNode(NodeRegistration<'a>),
    /// Where earnings go.
    UpdateWallet {
        /// The operator's address.
        payout_address: &'a str,
    },
    /// A piece of an answer.
    InferenceChunk {
        /// The request.
        request_id: &'a str,
        /// 0, 1, 2… over the chunks of the request, of both kinds together.
        index: u64,
        /// The text.
        delta: &'a str,
        /// What it is part of.
        kind: ChunkKind,
    },
    /// A whole answer.
    InferenceResponse {
        /// The request.
        request_id: &'a str,
        /// In the shape of the client's generation.
        result: &'a RawValue,
    },
    /// A refusal or a failure.
    InferenceError {
        /// The request.
        request_id: &'a str,
        /// `<code>: <sentence>`.
        error: &'a str,
    },
    /// A refusal of a speech request.
    TtsError {
        /// The request.
        request_id: &'a str,
        /// `<code>: <sentence>`.
        error: &'a str,
    },
}

impl ToGateway<'_> {
    /// The frame's text.
    pub fn encode(&self) -> String {
        // Serialising these types into memory cannot fail: no map has keys that are not strings, and no value refuses.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The type of this frame.
    pub fn message(&self) -> AgentMessage {
        match self {
            Self::Auth { .. } => AgentMessage::Auth,
            Self::Heartbeat { .. } => AgentMessage::Heartbeat,
            Self::Pong => AgentMessage::Pong,
            Self::ModelList { .. } => AgentMessage::ModelList,
            Self::RegisterNode(_) => AgentMessage::RegisterNode,
            Self::UpdateWallet { .. } => AgentMessage::UpdateWallet,
            Self::InferenceChunk { .. } => AgentMessage::InferenceChunk,
            Self::InferenceResponse { .. } => AgentMessage::InferenceResponse,
            Self::InferenceError { .. } => AgentMessage::InferenceError,
            Self::TtsError { .. } => AgentMessage::TtsError,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_are_spelled_as_the_protocol_says() {
        let models = ["llama3.2:latest"];
        let result = RawValue::from_string(r#"{"b":1, "a":2}"#.into()).unwrap();
        let price = RawValue::from_string("0.00100".into()).unwrap();
        let node = NodeRegistration {
            alias: "gpu-1",
            models: &models,
            capacity: 4,
            region: "eu-west",
            price_per_thousand_tokens: &price,
            interview_model: None,
            api_mode: "ollama",
        };
        let golden = [
            (
                ToGateway::Auth {
                    client_id: "op_abc",
                    timestamp: "1704499200",
                    signature: "d41f",
                },
                r#"{"type":"AUTH","client_id":"op_abc","timestamp":"1704499200","signature":"d41f"}"#,
            ),
            (
                ToGateway::Heartbeat {
                    health: Health {
                        current_load: 1,
                        capacity: 4,
                        models: 2,
                        gpu_memory_used: 3,
                    },
                },
                r#"{"type":"HEARTBEAT","health":{"current_load":1,"capacity":4,"models":2,"gpu_memory_used":3}}"#,
            ),
            (ToGateway::Pong, r#"{"type":"PONG"}"#),
            (
                ToGateway::ModelList { models: &models },
                r#"{"type":"MODEL_LIST","models":["llama3.2:latest"]}"#,
            ),
            (
                ToGateway::RegisterNode(node),
                r#"{"type":"REGISTER_NODE","alias":"gpu-1","models":["llama3.2:latest"],"capacity":4,"region":"eu-west","pricePerThousandTokens":0.00100,"apiMode":"ollama"}"#,
            ),
            (
                ToGateway::RegisterNode(NodeRegistration {
                    interview_model: Some("m"),
                    ..node
                }),
                r#"{"type":"REGISTER_NODE","alias":"gpu-1","models":["llama3.2:latest"],"capacity":4,"region":"eu-west","pricePerThousandTokens":0.00100,"interviewModel":"m","apiMode":"ollama"}"#,
            ),
            (
                ToGateway::UpdateWallet {
                    payout_address: "0x1",
                },
                r#"{"type":"UPDATE_WALLET","payout_address":"0x1"}"#,
            ),
            (
                ToGateway::InferenceChunk {
                    request_id: "r",
                    index: 0,
                    delta: "a\"é",
                    kind: ChunkKind::Thinking,
                },
                r#"{"type":"INFERENCE_CHUNK","request_id":"r","index":0,"delta":"a\"é","kind":"thinking"}"#,
            ),
            (
                ToGateway::InferenceResponse {
                    request_id: "r",
                    result: &result,
                },
                r#"{"type":"INFERENCE_RESPONSE","request_id":"r","result":{"b":1, "a":2}}"#,
            ),
            (
                ToGateway::InferenceError {
                    request_id: "r",
                    error: "busy: x",
                },
                r#"{"type":"INFERENCE_ERROR","request_id":"r","error":"busy: x"}"#,
            ),
            (
                ToGateway::TtsError {
                    request_id: "r",
                    error: "invalid: x",
                },
                r#"{"type":"TTS_ERROR","request_id":"r","error":"invalid: x"}"#,
            ),
        ];
        for (frame, text) in golden {
            assert_eq!(frame.encode(), text);
            assert!(text.starts_with(&format!(r#"{{"type":"{}""#, frame.message())));
        }
    }
}
