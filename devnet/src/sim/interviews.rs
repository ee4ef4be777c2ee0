//! Interviews in the books: what was asked of the model server for each prompt, and when an interview has its slot.
//!
//! Invariant: an interview is a request like any other, kept under a key of its own, since ids of chats and of interviews are apart.
//! `interview_rules.rs` judges.

use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Chat, Class, Ledger, Request};

/// What tells an interview's key from a chat's.
const PREFIX: &str = "interview/";

/// What is under way between two prompts of one interview takes no longer, the network aside.
const BETWEEN: Duration = Duration::from_secs(1);

/// A model that has been there for this long has been seen: the list is read each 15 s.
const LISTED: Duration = Duration::from_secs(20);

/// Under what an interview of this id is kept.
pub(super) fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Whether something is kept under a key of an interview.
pub(super) fn is_key(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// The id that the other side of the wire knows it by.
pub(super) fn wire_id(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// The key of an interview, and the place of a prompt in it, of the word that a prompt begins with.
pub(super) fn prompt(word: &str) -> Option<(&str, usize)> {
    let (key, place) = word.rsplit_once('/')?;
    is_key(key).then_some((key, place.parse().ok()?))
}

/// What has to become of an interview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It is done.
    Fair,
    /// It names a node that is none: it is done by the one that has the model, or refused.
    UnknownNode,
    /// It is refused.
    UnknownModel,
    /// Something is wrong with it: it is done as far as it can be, or refused.
    Odd,
}

/// An interview, to the eyes of whoever made it.
#[derive(Clone, Debug)]
pub(super) struct Interview {
    pub(super) sort: Sort,
    /// The ids of its prompts, in order.
    pub(super) prompts: Vec<String>,
    /// For each prompt.
    pub(super) timeout: Duration,
    /// What was asked of the model server: beside each chat of the request, in the same order.
    pub(super) asked: Vec<Asked>,
}

/// A prompt that the model server was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Its place among the prompts.
    pub(super) prompt: usize,
    /// When the product had read the first words of the answer.
    pub(super) first: Option<Instant>,
    /// When the answer ended on the model server's side.
    pub(super) ended: Option<Instant>,
    /// What the model server has said, its thoughts aside.
    pub(super) text: String,
    /// The tokens of that.
    pub(super) tokens: u64,
}

impl Asked {
    pub(super) fn new(prompt: usize) -> Self {
        Self {
            prompt,
            first: None,
            ended: None,
            text: String::new(),
            tokens: 0,
        }
    }
}

impl Interview {
    /// How long it may take once it has its slot.
    pub(super) fn time(&self) -> Duration {
        let prompts = u32::try_from(self.prompts.len()).unwrap_or(u32::MAX);
        self.timeout.saturating_mul(prompts)
    }
}

impl Ledger {
    /// How many slots are known to be taken: chats that are open at the model server, and interviews that have begun.
    pub(super) fn slots_taken(&self, now: Instant) -> usize {
        let live = self.live.iter();
        let requests = live.filter_map(|key| Some((key, self.requests.get(key)?)));
        requests
            .map(|(key, request)| match request.class {
                Some(Class::Interview) => usize::from(self.is_under_way(key, request, now)),
                _ => self.open_chats(request),
            })
            .sum()
    }

    pub(super) fn open_chats(&self, request: &Request) -> usize {
        let chats = request.chats.iter();
        chats.filter(|chat| self.is_open(chat)).count()
    }

    /// Whether an interview has its slot: one of its prompts is being answered, or the next one is about to be asked.
    pub(super) fn is_under_way(&self, key: &str, request: &Request, now: Instant) -> bool {
        let (Some(interview), Some(chat)) = (&request.interview, request.chats.last()) else {
            return false;
        };
        if self.open_chats(request) > 0 {
            return true;
        }
        let Some(asked) = interview.asked.last() else {
            return false;
        };
        let Some(ended) = chat.read.or(asked.ended) else {
            return false;
        };
        let is_last = asked.prompt + 1 >= interview.prompts.len();
        let is_soon = now - ended < BETWEEN;
        let read: Vec<_> = request.made.iter().filter_map(|made| made.read).collect();
        let is_over = read.iter().any(|read| now - *read >= interview.time());
        // What is under way to the model server may have been called off before it came there.
        let since = read.first().copied().unwrap_or(chat.opened);
        is_soon
            && !is_last
            && !is_over
            && !self.is_called_off(key, request, since, now)
            && self.ollama.calm_since() < chat.opened
            && now - chat.opened < interview.timeout
    }

    /// Whether an interview may have ended without a word between these two moments: it was cancelled, a newer one came by
    /// a later session, or a drain was there to cut it.
    pub(super) fn is_called_off(
        &self,
        key: &str,
        request: &Request,
        since: Instant,
        until: Instant,
    ) -> bool {
        request.cancelled_since(since)
            || self.is_superseded(key, request, since, until)
            || self.drained_between(since, until)
    }

    /// Whether the product drained at any moment between these.
    pub(super) fn drained_between(&self, since: Instant, until: Instant) -> bool {
        self.drains
            .iter()
            .any(|drain| drain.began <= until && drain.over.is_none_or(|over| over >= since))
    }

    /// Whether another interview was read between these moments that came by a session on which this one had not been made.
    pub(super) fn is_superseded(
        &self,
        key: &str,
        request: &Request,
        since: Instant,
        until: Instant,
    ) -> bool {
        let others = self.requests.iter().filter(|(other, request)| {
            request.class == Some(Class::Interview) && other.as_str() != key
        });
        let mut newer = others
            .flat_map(|(_, other)| &other.made)
            .filter_map(|made| {
                let read = made.read?;
                (read >= since && read <= until).then_some((made.session, read))
            });
        newer.any(|(session, read)| {
            let is_of_earlier = request.made.iter().any(|made| made.session < session);
            let mut on_this = request.made.iter().filter(|made| made.session == session);
            // Of two that are read in one moment either may be the first.
            is_of_earlier && !on_this.any(|made| made.read.is_some_and(|own| own < read))
        })
    }

    /// The interviews that wait to be begun since before this moment, though nothing keeps them.
    pub(super) fn waits_since_before(&self, moment: Instant, now: Instant) -> bool {
        let unanswered: Vec<_> = self
            .requests
            .iter()
            .filter(|(_, request)| {
                request.class == Some(Class::Interview) && request.is_unanswered()
            })
            .collect();
        // Which of several is refused, is known only once it is.
        let [(key, request)] = unanswered[..] else {
            return false;
        };
        let Some(interview) = &request.interview else {
            return false;
        };
        // One that was answered may be run anew, and have its turn before this one.
        let mut others = self
            .live
            .iter()
            .filter(|other| is_key(other) && *other != key);
        let other_runs = others.any(|other| {
            let other = self.requests.get_key_value(other);
            other.is_some_and(|(key, request)| self.is_under_way(key, request, now))
        });
        // It waits since it was made after its last refusal.
        let refused = request.answers.iter().map(|answer| answer.written).max();
        let made = request.made.iter().filter_map(|made| made.read);
        let read = made.filter(|read| Some(*read) > refused).min();
        interview.sort == Sort::Fair
            && !other_runs
            && request.chats.is_empty()
            && request.made.iter().all(|made| self.is_on(made.session))
            && read.is_some_and(|read| {
                read < moment
                    && self.was_on_offer(read)
                    && now - read < interview.time()
                    && !self.is_called_off(key, request, read, now)
            })
    }
}

impl Ledger {
    /// Whether the model had been there for long enough then to be on the product's list.
    fn was_on_offer(&self, moment: Instant) -> bool {
        let since = self.warmth.has_model_since;
        let since = since.map(|since| since.max(self.ollama.calm_since()));
        since.is_some_and(|since| since + LISTED < moment)
    }

    /// Whether the product has not let a session go: what it refuses there arrives.
    fn is_on(&self, session: u64) -> bool {
        let facts = self.gateway.facts(session);
        facts.is_some_and(|facts| facts.client_closed.is_none())
    }

    /// Whether a cancel of this interview may have been taken for one of the chat of the same id.
    pub(super) fn has_namesake(&self, key: &str) -> bool {
        is_key(key) && self.requests.contains_key(wire_id(key))
    }
}

impl Request {
    /// The last chat about a prompt until then, and what was asked there.
    pub(super) fn last_asked(&self, prompt: usize, until: Instant) -> Option<(&Chat, &Asked)> {
        let asked = &self.interview.as_ref()?.asked;
        let mut pairs = self.chats.iter().zip(asked).rev();
        pairs.find(|(chat, asked)| asked.prompt == prompt && chat.opened <= until)
    }
}
