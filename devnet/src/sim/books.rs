//! The books: what was asked, what was read, what was answered, on both sides of the product, and the delivery rules
//! that this must fit.
//!
//! Invariant: a breach is entered the moment it can be seen, as a sentence that names the request, the virtual time
//! and the rule. `rules.rs` has the rules that time alone can break.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

pub use super::ledger::{Class, Gauges, Limits};
use super::{
    ledger::{Answer, Chat, Ledger, Ping, Request, Stream, Told},
    wire::Link,
};
use crate::journal::lock;

/// The closed set of codes that an error's text may begin with.
const CODES: &[&str] = &[
    "busy",
    "draining",
    "queue_timeout",
    "invalid",
    "model_not_found",
    "timeout",
    "backend",
    "too_large",
    "internal",
    "duplicate",
    "orphaned",
];

/// What may go ahead of a PONG beside one large frame, in bytes: the batch that is being written when the PING is read, one
/// that is begun before it is understood, and small change.
const MAX_AHEAD: u64 = 2 * 64 * 1024 + 8 * 1024;

/// Three in a row are enough to give an answer up; others may have been blamed meanwhile.
const MAX_VICTIMS: usize = 12;

/// A product that has just started may not have seen a model yet.
const FIRST_LOOK: Duration = Duration::from_secs(10);

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
            drain: None,
            cured: false,
            open_since: Some(Instant::now()),
            busy_since: None,
            sent_away: None,
            not_before: None,
        })))
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.0)
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
            ledger.count("requests made again that ran since an earlier session");
        }
        let request = ledger.requests.entry(id.to_owned()).or_default();
        request.class.get_or_insert(class);
        request.stream = stream;
        request.made.push(Told::now(session));
        request.made.len() - 1
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
            // Perhaps it was this one's.
            session.unfenced = None;
        }
        let request = ledger.requests.get_mut(id)?;
        request.cancels.push(Told::now(session));
        request.response = None;
        Some(request.cancels.len() - 1)
    }

    /// The product has read a cancel.
    pub(super) fn cancel_was_read(&self, id: &str, place: usize, now: Instant) {
        if let Some(request) = self.ledger().requests.get_mut(id)
            && let Some(cancel) = request.cancels.get_mut(place)
        {
            cancel.read = Some(now);
        }
    }

    /// The product has read that it is to stay away for so long.
    pub(super) fn was_sent_away(&self, now: Instant, away: Duration) {
        let mut ledger = self.ledger();
        ledger.sent_away = Some((now, away));
        ledger.not_before = Some((now, now + away));
    }

    /// The product has come.
    pub(super) fn arrived(&self) {
        let mut ledger = self.ledger();
        let Some((read, until)) = ledger.not_before.take() else {
            return;
        };
        // A connection that breaks as it is read may take with it what nobody has looked at yet.
        let closed = ledger.gateway.last_closed();
        let was_understood = closed.is_some_and(|closed| closed > read);
        if was_understood && Instant::now() < until {
            ledger.breach("gateway", "5 (reconnecting)", "it was told to stay away");
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

    /// The gateway has read a frame of so many bytes, which ends at this place of what the product has written.
    pub(super) fn frame_seen(&self, session: u64, kind: &str, place: u64, bytes: u64) {
        let mut ledger = self.ledger();
        let Some(state) = ledger.sessions.get_mut(&session) else {
            return;
        };
        if matches!(kind, "HEARTBEAT" | "MODEL_LIST") {
            state.unfenced = None;
        }
        if kind != "PONG" {
            for ping in &mut state.pings {
                ping.largest = ping.largest.max(bytes);
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
        let is_cancelled = |request: &Request| !request.cancels.is_empty();
        if ledger.requests.get(id).is_some_and(is_cancelled) {
            return;
        }
        if let Some(session) = ledger.sessions.get_mut(&session)
            && session.brought.insert(id.to_owned())
        {
            session.unfenced.get_or_insert(written);
        }
    }

    /// A poisoned answer ends a session.
    pub(super) fn dies_of(&self, id: &str) {
        let mut ledger = self.ledger();
        ledger.count("sessions ended by poison");
        let victims = ledger.requests.get_mut(id).map_or(0, |request| {
            request.victims += 1;
            request.victims
        });
        if victims > MAX_VICTIMS {
            let what = format!("{victims} sessions have ended of its answer");
            ledger.breach(id, "5 (poison)", &what);
        }
    }

    /// The product has said Close on a session.
    pub(super) fn is_done(&self, session: u64, written: Instant) {
        if let Some(session) = self.ledger().sessions.get_mut(&session) {
            session.done = Some(written);
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

    /// The ids that match, in order.
    pub(super) fn ids(&self, matches: impl Fn(&Request) -> bool) -> Vec<String> {
        let ledger = self.ledger();
        let matching = ledger
            .requests
            .iter()
            .filter(|(_, request)| matches(request));
        matching.map(|(id, _)| id.clone()).collect()
    }

    /// The model server was asked for a chat. Gives how often it was asked for this id before.
    pub(super) fn chat_opened(&self, id: &str, connection: u64) -> u64 {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.count("chats at Ollama");
        let live = ledger.live.iter().filter_map(|id| ledger.requests.get(id));
        // One that was given up while its request was under way is not open.
        let own = ledger.ollama.facts(connection);
        let own = own.is_some_and(|facts| facts.client_closed.is_none());
        let open = usize::from(own)
            + live
                .flat_map(|request| &request.chats)
                .filter(|chat| ledger.is_open(chat))
                .count();
        if open > ledger.limits.capacity {
            let what = format!("{open} chats are open at once");
            ledger.breach(id, "3 (capacity)", &what);
        }
        ledger.check_second_generation(id, now);
        ledger.live.insert(id.to_owned());
        let request = ledger.requests.entry(id.to_owned()).or_default();
        request.chats.push(Chat {
            connection,
            opened: now,
            read: None,
            written: None,
            failed: false,
        });
        request.chats.len() as u64 - 1
    }

    /// The model server has made a chat fail.
    pub(super) fn chat_failed(&self, id: &str, ask: u64) {
        self.with_chat(id, ask, |chat| chat.failed = true);
        self.count("chats that Ollama failed");
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

    fn with_chat(&self, id: &str, ask: u64, change: impl FnOnce(&mut Chat)) {
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
        if seen.kind == "INFERENCE_CHUNK" {
            ledger.chunk(&mut request, seen);
        } else {
            ledger.terminal(&mut request, seen);
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
        }
    }
}

impl Ledger {
    fn check_second_generation(&mut self, id: &str, now: Instant) {
        let Some(request) = self.requests.get(id) else {
            return self.breach(id, "2 (once)", "a chat that nobody asked for");
        };
        if request.chats.iter().any(|chat| self.is_open(chat)) {
            return self.breach(id, "2 (once)", "a second generation while the first runs");
        }
        let Some(read) = request.chats.iter().filter_map(|chat| chat.read).max() else {
            return;
        };
        let failed = request.answers.iter().any(|answer| {
            answer.written >= read
                && answer
                    .code
                    .as_deref()
                    .is_some_and(|code| code != "duplicate")
        });
        let forgotten = now - read >= self.limits.result_ttl;
        if !request.cancelled_since(read) && !failed && !forgotten && !request.poisoned {
            self.breach(id, "2 (once)", "a second generation after a whole answer");
        }
    }

    fn runs_since_earlier(&self, id: &str, session: u64) -> bool {
        self.requests.get(id).is_some_and(|request| {
            request.made_on(session) == 0 && request.chats.iter().any(|chat| self.is_open(chat))
        })
    }

    fn check_silence(&mut self, request: &Request, seen: &Seen<'_>) {
        let blocked = self
            .gateway
            .facts(seen.session)
            .and_then(|facts| facts.client_blocked);
        // What stood in the socket's way when the cancel was read went out later, and could not be called back.
        let was_free = blocked.is_none_or(|blocked| {
            request
                .cancels
                .iter()
                .filter_map(|cancel| cancel.read)
                .max()
                > Some(blocked + self.limits.heartbeat_timeout)
        });
        if was_free && request.is_silenced(seen.written) {
            let what = format!("{} after the cancel was read", seen.kind);
            self.breach(seen.id, "7 (cancel)", &what);
        }
    }

    fn chunk(&mut self, request: &mut Request, seen: &Seen<'_>) {
        self.count("chunks");
        let index = seen.value["index"].as_u64().unwrap_or(u64::MAX);
        let delta = seen.value["delta"].as_str().unwrap_or_default();
        let made = request.made_on(seen.session);
        if !request.stream {
            self.breach(seen.id, "8 (streams)", "a chunk, but it does not stream");
        }
        if made == 0 {
            self.breach(
                seen.id,
                "8 (streams)",
                "a chunk on a session where it was not asked for",
            );
        }
        let due = request.terminals_due(seen.session);
        let stream = request.streams.entry(seen.session).or_default();
        if stream.terminals >= due {
            return self.breach(seen.id, "8 (streams)", "a chunk after the terminal frame");
        }
        let is_new =
            stream.next == 0 || stream.runs < made || stream.terminals > stream.terminals_before;
        if index == 0 && is_new {
            *stream = Stream {
                runs: stream.runs + 1,
                made,
                terminals: stream.terminals,
                terminals_before: stream.terminals,
                ..Stream::default()
            };
        } else if index != stream.next {
            let what = format!("chunk {index} where {} is due", stream.next);
            return self.breach(seen.id, "8 (streams)", &what);
        }
        stream.next = index + 1;
        stream.text.push_str(delta);
    }

    fn terminal(&mut self, request: &mut Request, seen: &Seen<'_>) {
        let due = request.terminals_due(seen.session);
        let stream = request.streams.entry(seen.session).or_default();
        stream.terminals += 1;
        if stream.terminals > due {
            let what = format!(
                "terminal frame {} of {due} on one session",
                stream.terminals
            );
            self.breach(seen.id, "1 (answers)", &what);
        }
        let code = match seen.kind {
            "INFERENCE_ERROR" => {
                let error = seen.value["error"].as_str().unwrap_or_default();
                let code = error.split_once(": ").map_or("", |(code, _)| code);
                self.check_code(request, seen, code, error);
                Some(code.to_owned())
            }
            _ => {
                self.response(request, seen);
                None
            }
        };
        request.answers.push(Answer {
            written: seen.written,
            code,
        });
    }

    fn response(&mut self, request: &mut Request, seen: &Seen<'_>) {
        if request.class != Some(Class::Chat) {
            self.breach(seen.id, "11 (refusals)", "a response to what is no chat");
        }
        let text = if self.limits.generation == 1 {
            &seen.value["result"]["message"]["content"]
        } else {
            &seen.value["result"]["choices"][0]["message"]["content"]
        };
        let text = text.as_str().unwrap_or_default();
        let made = request.made_on(seen.session);
        let stream = request.streams.entry(seen.session).or_default();
        let is_its_own = stream.made == made && stream.terminals == stream.terminals_before + 1;
        let chunks = stream.next;
        if chunks > 0 && is_its_own && stream.text != text {
            self.breach(seen.id, "8 (streams)", "the chunks are not the response");
        }
        if chunks == 0 && request.streamed_on(seen.session, seen.written) {
            self.breach(seen.id, "8 (streams)", "no chunk came, though it streams");
        }
        if !text.starts_with(&format!("{}#", seen.id)) {
            self.breach(seen.id, "1 (answers)", "somebody else's answer");
        }
        let hash = fnv(seen.text);
        let in_transit = request
            .cancels
            .iter()
            .any(|cancel| cancel.read.is_none_or(|read| read >= seen.written));
        match request.response {
            _ if in_transit => self.count("responses that crossed a cancel"),
            None => {
                self.count("responses billed");
                request.response = Some((hash, seen.written));
            }
            Some((billed, at)) => {
                self.count("responses delivered again");
                // Whether there may be a second generation is rule 2's to say; one generation has one answer.
                let generations = request.chats.iter().filter(|chat| chat.read.is_some());
                let expired = seen.written - at >= self.limits.result_ttl;
                if billed != hash && !expired && generations.count() < 2 {
                    self.breach(
                        seen.id,
                        "1 (answers)",
                        "a second response, other than the first",
                    );
                }
            }
        }
    }

    fn check_code(&mut self, request: &Request, seen: &Seen<'_>, code: &str, error: &str) {
        if let Some(known) = CODES.iter().find(|known| **known == code) {
            self.count(known);
        }
        let failed = request.chats.iter().any(|chat| {
            chat.failed
                || self
                    .ollama
                    .facts(chat.connection)
                    .is_none_or(|facts| facts.cut.is_some())
        });
        let answered = request.chats.iter().any(|chat| chat.read.is_some());
        let fits = match code {
            "invalid" => request.class == Some(Class::Invalid),
            "model_not_found" => {
                request.class == Some(Class::UnknownModel)
                    || self.ollama.calm_since() > self.began
                    || self.began.elapsed() < FIRST_LOOK
            }
            "duplicate" => answered,
            // What it said in a drain may be read after it.
            "draining" => self.drain.is_some(),
            "backend" => failed || self.ollama.calm_since() > self.began,
            "internal" => false,
            "orphaned" => self.sessions.len() > 1,
            "busy" | "queue_timeout" | "timeout" | "too_large" => true,
            _ => return self.breach(seen.id, "11 (codes)", "a code that is none"),
        };
        if !fits {
            let what = format!("there is no reason for `{error}`");
            self.breach(seen.id, "11 (refusals)", &what);
        }
    }
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
