//! The answers: kept from the moment they exist until they are proven delivered or given up for a reason, and remembered
//! for a while after that, so that a request which comes again is answered and not worked on again. Pure state.
//!
//! Invariant: at most one answer to an id is here. Bodies of delivered answers are given up when room is short; their ids
//! have room of their own, since without them a request would be worked on twice; undelivered answers are never given up
//! for room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Earning, FRAME_OVERHEAD};
use crate::protocol::{Reply, RequestId};

/// A session that ends this soon after an answer was sent may have ended because of it (delivery rules, "Answers and
/// proof").
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// So many sessions in a row that end so are proof enough.
const STRIKES: u32 = 3;

/// An answer's place in the order in which answers came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serial(u64);

/// An answer that is not known to have been delivered.
#[derive(Debug)]
pub(super) struct Answer {
    /// Shared with whoever writes it, so that it can be kept without a copy.
    pub(super) reply: Arc<Reply>,
    /// What it earns. Taken out when it is counted, which is once.
    earning: Option<Earning>,
    pub(super) created: Instant,
    /// When it was last begun to be sent in this session; `None` if it was not.
    begun: Option<Instant>,
    /// Whether it has a turn to come, in this session or the next.
    waits: bool,
    was_begun: bool,
    /// It was begun more than once.
    pub(super) is_repeated: bool,
    /// A session ended soon after it was sent: it may be the reason.
    pub(super) is_suspect: bool,
    /// It was proven delivered before, and is wanted once more.
    pub(super) was_proven: bool,
}

/// A response that has been delivered, or that the gateway will not have.
#[derive(Debug)]
struct Delivered {
    request_id: RequestId,
    /// `None` once room was short, and of one that was rejected.
    reply: Option<Arc<Reply>>,
    until: Instant,
}

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    Undelivered(Serial),
    Delivered(Serial),
}

#[derive(Debug)]
pub(super) struct Answers {
    ttl: Duration,
    undelivered: BTreeMap<Serial, Answer>,
    delivered: BTreeMap<Serial, Delivered>,
    by_id: HashMap<RequestId, Whereabouts>,
    next: u64,
    undelivered_bytes: usize,
    delivered_bytes: usize,
    /// No delivered answer before this one has a body.
    bodies_from: Serial,
    /// The answer that the last sessions seem to have ended of, and how many did so in a row.
    blame: Option<(Serial, u32)>,
}

impl Answers {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            undelivered: BTreeMap::new(),
            delivered: BTreeMap::new(),
            by_id: HashMap::new(),
            next: 0,
            undelivered_bytes: 0,
            delivered_bytes: 0,
            bodies_from: Serial(0),
            blame: None,
        }
    }

    /// Keeps a new answer. Another one to the same id is gone by then; see [`Answers::remove`].
    pub(super) fn add(
        &mut self,
        reply: Arc<Reply>,
        earning: Option<Earning>,
        now: Instant,
    ) -> Serial {
        let serial = self.next_serial();
        let request_id = reply.request_id.clone();
        self.by_id
            .insert(request_id, Whereabouts::Undelivered(serial));
        let answer = Answer {
            reply,
            earning,
            created: now,
            begun: None,
            waits: true,
            was_begun: false,
            is_repeated: false,
            is_suspect: false,
            was_proven: false,
        };
        self.undelivered_bytes += answer.weight();
        self.undelivered.insert(serial, answer);
        serial
    }

    pub(super) fn find(&self, request_id: &RequestId) -> Option<Whereabouts> {
        self.by_id.get(request_id).copied()
    }

    /// An undelivered answer.
    pub(super) fn get(&self, serial: Serial) -> Option<&Answer> {
        self.undelivered.get(&serial)
    }

    /// Undelivered answers, the oldest first.
    pub(super) fn undelivered(&self) -> impl Iterator<Item = (Serial, &Answer)> {
        self.undelivered
            .iter()
            .map(|(serial, answer)| (*serial, answer))
    }

    pub(super) fn count(&self) -> usize {
        self.undelivered.len()
    }

    /// What undelivered answers hold.
    pub(super) fn bytes(&self) -> usize {
        self.undelivered_bytes
    }

    /// An answer is to be sent once more. Tells whether it needs a turn for that: one that waits for its turn has it.
    pub(super) fn wait_again(&mut self, serial: Serial) -> bool {
        let answer = self.undelivered.get_mut(&serial);
        answer.is_some_and(|answer| !std::mem::replace(&mut answer.waits, true))
    }

    /// An answer is about to be written.
    pub(super) fn begin(&mut self, serial: Serial, now: Instant) -> Option<&Answer> {
        let answer = self.undelivered.get_mut(&serial)?;
        answer.begun = Some(now);
        answer.waits = false;
        answer.is_repeated = std::mem::replace(&mut answer.was_begun, true);
        Some(answer)
    }

    /// What an answer earns, the first time that it is asked for.
    pub(super) fn take_earning(&mut self, serial: Serial) -> Option<Earning> {
        self.undelivered.get_mut(&serial)?.earning.take()
    }

    /// An answer is known to have been read. A response is remembered, body and all while there is room.
    pub(super) fn deliver(&mut self, serial: Serial, now: Instant) -> bool {
        let Some((_, answer)) = self.discard(serial) else {
            return false;
        };
        if answer.reply.is_result() {
            self.remember(answer.reply.request_id.clone(), Some(answer.reply), now);
        }
        true
    }

    fn remember(&mut self, request_id: RequestId, reply: Option<Arc<Reply>>, now: Instant) {
        let serial = self.next_serial();
        self.by_id
            .insert(request_id.clone(), Whereabouts::Delivered(serial));
        let delivered = Delivered {
            request_id,
            reply,
            until: now + self.ttl,
        };
        self.delivered_bytes += delivered.weight();
        self.delivered.insert(serial, delivered);
    }

    /// A delivered response is wanted once more: it is undelivered again, if its body is still here.
    pub(super) fn recall(&mut self, serial: Serial, now: Instant) -> Option<Serial> {
        self.delivered.get(&serial)?.reply.as_ref()?;
        let delivered = self.delivered.remove(&serial)?;
        self.delivered_bytes -= delivered.weight();
        // What it earned was counted with the first proof.
        let serial = self.add(delivered.reply?, None, now);
        if let Some(answer) = self.undelivered.get_mut(&serial) {
            answer.was_begun = true;
            answer.was_proven = true;
        }
        Some(serial)
    }

    /// Forgets an id. Gives what was undelivered of it; tells whether there was anything with a body.
    pub(super) fn remove(&mut self, request_id: &RequestId) -> Option<Removed> {
        match self.by_id.remove(request_id)? {
            Whereabouts::Undelivered(serial) => {
                self.take(serial)?;
                Some(Removed::Undelivered(serial))
            }
            Whereabouts::Delivered(serial) => {
                let delivered = self.delivered.remove(&serial)?;
                self.delivered_bytes -= delivered.weight();
                delivered.reply.is_some().then_some(Removed::Delivered)
            }
        }
    }

    /// Gives up bodies of delivered answers, the oldest first, until all that is held of them fits into `room`; and ids,
    /// until they alone fit into `least`, which is theirs however short room is.
    pub(super) fn evict(&mut self, room: usize, least: usize) {
        while self.delivered_bytes > room
            && let Some((serial, delivered)) = self.delivered.range_mut(self.bodies_from..).next()
        {
            self.bodies_from = Serial(serial.0 + 1);
            self.delivered_bytes -= delivered.reply.take().map_or(0, |reply| reply.bytes());
        }
        while self.delivered_bytes > room.max(least)
            && let Some((_, oldest)) = self.delivered.pop_first()
        {
            self.delivered_bytes -= oldest.weight();
            self.by_id.remove(&oldest.request_id);
        }
    }

    /// Gives up what is too old; gives the undelivered ones of it.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Serial, Answer)> {
        while let Some(oldest) = self.delivered.first_entry()
            && oldest.get().until <= now
        {
            let oldest = oldest.remove();
            self.delivered_bytes -= oldest.weight();
            self.by_id.remove(&oldest.request_id);
        }
        let mut expired = Vec::new();
        while let Some((serial, oldest)) = self.undelivered.first_key_value()
            && oldest.created + self.ttl <= now
        {
            expired.extend(self.discard(*serial));
        }
        expired
    }

    /// When something will be too old, at the earliest.
    pub(super) fn next_expiry(&self, now: Instant) -> Instant {
        let undelivered = self.undelivered.first_key_value();
        let undelivered = undelivered.map(|(_, answer)| answer.created + self.ttl);
        let delivered = self.delivered.first_key_value();
        let delivered = delivered.map(|(_, delivered)| delivered.until);
        [undelivered, delivered]
            .into_iter()
            .flatten()
            .min()
            // Whatever comes to be meanwhile expires later than this.
            .unwrap_or(now + self.ttl)
    }

    /// Gives up whatever is undelivered: the process ends.
    pub(super) fn discard_all(&mut self) -> Vec<(Serial, Answer)> {
        let all: Vec<_> = self.undelivered.keys().copied().collect();
        all.into_iter()
            .filter_map(|serial| self.discard(serial))
            .collect()
    }

    /// A session has ended. Answers that were sent shortly before a gateway ended it are suspects: the one that was
    /// `on_trial`, else the last one, is to blame, and is given up when that has happened three times in a row.
    pub(super) fn session_ended(
        &mut self,
        ended_by_gateway: bool,
        on_trial: Option<Serial>,
        now: Instant,
    ) -> Option<(Serial, Answer)> {
        let mut last = None;
        for (serial, answer) in &mut self.undelivered {
            answer.waits = true;
            let Some(begun) = answer.begun.take() else {
                continue;
            };
            answer.is_suspect = ended_by_gateway && begun + SUSPICIOUS > now;
            if !answer.is_suspect && self.blame.is_some_and(|(blamed, _)| blamed == *serial) {
                self.blame = None;
            }
            if answer.is_suspect && last.is_none_or(|(last, _)| last <= begun) {
                last = Some((begun, *serial));
            }
        }
        let accused = on_trial
            .filter(|serial| self.undelivered.get(serial).is_some_and(|a| a.is_suspect))
            .or(last.map(|(_, serial)| serial))?;
        let strikes = match self.blame {
            Some((serial, strikes)) if serial == accused => strikes + 1,
            _ => 1,
        };
        if strikes < STRIKES {
            self.blame = Some((accused, strikes));
            return None;
        }
        self.blame = None;
        let rejected = self.discard(accused)?;
        let reply = &rejected.1.reply;
        if reply.is_result() {
            // The work was done once, and is not done again for a gateway that will not have it.
            self.remember(reply.request_id.clone(), None, now);
        }
        Some(rejected)
    }

    fn discard(&mut self, serial: Serial) -> Option<(Serial, Answer)> {
        let answer = self.take(serial)?;
        self.by_id.remove(&answer.reply.request_id);
        Some((serial, answer))
    }

    fn take(&mut self, serial: Serial) -> Option<Answer> {
        let answer = self.undelivered.remove(&serial)?;
        self.undelivered_bytes -= answer.weight();
        Some(answer)
    }

    fn next_serial(&mut self) -> Serial {
        self.next += 1;
        Serial(self.next)
    }
}

/// What was removed with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    Undelivered(Serial),
    Delivered,
}

impl Answer {
    /// What it holds, in bytes.
    fn weight(&self) -> usize {
        self.reply.request_id.as_str().len() + FRAME_OVERHEAD + self.reply.bytes()
    }
}

impl Delivered {
    /// What it holds, in bytes.
    fn weight(&self) -> usize {
        let body = self.reply.as_ref().map_or(0, |reply| reply.bytes());
        self.request_id.as_str().len() + FRAME_OVERHEAD + body
    }
}
