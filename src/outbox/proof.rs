//! Which of the answers that were sent in this session are known to have been read. Pure.
//!
//! All is counted when its writing begins: a gateway may have read, and acknowledged, the beginning of what is still being
//! written.
//!
//! Invariant: an answer is proven by its own acknowledgement, or by that of something written after it, never by less.
//! An id stands for no answer: the n-th RESULT_ACK for an id belongs to the n-th frame that ended a request of that id in
//! this session, refusals included. An acknowledgement that is one too many proves nothing, then or later: every
//! HEARTBEAT and MODEL_LIST goes with a Ping of its number, and where the gateway's socket answers those, the n-th
//! acknowledgement of a kind counts only once the n-th Pong of that kind has come as well. So a gateway that acknowledges
//! twice does not seem to have read what it has not.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{answers::Serial, queue::Queue};
use crate::protocol::{AgentMessage, RequestId};

/// So many frames that ended requests are told apart by what acknowledges them, counted back from the newest: more than
/// can be on their way to a gateway and back. One that acknowledges only some of them leaves the others here for good.
const MAX_UNACKNOWLEDGED: usize = 4_096;

/// A frame that the gateway acknowledges by number, so that what was written before it is proven with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    Heartbeat,
    ModelList,
}

impl Fence {
    pub(super) fn of(message: AgentMessage) -> Option<Self> {
        match message {
            AgentMessage::Heartbeat => Some(Self::Heartbeat),
            AgentMessage::ModelList => Some(Self::ModelList),
            _ => None,
        }
    }

    /// The payload of the Ping that goes with the n-th fence of this kind.
    pub(super) fn ping(self, number: u64) -> u64 {
        2 * number + u64::from(self == Self::ModelList)
    }

    /// The kind and the number of the fence that a Ping went with.
    fn of_ping(payload: u64) -> (Self, u64) {
        let kind = if payload.is_multiple_of(2) {
            Self::Heartbeat
        } else {
            Self::ModelList
        };
        (kind, payload / 2)
    }
}

/// The books of one session.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Answers without proof, in the order of sending.
    sent: BTreeMap<u64, Sent>,
    /// Where in that order each of them is.
    places: BTreeMap<Serial, u64>,
    next: u64,
    /// Frames that ended requests and are not acknowledged by id: the answer that each was, `None` for a refusal.
    unacknowledged: Queue<Option<Serial>>,
    heartbeats: Counted,
    model_lists: Counted,
    /// When the last heartbeat was sent.
    last_heartbeat: Option<Instant>,
    gateway_acknowledges: bool,
    /// Since when heartbeats have been without any answer, Pongs included, in a session that has answered some.
    unanswered_since: Option<Instant>,
}

/// An answer that was sent, with how many of each were sent before it.
#[derive(Debug)]
struct Sent {
    serial: Serial,
    created: Instant,
    heartbeats: u64,
    model_lists: u64,
}

/// Fences of one kind: how many were sent, and how many of them the gateway has acknowledged and its socket has answered
/// the Pings of.
#[derive(Debug, Default)]
struct Counted {
    sent: u64,
    acknowledged: u64,
    ponged: u64,
}

impl Counted {
    /// Counts an acknowledgement, unless it is one too many.
    fn acknowledge(&mut self) -> bool {
        let due = self.acknowledged < self.sent;
        self.acknowledged += u64::from(due);
        due
    }

    /// Counts a Pong, unless it answers nothing that was sent.
    fn pong(&mut self, number: u64) -> bool {
        let answers = (1..=self.sent).contains(&number);
        if answers {
            self.ponged = self.ponged.max(number);
        }
        answers
    }
}

impl Proof {
    /// A frame is about to be written.
    pub(super) fn begun(&mut self, message: AgentMessage, now: Instant) {
        match Fence::of(message) {
            Some(Fence::Heartbeat) => {
                self.heartbeats.sent += 1;
                self.last_heartbeat = Some(now);
                self.unanswered_since.get_or_insert(now);
            }
            Some(Fence::ModelList) => self.model_lists.sent += 1,
            None => {}
        }
    }

    /// A refusal is about to be written.
    pub(super) fn refusal_begun(&mut self, request_id: &RequestId) {
        self.ended(request_id, None);
    }

    /// An answer is about to be written, perhaps once more: to have read it once is to have read it.
    pub(super) fn answer_begun(
        &mut self,
        serial: Serial,
        request_id: &RequestId,
        created: Instant,
    ) {
        self.ended(request_id, Some(serial));
        if self.places.contains_key(&serial) {
            return;
        }
        let sent = Sent {
            serial,
            created,
            heartbeats: self.heartbeats.sent,
            model_lists: self.model_lists.sent,
        };
        self.sent.insert(self.next, sent);
        self.places.insert(serial, self.next);
        self.next += 1;
    }

    fn ended(&mut self, request_id: &RequestId, answer: Option<Serial>) {
        self.unacknowledged.push(request_id.clone(), answer);
        if self.unacknowledged.len() > MAX_UNACKNOWLEDGED {
            self.unacknowledged.pop_front();
        }
    }

    /// The gateway says that it has what ended a request: the first such frame that it has not said so of. Gives the
    /// answer, if that is one and lacked proof.
    pub(super) fn result_acknowledged(&mut self, request_id: &RequestId) -> Option<Serial> {
        self.gateway_acknowledges = true;
        let answer = self.unacknowledged.pop_first_about(request_id)?;
        answer.filter(|serial| self.forget(*serial))
    }

    /// Gives the round trip, if it is that of the last heartbeat.
    pub(super) fn heartbeat_acknowledged(&mut self, now: Instant) -> Option<Duration> {
        self.gateway_acknowledges = true;
        if !self.heartbeats.acknowledge() {
            return None;
        }
        self.heard(self.heartbeats.acknowledged, now);
        self.round_trip(self.heartbeats.acknowledged, now)
    }

    pub(super) fn models_acknowledged(&mut self) {
        self.model_lists.acknowledge();
    }

    /// The Pong to one of our Pings. It says only that the socket's other end has read, so alone it counts where the
    /// gateway acknowledges nothing by itself.
    pub(super) fn pong(&mut self, payload: u64, now: Instant) -> Option<Duration> {
        match Fence::of_ping(payload) {
            (Fence::ModelList, number) => {
                self.model_lists.pong(number);
                None
            }
            (Fence::Heartbeat, number) => {
                if !self.heartbeats.pong(number) {
                    return None;
                }
                self.heard(number, now);
                if self.gateway_acknowledges {
                    return None;
                }
                self.round_trip(number, now)
            }
        }
    }

    /// Takes out what is proven by what was heard up to now.
    pub(super) fn take_proven(&mut self) -> Vec<Serial> {
        let (heartbeats, model_lists) = (self.read(&self.heartbeats), self.read(&self.model_lists));
        let mut proven = Vec::new();
        while let Some(first) = self.sent.first_entry()
            && (first.get().heartbeats < heartbeats || first.get().model_lists < model_lists)
        {
            let serial = first.remove().serial;
            self.places.remove(&serial);
            proven.push(serial);
        }
        proven
    }

    /// How many fences of a kind are known to have been read.
    fn read(&self, fences: &Counted) -> u64 {
        match (self.answers_pings(), self.gateway_acknowledges) {
            (false, _) => fences.acknowledged,
            (true, false) => fences.ponged,
            (true, true) => fences.acknowledged.min(fences.ponged),
        }
    }

    fn answers_pings(&self) -> bool {
        self.heartbeats.ponged + self.model_lists.ponged > 0
    }

    /// The peer has answered our Close, so it has read everything.
    pub(super) fn take_all(&mut self) -> Vec<Serial> {
        self.places.clear();
        let all = std::mem::take(&mut self.sent);
        all.into_values().map(|sent| sent.serial).collect()
    }

    /// An answer is no longer to be proven; tells whether it was.
    pub(super) fn forget(&mut self, serial: Serial) -> bool {
        let place = self.places.remove(&serial);
        place.is_some_and(|place| self.sent.remove(&place).is_some())
    }

    /// When the oldest answer was made that no heartbeat has followed yet.
    pub(super) fn oldest_without_fence(&self) -> Option<Instant> {
        let newest_first = self.sent.values().rev();
        newest_first
            .take_while(|sent| sent.heartbeats == self.heartbeats.sent)
            .map(|sent| sent.created)
            .min()
    }

    /// How many frames that ended requests are not acknowledged by id.
    #[cfg(test)]
    pub(super) fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    fn heard(&mut self, heartbeat: u64, now: Instant) {
        self.unanswered_since = (heartbeat < self.heartbeats.sent).then_some(now);
    }

    /// Since when this session, in which heartbeats have been answered, has answered none though one was sent.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        let has_answered = self.answers_pings() || self.heartbeats.acknowledged > 0;
        self.unanswered_since.filter(|_| has_answered)
    }

    fn round_trip(&self, heartbeat: u64, now: Instant) -> Option<Duration> {
        let begun = self.last_heartbeat?;
        (heartbeat == self.heartbeats.sent).then(|| now - begun)
    }
}
