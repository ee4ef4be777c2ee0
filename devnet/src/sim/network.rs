//! The network behind the gateway: it interviews a node that registers, probes it, remembers how it answers, loses patience
//! with what does not come, and keeps an address from coming too often (protocol.md, "The network's own clocks and rules").
//!
//! Invariant: its own fate decides, so that a story without it is the same with it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    attempts::MINUTE,
    books::Class,
    fate::Fate,
    gateway::{Gateway, Order},
    interviews::{Interview, Sort, key, wire_id},
    manners::Farewell,
    model_server::MODEL,
};
use crate::journal::lock;

/// The edge refuses those that come more often than this within a minute.
const ARRIVALS: usize = 10;

/// A probe is to be answered within this.
const PROBE: Duration = Duration::from_secs(10);

/// Whoever sends no chunk for this long is not waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// The best reputation, which is also the first.
const BEST: u64 = 100;

/// What an answer is worth, and what a failure of whatever kind costs.
const EARNED: u64 = 2;
const LOST: u64 = 5;

/// Who has less gets only a few of the requests.
const TRUSTED: u64 = 50;
const FEW: u64 = 30;

/// What an interview names as its node, where there is none of that name.
const NOBODY: &str = "node-of-somebody-else";

/// What an interview is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// As it should be.
    Fair,
    /// The same, with the id of a chat.
    Namesake,
    /// For a node that is none.
    UnknownNode,
    /// For a model that is not there.
    UnknownModel,
    /// With something wrong.
    Odd,
    /// Without an id.
    BadId,
}

/// What the network knows of the one node.
pub(super) struct Standing {
    fate: Fate,
    interviews: u64,
    /// Its id and its alias, once it was registered.
    node: Option<(String, String)>,
    reputation: u64,
    arrivals: VecDeque<Instant>,
    /// The interviews that it has judged.
    judged: BTreeSet<String>,
    /// When the last chunk of a request came.
    heard: BTreeMap<String, Instant>,
    given_up: BTreeSet<String>,
}

impl Standing {
    pub(super) fn new(fate: Fate) -> Self {
        Self {
            fate,
            interviews: 0,
            node: None,
            reputation: BEST,
            arrivals: VecDeque::new(),
            judged: BTreeSet::new(),
            heard: BTreeMap::new(),
            given_up: BTreeSet::new(),
        }
    }
}

impl Gateway {
    fn standing<T>(&self, act: impl FnOnce(&mut Standing) -> T) -> T {
        act(&mut lock(&self.shared.standing))
    }

    /// Somebody connects. Tells whether the edge lets them through.
    pub(super) fn lets_through(&self) -> bool {
        let now = Instant::now();
        self.standing(|standing| {
            let arrivals = &mut standing.arrivals;
            arrivals.retain(|at| now - *at < MINUTE);
            arrivals.push_back(now);
            arrivals.len() <= ARRIVALS
        })
    }

    /// Whether this node gets the next request.
    pub(super) fn is_chosen(&self) -> bool {
        if !self.manners().network.judges {
            return true;
        }
        let is_chosen =
            self.standing(|standing| standing.reputation >= TRUSTED || standing.fate.percent(FEW));
        if !is_chosen {
            let books = &self.shared.books;
            books.count("requests that went to nodes of a better reputation");
        }
        is_chosen
    }

    fn lowers(&self, why: &'static str) {
        self.shared.books.count(why);
        self.standing(|standing| {
            standing.reputation = standing.reputation.saturating_sub(LOST);
        });
    }

    /// It has read a frame about a request.
    pub(super) fn hears(&self, kind: &str, id: &str) {
        match kind {
            "INFERENCE_ERROR" | "TTS_ERROR" => self.lowers("errors that cost reputation"),
            "INFERENCE_RESPONSE" | "TTS_RESPONSE" => self.standing(|standing| {
                standing.reputation = (standing.reputation + EARNED).min(BEST);
            }),
            "INFERENCE_CHUNK" => self.standing(|standing| {
                standing.heard.insert(id.to_owned(), Instant::now());
            }),
            _ => {}
        }
    }

    /// The node has registered. Gives its id and its alias.
    pub(super) fn registered(&self, alias: &str) -> (String, String) {
        let node = self.standing(|standing| {
            let number = standing.fate.within(1..=3);
            let alias = match number {
                3 => format!("{alias}-a"),
                _ => alias.to_owned(),
            };
            let node = (format!("node_{number}"), alias);
            standing.node = Some(node.clone());
            node
        });
        self.interview_newcomer();
        node
    }

    /// Interviews a node that has just come, if this network does.
    pub(super) fn interview_newcomer(&self) {
        let percent = self.manners().network.interviews;
        let wait = self.standing(|standing| {
            let is_due = percent > 0 && standing.fate.percent(percent);
            is_due.then(|| standing.fate.millis(0..=1_500))
        });
        let Some(wait) = wait else { return };
        let gateway = self.clone();
        tokio::spawn(async move {
            sleep(wait).await;
            gateway.interview(Asking::Fair);
        });
    }

    /// Makes an interview, if anybody is there.
    pub fn interview(&self, asking: Asking) {
        if !self.has_session() {
            return;
        }
        let namesake = (asking == Asking::Namesake)
            .then(|| self.any_chat())
            .flatten();
        let (id, text, interview) = self.standing(|standing| standing.make_up(asking, namesake));
        let key = key(&id);
        self.shared.trace.say(format_args!(
            "gateway: makes up {key}, {asking:?}, {} prompts of {:?}",
            interview.prompts.len(),
            interview.timeout
        ));
        self.shared.books.interview(&key, interview);
        self.say_again(&key, &text);
        let class = match asking {
            Asking::BadId => Class::BadId,
            _ => Class::Interview,
        };
        self.make(&key, class, false);
    }

    /// Makes the last interview again.
    pub fn interview_again(&self) {
        if let Some(key) = self.last_interview() {
            self.shared.books.count("interviews made again");
            self.repeat_of(&key);
        }
    }

    /// Cancels the last interview.
    pub fn cancel_interview(&self) {
        let (Some(key), Some((session, orders))) = (self.last_interview(), self.session()) else {
            return;
        };
        self.shared.books.count("interviews cancelled");
        self.cancel_on(session, &orders, &key);
    }

    fn last_interview(&self) -> Option<String> {
        let books = &self.shared.books;
        let all = books.ids(|request| request.class == Some(Class::Interview));
        let made = |key: &String| books.last_made(key);
        all.into_iter().max_by_key(made)
    }

    fn any_chat(&self) -> Option<String> {
        let books = &self.shared.books;
        let free = |id: &String| !books.is(&key(id), |_| true);
        let chats = books.ids(|request| request.class == Some(Class::Chat));
        let chats: Vec<_> = chats.into_iter().filter(free).collect();
        let at = self.standing(|standing| standing.fate.index(chats.len()))?;
        chats.get(at).cloned()
    }

    /// It has read the result of an interview, for the first time or again.
    pub(super) fn judges(&self, session: u64, key: &str) {
        let is_current = self
            .session()
            .is_some_and(|(current, _)| current == session);
        // A node that drains is let go in peace: what it loses then would be the network's fault.
        let fails = if self.shared.books.is_draining() {
            0
        } else {
            self.manners().network.fails
        };
        let verdict = self.standing(|standing| {
            let is_new = is_current && standing.judged.insert(key.to_owned());
            is_new.then(|| {
                let fails = fails > 0 && standing.fate.percent(fails);
                fails.then(|| standing.fate.one_of(&["0.5", "5", "20", "259"]))
            })
        });
        match verdict {
            None => {}
            Some(Some(away)) => {
                self.shared.books.count("interviews failed");
                self.send_away(away, Farewell::AWAY);
            }
            Some(None) => {
                let complete = json!({
                    "type": "INTERVIEW_COMPLETE", "interview_id": wire_id(key),
                    "tier": "high", "accuracy": 0.9, "tokens_per_sec": 31.5, "reason": "",
                });
                self.order(Order::Frame(complete.to_string(), None));
            }
        }
    }

    pub(super) async fn keep_probing(&self) {
        /// How often it looks whether it probes at all.
        const IDLE: Duration = Duration::from_secs(5);
        loop {
            let every = self.manners().network.probe_every;
            sleep(every.unwrap_or(IDLE)).await;
            if every.is_some() && self.has_session() {
                self.probe();
            }
        }
    }

    fn probe(&self) {
        let streams = self.standing(|standing| standing.fate.percent(50));
        let id = self.ask_for(Class::Chat, streams, |id| {
            json!({
                "model": MODEL, "stream": streams, "max_tokens": 5,
                "messages": [{"role": "user", "content": format!("{id} ping")}],
            })
            .to_string()
        });
        self.shared.books.count("probes");
        let gateway = self.clone();
        tokio::spawn(async move {
            sleep(PROBE).await;
            if gateway.is_unanswered(&id) {
                gateway.lowers("probes that were not answered in time");
                gateway.may_cancel(&id);
            }
        });
    }

    fn is_unanswered(&self, id: &str) -> bool {
        let books = &self.shared.books;
        books.is(id, super::ledger::Request::is_unanswered)
    }

    /// Cancels what it no longer waits for, or says nothing.
    fn may_cancel(&self, id: &str) {
        let cancels = self.standing(|standing| standing.fate.percent(50));
        if let (true, Some((session, orders))) = (cancels, self.session()) {
            self.cancel_on(session, &orders, id);
        }
    }

    /// A chat was made. Gives it up once nothing was heard of it for too long.
    pub(super) fn lose_patience_with(&self, id: &str) {
        if !self.manners().network.is_there {
            return;
        }
        let (gateway, id, made) = (self.clone(), id.to_owned(), Instant::now());
        tokio::spawn(async move {
            loop {
                let heard = gateway.standing(|standing| standing.heard.get(&id).copied());
                let due = heard.map_or(made, |heard| heard.max(made)) + PATIENCE;
                sleep_until(due).await;
                let again = gateway.standing(|standing| standing.heard.get(&id).copied());
                if again == heard {
                    break;
                }
            }
            if gateway.is_unanswered(&id) {
                gateway.lowers("requests that were given up after 90 s without a chunk");
                gateway.standing(|standing| standing.given_up.insert(id.clone()));
                gateway.may_cancel(&id);
            }
        });
    }

    /// Whether it has given a request up.
    pub(super) fn has_given_up(&self, id: &str) -> bool {
        self.standing(|standing| standing.given_up.contains(id))
    }
}

impl Standing {
    /// The id, the frame and the meaning of a new interview.
    fn make_up(&mut self, asking: Asking, namesake: Option<String>) -> (String, String, Interview) {
        self.interviews += 1;
        let number = self.interviews;
        let id = match asking {
            Asking::BadId if number.is_multiple_of(2) => String::new(),
            Asking::BadId => "y".repeat(257 + usize::try_from(number).unwrap_or_default()),
            _ => namesake.unwrap_or_else(|| format!("i{number}")),
        };
        let many = self.fate.one_of(&[5, 5, 5, 7, 1]);
        let timeout = self.fate.one_of(&[400, 2_000, 10_000, 20_000]);
        let prompt = |at: u64| {
            json!({
                "id": format!("p{}", at + 1), "max_tokens": 50,
                "prompt": format!("{}/{at} how many are they?", key(&id)),
            })
        };
        let mut frame = json!({
            "type": "INTERVIEW_REQUEST", "interview_id": id, "model": MODEL,
            "prompts": (0..many).map(prompt).collect::<Vec<_>>(), "timeout_ms": timeout,
        });
        let sort = match asking {
            Asking::UnknownModel => Sort::UnknownModel,
            Asking::UnknownNode => Sort::UnknownNode,
            Asking::Odd => Sort::Odd,
            _ => Sort::Fair,
        };
        if sort == Sort::UnknownModel {
            frame["model"] = json!("nobody:7b");
        }
        let names = self.node.clone().map(|(id, alias)| [id, alias]);
        let name = match sort {
            Sort::UnknownNode => Some(NOBODY.to_owned()),
            _ => names.and_then(|names| {
                let at = self.fate.index(names.len() + 1)?;
                names.get(at).cloned()
            }),
        };
        if let Some(name) = name {
            frame["node_id"] = json!(name);
        }
        let text = if sort == Sort::Odd {
            self.spoil(frame)
        } else {
            frame.to_string()
        };
        let interview = Interview {
            sort,
            prompts: (0..many).map(|at| format!("p{}", at + 1)).collect(),
            timeout: Duration::from_millis(timeout),
            asked: Vec::new(),
        };
        (id, text, interview)
    }

    /// Makes something wrong about an interview.
    fn spoil(&mut self, mut frame: Value) -> String {
        let odd_times = [
            json!(0),
            json!(-1),
            json!("2000"),
            json!(null),
            json!(1e300),
        ];
        match self.fate.within(0..=8) {
            0 => frame["prompts"] = json!([]),
            1 => frame["prompts"] = json!("hello"),
            2 => frame["prompts"] = json!(null),
            3 => frame["prompts"][0] = json!({"id": "p1"}),
            4 => {
                let text = frame["prompts"][0]["prompt"].take();
                frame["prompts"][0] = json!({"prompt": text});
            }
            5 => frame["prompts"][0]["max_tokens"] = json!("many"),
            6 => frame["model"] = json!(7),
            7 => {
                return frame
                    .to_string()
                    .replacen('{', r#"{"model":"nobody:7b","#, 1);
            }
            _ => {
                let at = self.fate.index(odd_times.len()).unwrap_or_default();
                frame["timeout_ms"] = odd_times[at].clone();
            }
        }
        frame.to_string()
    }
}
