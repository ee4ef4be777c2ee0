//! What the books hold: every request with all that was ever seen of it, and every session. Pure data,
//! but for the gauge in [`Room`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    faults::{Acknowledged, Leaving},
    interviews::Interview,
    room::Room,
    said::Said,
    warmth::Warmth,
    wire::Link,
};

/// Counted when a request is made again on another session than the one it runs for.
pub(super) const CAUGHT_UP: &str = "requests made again that ran since an earlier session";

/// The settings that the rules are about, as the product was given them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `PIN_CAPACITY`.
    pub capacity: usize,
    /// `PIN_QUEUE`.
    pub queue: usize,
    /// `PIN_HEARTBEAT_INTERVAL`.
    pub heartbeat_interval: Duration,
    /// `PIN_HEARTBEAT_TIMEOUT`.
    pub heartbeat_timeout: Duration,
    /// `PIN_RECONNECT_MAX`.
    pub reconnect_max: Duration,
    /// `PIN_CONNECT_TIMEOUT`.
    pub connect_timeout: Duration,
    /// `PIN_ORPHAN_GRACE`.
    pub orphan_grace: Duration,
    /// `PIN_RESULT_TTL`.
    pub result_ttl: Duration,
    /// `PIN_REQUEST_TIMEOUT`.
    pub request_timeout: Duration,
    /// The shorter of `PIN_FIRST_TOKEN_TIMEOUT` and `PIN_TOKEN_TIMEOUT`.
    pub token_timeout: Duration,
    /// `PIN_DRAIN_TIMEOUT`.
    pub drain_timeout: Duration,
    /// `PIN_OUTBOX_BYTES`.
    pub outbox_bytes: u64,
    /// The largest answer, in bytes, framed.
    pub answer_bytes: u64,
    /// 1 or 2.
    pub generation: u8,
    /// Whether the model is to be loaded before the node is registered, and kept loaded.
    pub preloads: bool,
}

/// What the product's own gauges say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// `requests_running`.
    pub running: i64,
    /// `requests_waiting`.
    pub waiting: i64,
    /// `undelivered_results`.
    pub undelivered: i64,
    /// `outbox_bytes`.
    pub outbox_bytes: i64,
}

/// What a request is, to the eyes of whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A chat.
    Chat,
    /// Something that is no chat.
    Invalid,
    /// A chat with a model that is not there.
    UnknownModel,
    /// A chat or an interview whose id is none.
    BadId,
    /// An interview.
    Interview,
    /// Something to be spoken.
    Speech,
    /// The same with a model that is not there.
    UnknownSpeech,
}

impl Class {
    /// Whether it is asked for by TTS_REQUEST.
    pub(super) fn is_speech(self) -> bool {
        matches!(self, Self::Speech | Self::UnknownSpeech)
    }
}

/// A frame that was sent to the product, and when it read its last byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) session: u64,
    pub(super) sent: Instant,
    pub(super) read: Option<Instant>,
    pub(super) place: Place,
}

/// Where the reading of a frame is in what the product has written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Somewhere in the moment in which it was read: other frames were before it.
    Unknown,
    /// It will be dealt with as it is read.
    Alone,
    /// It was dealt with when so many bytes were written.
    At(u64),
}

/// A terminal frame of a request.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// When its first byte was written.
    pub(super) written: Instant,
    /// `None`: a response.
    pub(super) code: Option<String>,
}

/// A chat that the model server was asked for.
#[derive(Clone, Debug)]
pub(super) struct Chat {
    pub(super) connection: u64,
    pub(super) opened: Instant,
    /// When the product had read its last line.
    pub(super) read: Option<Instant>,
    /// When its last line was written.
    pub(super) written: Option<Instant>,
    /// What the model server has said.
    pub(super) said: Said,
    /// Since when nothing more comes of it, and never will.
    pub(super) hangs: Option<Instant>,
    /// It was made to fail.
    pub(super) failed: bool,
}

/// The chunks of one request on one session.
#[derive(Default)]
pub(super) struct Stream {
    pub(super) next: u64,
    pub(super) said: Said,
    /// How many runs of indices have begun on this session. Each making of the request allows one.
    pub(super) runs: usize,
    /// How often the request had been made on this session when the run of indices began.
    pub(super) made: usize,
    /// How many terminal frames there were when it began, and are.
    pub(super) terminals_before: usize,
    pub(super) terminals: usize,
}

#[derive(Default)]
pub(super) struct Request {
    pub(super) class: Option<Class>,
    pub(super) stream: bool,
    pub(super) poisoned: bool,
    /// The sessions in a row that its last answer has ended.
    pub(super) victims: Vec<(u64, Instant)>,
    pub(super) made: Vec<Told>,
    pub(super) cancels: Vec<Told>,
    pub(super) answers: Vec<Answer>,
    pub(super) chats: Vec<Chat>,
    pub(super) streams: BTreeMap<u64, Stream>,
    /// The sessions on which the gateway has thrown an answer of it away.
    pub(super) thrown_away: BTreeSet<u64>,
    /// What was cancelled on a session before this was asked there, and how often each had been made by then: once this has
    /// its refusal there, the cancels have been understood.
    pub(super) behind: Option<(u64, Vec<(String, usize)>)>,
    /// The session on which a cancel was understood, unless it was made again since. What an earlier one still brings is older.
    pub(super) silent_from: Option<u64>,
    /// The response that was billed, by its hash; with a cancel the id is free again.
    pub(super) response: Option<(u64, Instant)>,
    /// What it is besides, if it is one.
    pub(super) interview: Option<Interview>,
}

#[derive(Default)]
pub(super) struct Session {
    /// When the product read that its login was accepted.
    pub(super) up: Option<Instant>,
    /// When the product wrote REGISTER_NODE.
    pub(super) registered: Option<Instant>,
    pub(super) last_heartbeat: Option<Instant>,
    /// PINGs without a PONG.
    pub(super) pings: Vec<Ping>,
    /// The responses that no heartbeat or list of models has followed yet, and nothing else will prove.
    pub(super) unfenced: Vec<Unfenced>,
    /// The ids whose responses it has brought, save those that are acknowledged by themselves.
    pub(super) brought: BTreeSet<String>,
    /// When the product said Close, for nothing was left to do.
    pub(super) done: Option<Instant>,
    /// The gateway has said Close by itself.
    pub(super) leaving: Option<Leaving>,
    /// The gateway has read a Close of the product.
    pub(super) has_closed: bool,
    /// That Close could not be told from an answer to the product's own.
    pub(super) crossed: bool,
    /// By id.
    pub(super) acknowledged: BTreeMap<String, Acknowledged>,
}

/// A response that needs a fence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfenced {
    pub(super) written: Instant,
    /// When it may be given up for its age.
    pub(super) expires: Instant,
}

/// A PING that the product has read.
pub(super) struct Ping {
    pub(super) read: Instant,
    /// How many bytes the product had written by then.
    pub(super) written: u64,
    /// The largest frame that has come since, in bytes.
    pub(super) largest: u64,
}

pub(super) struct Ledger {
    pub(super) limits: Limits,
    pub(super) began: Instant,
    pub(super) gateway: Link,
    pub(super) ollama: Link,
    pub(super) requests: BTreeMap<String, Request>,
    /// The requests with chats that were not over when they were last looked at.
    pub(super) live: BTreeSet<String>,
    pub(super) sessions: BTreeMap<u64, Session>,
    pub(super) violations: Vec<String>,
    pub(super) told: BTreeSet<(String, String)>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// When the product came, within the last second.
    pub(super) arrivals: VecDeque<Instant>,
    /// Of which ids an answer was acknowledged that had not been read, and on which session.
    pub(super) lies: BTreeSet<(String, u64)>,
    /// When a look last found the outbox more than half full.
    pub(super) full: Option<Instant>,
    /// When it was full, be it between two looks.
    pub(super) room: Room,
    /// When the product was told to end, if it was.
    pub(super) ending_since: Option<Instant>,
    /// The product's drains, in order.
    pub(super) drains: Vec<Drain>,
    /// Until when the product was told to stay away.
    pub(super) paused_until: Option<Instant>,
    /// Since when it does.
    pub(super) rests_since: Option<Instant>,
    /// The gateway no longer dies of poisoned answers.
    pub(super) cured: bool,
    /// Since when the gateway reads and lets agents in.
    pub(super) open_since: Option<Instant>,
    /// Since when the product's gauges say that it has work or undelivered answers.
    pub(super) busy_since: Option<Instant>,
    /// The longest that the product was asked to stay away since it last was logged in, and when it was.
    pub(super) sent_away: Option<(Instant, Duration)>,
    /// When the product read that it may not come back for a while, and before when.
    pub(super) not_before: Option<(Instant, Instant)>,
    pub(super) warmth: Warmth,
}

/// A drain of the product.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    pub(super) began: Instant,
    /// When it was told to serve again.
    pub(super) over: Option<Instant>,
}

impl Drain {
    /// Whether a chat that ended then may have been cut short by it.
    pub(super) fn cuts_short(self, ended: Instant, drain_timeout: Duration) -> bool {
        ended >= self.began + drain_timeout && self.over.is_none_or(|over| ended <= over)
    }
}

impl Ledger {
    pub(super) fn is_draining(&self) -> bool {
        self.drains.last().is_some_and(|drain| drain.over.is_none())
    }

    /// Whether a chat that ended then may have been cut short by a drain.
    pub(super) fn was_cut_short(&self, ended: Instant) -> bool {
        let timeout = self.limits.drain_timeout;
        self.drains
            .iter()
            .any(|drain| drain.cuts_short(ended, timeout))
    }

    /// The product has come, perhaps before it may.
    pub(super) fn comes_too_early(&mut self, now: Instant) {
        let Some((read, until)) = self.not_before.take() else {
            return;
        };
        // A connection that breaks as it is read may take with it what nobody has looked at yet.
        let closed = self.gateway.last_closed();
        let was_understood = closed.is_some_and(|closed| closed > read);
        if was_understood && now < until {
            let what = format!("it was told to stay away for {:?} more", until - now);
            self.breach("gateway", "5 (reconnecting)", &what);
        }
    }

    /// Enters a breach of a rule, once per request and rule.
    pub(super) fn breach(&mut self, subject: &str, rule: &str, what: &str) {
        if self.told.insert((subject.to_owned(), rule.to_owned())) {
            let at = self.began.elapsed().as_millis();
            self.violations
                .push(format!("{at} ms: {subject}: rule {rule}: {what}"));
        }
    }

    pub(super) fn count(&mut self, family: &'static str) {
        *self.counts.entry(family).or_default() += 1;
    }

    /// When a chat's request was let go by the product without having been read to its end.
    pub(super) fn given_up(&self, chat: &Chat) -> Option<Instant> {
        if chat.read.is_some() {
            return None;
        }
        self.ollama.facts(chat.connection)?.client_closed
    }

    /// Whether the product has looked at a frame that it has read: a connection that breaks as it is read may take with it
    /// what nobody has looked at yet.
    pub(super) fn was_looked_at(&self, told: &Told) -> bool {
        let facts = self.gateway.facts(told.session);
        let closed = facts.and_then(|facts| facts.client_closed);
        closed.is_none_or(|closed| told.read.is_some_and(|read| read < closed))
    }

    pub(super) fn is_open(&self, chat: &Chat) -> bool {
        let facts = self.ollama.facts(chat.connection);
        chat.read.is_none()
            && !chat.failed
            && facts.is_some_and(|facts| facts.client_closed.is_none() && facts.cut.is_none())
    }

    /// Whether nothing can happen to a chat any more.
    pub(super) fn is_over(&self, chat: &Chat) -> bool {
        let facts = self.ollama.facts(chat.connection);
        chat.read.is_some() || facts.is_none_or(|facts| facts.client_closed.is_some())
    }

    /// When the last session that had been up was given up by the product, unless one is up.
    pub(super) fn down_since(&self) -> Option<Instant> {
        let (number, _) = self
            .sessions
            .iter()
            .rev()
            .find(|(_, session)| session.up.is_some())?;
        self.gateway.facts(*number)?.client_closed
    }

    /// How long the product had been without a session at this moment, counted from when it gave the last one up.
    pub(super) fn away_before(&self, moment: Instant) -> Option<Duration> {
        self.lost_before(moment).map(|lost| moment - lost)
    }

    /// When the product had given its last session up, if it had none at this moment.
    pub(super) fn lost_before(&self, moment: Instant) -> Option<Instant> {
        let ups: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.up.is_some())
            .collect();
        let last = ups
            .iter()
            .rev()
            .find(|(_, session)| session.up.is_some_and(|up| up < moment))?;
        let closed = self.gateway.facts(*last.0)?.client_closed?;
        (closed <= moment).then_some(closed)
    }
}

impl Request {
    /// Whether it has a response, if all goes well.
    pub(super) fn is_job(&self) -> bool {
        matches!(self.class, Some(Class::Chat | Class::Speech))
    }

    /// Whether something written at this moment of this request breaks the silence after a cancel.
    pub(super) fn is_silenced(
        &self,
        written: Instant,
        was_looked_at: impl Fn(&Told) -> bool,
    ) -> bool {
        let cancelled = self
            .cancels
            .iter()
            .filter(|cancel| was_looked_at(cancel))
            .filter_map(|cancel| cancel.read)
            .filter(|read| *read < written)
            .max();
        cancelled.is_some_and(|cancelled| {
            !self
                .made
                .iter()
                .filter_map(|made| made.read)
                .any(|read| read >= cancelled && read <= written)
        })
    }

    /// When the product had read the last line of a chat of it, before this moment.
    pub(super) fn last_read_before(&self, moment: Instant) -> Option<Instant> {
        let ends = self.chats.iter().filter_map(|chat| chat.read);
        ends.filter(|end| *end <= moment).max()
    }

    /// Whether what begins at this place of a session was written after a cancel was dealt with, be it in the same moment.
    pub(super) fn is_behind_a_cancel(&self, session: u64, start: u64) -> bool {
        self.cancels.iter().any(|cancel| {
            let is_behind = matches!(cancel.place, Place::At(written) if written <= start);
            let again = self.made.iter().any(|made| {
                made.sent >= cancel.sent || made.read.is_none_or(|read| Some(read) >= cancel.read)
            });
            cancel.session == session && is_behind && !again
        })
    }

    /// How often it was made on a session.
    pub(super) fn made_on(&self, session: u64) -> usize {
        self.made
            .iter()
            .filter(|made| made.session == session)
            .count()
    }

    /// Whether text of the response that was written at this moment was made when it had been asked for on this session.
    pub(super) fn streamed_on(&self, session: u64, written: Instant) -> bool {
        /// What is read and what is done about it.
        const MOMENT: Duration = Duration::from_millis(5);
        let last = self.last_read_before(written);
        let asked = |last| {
            self.made.iter().any(|made| {
                made.session == session && made.read.is_some_and(|read| read + MOMENT < last)
            })
        };
        self.stream && last.is_some_and(asked)
    }

    /// How many terminal frames of it a session may bring: one each time it was made there, and one that was held from
    /// before.
    pub(super) fn terminals_due(&self, session: u64) -> usize {
        let earlier = self.made.iter().any(|made| made.session < session);
        self.made_on(session) + usize::from(earlier)
    }

    /// Whether a cancel may have made it free for a second generation since.
    pub(super) fn cancelled_since(&self, moment: Instant) -> bool {
        self.cancels
            .iter()
            .any(|cancel| cancel.read.is_some_and(|read| read >= moment))
    }

    /// Whether it still waits for its end, as the gateway sees it.
    pub(super) fn is_unanswered(&self) -> bool {
        let Some(last) = self.made.last() else {
            return false;
        };
        let answered = self
            .answers
            .iter()
            .any(|answer| answer.written >= last.sent);
        let cancelled = self.cancels.iter().any(|cancel| cancel.sent >= last.sent);
        !answered && !cancelled && self.response.is_none()
    }
}
