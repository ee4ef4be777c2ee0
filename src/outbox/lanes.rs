//! What is to be sent in this session, in the order in which it leaves. Pure state: the waiting is the outbox's.
//!
//! Invariant: control frames leave before refusals, refusals before data. Data leaves in the order of its arrival, so that
//! the chunks of a request leave before its answer; answers of earlier sessions leave between it, turn by turn, the
//! oldest first, suspects one by one. Nothing waits here that is not to be sent any more.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    FRAME_OVERHEAD,
    answers::{Answers, Serial},
    sent::Sent,
};
use crate::{
    link::Outgoing,
    protocol::{AgentMessage, Chunk, Control, Reply, RequestId},
    queue::Queue,
};

/// As much as leaves in one write. What is not yet begun can be overtaken by a control frame; this much cannot.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// Refusals that may wait; a gateway that asks for more without reading is not served faster for it.
pub(super) const MAX_REFUSALS: usize = 1024;

/// What has been taken out to be written.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order of sending.
    pub outgoing: Vec<Outgoing>,
    /// What its chunks weigh.
    chunk_bytes: usize,
    /// How much there is to write, about.
    size: usize,
    has_answers: bool,
    /// Answers that were begun before, in this session or another.
    pub(super) repeated: u64,
}

#[derive(Debug)]
enum Data {
    Chunk(Chunk),
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
    refusals: Queue<Reply>,
    live: Queue<Data>,
    /// Answers of earlier sessions.
    earlier: BTreeSet<Serial>,
    /// Those of them that a session may have ended of. One at a time is sent and waited for.
    suspects: BTreeSet<Serial>,
    on_trial: Option<Serial>,
    /// Whose turn it is: an answer of an earlier session, or live data.
    earlier_is_next: bool,
    chunk_bytes: usize,
    heartbeat_due_since: Option<Instant>,
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

    /// Queues a control frame; one that waits and that it replaces is gone, which bounds this lane by the number of types
    /// and nodes.
    pub(super) fn control(&mut self, control: Control, now: Instant) {
        if is_heartbeat(&control) {
            self.heartbeat_due_since.get_or_insert(now);
        }
        let mut waiting = self.control.iter_mut();
        match waiting.find(|older| control.replaces(older)) {
            Some(older) => *older = control,
            None => self.control.push_back(control),
        }
    }

    /// Queues a refusal, or gives it back where the lane is full.
    pub(super) fn refuse(&mut self, refusal: Reply) -> Result<(), Reply> {
        if self.refusals.len() >= MAX_REFUSALS {
            return Err(refusal);
        }
        self.refusals.push(refusal.request_id.clone(), refusal);
        Ok(())
    }

    pub(super) fn chunk(&mut self, chunk: Chunk) {
        self.chunk_bytes += weight(&chunk);
        self.live.push(chunk.request_id.clone(), Data::Chunk(chunk));
    }

    pub(super) fn answer(&mut self, request_id: RequestId, serial: Serial) {
        self.live.push(request_id, Data::Answer(serial));
    }

    /// Takes out what is to be written next; `None` if nothing waits. What is larger than a batch leaves alone.
    pub(super) fn take(&mut self, answers: &mut Answers, sent: &mut Sent) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(control) = self.control.pop_front() {
            batch.push(Outgoing::Control(control), 0);
        }
        while batch.size < BATCH_BYTES
            && let Some(refusal) = self.refusals.pop_front()
        {
            let bytes = refusal.bytes();
            batch.push(Outgoing::Refusal(refusal), bytes);
        }
        while let Some((source, next)) = self.next_data(answers)
            && (batch.size == 0 || batch.size + next <= BATCH_BYTES)
        {
            self.take_data(source, answers, sent, &mut batch);
        }
        (!batch.outgoing.is_empty()).then_some(batch)
    }

    /// Where the next piece of data is, and its size.
    fn next_data(&self, answers: &Answers) -> Option<(Source, usize)> {
        let size = |serial| answers.get(serial).map_or(0, |answer| answer.reply.bytes());
        let live = self.live.front().map(|data| match data {
            Data::Chunk(chunk) => chunk.delta.len(),
            Data::Answer(serial) => size(*serial),
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

    fn take_data(
        &mut self,
        source: Source,
        answers: &mut Answers,
        sent: &mut Sent,
        batch: &mut Batch,
    ) {
        self.earlier_is_next = matches!(source, Source::Live);
        let serial = match source {
            Source::Live => match self.live.pop_front() {
                Some(Data::Chunk(chunk)) => {
                    batch.chunk_bytes += weight(&chunk);
                    let bytes = chunk.delta.len();
                    return batch.push(Outgoing::Chunk(chunk), bytes);
                }
                Some(Data::Answer(serial)) => serial,
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
        if let Some(answer) = answers.begin(serial, Instant::now()) {
            let position = sent.begin(serial, answer.created);
            let reply = Arc::clone(&answer.reply);
            let bytes = reply.bytes();
            batch.push(Outgoing::Answer(position, reply), bytes);
            batch.has_answers = true;
            batch.repeated += u64::from(answer.is_repeated);
        }
    }

    /// A batch has been written: the room of its chunks is free again.
    pub(super) fn written(&mut self, batch: &Batch) {
        self.chunk_bytes -= batch.chunk_bytes;
        if !self.has_heartbeat() {
            self.heartbeat_due_since = None;
        }
    }

    /// Removes all that waits about a request, save its answer; see [`Lanes::forget`].
    pub(super) fn cancel(&mut self, request_id: &RequestId) {
        drop(self.refusals.remove_about(request_id, |_| true));
        let is_chunk = |data: &Data| matches!(data, Data::Chunk(_));
        for data in self.live.remove_about(request_id, is_chunk) {
            if let Data::Chunk(chunk) = data {
                self.chunk_bytes -= weight(&chunk);
            }
        }
    }

    /// An answer is not to be sent any more.
    pub(super) fn forget(&mut self, request_id: &RequestId, serial: Serial) {
        let is_it = |data: &Data| matches!(data, Data::Answer(waits) if *waits == serial);
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
        self.control.iter().any(is_heartbeat)
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
        self.has_answers
    }

    /// `bytes`: what it says, apart from its head.
    fn push(&mut self, outgoing: Outgoing, bytes: usize) {
        self.outgoing.push(outgoing);
        self.size += bytes + FRAME_OVERHEAD;
    }
}

/// What a chunk that waits holds, in bytes: its text, and once more the text that its job keeps for the answer. A job makes
/// no more while one of its chunks waits for room.
pub(super) fn weight(chunk: &Chunk) -> usize {
    2 * chunk.delta.len() + FRAME_OVERHEAD
}

fn is_heartbeat(control: &Control) -> bool {
    control.message() == AgentMessage::Heartbeat
}
