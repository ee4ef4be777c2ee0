//! What is to be sent in this session, in the order in which it leaves. Pure state: the waiting is the outbox's.
//!
//! Invariant: control frames leave before refusals, refusals before data. Data leaves in the order of its arrival, so that
//! the chunks of a request leave before its answer; answers of earlier sessions leave between it, turn by turn, the
//! oldest first, suspects one by one.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use super::{
    answers::{Answers, Serial},
    frame::Frame,
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
    control: VecDeque<Frame>,
    refusals: VecDeque<Frame>,
    live: VecDeque<Live>,
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

    pub(super) fn chunk(&mut self, frame: Frame) {
        self.chunk_bytes += frame.weight;
        self.live.push_back(Live::Chunk(frame));
    }

    pub(super) fn answer(&mut self, serial: Serial) {
        self.live.push_back(Live::Answer(serial));
    }

    /// Takes out what is to be written next; `None` if nothing waits. Every heartbeat goes with a Ping that carries its
    /// number, so that a link is known to live also where the gateway acknowledges nothing. A frame over the size of a
    /// batch leaves alone.
    pub(super) fn take(&mut self, answers: &Answers) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(frame) = self.control.pop_front() {
            let is_heartbeat = frame.is_heartbeat();
            batch.push(&frame);
            if is_heartbeat {
                self.heartbeats_taken += 1;
                batch.items.push(Item::Ping(self.heartbeats_taken));
            }
        }
        while batch.size < BATCH_BYTES
            && let Some(frame) = self.refusals.pop_front()
        {
            batch.push(&frame);
        }
        while let Some((source, next)) = self.next_data(answers)
            && (batch.size == 0 || batch.size + next <= BATCH_BYTES)
        {
            self.take_data(source, answers, &mut batch);
        }
        (!batch.items.is_empty()).then_some(batch)
    }

    /// Where the next piece of data is, and its size.
    fn next_data(&mut self, answers: &Answers) -> Option<(Source, usize)> {
        let size = |serial| answers.get(serial).map(|answer| answer.frame.text.len());
        let live = loop {
            match self.live.front() {
                None => break None,
                Some(Live::Chunk(frame)) => break Some(frame.text.len()),
                Some(Live::Answer(serial)) => match size(*serial) {
                    Some(size) => break Some(size),
                    // It was taken back while it waited.
                    None => drop(self.live.pop_front()),
                },
            }
        };
        let live = live.map(|size| (Source::Live, size));
        let earlier = self.next_earlier(answers);
        let earlier = earlier.and_then(|source| Some((source, size(source.serial()?)?)));
        if self.earlier_is_next {
            earlier.or(live)
        } else {
            live.or(earlier)
        }
    }

    fn next_earlier(&mut self, answers: &Answers) -> Option<Source> {
        let is_gone = |serial: &Serial| answers.get(*serial).is_none();
        if self.on_trial.as_ref().is_some_and(is_gone) {
            self.on_trial = None;
        }
        for lane in [&mut self.suspects, &mut self.earlier] {
            while lane.first().is_some_and(is_gone) {
                lane.pop_first();
            }
        }
        let suspect = self.suspects.first().filter(|_| self.on_trial.is_none());
        let earlier = self.earlier.first().copied().map(Source::Earlier);
        suspect.copied().map(Source::Suspect).or(earlier)
    }

    fn take_data(&mut self, source: Source, answers: &Answers, batch: &mut Batch) {
        self.earlier_is_next = matches!(source, Source::Live);
        let serial = match source {
            Source::Live => match self.live.pop_front() {
                Some(Live::Chunk(frame)) => {
                    batch.push(&frame);
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
            batch.push(&answer.frame);
            batch.answers.push(serial);
        }
    }

    /// A batch has been written: the room of its chunks is free again.
    pub(super) fn written(&mut self, batch: &Batch) {
        self.chunk_bytes -= batch.chunk_bytes;
        if !self.control.iter().any(Frame::is_heartbeat) {
            self.heartbeat_due_since = None;
        }
    }

    /// Removes all that waits about a request, save its answer, which is not here.
    pub(super) fn remove(&mut self, request_id: &RequestId) {
        self.refusals
            .retain(|frame| frame.request_id.as_ref() != Some(request_id));
        let chunk_bytes = &mut self.chunk_bytes;
        self.live.retain(|live| match live {
            Live::Chunk(frame) if frame.request_id.as_ref() == Some(request_id) => {
                *chunk_bytes -= frame.weight;
                false
            }
            Live::Chunk(_) | Live::Answer(_) => true,
        });
    }

    /// What chunks hold, those that are being written included.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// The suspect that was sent and is waited for.
    pub(super) fn on_trial(&self) -> Option<Serial> {
        self.on_trial
    }

    pub(super) fn has_heartbeat(&self) -> bool {
        self.control.iter().any(Frame::is_heartbeat)
    }

    /// Since when a heartbeat waits to be written.
    pub(super) fn heartbeat_due_since(&self) -> Option<Instant> {
        self.heartbeat_due_since
    }
}

impl Source {
    fn serial(self) -> Option<Serial> {
        match self {
            Self::Live => None,
            Self::Earlier(serial) | Self::Suspect(serial) => Some(serial),
        }
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

    fn push(&mut self, frame: &Frame) {
        self.messages.push(frame.message);
        self.items.push(Item::Frame(frame.text.clone()));
        self.size += frame.text.len();
    }
}
