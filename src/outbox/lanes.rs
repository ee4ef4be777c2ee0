//! What is to be sent in this session, in the order in which it leaves. Pure state: the waiting is the outbox's.
//!
//! Invariant: control frames leave before refusals, refusals before data. Data leaves in the order of its arrival, so that
//! the chunks of a request leave before its answer; answers of earlier sessions leave between it, turn by turn, the
//! oldest first, suspects one by one. Nothing waits here that is not to be sent any more.

use std::collections::{BTreeSet, VecDeque};

use async_tungstenite::tungstenite::Utf8Bytes;
use tokio::time::Instant;

use super::{
    answers::{Answers, Serial},
    frame::{Control, Frame},
    proof::Fence,
    queue::Queue,
};
use crate::{
    protocol::{AgentMessage, RequestId},
    transport::Item,
};

/// As much as leaves in one write. What is not yet begun can be overtaken by a control frame; this much cannot.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// Refusals that may wait; a gateway that asks for more without reading is not served faster for it.
pub(super) const MAX_REFUSALS: usize = 1024;

/// What has been taken out to be written.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of sending.
    pub items: Vec<Item>,
    /// The types of its frames.
    pub(super) messages: Vec<AgentMessage>,
    pub(super) answers: Vec<Serial>,
    /// The requests that it refuses.
    pub(super) refusals: Vec<RequestId>,
    /// What its chunks weigh.
    chunk_bytes: usize,
    /// The length of its frames.
    size: usize,
}

#[derive(Debug)]
enum Live {
    Chunk(Frame),
    Answer(Serial),
}

/// Where the next piece of data comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Live,
    Earlier(Serial),
    Suspect(Serial),
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    control: VecDeque<Control>,
    refusals: Queue<Frame>,
    live: Queue<Live>,
    /// Answers of earlier sessions.
    earlier: BTreeSet<Serial>,
    /// Those of them that a session may have ended of. One at a time is sent and waited for.
    suspects: BTreeSet<Serial>,
    on_trial: Option<Serial>,
    /// Whose turn it is: an answer of an earlier session, or live data.
    earlier_is_next: bool,
    chunk_bytes: usize,
    heartbeat_due_since: Option<Instant>,
    heartbeats_taken: u64,
    model_lists_taken: u64,
}

impl Lanes {
    /// The lanes of a new session: what is undelivered goes again.
    pub(super) fn new(answers: &Answers) -> Self {
        let mut lanes = Self::default();
        for (serial, answer) in answers.undelivered() {
            let lane = if answer.is_suspect {
                &mut lanes.suspects
            } else {
                &mut lanes.earlier
            };
            lane.insert(serial);
        }
        lanes
    }

    /// Queues a control frame; one of the same type that still waits is replaced, which bounds this lane by the number
    /// of types.
    pub(super) fn control(&mut self, frame: Control, now: Instant) {
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
        self.refusals.push(frame.request_id.clone(), frame);
        Ok(())
    }

    pub(super) fn chunk(&mut self, frame: Frame) {
        self.chunk_bytes += frame.weight;
        self.live.push(frame.request_id.clone(), Live::Chunk(frame));
    }

    pub(super) fn answer(&mut self, request_id: RequestId, serial: Serial) {
        self.live.push(request_id, Live::Answer(serial));
    }

    /// Takes out what is to be written next; `None` if nothing waits. What the gateway acknowledges by number goes with
    /// a Ping that carries that number, so that a link is known to live also where the gateway acknowledges nothing. A
    /// frame over the size of a batch leaves alone.
    pub(super) fn take(&mut self, answers: &Answers) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(frame) = self.control.pop_front() {
            batch.push(frame.message, &frame.text);
            if let Some(fence) = Fence::of(frame.message) {
                let number = match fence {
                    Fence::Heartbeat => &mut self.heartbeats_taken,
                    Fence::ModelList => &mut self.model_lists_taken,
                };
                *number += 1;
                batch.items.push(Item::Ping(fence.ping(*number)));
            }
        }
        while batch.size < BATCH_BYTES
            && let Some(frame) = self.refusals.pop_front()
        {
            batch.push(frame.message, &frame.text);
            batch.refusals.push(frame.request_id);
        }
        while let Some((source, next)) = self.next_data(answers)
            && (batch.size == 0 || batch.size + next <= BATCH_BYTES)
        {
            self.take_data(source, answers, &mut batch);
        }
        (!batch.items.is_empty()).then_some(batch)
    }

    /// Where the next piece of data is, and its size.
    fn next_data(&self, answers: &Answers) -> Option<(Source, usize)> {
        let size = |serial| {
            answers
                .get(serial)
                .map_or(0, |answer| answer.frame.text.len())
        };
        let live = self.live.front().map(|live| match live {
            Live::Chunk(frame) => frame.text.len(),
            Live::Answer(serial) => size(*serial),
        });
        let live = live.map(|size| (Source::Live, size));
        let suspect = self.suspects.first().filter(|_| self.on_trial.is_none());
        let suspect = suspect.map(|serial| (Source::Suspect(*serial), size(*serial)));
        let earlier = self.earlier.first();
        let earlier =
            suspect.or_else(|| earlier.map(|serial| (Source::Earlier(*serial), size(*serial))));
        if self.earlier_is_next {
            earlier.or(live)
        } else {
            live.or(earlier)
        }
    }

    fn take_data(&mut self, source: Source, answers: &Answers, batch: &mut Batch) {
        self.earlier_is_next = matches!(source, Source::Live);
        let serial = match source {
            Source::Live => match self.live.pop_front() {
                Some(Live::Chunk(frame)) => {
                    batch.push(frame.message, &frame.text);
                    batch.chunk_bytes += frame.weight;
                    return;
                }
                Some(Live::Answer(serial)) => serial,
                None => return,
            },
            Source::Earlier(serial) => {
                self.earlier.remove(&serial);
                serial
            }
            Source::Suspect(serial) => {
                self.suspects.remove(&serial);
                self.on_trial = Some(serial);
                serial
            }
        };
        if let Some(answer) = answers.get(serial) {
            batch.push(answer.frame.message, &answer.frame.text);
            batch.answers.push(serial);
        }
    }

    /// A batch has been written: the room of its chunks is free again.
    pub(super) fn written(&mut self, batch: &Batch) {
        self.chunk_bytes -= batch.chunk_bytes;
        if !self.control.iter().any(Control::is_heartbeat) {
            self.heartbeat_due_since = None;
        }
    }

    /// Removes all that waits about a request, save its answer; see [`Lanes::forget`].
    pub(super) fn cancel(&mut self, request_id: &RequestId) {
        drop(self.refusals.remove_about(request_id, |_| true));
        let is_chunk = |live: &Live| matches!(live, Live::Chunk(_));
        for live in self.live.remove_about(request_id, is_chunk) {
            if let Live::Chunk(frame) = live {
                self.chunk_bytes -= frame.weight;
            }
        }
    }

    /// An answer is not to be sent any more.
    pub(super) fn forget(&mut self, request_id: &RequestId, serial: Serial) {
        let is_it = |live: &Live| matches!(live, Live::Answer(waits) if *waits == serial);
        drop(self.live.remove_about(request_id, is_it));
        self.earlier.remove(&serial);
        self.suspects.remove(&serial);
        if self.on_trial == Some(serial) {
            self.on_trial = None;
        }
    }

    /// What chunks hold, those that are being written included.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.refusals.len() + self.live.len() + self.earlier.len() + self.suspects.len()
    }

    /// The suspect that was sent and is waited for.
    pub(super) fn on_trial(&self) -> Option<Serial> {
        self.on_trial
    }

    pub(super) fn has_heartbeat(&self) -> bool {
        self.control.iter().any(Control::is_heartbeat)
    }

    /// Since when a heartbeat waits to be written.
    pub(super) fn heartbeat_due_since(&self) -> Option<Instant> {
        self.heartbeat_due_since
    }
}

impl Batch {
    /// Whether it is so large that others should have their turn before the next.
    pub fn is_large(&self) -> bool {
        self.size > BATCH_BYTES / 2
    }

    /// Whether there are answers in it, refusals not counted.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    fn push(&mut self, message: AgentMessage, text: &Utf8Bytes) {
        self.messages.push(message);
        self.items.push(Item::Frame(text.clone()));
        self.size += text.len();
    }
}
