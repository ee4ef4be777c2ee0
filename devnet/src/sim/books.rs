//! The books: what was asked, what was read, what was answered, on both sides of the product, and the delivery rules
//! that this must fit.
//!
//! Invariant: a breach is entered the moment it can be seen, as a sentence that names the request, the virtual time
//! and the rule. `rules.rs` has the rules that time alone can break.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

pub use super::ledger::{Class, Gauges, Limits};
use super::{
    interviews::{self, Asked, Interview},
    ledger::{CAUGHT_UP, Chat, Ledger, Ping, Place, Request, Told, Unfenced},
    room::Room,
    said::{Kind, Said},
    warmth::Warmth,
    wire::Link,
};
use crate::journal::lock;

/// What may go ahead of a PONG beside one large frame, in bytes: the batch that is being written when the PING is read, one
/// that is begun before it is understood, and small change.
const MAX_AHEAD: u64 = 2 * 64 * 1024 + 8 * 1024;

/// So many sessions in a row may end within [`SUSPICIOUS`] of one answer. Three that ended of it make the product give it
/// up; before them is one in which another has the blame, which was sent after it or was being tried. From then on it is
/// a suspect, and suspects go alone.
const MAX_VICTIMS: usize = 4;

/// A session that ends later than this after an answer did not end because of it, as the product has to see it.
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// The longest that a gateway can ask for.
const LONG_AWAY: Duration = Duration::from_secs(3_600);

/// Nobody needs so many connections within so long, however short each is.
const MAX_ARRIVALS: usize = 20;
const STORM: Duration = Duration::from_secs(1);

/// The books of one run. Cheap to clone.
#[derive(Clone)]
pub struct Books(Arc<Mutex<Ledger>>);

/// A data frame as the gateway read it.
pub(super) struct Seen<'a> {
    pub(super) session: u64,
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) value: &'a Value,
    pub(super) text: &'a str,
    /// When the product wrote its first byte.
    pub(super) written: Instant,
    /// What it had written before.
    pub(super) start: u64,
}

/// A chat as the model server was asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) connection: u64,
    /// Whether the model is loaded as it asks for it.
    pub(super) is_warm: bool,
    /// Whether it asks for so many tokens at most.
    pub(super) is_limited: bool,
}

impl Books {
    /// Empty books about these links.
    pub fn new(limits: Limits, gateway: Link, ollama: Link) -> Self {
        Self(Arc::new(Mutex::new(Ledger {
            limits,
            began: Instant::now(),
            gateway,
            ollama,
            requests: BTreeMap::new(),
            live: BTreeSet::new(),
            sessions: BTreeMap::new(),
            violations: Vec::new(),
            told: BTreeSet::new(),
            counts: BTreeMap::new(),
            arrivals: VecDeque::new(),
            lies: BTreeSet::new(),
            full: None,
            room: Room::default(),
            ending_since: None,
            drains: Vec::new(),
            paused_until: None,
            rests_since: None,
            cured: false,
            open_since: Some(Instant::now()),
            busy_since: None,
            sent_away: None,
            not_before: None,
            warmth: Warmth::new(Instant::now()),
        })))
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = lock(&self.0);
        ledger.look_at_room();
        ledger
    }

    /// Every breach so far, in order.
    pub fn violations(&self) -> Vec<String> {
        self.ledger().violations.clone()
    }

    /// How often what happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.ledger().counts.clone()
    }

    /// Counts something.
    pub fn count(&self, family: &'static str) {
        self.ledger().count(family);
    }

    /// Enters a breach that somebody else has seen.
    pub fn breach(&self, subject: &str, rule: &str, what: &str) {
        self.ledger().breach(subject, rule, what);
    }

    /// A request is made. Gives the place of this making, for [`Books::was_read`].
    pub(super) fn made(&self, id: &str, class: Class, stream: bool, session: u64) -> usize {
        let mut ledger = self.ledger();
        ledger.count("requests made");
        if ledger.runs_since_earlier(id, session) {
            ledger.count(CAUGHT_UP);
        }
        if class == Class::Speech && ledger.requests.contains_key(id) {
            ledger.count("speech asked for again");
        }
        let request = ledger.requests.entry(id.to_owned()).or_default();
        request.class.get_or_insert(class);
        request.stream = stream;
        request.silent_from = None;
        request.made.push(Told::now(session));
        request.made.len() - 1
    }

    /// An interview is about to be made for the first time, under this key.
    pub(super) fn interview(&self, key: &str, interview: Interview) {
        self.ledger().count("interviews");
        let mut ledger = self.ledger();
        let request = ledger.requests.entry(key.to_owned()).or_default();
        request.interview = Some(interview);
    }

    /// The product has read a request.
    pub(super) fn was_read(&self, id: &str, place: usize, now: Instant) {
        if let Some(request) = self.ledger().requests.get_mut(id)
            && let Some(made) = request.made.get_mut(place)
        {
            made.read = Some(now);
        }
    }

    /// A cancel is sent. From now on the id is free; a response that is under way is not billed a second time.
    pub(super) fn cancelled(&self, id: &str, session: u64) -> Option<usize> {
        let mut ledger = self.ledger();
        ledger.count("cancels sent");
        if let Some(session) = ledger.sessions.get_mut(&session) {
            // Perhaps it was one of this id's.
            session.unfenced.clear();
        }
        let class = ledger.requests.get(id)?.class;
        if class == Some(Class::Speech) {
            ledger.count("speech cancelled");
        }
        let request = ledger.requests.get_mut(id)?;
        request.cancels.push(Told::now(session));
        request.response = None;
        Some(request.cancels.len() - 1)
    }

    /// A request is about to be made behind the cancels of these, which is refused, whatever else happens.
    pub(super) fn made_behind(&self, id: &str, session: u64, cancelled: &[String]) {
        let mut ledger = self.ledger();
        let behind = cancelled
            .iter()
            .filter_map(|id| Some((id.clone(), ledger.requests.get(id)?.made.len())))
            .collect();
        let request = ledger.requests.entry(id.to_owned()).or_default();
        request.behind = Some((session, behind));
    }

    /// The product has read a cancel.
    pub(super) fn cancel_was_read(&self, id: &str, place: usize, now: Instant) {
        let mut ledger = self.ledger();
        let cancel = |request: &Request| request.cancels.get(place).map(|cancel| cancel.session);
        let session = ledger.requests.get(id).and_then(cancel);
        let facts = session.and_then(|session| ledger.gateway.facts(session));
        let written = facts.map(|facts| facts.written_up);
        if let Some(request) = ledger.requests.get_mut(id)
            && let Some(cancel) = request.cancels.get_mut(place)
        {
            cancel.read = Some(now);
            if let Place::Alone = cancel.place {
                cancel.place = written.map_or(Place::Unknown, Place::At);
            }
        }
    }

    /// No frame is under way before this cancel, so that it is dealt with in the moment in which it is read.
    pub(super) fn cancel_is_alone(&self, id: &str, place: usize) {
        if let Some(request) = self.ledger().requests.get_mut(id)
            && let Some(cancel) = request.cancels.get_mut(place)
        {
            cancel.place = Place::Alone;
        }
    }

    /// The product has read that it is to stay away for so long.
    pub(super) fn was_sent_away(&self, now: Instant, away: Duration) {
        let mut ledger = self.ledger();
        if away >= LONG_AWAY {
            ledger.count("asked to stay away for an hour");
        }
        let until = now + away;
        // Whoever asked before that for longer still has it: only a login makes it void.
        let longest = ledger.sent_away.map(|(at, away)| at + away);
        if longest.is_none_or(|longest| longest <= until) {
            ledger.sent_away = Some((now, away));
        }
        ledger.not_before = Some((now, until));
    }

    /// Until when the product may stay away, since it was asked to.
    pub fn away_until(&self) -> Option<Instant> {
        let (at, away) = self.ledger().sent_away?;
        Some(at + away + away / 5)
    }

    /// The product has come. Tells whether it comes so often that only a wait of the gateway's ends that.
    pub(super) fn arrived(&self) -> bool {
        let mut ledger = self.ledger();
        let now = Instant::now();
        ledger.arrivals.push_back(now);
        while ledger.arrivals.front().is_some_and(|at| *at + STORM < now) {
            ledger.arrivals.pop_front();
        }
        let comes = ledger.arrivals.len();
        if comes > MAX_ARRIVALS {
            let what = format!("{comes} connections in a second");
            ledger.breach("gateway", "5 (storms)", &what);
        }
        ledger.comes_too_early(now);
        comes > MAX_ARRIVALS
    }

    /// The product logs in: not while it is paused.
    pub(super) fn logs_in(&self, session: u64) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        let facts = ledger.gateway.facts(session);
        let is_there = facts.is_some_and(|facts| facts.client_closed.is_none());
        // A process that ends may have something left to deliver.
        let rests = ledger.rests_since.is_some() && ledger.ending_since.is_none();
        if is_there && rests && ledger.paused_until.is_some_and(|until| now < until) {
            ledger.breach(
                &format!("session {session}"),
                "16 (pause)",
                "a login in a pause",
            );
        }
    }

    /// The product has read a PING.
    pub(super) fn ping_was_read(&self, session: u64, now: Instant) {
        let mut ledger = self.ledger();
        let written = ledger.gateway.facts(session).map(|facts| facts.written_up);
        if let Some(session) = ledger.sessions.get_mut(&session) {
            session.pings.push(Ping {
                read: now,
                written: written.unwrap_or_default(),
                largest: 0,
            });
        }
    }

    /// The gateway has read a frame of so many bytes, which was begun then and ends at this place of what the product has
    /// written.
    pub(super) fn frame_seen(
        &self,
        session: u64,
        kind: &str,
        (begun, place): (Instant, u64),
        bytes: u64,
    ) {
        let mut ledger = self.ledger();
        let Some(state) = ledger.sessions.get_mut(&session) else {
            return;
        };
        if matches!(kind, "HEARTBEAT" | "MODEL_LIST") {
            state.unfenced.clear();
        }
        if kind != "PONG" {
            for ping in &mut state.pings {
                // What is read in one piece is dealt with in order: what lay before the PING may be answered before it.
                if begun == ping.read {
                    ping.written = ping.written.max(place);
                } else {
                    ping.largest = ping.largest.max(bytes);
                }
            }
            return;
        }
        let ahead = state
            .pings
            .drain(..)
            .map(|ping| place.saturating_sub(ping.written + ping.largest))
            .max();
        if let Some(ahead) = ahead.filter(|ahead| *ahead > MAX_AHEAD) {
            let what = format!("{ahead} bytes went ahead of a PONG");
            ledger.breach(&format!("session {session}"), "4 (pongs)", &what);
        }
    }

    /// A response has come that the gateway will not acknowledge by itself. Whatever proves that it was read once is proof
    /// enough, so that one which is sent again in the same session needs no other fence.
    pub(super) fn needs_fence(&self, session: u64, id: &str, written: Instant) {
        let mut ledger = self.ledger();
        let Some(request) = ledger.requests.get(id) else {
            return;
        };
        if !request.cancels.is_empty() {
            return;
        }
        // Its age counts from its making. What is asked for once more is made anew, but not before this.
        let made = request.last_read_before(written).unwrap_or(written);
        let expires = made + ledger.limits.result_ttl;
        if let Some(session) = ledger.sessions.get_mut(&session)
            && session.brought.insert(id.to_owned())
        {
            session.unfenced.push(Unfenced { written, expires });
        }
    }

    /// A poisoned answer ends a session, which was begun to be written then. `is_spoiled`: the product may end it for what
    /// it has read there.
    pub(super) fn dies_of(&self, session: u64, id: &str, written: Instant, is_spoiled: bool) {
        let mut ledger = self.ledger();
        ledger.count("sessions ended by poison");
        // Its end is known to the product only once it has travelled.
        let known = Instant::now() + ledger.gateway.latency();
        let is_suspect = written + SUSPICIOUS > known && !is_spoiled;
        let ups = ledger.sessions.range(..session).rev();
        let before = ups
            .filter(|(_, session)| session.up.is_some())
            .map(|(number, _)| *number)
            .next();
        if let Some(request) = ledger.requests.get_mut(id) {
            let is_next = before.is_some_and(|before| {
                request
                    .victims
                    .last()
                    .is_some_and(|(last, _)| *last == before)
            });
            if !is_next || !is_suspect {
                request.victims.clear();
            }
            if is_suspect {
                request.victims.push((session, written));
            }
        }
        // One of which the product never saw the end, or only when the answer was no longer suspicious, has not ended of
        // anything for it; nor has one that it may have ended itself, since a drain could take no longer.
        let was_seen = |(session, written): &&(u64, Instant)| {
            let facts = ledger.gateway.facts(*session);
            facts.is_some_and(|facts| {
                let ended_of_it = |closed: Instant| {
                    closed < *written + SUSPICIOUS && !ledger.was_cut_short(closed)
                };
                facts.deaf.is_none() && facts.client_closed.is_none_or(ended_of_it)
            })
        };
        let request = ledger.requests.get(id);
        let victims = request.map_or(0, |request| {
            request.victims.iter().rev().take_while(was_seen).count()
        });
        // Whatever it says it has read is not the product's to suspect.
        let is_lied_about = ledger.is_lied_about(id);
        if victims > MAX_VICTIMS && !is_lied_about {
            let what = format!("{victims} sessions in a row have ended of its answer");
            ledger.breach(id, "5 (poison)", &what);
        }
    }

    /// From now on this request's answer ends the session that brings it.
    pub(super) fn poison(&self, id: &str) {
        self.ledger()
            .requests
            .entry(id.to_owned())
            .or_default()
            .poisoned = true;
    }

    pub(super) fn is_poisoned(&self, id: &str) -> bool {
        let ledger = self.ledger();
        let poisoned = ledger
            .requests
            .get(id)
            .is_some_and(|request| request.poisoned);
        poisoned && !ledger.cured
    }

    pub(super) fn any_poison(&self) -> bool {
        let ledger = self.ledger();
        !ledger.cured && ledger.requests.values().any(|request| request.poisoned)
    }

    /// From now on no answer is poison.
    pub fn cure(&self) {
        self.ledger().cured = true;
    }

    /// When a request was last made.
    pub(super) fn last_made(&self, id: &str) -> Option<Instant> {
        let ledger = self.ledger();
        Some(ledger.requests.get(id)?.made.last()?.sent)
    }

    /// What a request is, and whether it streams.
    pub(super) fn kind_of(&self, id: &str) -> Option<(Class, bool)> {
        let ledger = self.ledger();
        let request = ledger.requests.get(id)?;
        Some((request.class.unwrap_or(Class::Chat), request.stream))
    }

    /// Whether a request matches.
    pub(super) fn is(&self, id: &str, matches: impl Fn(&Request) -> bool) -> bool {
        self.ledger().requests.get(id).is_some_and(matches)
    }

    /// Which of these have not been begun at the model server.
    pub fn not_begun(&self, ids: &[String]) -> Vec<String> {
        let is_begun = |id: &String| self.is(id, |request| !request.chats.is_empty());
        ids.iter().filter(|id| !is_begun(id)).cloned().collect()
    }

    /// Whether nothing is open at the model server.
    pub fn is_idle(&self) -> bool {
        self.ledger().slots_taken(Instant::now()) == 0
    }

    /// The ids that match, in order.
    pub(super) fn ids(&self, matches: impl Fn(&Request) -> bool) -> Vec<String> {
        let ledger = self.ledger();
        let matching = ledger
            .requests
            .iter()
            .filter(|(_, request)| matches(request));
        matching.map(|(id, _)| id.clone()).collect()
    }

    /// The model server was asked for a chat that begins with this word. Gives how often it was asked for the same request
    /// before.
    pub(super) fn chat_opened(&self, word: &str, opened: Opened) -> u64 {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.count("answers asked of a model server");
        let prompt = interviews::prompt(word);
        let id = prompt.map_or(word, |(key, _)| key);
        // One that was given up while its request was under way is not open.
        let own = ledger.ollama.facts(opened.connection);
        let own = own.is_some_and(|facts| facts.client_closed.is_none());
        match prompt {
            _ if !own => {}
            Some((_, place)) => ledger.check_prompt(id, place, &opened, now),
            None => ledger.check_second_generation(id, now),
        }
        ledger.live.insert(id.to_owned());
        let request = ledger.requests.entry(id.to_owned()).or_default();
        // What this makes is another answer.
        request.victims.clear();
        request.chats.push(Chat {
            connection: opened.connection,
            opened: now,
            read: None,
            written: None,
            said: Said::default(),
            hangs: None,
            failed: false,
        });
        if let (Some((_, place)), Some(interview)) = (prompt, &mut request.interview) {
            interview.asked.push(Asked::new(place));
        }
        let ask = request.chats.len() as u64 - 1;
        let taken = ledger.slots_taken(now);
        if taken > ledger.limits.capacity {
            let what = format!("{taken} chats and interviews run at once");
            ledger.breach(id, "3 (capacity)", &what);
        }
        if own && prompt.is_none() {
            ledger.check_precedence(id, now);
        }
        ask
    }

    /// The model server has said this in a chat.
    pub(super) fn chat_said(&self, word: &str, ask: u64, kind: Kind, token: &str) {
        self.with_chat(word, ask, |chat| chat.said.add(kind, token));
        self.with_asked(word, ask, |asked| {
            if kind == Kind::Content {
                asked.text.push_str(token);
            }
            asked.tokens += 1;
        });
    }

    /// The product has read the first of that.
    pub(super) fn first_read(&self, word: &str, ask: u64, now: Instant) {
        self.with_asked(word, ask, |asked| asked.first = Some(now));
    }

    /// The model server has made a chat fail.
    pub(super) fn chat_failed(&self, id: &str, ask: u64) {
        self.with_chat(id, ask, |chat| chat.failed = true);
        self.with_asked(id, ask, |asked| asked.ended = Some(Instant::now()));
        self.count("answers that a model server failed");
    }

    /// The model server says nothing more in a chat, though it does not end it.
    pub(super) fn chat_hangs(&self, id: &str, ask: u64) {
        let now = Instant::now();
        self.with_chat(id, ask, |chat| chat.hangs = Some(now));
    }

    /// The model server has written a chat's last line.
    pub(super) fn chat_written(&self, id: &str, ask: u64) {
        let now = Instant::now();
        self.with_chat(id, ask, |chat| chat.written = Some(now));
    }

    /// The product has read a chat's last line.
    pub(super) fn chat_read(&self, id: &str, ask: u64, now: Instant) {
        self.with_chat(id, ask, |chat| chat.read = Some(now));
    }

    fn with_asked(&self, word: &str, ask: u64, change: impl FnOnce(&mut Asked)) {
        let Some((key, _)) = interviews::prompt(word) else {
            return;
        };
        let mut ledger = self.ledger();
        let request = ledger.requests.get_mut(key);
        let interview = request.and_then(|request| request.interview.as_mut());
        let ask = usize::try_from(ask).ok();
        if let Some(asked) = interview.and_then(|it| it.asked.get_mut(ask?)) {
            change(asked);
        }
    }

    fn with_chat(&self, word: &str, ask: u64, change: impl FnOnce(&mut Chat)) {
        let id = interviews::prompt(word).map_or(word, |(key, _)| key);
        let mut ledger = self.ledger();
        let request = ledger.requests.get_mut(id);
        if let Some(chat) =
            request.and_then(|request| request.chats.get_mut(usize::try_from(ask).ok()?))
        {
            change(chat);
        }
    }

    /// The gateway has read a chunk, a response or an error.
    pub(super) fn seen(&self, seen: &Seen<'_>) {
        let mut ledger = self.ledger();
        let Some(mut request) = ledger.requests.remove(seen.id) else {
            ledger.breach(seen.id, "1 (answers)", "an answer to what nobody asked for");
            return;
        };
        if request.class == Some(Class::BadId) {
            ledger.breach(seen.id, "11 (refusals)", "an answer to what has no id");
        }
        ledger.check_silence(&request, seen);
        match seen.kind {
            "INFERENCE_CHUNK" => ledger.chunk(&mut request, seen),
            "INTERVIEW_RESULT" => ledger.result(&mut request, seen),
            _ => ledger.terminal(&mut request, seen),
        }
        ledger.requests.insert(seen.id.to_owned(), request);
    }
}

impl Told {
    fn now(session: u64) -> Self {
        Self {
            session,
            sent: Instant::now(),
            read: None,
            place: Place::Unknown,
        }
    }
}
