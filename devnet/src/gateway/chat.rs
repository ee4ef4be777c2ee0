//! One chat, as the consumer behind the gateway sees it.

use std::sync::{Arc, Weak};

use serde_json::Value;
use tokio::sync::mpsc;

use super::{frame::Frame, hub::Hub};
use crate::PATIENCE;

/// What comes for a chat.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatEvent {
    /// `INFERENCE_CHUNK`.
    Chunk(Chunk),
    /// `INFERENCE_RESPONSE` or `TTS_RESPONSE`, its `result`.
    Response(Value),
    /// `INFERENCE_ERROR` or `TTS_ERROR`, its `error`.
    Error(String),
    /// The network has given the request up, and this is why. An answer may come all the same.
    GivenUp(String),
}

/// A piece of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its `index`; `None` where that is not a whole number.
    pub index: Option<u64>,
    /// Its text.
    pub delta: String,
    /// `content` or `thinking`.
    pub kind: String,
}

/// A chat that was sent. It hears what comes for its id until it is dropped, repeated answers too.
pub struct Chat {
    id: String,
    inbox: mpsc::UnboundedReceiver<Arc<Frame>>,
    hub: Weak<Hub>,
}

impl Chat {
    pub(super) fn new(
        id: String,
        inbox: mpsc::UnboundedReceiver<Arc<Frame>>,
        hub: &Arc<Hub>,
    ) -> Self {
        Self {
            id,
            inbox,
            hub: Arc::downgrade(hub),
        }
    }

    /// Its `request_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What comes next, as long as that takes; `None` once the gateway is gone.
    pub async fn event(&mut self) -> Option<ChatEvent> {
        self.inbox.recv().await.map(|frame| ChatEvent::of(&frame))
    }

    /// What comes next.
    ///
    /// # Panics
    /// If nothing comes within [`PATIENCE`].
    pub async fn next(&mut self) -> ChatEvent {
        ChatEvent::of(self.frame().await.as_ref())
    }

    /// Everything up to the first response or error, or to its being given up, which is an error here.
    ///
    /// # Panics
    /// If nothing comes for [`PATIENCE`].
    pub async fn outcome(&mut self) -> Outcome {
        let mut chunks = Vec::new();
        loop {
            let frame = self.frame().await;
            let answer = match ChatEvent::of(&frame) {
                ChatEvent::Chunk(chunk) => {
                    chunks.push(chunk);
                    continue;
                }
                ChatEvent::Response(result) => Ok(result),
                ChatEvent::Error(error) | ChatEvent::GivenUp(error) => Err(error),
            };
            return Outcome {
                chunks,
                answer,
                frame,
            };
        }
    }

    async fn frame(&mut self) -> Arc<Frame> {
        match tokio::time::timeout(PATIENCE, self.inbox.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!(
                "the gateway is gone; nothing more will come for chat {}",
                self.id
            ),
            Err(_) => {
                let seen = self
                    .hub
                    .upgrade()
                    .map(|hub| hub.frames.tail())
                    .unwrap_or_default();
                panic!(
                    "nothing came for chat {} in {PATIENCE:?}; the last frames:\n{seen}",
                    self.id
                )
            }
        }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(hub) = self.hub.upgrade() {
            hub.forget_chats(&self.id);
        }
    }
}

impl ChatEvent {
    fn of(frame: &Frame) -> Self {
        let text = |name: &str| frame.value[name].as_str().unwrap_or_default().to_owned();
        match frame.name() {
            "INFERENCE_CHUNK" => Self::Chunk(Chunk {
                index: frame.value["index"].as_u64(),
                delta: text("delta"),
                kind: text("kind"),
            }),
            "INFERENCE_RESPONSE" | "TTS_RESPONSE" => Self::Response(frame.value["result"].clone()),
            Frame::GIVEN_UP => Self::GivenUp(text("error")),
            _ => Self::Error(text("error")),
        }
    }
}

/// A chat up to its answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The chunks before the answer, in order of arrival.
    pub chunks: Vec<Chunk>,
    /// The `result`, or the `error`.
    pub answer: Result<Value, String>,
    /// The answer's frame, with its bytes as they came.
    pub frame: Arc<Frame>,
}

impl Outcome {
    /// The result.
    ///
    /// # Panics
    /// If it was an error.
    pub fn result(&self) -> &Value {
        match &self.answer {
            Ok(result) => result,
            Err(error) => panic!("expected a response, not the error {error:?}"),
        }
    }

    /// The error's text.
    ///
    /// # Panics
    /// If it was a response.
    pub fn error(&self) -> &str {
        match &self.answer {
            Ok(result) => panic!("expected an error, not the response {result}"),
            Err(error) => error,
        }
    }

    /// The answer's text, in either generation's shape; empty where there is none.
    pub fn text(&self) -> &str {
        let result = self.answer.as_ref().unwrap_or(&Value::Null);
        let message = result
            .pointer("/choices/0/message")
            .unwrap_or(&result["message"]);
        message["content"].as_str().unwrap_or_default()
    }

    /// The deltas of one kind, joined.
    pub fn streamed(&self, kind: &str) -> String {
        self.chunks
            .iter()
            .filter(|chunk| chunk.kind == kind)
            .map(|chunk| chunk.delta.as_str())
            .collect()
    }
}
