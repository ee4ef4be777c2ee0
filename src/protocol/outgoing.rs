//! What the agent sends, spelled in one place.
//!
//! Invariant: every frame is one JSON object on the wire, with `type` first, in snake_case but for the three keys that
//! the protocol spells in camelCase.

use std::sync::Arc;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::value::RawValue;

use super::RequestId;
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
        /// The answers to an interview, or its refusal.
        InterviewResult = "INTERVIEW_RESULT",
        /// Speech.
        TtsResponse = "TTS_RESPONSE",
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
#[derive(Clone, Debug, Serialize)]
pub struct NodeRegistration {
    /// The operator's name for it.
    pub alias: Arc<str>,
    /// The models that it serves.
    pub models: Vec<Arc<str>>,
    /// Jobs that may run at once.
    pub capacity: usize,
    /// Where it stands.
    pub region: &'static str,
    /// US dollars for 1,000 tokens, a JSON number in the operator's own digits.
    #[serde(rename = "pricePerThousandTokens")]
    pub price_per_thousand_tokens: Box<RawValue>,
    /// The model that interviews should ask.
    #[serde(rename = "interviewModel", skip_serializing_if = "Option::is_none")]
    pub interview_model: Option<String>,
    /// The backend's dialect.
    #[serde(rename = "apiMode")]
    pub api_mode: &'static str,
}

/// The login.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "AUTH")]
pub struct Auth<'a> {
    /// Who logs in.
    pub client_id: &'a str,
    /// Unix seconds, in decimal.
    pub timestamp: &'a str,
    /// See [`sign`](super::sign).
    pub signature: &'a str,
}

/// What is about no request.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Control {
    /// Answers PING.
    Pong,
    /// A sign of life.
    Heartbeat {
        /// How busy the node is.
        health: Health,
    },
    /// The models that are served.
    ModelList {
        /// Their full names.
        models: Vec<Arc<str>>,
    },
    /// A node and its models.
    RegisterNode(NodeRegistration),
    /// Where earnings go.
    UpdateWallet {
        /// The operator's address.
        payout_address: String,
    },
}

impl Control {
    /// The type of the frame.
    pub fn message(&self) -> AgentMessage {
        match self {
            Self::Pong => AgentMessage::Pong,
            Self::Heartbeat { .. } => AgentMessage::Heartbeat,
            Self::ModelList { .. } => AgentMessage::ModelList,
            Self::RegisterNode(_) => AgentMessage::RegisterNode,
            Self::UpdateWallet { .. } => AgentMessage::UpdateWallet,
        }
    }

    /// Whether nobody needs `older` any more, which has not been sent: it is of the same type, and about the same node.
    pub fn replaces(&self, older: &Self) -> bool {
        self.message() == older.message() && self.node() == older.node()
    }

    fn node(&self) -> Option<&str> {
        match self {
            Self::RegisterNode(node) => Some(&node.alias),
            Self::Pong
            | Self::Heartbeat { .. }
            | Self::ModelList { .. }
            | Self::UpdateWallet { .. } => None,
        }
    }
}

/// A piece of an answer.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "INFERENCE_CHUNK")]
pub struct Chunk {
    /// The request.
    pub request_id: RequestId,
    /// 0, 1, 2… over the chunks of the request, of both kinds together.
    pub index: u64,
    /// The text.
    pub delta: String,
    /// What it is part of.
    pub kind: ChunkKind,
}

/// What ends a request.
#[derive(Debug)]
pub struct Reply {
    /// The type of the frame, which says what kind of work it was.
    pub message: AgentMessage,
    /// The request.
    pub request_id: RequestId,
    /// What came of it.
    pub body: Body,
}

/// What came of a request.
#[derive(Debug)]
pub enum Body {
    /// The whole answer, so that the work is never done again.
    Result(Box<RawValue>),
    /// Why there is none: `<code>: <sentence>`.
    Error(String),
    /// What came of an interview.
    Interview(InterviewAnswers),
}

/// What came of an interview, prompt by prompt.
#[derive(Debug)]
pub struct InterviewAnswers {
    /// The model that was asked.
    pub model: String,
    /// A list of [`PromptAnswer`]s, in the order of the prompts.
    pub results: Box<RawValue>,
    /// Whether any prompt was run, so that none is ever run again.
    pub was_run: bool,
}

/// What came of one prompt of an interview.
#[derive(Clone, Debug, Serialize)]
pub struct PromptAnswer {
    /// The prompt, by the id that the network gave it.
    pub prompt_id: Box<RawValue>,
    /// The whole text of the answer.
    pub response: String,
    /// From the sending of the prompt to the first token, in milliseconds.
    pub ttft_ms: u64,
    /// From the sending of the prompt to the last byte of its answer, in milliseconds.
    pub total_ms: u64,
    /// How many tokens were generated, as the backend counts them.
    pub tokens_generated: u64,
    /// Why there is no answer, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PromptAnswer {
    /// That there is no answer, and why.
    pub fn failed(prompt_id: Box<RawValue>, error: String) -> Self {
        Self {
            prompt_id,
            response: String::new(),
            ttft_ms: 0,
            total_ms: 0,
            tokens_generated: 0,
            error: Some(error),
        }
    }
}

impl InterviewAnswers {
    /// Puts the answers of a model together.
    pub fn new(model: String, results: &[PromptAnswer], was_run: bool) -> Self {
        // As with `encode`, this cannot fail.
        let results = serde_json::value::to_raw_value(results).unwrap_or_default();
        Self {
            model,
            results,
            was_run,
        }
    }
}

impl Reply {
    /// Whether it has the whole answer.
    pub fn is_result(&self) -> bool {
        match &self.body {
            Body::Result(_) => true,
            Body::Error(_) => false,
            Body::Interview(answers) => answers.was_run,
        }
    }

    /// The length of what it says, in bytes.
    pub fn bytes(&self) -> usize {
        match &self.body {
            Body::Result(result) => result.get().len(),
            Body::Error(error) => error.len(),
            Body::Interview(answers) => answers.model.len() + answers.results.get().len(),
        }
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut frame = serializer.serialize_struct("Reply", 4)?;
        frame.serialize_field("type", self.message.as_str())?;
        match &self.body {
            Body::Result(result) => {
                frame.serialize_field("request_id", &self.request_id)?;
                frame.serialize_field("result", result)?;
            }
            Body::Error(error) => {
                frame.serialize_field("request_id", &self.request_id)?;
                frame.serialize_field("error", error)?;
            }
            Body::Interview(answers) => {
                frame.serialize_field("interview_id", &self.request_id)?;
                frame.serialize_field("model", &answers.model)?;
                frame.serialize_field("results", &answers.results)?;
            }
        }
        frame.end()
    }
}

/// The text of a frame, as a WebSocket carries it.
pub fn encode(frame: &impl Serialize) -> String {
    // Serialising these types into memory cannot fail: no map has keys that are not strings, and no value refuses.
    serde_json::to_string(frame).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request_id() -> RequestId {
        RequestId::new("r").unwrap()
    }

    fn node() -> NodeRegistration {
        NodeRegistration {
            alias: "gpu-1".into(),
            models: vec!["llama3.2:latest".into()],
            capacity: 4,
            region: "eu-west",
            price_per_thousand_tokens: RawValue::from_string("0.00100".into()).unwrap(),
            interview_model: None,
            api_mode: "ollama",
        }
    }

    #[track_caller]
    fn assert_spelled(message: AgentMessage, frame: &impl Serialize, text: &str) {
        assert_eq!(encode(frame), text);
        assert!(text.starts_with(&format!(r#"{{"type":"{message}""#)));
    }

    #[test]
    fn the_login_is_spelled_as_the_protocol_says() {
        let auth = Auth {
            client_id: "op_abc",
            timestamp: "1704499200",
            signature: "d41f",
        };
        let text =
            r#"{"type":"AUTH","client_id":"op_abc","timestamp":"1704499200","signature":"d41f"}"#;
        assert_spelled(AgentMessage::Auth, &auth, text);
    }

    #[test]
    fn what_is_about_no_request_is_spelled_as_the_protocol_says() {
        let health = Health {
            current_load: 1,
            capacity: 4,
            models: 2,
            gpu_memory_used: 3,
        };
        let interviewed = NodeRegistration {
            interview_model: Some("m".into()),
            ..node()
        };
        let golden = [
            (
                Control::Heartbeat { health },
                r#"{"type":"HEARTBEAT","health":{"current_load":1,"capacity":4,"models":2,"gpu_memory_used":3}}"#,
            ),
            (Control::Pong, r#"{"type":"PONG"}"#),
            (
                Control::ModelList {
                    models: node().models,
                },
                r#"{"type":"MODEL_LIST","models":["llama3.2:latest"]}"#,
            ),
            (
                Control::RegisterNode(node()),
                r#"{"type":"REGISTER_NODE","alias":"gpu-1","models":["llama3.2:latest"],"capacity":4,"region":"eu-west","pricePerThousandTokens":0.00100,"apiMode":"ollama"}"#,
            ),
            (
                Control::RegisterNode(interviewed),
                r#"{"type":"REGISTER_NODE","alias":"gpu-1","models":["llama3.2:latest"],"capacity":4,"region":"eu-west","pricePerThousandTokens":0.00100,"interviewModel":"m","apiMode":"ollama"}"#,
            ),
            (
                Control::UpdateWallet {
                    payout_address: "0x1".into(),
                },
                r#"{"type":"UPDATE_WALLET","payout_address":"0x1"}"#,
            ),
        ];
        for (frame, text) in golden {
            assert_spelled(frame.message(), &frame, text);
        }
    }

    #[test]
    fn what_is_about_a_request_is_spelled_as_the_protocol_says() {
        let chunk = Chunk {
            request_id: request_id(),
            index: 0,
            delta: "a\"é".into(),
            kind: ChunkKind::Thinking,
        };
        let text = r#"{"type":"INFERENCE_CHUNK","request_id":"r","index":0,"delta":"a\"é","kind":"thinking"}"#;
        assert_spelled(AgentMessage::InferenceChunk, &chunk, text);
        let result = RawValue::from_string(r#"{"b":1, "a":2}"#.into()).unwrap();
        let clip = RawValue::from_string(r#"{"audio_b64":"AA=="}"#.into()).unwrap();
        let error = |text: &str| Body::Error(text.into());
        let golden = [
            (
                AgentMessage::TtsResponse,
                Body::Result(clip),
                r#"{"type":"TTS_RESPONSE","request_id":"r","result":{"audio_b64":"AA=="}}"#,
            ),
            (
                AgentMessage::InferenceResponse,
                Body::Result(result),
                r#"{"type":"INFERENCE_RESPONSE","request_id":"r","result":{"b":1, "a":2}}"#,
            ),
            (
                AgentMessage::InferenceError,
                error("busy: x"),
                r#"{"type":"INFERENCE_ERROR","request_id":"r","error":"busy: x"}"#,
            ),
            (
                AgentMessage::TtsError,
                error("invalid: x"),
                r#"{"type":"TTS_ERROR","request_id":"r","error":"invalid: x"}"#,
            ),
        ];
        for (message, body, text) in golden {
            let request_id = request_id();
            let reply = Reply {
                message,
                request_id,
                body,
            };
            assert_spelled(message, &reply, text);
        }
    }

    #[test]
    fn a_frame_that_waits_gives_way_to_a_newer_one_of_its_type_and_node_alone() {
        let other = NodeRegistration {
            alias: "gpu-2".into(),
            ..node()
        };
        let [one, other] = [node(), other].map(Control::RegisterNode);
        assert!(one.replaces(&one.clone()));
        assert!(!one.replaces(&other), "both nodes are to be registered");
        assert!(Control::Pong.replaces(&Control::Pong));
        assert!(!Control::Pong.replaces(&one));
    }
}
