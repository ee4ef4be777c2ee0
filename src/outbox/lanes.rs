//! What waits to be sent, in the order in which it leaves. Pure state: the waiting is the outbox's.
//!
//! Invariant: control frames leave before refusals, refusals before data, and data in the order of its arrival, so that
//! the chunks of a request leave before its answer. `bytes` counts what data holds, that which is being written included.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::{
    protocol::{AgentMessage, RequestId, ToGateway},
    transport::Item,
};

/// What a queued frame holds beside its text, in bytes: the entry itself and the allocator's rounding.
const FRAME_OVERHEAD: usize = 128;

/// As much as leaves in one write. What is not yet begun can be overtaken by a control frame; this much cannot.
const BATCH_BYTES: usize = 64 * 1024;

/// Refusals that may wait; a gateway that asks for more without reading is not served faster for it.
pub(super) const MAX_REFUSALS: usize = 1024;

/// A frame, ready to be sent.
#[derive(Debug)]
pub struct Frame {
    message: AgentMessage,
    request_id: Option<RequestId>,
    text: String,
}

impl Frame {
    /// A frame that belongs to no request.
    pub fn new(frame: &ToGateway<'_>) -> Self {
        Self {
            message: frame.message(),
            request_id: None,
            text: frame.encode(),
        }
    }

    /// A frame about a request.
    pub fn about(request_id: &RequestId, frame: &ToGateway<'_>) -> Self {
        Self {
            request_id: Some(request_id.clone()),
            ..Self::new(frame)
        }
    }

    pub(super) fn weight(&self) -> usize {
        self.text.len() + FRAME_OVERHEAD
    }

    fn is_heartbeat(&self) -> bool {
        self.message == AgentMessage::Heartbeat
    }

    fn is_answer(&self) -> bool {
        matches!(
            self.message,
            AgentMessage::InferenceResponse | AgentMessage::InferenceError
        )
    }
}

/// What has been taken out to be written.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of sending.
    pub items: Vec<Item>,
    pub(super) messages: Vec<AgentMessage>,
    pub(super) answers: Vec<RequestId>,
    pub(super) heartbeats: u64,
    weight: usize,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    control: VecDeque<Frame>,
    refusals: VecDeque<Frame>,
    data: VecDeque<Frame>,
    bytes: usize,
    answers: usize,
    heartbeat_due_since: Option<Instant>,
    heartbeats_taken: u64,
    writing: bool,
}

impl Lanes {
    /// Queues a control frame; one of the same type that still waits is replaced, which bounds this lane by the number
    /// of types.
    pub(super) fn control(&mut self, frame: Frame, now: Instant) {
        if frame.is_heartbeat() {
            self.heartbeat_due_since.get_or_insert(now);
        }
        match self
            .control
            .iter_mut()
            .find(|older| older.message == frame.message)
        {
            Some(older) => *older = frame,
            None => self.control.push_back(frame),
        }
    }

    /// Queues a refusal, or gives it back where the lane is full.
    pub(super) fn refuse(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.refusals.len() >= MAX_REFUSALS {
            return Err(frame);
        }
        self.refusals.push_back(frame);
        Ok(())
    }

    pub(super) fn data(&mut self, frame: Frame) {
        self.bytes += frame.weight();
        self.answers += usize::from(frame.is_answer());
        self.data.push_back(frame);
    }

    /// Takes out what is to be written next; `None` if nothing waits. Every heartbeat goes with a Ping that carries its
    /// number, so that a link is known to live also where the gateway acknowledges nothing. A frame over the size of a batch leaves alone.
    pub(super) fn take(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut size = 0;
        while let Some(frame) = self.control.pop_front() {
            let is_heartbeat = frame.is_heartbeat();
            size += batch.push(frame);
            if is_heartbeat {
                self.heartbeats_taken += 1;
                batch.items.push(Item::Ping(self.heartbeats_taken));
            }
        }
        while size < BATCH_BYTES
            && let Some(frame) = self.refusals.pop_front()
        {
            size += batch.push(frame);
        }
        while let Some(next) = self.data.front()
            && (size == 0 || size + next.text.len() <= BATCH_BYTES)
            && let Some(frame) = self.data.pop_front()
        {
            batch.weight += frame.weight();
            if frame.is_answer() {
                self.answers -= 1;
                batch.answers.extend(frame.request_id.clone());
            }
            size += batch.push(frame);
        }
        self.writing = !batch.items.is_empty();
        self.writing.then_some(batch)
    }

    /// A batch has been written: its room is free again.
    pub(super) fn written(&mut self, batch: &Batch) {
        self.bytes -= batch.weight;
        self.writing = false;
        if !self.control.iter().any(Frame::is_heartbeat) {
            self.heartbeat_due_since = None;
        }
    }

    /// Removes all data about a request; gives the answers among it.
    pub(super) fn remove(&mut self, request_id: &RequestId) -> usize {
        let before = self.answers;
        self.data.retain(|frame| {
            let kept = frame.request_id.as_ref() != Some(request_id);
            if !kept {
                self.bytes -= frame.weight();
                self.answers -= usize::from(frame.is_answer());
            }
            kept
        });
        before - self.answers
    }

    /// Forgets everything; gives the ids of the answers among it.
    pub(super) fn clear(&mut self) -> Vec<RequestId> {
        let lanes = std::mem::take(self);
        lanes
            .data
            .into_iter()
            .filter(Frame::is_answer)
            .filter_map(|frame| frame.request_id)
            .collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Answers that wait.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    /// Since when a heartbeat waits to be written.
    pub(super) fn heartbeat_due_since(&self) -> Option<Instant> {
        self.heartbeat_due_since
    }

    /// Whether nothing waits and nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        !self.writing && self.control.is_empty() && self.refusals.is_empty() && self.data.is_empty()
    }
}

impl Batch {
    fn push(&mut self, frame: Frame) -> usize {
        let size = frame.text.len();
        self.messages.push(frame.message);
        self.heartbeats += u64::from(frame.is_heartbeat());
        self.items.push(Item::Frame(frame.text));
        size
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::protocol::{ChunkKind, Health};

    fn id(id: &str) -> RequestId {
        RequestId::new(id).unwrap()
    }

    fn chunk(request_id: &str, delta: &str) -> Frame {
        let frame = ToGateway::InferenceChunk {
            request_id,
            index: 0,
            delta,
            kind: ChunkKind::Content,
        };
        Frame::about(&id(request_id), &frame)
    }

    fn answer(request_id: &str, error: &str) -> Frame {
        Frame::about(
            &id(request_id),
            &ToGateway::InferenceError { request_id, error },
        )
    }

    fn pong() -> Frame {
        Frame::new(&ToGateway::Pong)
    }

    #[test]
    fn a_pong_overtakes_everything_that_is_not_yet_begun_and_pongs_that_wait_together_are_one() {
        let mut lanes = Lanes::default();
        lanes.data(chunk("a", "x"));
        lanes.refuse(answer("b", "busy: x")).unwrap();
        lanes.control(pong(), Instant::now());
        lanes.control(pong(), Instant::now());
        let batch = lanes.take().unwrap();
        use AgentMessage::{InferenceChunk, InferenceError, Pong};
        assert_eq!(batch.messages, [Pong, InferenceError, InferenceChunk]);
        assert!(lanes.take().is_none());
    }

    #[test]
    fn a_large_answer_leaves_alone_so_that_at_most_one_is_ahead_of_a_control_frame() {
        let mut lanes = Lanes::default();
        let large = "x".repeat(BATCH_BYTES + 1);
        lanes.data(chunk("a", "small"));
        lanes.data(answer("a", &large));
        lanes.data(answer("b", &large));
        assert_eq!(
            lanes.take().unwrap().messages,
            [AgentMessage::InferenceChunk]
        );
        assert_eq!(lanes.take().unwrap().answers, [id("a")]);
        lanes.control(pong(), Instant::now());
        assert_eq!(lanes.take().unwrap().messages, [AgentMessage::Pong]);
        assert_eq!(lanes.take().unwrap().answers, [id("b")]);
    }

    #[test]
    fn room_is_free_again_once_written_or_removed() {
        let mut lanes = Lanes::default();
        lanes.data(chunk("a", "x"));
        lanes.data(answer("a", "backend: x"));
        lanes.data(chunk("b", "y"));
        assert_eq!(lanes.remove(&id("a")), 1);
        let batch = lanes.take().unwrap();
        assert_eq!(batch.messages.len(), 1);
        assert!(lanes.bytes() > 0 && !lanes.is_idle());
        lanes.written(&batch);
        assert_eq!(lanes.bytes(), 0);
        assert!(lanes.is_idle());
    }

    #[test]
    fn a_refusal_is_no_answer_that_needs_proof() {
        let mut lanes = Lanes::default();
        lanes.refuse(answer("a", "busy: x")).unwrap();
        lanes.data(answer("b", "timeout: x"));
        assert_eq!(lanes.answers(), 1);
        assert_eq!(lanes.take().unwrap().answers, [id("b")]);
        assert_eq!(lanes.answers(), 0);
    }

    #[test]
    fn refusals_are_bounded() {
        let mut lanes = Lanes::default();
        for _ in 0..MAX_REFUSALS {
            lanes.refuse(answer("r", "busy: x")).unwrap();
        }
        assert!(lanes.refuse(answer("r", "busy: x")).is_err());
    }

    #[test]
    fn a_heartbeat_is_due_until_it_has_been_written() {
        let mut lanes = Lanes::default();
        let now = Instant::now();
        let health = Health {
            current_load: 0,
            capacity: 1,
            models: 0,
            gpu_memory_used: 0,
        };
        lanes.control(Frame::new(&ToGateway::Heartbeat { health }), now);
        let batch = lanes.take().unwrap();
        assert!(matches!(batch.items[..], [Item::Frame(_), Item::Ping(1)]));
        assert_eq!(lanes.heartbeat_due_since(), Some(now));
        lanes.written(&batch);
        assert_eq!(lanes.heartbeat_due_since(), None);
    }
}
