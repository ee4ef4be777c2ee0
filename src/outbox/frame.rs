//! A frame that is ready to be sent, and what it weighs while it waits.

use async_tungstenite::tungstenite::Utf8Bytes;

use crate::protocol::{AgentMessage, RequestId, ToGateway};

/// What a queued frame holds beside its text, in bytes: the entry itself and the allocator's rounding.
pub(super) const FRAME_OVERHEAD: usize = 128;

/// A frame, ready to be sent.
#[derive(Debug)]
pub struct Frame {
    pub(super) message: AgentMessage,
    pub(super) request_id: Option<RequestId>,
    /// Shared with whoever writes it, so that an answer can be kept without a copy.
    pub(super) text: Utf8Bytes,
    pub(super) weight: usize,
}

impl Frame {
    /// A frame that belongs to no request.
    pub fn new(frame: &ToGateway<'_>) -> Self {
        Self::of(frame.message(), None, frame.encode())
    }

    /// A frame about a request. A chunk weighs its text once more: the job that made it keeps it for the answer, and makes
    /// no more while this one waits.
    pub fn about(request_id: &RequestId, frame: &ToGateway<'_>) -> Self {
        let mut about = Self::of(frame.message(), Some(request_id.clone()), frame.encode());
        if let ToGateway::InferenceChunk { delta, .. } = frame {
            about.weight += delta.len();
        }
        about
    }

    fn of(message: AgentMessage, request_id: Option<RequestId>, mut text: String) -> Self {
        if message != AgentMessage::InferenceChunk {
            // It may be kept for long, and growing has left it with up to twice the room.
            text.shrink_to_fit();
        }
        Self {
            message,
            request_id,
            weight: text.capacity() + FRAME_OVERHEAD,
            text: text.into(),
        }
    }

    pub(super) fn is_heartbeat(&self) -> bool {
        self.message == AgentMessage::Heartbeat
    }
}
