//! Which of the answers that were sent in this session are known to have been read. Pure.
//!
//! All is counted when its writing begins: a gateway may have read, and acknowledged, the beginning of what is still being
//! written.
//!
//! Invariant: an answer is proven by its own acknowledgement, or by that of something written after it, never by less.
//! An acknowledgement that is one too many proves nothing, then or later: every HEARTBEAT goes with a Ping of its number,
//! and where the gateway's socket answers those, the n-th HEARTBEAT_ACK counts only once the n-th Pong has come as well.
//! So a gateway that acknowledges twice does not seem to have read what it has not.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::answers::Serial;
use crate::protocol::AgentMessage;

/// The books of one session.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Answers without proof, in the order of sending.
    sent: VecDeque<Sent>,
    heartbeats: Counted,
    model_lists: Counted,
    /// The last heartbeat whose Ping was answered.
    ponged: Option<u64>,
    /// The last heartbeat that was sent, and when.
    last_heartbeat: Option<(u64, Instant)>,
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

/// Frames of a kind that the gateway acknowledges in order.
#[derive(Debug, Default)]
struct Counted {
    sent: u64,
    acknowledged: u64,
}

impl Counted {
    /// Counts an acknowledgement, unless it is one too many.
    fn acknowledge(&mut self) -> bool {
        let due = self.acknowledged < self.sent;
        self.acknowledged += u64::from(due);
        due
    }
}

impl Proof {
    /// A frame is about to be written.
    pub(super) fn begun(&mut self, message: AgentMessage, now: Instant) {
        match message {
            AgentMessage::Heartbeat => {
                self.heartbeats.sent += 1;
                self.last_heartbeat = Some((self.heartbeats.sent, now));
                self.unanswered_since.get_or_insert(now);
            }
            AgentMessage::ModelList => self.model_lists.sent += 1,
            _ => {}
        }
    }

    /// An answer is about to be written. One that is sent over and over is entered once a heartbeat, not once a time.
    pub(super) fn answer_begun(&mut self, serial: Serial, created: Instant, is_first: bool) {
        if !is_first && self.without_fence().any(|sent| sent.serial == serial) {
            return;
        }
        self.sent.push_back(Sent {
            serial,
            created,
            heartbeats: self.heartbeats.sent,
            model_lists: self.model_lists.sent,
        });
    }

    /// The gateway says that it has an answer: this one, if it is one that lacks proof. It can be right only if that was
    /// sent in this session.
    pub(super) fn result_acknowledged(&mut self, serial: Option<Serial>) -> Option<Serial> {
        self.gateway_acknowledges = true;
        serial.filter(|serial| self.forget(*serial))
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

    /// The Pong to the Ping that went with the n-th heartbeat. It says only that the socket's other end has read, so
    /// alone it counts where the gateway acknowledges nothing by itself.
    pub(super) fn pong(&mut self, heartbeat: u64, now: Instant) -> Option<Duration> {
        if heartbeat > self.heartbeats.sent {
            return None;
        }
        self.ponged = self.ponged.max(Some(heartbeat));
        self.heard(heartbeat, now);
        if self.gateway_acknowledges {
            return None;
        }
        self.round_trip(heartbeat, now)
    }

    /// Takes out what is proven by what was heard up to now.
    pub(super) fn take_proven(&mut self) -> Vec<Serial> {
        let heartbeats = match (self.gateway_acknowledges, self.ponged) {
            (false, ponged) => ponged.unwrap_or(0),
            (true, Some(ponged)) => self.heartbeats.acknowledged.min(ponged),
            (true, None) => self.heartbeats.acknowledged,
        };
        let model_lists = self.model_lists.acknowledged;
        let proven = self
            .sent
            .partition_point(|sent| sent.heartbeats < heartbeats || sent.model_lists < model_lists);
        self.sent.drain(..proven).map(|sent| sent.serial).collect()
    }

    /// The peer has answered our Close, so it has read everything.
    pub(super) fn take_all(&mut self) -> Vec<Serial> {
        self.sent.drain(..).map(|sent| sent.serial).collect()
    }

    /// An answer is no longer to be proven; tells whether it was.
    pub(super) fn forget(&mut self, serial: Serial) -> bool {
        let before = self.sent.len();
        match self.sent.front() {
            // Nearly always answers are acknowledged in the order in which they were sent, and sent once.
            Some(first) if first.serial == serial => drop(self.sent.pop_front()),
            _ => self.sent.retain(|sent| sent.serial != serial),
        }
        self.sent.len() < before
    }

    /// When the oldest answer was made that no heartbeat has followed yet.
    pub(super) fn oldest_without_fence(&self) -> Option<Instant> {
        self.without_fence().map(|sent| sent.created).min()
    }

    fn without_fence(&self) -> impl Iterator<Item = &Sent> {
        let from = self
            .sent
            .partition_point(|sent| sent.heartbeats < self.heartbeats.sent);
        self.sent.range(from..)
    }

    fn heard(&mut self, heartbeat: u64, now: Instant) {
        self.unanswered_since = (heartbeat < self.heartbeats.sent).then_some(now);
    }

    /// Since when this session, in which heartbeats have been answered, has answered none though one was sent.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        let has_answered = self.ponged.is_some() || self.heartbeats.acknowledged > 0;
        self.unanswered_since.filter(|_| has_answered)
    }

    fn round_trip(&self, heartbeat: u64, now: Instant) -> Option<Duration> {
        self.last_heartbeat
            .filter(|(last, _)| *last == heartbeat)
            .map(|(_, begun)| now - begun)
    }
}
