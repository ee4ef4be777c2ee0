//! What the gateway says of what it has read, and which answers that proves. Pure.
//!
//! All is counted when its writing begins: a gateway may have read, and acknowledged, the beginning of what is still being
//! written.
//!
//! Invariant: an answer is proven by its own acknowledgement, or by that of something written after it, never by less.
//! An id stands for no answer: the n-th RESULT_ACK for an id belongs to the n-th frame that ended a request of that id over
//! this link, refusals included. An acknowledgement that is one too many proves nothing, then or later: every HEARTBEAT
//! and MODEL_LIST goes with a Ping of its number, and where the gateway's socket answers those, the n-th acknowledgement of
//! a kind counts only once the n-th Pong of that kind has come as well. So a gateway that acknowledges twice does not seem
//! to have read what it has not.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    link::{Outgoing, Position, Proof},
    protocol::{AgentMessage, RequestId},
    queue::Queue,
};

/// So many frames that ended requests are told apart by what acknowledges them, counted back from the newest, and so many
/// fences by what was written before them: more than can be on their way to a gateway and back. One that acknowledges only
/// some of them leaves the others here for good.
const MAX_UNACKNOWLEDGED: usize = 4_096;

/// A frame that the gateway acknowledges by number, so that what was written before it is proven with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    Heartbeat,
    ModelList,
}

impl Fence {
    fn of(message: AgentMessage) -> Option<Self> {
        match message {
            AgentMessage::Heartbeat => Some(Self::Heartbeat),
            AgentMessage::ModelList => Some(Self::ModelList),
            _ => None,
        }
    }

    /// The payload of the Ping that goes with the n-th fence of this kind.
    fn ping(self, number: u64) -> u64 {
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

/// The books of one link.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    heartbeats: Fences,
    model_lists: Fences,
    /// Behind the last answer that was begun.
    end: Position,
    /// The same when the last heartbeat was.
    fenced: Position,
    /// Frames that ended requests and are not acknowledged by id: the answer that each was, `None` for a refusal.
    unacknowledged: Queue<Option<Position>>,
    /// When the last heartbeat was begun.
    last_heartbeat: Option<Instant>,
    gateway_acknowledges: bool,
    /// Since when heartbeats have been without any answer, Pongs included, over a link that has answered some.
    unanswered_since: Option<Instant>,
}

/// Fences of one kind: how many were begun, and how many of them the gateway has acknowledged and its socket has answered
/// the Pings of.
#[derive(Debug, Default)]
struct Fences {
    sent: u64,
    acknowledged: u64,
    ponged: u64,
    /// By their numbers, those that stand behind answers which the one before does not stand behind, and the end of these.
    behind: VecDeque<(u64, Position)>,
    /// Behind the answers that the last of them stands behind.
    last: Position,
}

impl Fences {
    /// A fence is begun behind the answers before `end`. Gives its number.
    fn begin(&mut self, end: Position) -> u64 {
        self.sent += 1;
        if end > self.last {
            self.last = end;
            self.behind.push_back((self.sent, end));
            if self.behind.len() > MAX_UNACKNOWLEDGED {
                // What it proves the next one does, too.
                self.behind.pop_front();
            }
        }
        self.sent
    }

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

    /// The first so many fences have been read: takes out the end of the answers that they stand behind.
    fn read(&mut self, fences: u64) -> Option<Position> {
        let mut end = None;
        while let Some((number, position)) = self.behind.front()
            && *number <= fences
        {
            end = Some(*position);
            self.behind.pop_front();
        }
        end
    }
}

/// What an acknowledgement says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Acknowledged {
    /// The answers that are proven by it.
    pub(crate) proof: Option<Proof>,
    /// How long the last heartbeat was on its way and back, if it is that one's.
    pub(crate) round_trip: Option<Duration>,
}

impl Acknowledgements {
    /// This is about to be written. Gives the payload of the Ping that goes with it, if one does.
    pub(crate) fn begin(&mut self, outgoing: &Outgoing, now: Instant) -> Option<u64> {
        match outgoing {
            Outgoing::Control(control) => {
                let fence = Fence::of(control.message())?;
                Some(self.begin_fence(fence, now))
            }
            Outgoing::Refusal(reply) => {
                self.ended(&reply.request_id, None);
                None
            }
            Outgoing::Answer(position, reply) => {
                self.ended(&reply.request_id, Some(*position));
                self.end = self.end.max(position.next());
                None
            }
            Outgoing::Chunk(_) => None,
        }
    }

    fn begin_fence(&mut self, fence: Fence, now: Instant) -> u64 {
        let number = match fence {
            Fence::Heartbeat => {
                self.last_heartbeat = Some(now);
                self.unanswered_since.get_or_insert(now);
                self.fenced = self.end;
                self.heartbeats.begin(self.end)
            }
            Fence::ModelList => self.model_lists.begin(self.end),
        };
        fence.ping(number)
    }

    fn ended(&mut self, request_id: &RequestId, answer: Option<Position>) {
        let named = request_id.clone().of_request();
        self.unacknowledged.push(named, answer);
        if self.unacknowledged.len() > MAX_UNACKNOWLEDGED {
            self.unacknowledged.pop_front();
        }
    }

    /// The gateway says that it has what ended a request: the first such frame that it has not said so of.
    pub(crate) fn result(&mut self, request_id: &RequestId) -> Acknowledged {
        self.gateway_acknowledges = true;
        let answer = self.unacknowledged.pop_first_about(request_id).flatten();
        Acknowledged {
            proof: answer.map(Proof::Answer),
            round_trip: None,
        }
    }

    /// The gateway says that it has read a heartbeat.
    pub(crate) fn heartbeat(&mut self, now: Instant) -> Acknowledged {
        self.gateway_acknowledges = true;
        let number = self
            .heartbeats
            .acknowledge()
            .then_some(self.heartbeats.acknowledged);
        if let Some(number) = number {
            self.answered(number, now);
        }
        Acknowledged {
            round_trip: number.and_then(|number| self.round_trip(number, now)),
            proof: self.read(),
        }
    }

    /// The gateway says that it has read a list of models.
    pub(crate) fn model_list(&mut self) -> Acknowledged {
        self.model_lists.acknowledge();
        Acknowledged {
            proof: self.read(),
            round_trip: None,
        }
    }

    /// The Pong to one of our Pings. It says only that the socket's other end has read, so alone it counts where the
    /// gateway acknowledges nothing by itself.
    pub(crate) fn pong(&mut self, payload: u64, now: Instant) -> Acknowledged {
        let (fence, number) = Fence::of_ping(payload);
        let mut round_trip = None;
        match fence {
            Fence::ModelList => drop(self.model_lists.pong(number)),
            Fence::Heartbeat if self.heartbeats.pong(number) => {
                self.answered(number, now);
                if !self.gateway_acknowledges {
                    round_trip = self.round_trip(number, now);
                }
            }
            Fence::Heartbeat => {}
        }
        Acknowledged {
            proof: self.read(),
            round_trip,
        }
    }

    /// What is proven by all fences that are known to have been read by now, and was not before.
    fn read(&mut self) -> Option<Proof> {
        let (answers_pings, acknowledges) = (self.answers_pings(), self.gateway_acknowledges);
        let read = |fences: &mut Fences| {
            let number = match (answers_pings, acknowledges) {
                (false, _) => fences.acknowledged,
                (true, false) => fences.ponged,
                (true, true) => fences.acknowledged.min(fences.ponged),
            };
            fences.read(number)
        };
        read(&mut self.heartbeats)
            .max(read(&mut self.model_lists))
            .map(Proof::Before)
    }

    fn answers_pings(&self) -> bool {
        self.heartbeats.ponged + self.model_lists.ponged > 0
    }

    /// How many frames that ended requests are not acknowledged by id.
    #[cfg(test)]
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// The end of the answers that a heartbeat has followed.
    pub(crate) fn fenced(&self) -> Position {
        self.fenced
    }

    fn answered(&mut self, heartbeat: u64, now: Instant) {
        self.unanswered_since = (heartbeat < self.heartbeats.sent).then_some(now);
    }

    /// Since when this link, over which heartbeats have been answered, has answered none though one was sent.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        let has_answered = self.answers_pings() || self.heartbeats.acknowledged > 0;
        self.unanswered_since.filter(|_| has_answered)
    }

    fn round_trip(&self, heartbeat: u64, now: Instant) -> Option<Duration> {
        let begun = self.last_heartbeat?;
        (heartbeat == self.heartbeats.sent).then(|| now - begun)
    }
}
