//! A model gateway: speaks the protocol over the wire, in as many moods as real ones have, and enters what it sees in
//! the books. What it does by itself follows from its fate; everything else it is told to do.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    interviews::{is_key, key, wire_id},
    manners::{Door, Farewell, Garbage, Manners, asked_in_json},
    model_server::{MODEL, VOICE},
    network::Standing,
    pipe::Mark,
    said::TOOL,
    trace::Trace,
    visit,
    wire::{End, Link},
};
use crate::journal::lock;

/// Unix time at which every simulation begins.
pub const EPOCH: u64 = 1_704_499_200;

/// A client id that begins so is of generation 1, which registers no node.
const GENERATION_1: &str = "pin_";

/// So many of a hundred chats come with tools.
const TOOLS: u64 = 40;

/// Something to be sent.
pub(super) enum Order {
    /// A frame, and what to do once it was read.
    Frame(String, Option<Mark>),
    /// One of these.
    Garbage(Garbage),
    /// A cancel, as a frame is, of this id, and its place among the cancels of that.
    Cancel(String, Option<Mark>, (String, Option<usize>)),
    /// A request that goes out behind the agent's Close, which a library would not let pass.
    Slip(String, Option<Mark>),
    /// This Close.
    Close(Farewell),
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
    /// What the network knows of the agent's node.
    pub(super) standing: Mutex<Standing>,
}

struct State {
    fate: Fate,
    /// That of its mischief.
    whims: Fate,
    /// How often it has made answered requests again in this session's drain.
    last_repeats: u64,
    /// How often it has asked what is refused behind cancels.
    probes: u64,
    /// The sessions that it has left and throws away what comes of: a slow one may outlast the next.
    deaf_to: BTreeSet<u64>,
    manners: Manners,
    session: Option<(u64, mpsc::UnboundedSender<Order>)>,
    /// The last session that was sent what may not be read. What comes behind that is thrown away.
    spoiled: Option<u64>,
    /// The last session that was accepted only to be closed a moment later, whatever becomes of the door meanwhile.
    slammed: Option<u64>,
    made: u64,
    /// What each request says, so that it can be said again.
    payloads: BTreeMap<String, String>,
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
                standing: Mutex::new(Standing::new(fate.fork("network"))),
                state: Mutex::new(State {
                    whims: fate.fork("whims"),
                    last_repeats: 0,
                    probes: 0,
                    deaf_to: BTreeSet::new(),
                    fate,
                    manners,
                    session: None,
                    spoiled: None,
                    slammed: None,
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
        let server = gateway.clone();
        tokio::spawn(async move { server.keep_probing().await });
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
        if !self.is_chosen() {
            return;
        }
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

    /// Makes so many chats at once. Gives their ids.
    pub fn ask_at_once(&self, chats: usize) -> Vec<String> {
        let ask = |_| {
            self.ask_for(Class::Chat, false, |id| {
                let message = json!([{"role": "user", "content": format!("{id} now")}]);
                json!({"model": MODEL, "messages": message}).to_string()
            })
        };
        (0..chats).map(ask).collect()
    }

    /// Makes a request with this payload, if anybody is there. Gives its id.
    pub(super) fn ask_for(
        &self,
        class: Class,
        stream: bool,
        payload: impl FnOnce(&str) -> String,
    ) -> String {
        let id = {
            let mut state = lock(&self.shared.state);
            state.made += 1;
            format!("r{}", state.made)
        };
        self.say_again(&id, &payload(&id));
        self.make(&id, class, stream);
        id
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

    pub(super) fn repeat_of(&self, id: &str) {
        if let Some((class, stream)) = self.shared.books.kind_of(id) {
            self.make(id, class, stream);
        }
    }

    /// Makes a request again behind the agent's Close.
    pub(super) fn slip(&self, id: &str) {
        if let Some((class, stream)) = self.shared.books.kind_of(id) {
            self.make_as(id, class, stream, Order::Slip);
        }
    }

    pub(super) fn make(&self, id: &str, class: Class, stream: bool) {
        self.make_as(id, class, stream, Order::Frame);
    }

    fn make_as(
        &self,
        id: &str,
        class: Class,
        stream: bool,
        order: fn(String, Option<Mark>) -> Order,
    ) {
        let Some((session, orders)) = self.session() else {
            return;
        };
        let Some(payload) = lock(&self.shared.state).payloads.get(id).cloned() else {
            return;
        };
        let place = self.shared.books.made(id, class, stream, session);
        let shown: String = id.chars().take(12).collect();
        let text = if is_key(id) {
            let shown: String = id.chars().take(24).collect();
            self.shared
                .trace
                .say(format_args!("gateway > INTERVIEW_REQUEST {shown}"));
            payload
        } else {
            let kind = if class.is_speech() {
                "TTS_REQUEST"
            } else {
                "INFERENCE_REQUEST"
            };
            self.shared.trace.say(format_args!(
                "gateway > {kind} {shown} {class:?} stream={stream}"
            ));
            self.lose_patience_with(id);
            format!(r#"{{"type":"{kind}","request_id":"{id}","payload":{payload}}}"#)
        };
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
        let _ = orders.send(order(text, mark));
    }

    /// What a request says, for whoever makes it.
    pub(super) fn say_again(&self, id: &str, payload: &str) {
        let payloads = &mut lock(&self.shared.state).payloads;
        payloads.insert(id.to_owned(), payload.to_owned());
    }

    /// What is done once a frame of this session has been read, if it will be.
    fn mark(&self, session: u64, act: impl FnOnce(Instant) + Send + 'static) -> Option<Mark> {
        let spoiled = self.has_spoiled(session);
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
        self.cancel_on(session, &orders, &id);
    }

    pub(super) fn cancel_on(&self, session: u64, orders: &mpsc::UnboundedSender<Order>, id: &str) {
        let (id, shown) = (id.to_owned(), id.to_owned());
        self.shared
            .trace
            .say(format_args!("gateway > CANCEL_REQUEST {id}"));
        let name = wire_id(&id);
        let text = json!({"type": "CANCEL_REQUEST", "request_id": name}).to_string();
        let place = self.shared.books.cancelled(&id, session);
        // A cancel does not say whether it means the chat or the interview of that id: it means both.
        let twin = if is_key(&id) {
            name.to_owned()
        } else {
            key(name)
        };
        let twins_place = self.shared.books.cancelled(&twin, session);
        let (books, trace) = (self.shared.books.clone(), self.shared.trace.clone());
        let mark = self.mark(session, move |now| {
            trace.say(format_args!("sidecar has read cancel {id}"));
            for (id, place) in [(&id, place), (&twin, twins_place)] {
                if let Some(place) = place {
                    books.cancel_was_read(id, place, now);
                }
            }
        });
        let _ = orders.send(Order::Cancel(text, mark, (shown, place)));
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
        request.is_job() && request.is_unanswered()
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

    /// Closes the session.
    pub fn close(&self, farewell: Farewell) {
        self.shared
            .trace
            .say(format_args!("gateway: closes, {farewell:?}"));
        self.order(Order::Close(farewell));
    }

    /// Asks to stay away for so many seconds, in words of JSON, and closes.
    pub fn send_away(&self, words: &str, farewell: Farewell) {
        self.shared
            .trace
            .say(format_args!("gateway: stay away for {words} s"));
        let frame = format!(
            r#"{{"type":"INTERVIEW_FAILED","reason":"too slow","retry_after_seconds":{words}}}"#
        );
        let Some((session, _)) = self.session() else {
            return;
        };
        // Behind its answer to the product's Close nobody hears it.
        if self.shared.books.has_closed(session) {
            return;
        }
        let asked = asked_in_json(words);
        let books = self.shared.books.clone();
        let mark = self.mark(session, move |now| match asked {
            Some(away) => books.was_sent_away(now, away),
            None => books.count("asked to stay away for what is no time"),
        });
        self.order(Order::Frame(frame, mark));
        self.order(Order::Close(farewell));
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

    /// Whether it reads, lets agents in, lets them drain, acknowledges in time for that and has nothing that it would die of.
    pub fn is_well(&self) -> bool {
        /// How long a drain waits for proof of what was sent last, in milliseconds (delivery rules, "Drain").
        const PROOF_WAIT: u64 = 2_000;
        let has_poison = self.shared.books.any_poison();
        let manners = self.manners();
        let is_open = manners.door == Door::Open && manners.crosses.is_none();
        let in_time = manners.late_millis < PROOF_WAIT;
        let stays = {
            let state = lock(&self.shared.state);
            state.slammed.is_none()
                || state.slammed != state.session.as_ref().map(|(number, _)| *number)
        };
        *lock(&self.shared.reads) && is_open && stays && in_time && !has_poison
    }

    /// Whether it wants nothing more of an agent that has nothing left to do.
    pub fn lets_go(&self) -> bool {
        !self.manners().last_repeats
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

    /// It has said Close on a session, perhaps without listening any more.
    pub(super) fn has_left(&self, number: u64, farewell: Farewell) {
        let books = self.shared.books.clone();
        books.leaves(number, farewell);
        if farewell.is_deaf {
            lock(&self.shared.state).deaf_to.insert(number);
        }
        let mark = move |_| books.leaving_was_read(number);
        self.shared.link.when_read(number, mark);
    }

    /// Whether it throws away what it reads on this session.
    pub(super) fn is_deaf_to(&self, number: u64) -> bool {
        lock(&self.shared.state).deaf_to.contains(&number)
    }

    /// This session is going to be closed soon.
    pub(super) fn slams(&self, number: u64) {
        lock(&self.shared.state).slammed = Some(number);
    }

    /// Whether it has sent what may not be read on this session.
    pub(super) fn has_spoiled(&self, number: u64) -> bool {
        lock(&self.shared.state).spoiled == Some(number)
    }

    /// True in so many of a hundred cases of mischief.
    pub(super) fn whim(&self, percent: u64) -> bool {
        percent > 0 && lock(&self.shared.state).whims.percent(percent)
    }

    /// A number below this one.
    pub(super) fn whim_number(&self, below: u64) -> u64 {
        lock(&self.shared.state).whims.number() % below.max(1)
    }

    /// A time of this at most.
    pub(super) fn whim_within(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        lock(&self.shared.state).whims.millis(0..=most)
    }

    /// One of these.
    pub(super) fn whim_of(&self, ids: &[String]) -> Option<String> {
        let at = lock(&self.shared.state).whims.index(ids.len())?;
        ids.get(at).cloned()
    }

    pub(super) fn next_probe(&self) -> u64 {
        let mut state = lock(&self.shared.state);
        state.probes += 1;
        state.probes
    }

    /// Whether it has made requests again less often than this in this session's drain. Counts.
    pub(super) fn may_repeat(&self, most: u64) -> bool {
        let mut state = lock(&self.shared.state);
        state.last_repeats += 1;
        state.last_repeats <= most
    }

    pub(super) fn came_up(&self, number: u64, orders: mpsc::UnboundedSender<Order>) {
        {
            let mut state = lock(&self.shared.state);
            state.session = Some((number, orders));
            state.last_repeats = 0;
        }
        self.shared.books.count("sessions");
        let repeats = self.manners().repeats;
        let unanswered = self
            .shared
            .books
            .ids(|request| request.is_unanswered() && request.class != Some(Class::BadId));
        if self.shared.agent.0.starts_with(GENERATION_1) {
            self.interview_newcomer();
        }
        for id in unanswered {
            if self.has_given_up(&id) {
                continue;
            }
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

    pub(super) fn order(&self, order: Order) {
        if let Some((_, orders)) = self.session() {
            let _ = orders.send(order);
        }
    }

    pub(super) fn session(&self) -> Option<(u64, mpsc::UnboundedSender<Order>)> {
        lock(&self.shared.state).session.clone()
    }

    fn choose(&self, ids: &[String]) -> Option<String> {
        let at = lock(&self.shared.state).fate.index(ids.len())?;
        ids.get(at).cloned()
    }
}

fn payload(id: &str, class: Class, stream: bool, fate: &mut Fate) -> String {
    if class.is_speech() {
        return speech(id, class, fate);
    }
    let message = json!([{"role": "user", "content": format!("{id} tell me")}]);
    let model = if class == Class::UnknownModel {
        "nobody:7b"
    } else {
        MODEL
    };
    let mut whole: Value = json!({"model": model, "messages": message, "stream": stream});
    // Whether a tool is called in the answer is the model server's to say.
    if fate.fork("tools").percent(TOOLS) {
        whole["tools"] = json!([{"type": "function", "function": {"name": TOOL}}]);
    }
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

fn speech(id: &str, class: Class, fate: &mut Fate) -> String {
    let model = if class == Class::UnknownSpeech {
        "nobody"
    } else {
        VOICE
    };
    let mut whole = json!({"model": model, "input": format!("{id} say it")});
    if fate.percent(50) {
        whole["voice"] = json!("default");
        whole["response_format"] = json!("wav");
    }
    whole.to_string()
}
