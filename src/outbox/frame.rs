//! Frames that are ready to be sent, and what they weigh while they wait.

use std::sync::Arc;

use async_tungstenite::tungstenite::Utf8Bytes;

use crate::protocol::{AgentMessage, RequestId, ToGateway};

/// What a queued frame holds beside its text, in bytes: the entry itself and the allocator's rounding.
pub(super) const FRAME_OVERHEAD: usize = 128;

/// What an answer earns once it is proven delivered, by an estimate. It travels with the answer, so that the price is the
/// one that held when the answer was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Earning {
    /// The model that answered, by its full name.
    pub model: Arc<str>,
    /// US dollars.
    pub usd: f64,
}

/// A frame that belongs to no request, ready to be sent.
#[derive(Debug)]
pub struct Control {
    pub(super) message: AgentMessage,
    pub(super) text: Utf8Bytes,
}

impl Control {
    /// This frame.
    pub fn new(frame: &ToGateway<'_>) -> Self {
        Self {
            message: frame.message(),
            text: frame.encode().into(),
        }
    }

    pub(super) fn is_heartbeat(&self) -> bool {
        self.message == AgentMessage::Heartbeat
    }
}

/// A frame about a request, ready to be sent.
#[derive(Debug)]
pub struct Frame {
    pub(super) message: AgentMessage,
    pub(super) request_id: RequestId,
    /// Shared with whoever writes it, so that an answer can be kept without a copy.
    pub(super) text: Utf8Bytes,
    pub(super) weight: usize,
    /// Taken out when it is counted, which is once.
    pub(super) earning: Option<Earning>,
}

impl Frame {
    /// This frame. A chunk weighs its text once more: the job that made it keeps it for the answer, and makes no more
    /// while this one waits.
    pub fn about(request_id: &RequestId, frame: &ToGateway<'_>) -> Self {
        let mut text = frame.encode();
        let kept_by_its_job = match frame {
            ToGateway::InferenceChunk { delta, .. } => delta.len(),
            _ => {
                // It may be kept for long, and growing has left it with up to twice the room.
                text.shrink_to_fit();
                0
            }
        };
        Self {
            message: frame.message(),
            request_id: request_id.clone(),
            weight: text.capacity() + FRAME_OVERHEAD + kept_by_its_job,
            text: text.into(),
            earning: None,
        }
    }

    /// The frame, as one that earns something when it is proven delivered. Only answers ever are.
    #[must_use]
    pub fn earning(mut self, earning: Earning) -> Self {
        self.earning = Some(earning);
        self
    }
}
