//! A model gateway: speaks the protocol over the wire, in as many moods as real ones have, and enters what it sees in
//! the books. What it does by itself follows from its fate; everything else it is told to do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

use super::{
    books::{Books, Class},
    fate::Fate,
    ollama::MODEL,
    pipe::Mark,
    trace::Trace,
    visit,
    wire::{End, Link},
};
use crate::journal::lock;

/// Unix time at which every simulation begins.
pub const EPOCH: u64 = 1_704_499_200;

/// What it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Heartbeats, lists of models and answers.
    All,
    /// Heartbeats and lists of models.
    Heartbeats,
    /// Nothing; only its socket answers Pings.
    Nothing,
}

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Manners {
    /// What it acknowledges.
    pub acks: Acks,
    /// The longest time before an answer is acknowledged, in milliseconds.
    pub ack_millis: u64,
    /// Whether it says everything twice that it acknowledges.
    pub doubles: bool,
    /// Whether it acknowledges what was never sent.
    pub strays: bool,
    /// How often it sends PING.
    pub ping_every: Option<Duration>,
    /// How many of a hundred unanswered requests it makes again after a login.
    pub repeats: u64,
    /// How it meets agents.
    pub door: Door,
}

/// How it meets agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// They may log in.
    Open,
    /// They are refused.
    Refused,
    /// They may log in and are closed on after so many milliseconds.
    Slammed(u64),
    /// The upgrade is answered with 503 and so many seconds of `Retry-After`.
    Unavailable(u64),
}

/// A frame that means nothing, or nothing good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// Text that is no JSON.
    NotJson,
    /// JSON of a thousand levels.
    Nested,
    /// A binary message.
    Binary,
    /// A type that nobody has heard of.
    UnknownType,
    /// A text of so many bytes.
    Large(usize),
    /// A text that is not UTF-8.
    NotUtf8,
    /// A request without an id.
    NoId,
    /// An ERROR.
    Error,
}

/// Something to be sent.
pub(super) enum Order {
    /// A frame, and what to do once it was read.
    Frame(String, Option<Mark>),
    /// One of these.
    Garbage(Garbage),
    /// A Close with this reason.
    Close(&'static str),
    /// The connection's end, without a word.
    Break,
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) books: Books,
    pub(super) trace: Trace,
    /// The one agent that may log in, and its secret.
    pub(super) agent: (String, String),
    pub(super) began: Instant,
    reads: Mutex<bool>,
    /// Told when it reads again. A `watch` would wake its readers in an order that no seed decides.
    reads_again: Notify,
    state: Mutex<State>,
}

struct State {
    fate: Fate,
    manners: Manners,
    session: Option<(u64, mpsc::UnboundedSender<Order>)>,
    /// The last session that was sent what may not be read. What comes behind that is thrown away.
    spoiled: Option<u64>,
    made: u64,
    /// What each request says, so that it can be said again.
    payloads: BTreeMap<String, String>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            ack_millis: 0,
            doubles: false,
            strays: false,
            ping_every: None,
            repeats: 50,
            door: Door::Open,
        }
    }
}

impl Gateway {
    /// Serves what arrives.
    pub fn start(
        agent: (String, String),
        link: Link,
        mut arrivals: mpsc::UnboundedReceiver<End>,
        books: Books,
        trace: Trace,
        fate: Fate,
        manners: Manners,
    ) -> Self {
        let gateway = Self {
            shared: Arc::new(Shared {
                link,
                books,
                trace,
                agent,
                began: Instant::now(),
                reads: Mutex::new(true),
                reads_again: Notify::new(),
                state: Mutex::new(State {
                    fate,
                    manners,
                    session: None,
                    spoiled: None,
                    made: 0,
                    payloads: BTreeMap::new(),
                }),
            }),
        };
        let server = gateway.clone();
        tokio::spawn(async move {
            while let Some(end) = arrivals.recv().await {
                tokio::spawn(visit::serve(server.clone(), end));
            }
        });
        let server = gateway.clone();
        tokio::spawn(async move { server.keep_pinging().await });
        gateway
    }

    /// Changes how it behaves.
    pub fn behave(&self, change: impl FnOnce(&mut Manners)) {
        let mut state = lock(&self.shared.state);
        let was_open = state.manners.door == Door::Open;
        change(&mut state.manners);
        let is_open = state.manners.door == Door::Open;
        let manners = state.manners.clone();
        drop(state);
        self.shared.trace.say(format_args!("gateway: {manners:?}"));
        if was_open != is_open {
            self.shared.books.set_open(is_open);
        }
    }

    /// Stops reading, or reads again.
    pub fn read(&self, reads: bool) {
        self.shared
            .trace
            .say(format_args!("gateway: reads={reads}"));
        *lock(&self.shared.reads) = reads;
        self.shared.reads_again.notify_waiters();
        self.shared.books.set_open(reads);
    }

    /// Makes a request, if anybody is there.
    pub fn ask(&self, class: Class, stream: bool) {
        let mut state = lock(&self.shared.state);
        state.made += 1;
        let number = state.made;
        let id = match class {
            Class::BadId if number.is_multiple_of(2) => String::new(),
            Class::BadId => "x".repeat(257 + usize::try_from(number).unwrap_or_default()),
            _ => format!("r{number}"),
        };
        let payload = payload(&id, class, stream, &mut state.fate);
        state.payloads.insert(id.clone(), payload);
        drop(state);
        self.make(&id, class, stream);
    }

    /// Makes a request again.
    pub fn repeat(&self) {
        let known = self
            .shared
            .books
            .ids(|request| request.class != Some(Class::BadId));
        if let Some(id) = self.choose(&known) {
            self.repeat_of(&id);
        }
    }

    fn repeat_of(&self, id: &str) {
        let (class, stream) = {
            let ledger = self.shared.books.ledger();
            let Some(request) = ledger.requests.get(id) else {
                return;
            };
            (request.class.unwrap_or(Class::Chat), request.stream)
        };
        self.make(id, class, stream);
    }

    fn make(&self, id: &str, class: Class, stream: bool) {
        let Some((session, orders)) = self.session() else {
            return;
        };
        let Some(payload) = lock(&self.shared.state).payloads.get(id).cloned() else {
            return;
        };
        let place = self.shared.books.made(id, class, stream, session);
        let shown: String = id.chars().take(12).collect();
        self.shared.trace.say(format_args!(
            "gateway > INFERENCE_REQUEST {shown} {class:?} stream={stream}"
        ));
        let text =
            format!(r#"{{"type":"INFERENCE_REQUEST","request_id":"{id}","payload":{payload}}}"#);
        let (books, read, trace) = (
            self.shared.books.clone(),
            id.to_owned(),
            self.shared.trace.clone(),
        );
        let mark = self.mark(session, move |now| {
            trace.say(format_args!("sidecar has read request {shown}"));
            books.was_read(&read, place, now);
        });
        // A session that is just ending takes nothing more, as a connection does.
        let _ = orders.send(Order::Frame(text, mark));
    }

    /// What is done once a frame of this session has been read, if it will be.
    fn mark(&self, session: u64, act: impl FnOnce(Instant) + Send + 'static) -> Option<Mark> {
        let spoiled = lock(&self.shared.state).spoiled == Some(session);
        (!spoiled).then(|| Box::new(act) as Mark)
    }

    /// Cancels something: an unanswered request, any request, or one that never was.
    pub fn cancel(&self, unanswered: bool, unknown: bool) {
        let Some((session, orders)) = self.session() else {
            return;
        };
        let known = self.shared.books.ids(|request| {
            request.class != Some(Class::BadId) && (!unanswered || request.is_unanswered())
        });
        let id = if unknown {
            "never-made".to_owned()
        } else {
            let Some(id) = self.choose(&known) else {
                return;
            };
            id
        };
        self.shared
            .trace
            .say(format_args!("gateway > CANCEL_REQUEST {id}"));
        let text = json!({"type": "CANCEL_REQUEST", "request_id": id}).to_string();
        let place = self.shared.books.cancelled(&id, session);
        let (books, trace) = (self.shared.books.clone(), self.shared.trace.clone());
        let mark = self.mark(session, move |now| {
            trace.say(format_args!("sidecar has read cancel {id}"));
            if let Some(place) = place {
                books.cancel_was_read(&id, place, now);
            }
        });
        let _ = orders.send(Order::Frame(text, mark));
    }

    /// Makes the answer of an unanswered request end every session that brings it.
    pub fn poison(&self) {
        let unanswered = self.shared.books.ids(Self::may_be_poisoned);
        if let Some(id) = self.choose(&unanswered) {
            self.shared
                .trace
                .say(format_args!("gateway: {id} is poison"));
            self.shared.books.poison(&id);
        }
    }

    fn may_be_poisoned(request: &super::ledger::Request) -> bool {
        request.class == Some(Class::Chat) && request.is_unanswered()
    }

    /// Sends garbage.
    pub fn send(&self, garbage: Garbage) {
        self.shared.trace.say(format_args!("gateway > {garbage:?}"));
        if matches!(garbage, Garbage::Large(_) | Garbage::NotUtf8) {
            let mut state = lock(&self.shared.state);
            state.spoiled = state.session.as_ref().map(|(number, _)| *number);
        }
        self.order(Order::Garbage(garbage));
    }

    /// Closes the session, with a reason or without.
    pub fn close(&self, reason: &'static str) {
        self.shared
            .trace
            .say(format_args!("gateway: closes, `{reason}`"));
        self.order(Order::Close(reason));
    }

    /// Asks to stay away for so many seconds, and closes.
    pub fn send_away(&self, seconds: u64) {
        self.shared
            .trace
            .say(format_args!("gateway: stay away for {seconds} s"));
        let frame = json!({"type": "INTERVIEW_FAILED", "reason": "too slow", "retry_after_seconds": seconds});
        let Some((session, _)) = self.session() else {
            return;
        };
        let (books, away) = (self.shared.books.clone(), Duration::from_secs(seconds));
        let mark = self.mark(session, move |now| books.was_sent_away(now, away));
        self.order(Order::Frame(frame.to_string(), mark));
        self.order(Order::Close(""));
    }

    /// Breaks the session off, as a process does that dies.
    pub fn crash(&self) {
        self.shared.trace.say(format_args!("gateway: crashes"));
        self.order(Order::Break);
    }

    /// Whether somebody is logged in.
    pub fn has_session(&self) -> bool {
        self.session().is_some()
    }

    /// Whether it reads, lets agents in and has nothing that it would die of.
    pub fn is_well(&self) -> bool {
        let has_poison = self.shared.books.any_poison();
        *lock(&self.shared.reads) && self.manners().door == Door::Open && !has_poison
    }

    /// Waits while it does not read.
    pub(super) async fn reading(&self) {
        loop {
            let mut again = std::pin::pin!(self.shared.reads_again.notified());
            again.as_mut().enable();
            if *lock(&self.shared.reads) {
                return;
            }
            again.await;
        }
    }

    pub(super) fn manners(&self) -> Manners {
        lock(&self.shared.state).manners.clone()
    }

    /// A number of the gateway's own fate.
    pub(super) fn millis(&self, most: u64) -> Duration {
        lock(&self.shared.state).fate.millis(0..=most)
    }

    pub(super) fn came_up(&self, number: u64, orders: mpsc::UnboundedSender<Order>) {
        lock(&self.shared.state).session = Some((number, orders));
        self.shared.books.count("sessions");
        let repeats = self.manners().repeats;
        let unanswered = self
            .shared
            .books
            .ids(|request| request.is_unanswered() && request.class != Some(Class::BadId));
        for id in unanswered {
            if lock(&self.shared.state).fate.percent(repeats) {
                self.shared.books.count("requests made again after a login");
                self.repeat_of(&id);
            }
        }
    }

    pub(super) fn went_down(&self, number: u64) {
        let mut state = lock(&self.shared.state);
        if state
            .session
            .as_ref()
            .is_some_and(|(current, _)| *current == number)
        {
            state.session = None;
        }
    }

    async fn keep_pinging(&self) {
        loop {
            let every = self.manners().ping_every;
            sleep(every.unwrap_or(Duration::from_secs(5))).await;
            let (Some(_), Some((number, _))) = (every, self.session()) else {
                continue;
            };
            let books = self.shared.books.clone();
            let trace = self.shared.trace.clone();
            let mark = move |now| {
                trace.say(format_args!("sidecar has read PING"));
                books.ping_was_read(number, now);
            };
            self.order(Order::Frame(
                r#"{"type":"PING"}"#.to_owned(),
                Some(Box::new(mark)),
            ));
        }
    }

    fn order(&self, order: Order) {
        if let Some((_, orders)) = self.session() {
            let _ = orders.send(order);
        }
    }

    fn session(&self) -> Option<(u64, mpsc::UnboundedSender<Order>)> {
        lock(&self.shared.state).session.clone()
    }

    fn choose(&self, ids: &[String]) -> Option<String> {
        let at = lock(&self.shared.state).fate.index(ids.len())?;
        ids.get(at).cloned()
    }
}

fn payload(id: &str, class: Class, stream: bool, fate: &mut Fate) -> String {
    let message = json!([{"role": "user", "content": format!("{id} tell me")}]);
    let model = if class == Class::UnknownModel {
        "nobody:7b"
    } else {
        MODEL
    };
    let whole: Value = json!({"model": model, "messages": message, "stream": stream});
    if class != Class::Invalid {
        return whole.to_string();
    }
    match fate.within(0..=4) {
        0 => r#"{"messages":[{"role":"user","content":"x"}]}"#.to_owned(),
        1 => format!(r#"{{"model":"{MODEL}"}}"#),
        2 => format!(r#"{{"model":"{MODEL}","messages":[]}}"#),
        3 => format!(r#"{{"model":"{MODEL}","messages":{message},"model":"{MODEL}"}}"#),
        _ => format!(r#"{{"model":"{MODEL}","messages":"hello"}}"#),
    }
}
