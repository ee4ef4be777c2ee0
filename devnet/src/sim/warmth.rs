//! What the model server has in memory, as the books know it, and the rules about models that are to be kept loaded.
//!
//! Invariant: a rule speaks only where the product could know what had happened: an absence shorter than [`NOTICED`] may
//! never have been seen.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    books::Books,
    ledger::{Class, Ledger},
};

const RULE: &str = "15 (warm)";

/// Ollama is asked every three seconds whether it is there; an absence that lasts for two such looks is seen.
const NOTICED: Duration = Duration::from_secs(7);

/// How soon a load is asked for once Ollama is there again: a look, and one more that failed.
const LOAD_AGAIN: Duration = Duration::from_secs(20);

/// A load that was decided on before an eviction was seen.
const UNSEEN: Duration = Duration::from_secs(20);

/// What was refused for its key counts against the server for so long, whatever its list says.
const REFUSAL_COUNTS: Duration = Duration::from_secs(60);

/// What is known of the model in memory.
#[derive(Default)]
pub(super) struct Warmth {
    /// When it was last loaded, or found to be.
    loaded: Option<Instant>,
    /// When a load was last asked for.
    pub(super) load_asked: Option<Instant>,
    /// When one was for the first time.
    first_asked: Option<Instant>,
    /// Since when a load is under way.
    loading_since: Option<Instant>,
    /// When the model server last was another process, and had not been there for a while before.
    restarted: Option<Instant>,
    /// When the model had to leave, unless something has loaded it since.
    evicted: Option<Instant>,
    /// Since when the model is on the disk; `None`: it is not.
    pub(super) has_model_since: Option<Instant>,
    /// When the server was last such that it may be taken for one that is not there.
    pub(super) unwell: Option<Instant>,
    /// When something was last refused for its key.
    refused: Option<Instant>,
    /// When a load last failed, or the model was last lost.
    troubled: Option<Instant>,
    loads: u64,
}

impl Warmth {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            has_model_since: Some(now),
            ..Self::default()
        }
    }

    /// What was evicted is to be loaded again all the same.
    pub(super) fn forget_eviction(&mut self) {
        self.evicted = None;
    }

    /// Whether nobody can know yet whether it can be loaded within this time.
    pub(super) fn is_awaited(&self, now: Instant, patience: Duration) -> bool {
        let is_recent = |asked| now.saturating_duration_since(asked) < patience;
        self.loaded.is_none() && self.first_asked.is_none_or(is_recent)
    }

    /// Whether something has happened to the model since then that may have kept it from being loaded.
    pub(super) fn is_troubled(&self, since: Option<Instant>) -> bool {
        self.has_model_since.is_none()
            || self.loading_since.is_some()
            || self.troubled.is_some_and(|at| Some(at) >= since)
    }
}

impl Books {
    /// A load is asked for. Gives how often it was before.
    pub(super) fn load_asked(&self, is_loaded: bool) -> u64 {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.count("loads asked for");
        ledger.check_load(now, is_loaded);
        ledger.warmth.load_asked = Some(now);
        ledger.warmth.first_asked.get_or_insert(now);
        if !is_loaded {
            ledger.warmth.loading_since.get_or_insert(now);
        }
        ledger.warmth.loads += 1;
        ledger.warmth.loads
    }

    /// A load comes to nothing.
    pub(super) fn load_failed(&self) {
        let mut ledger = self.ledger();
        ledger.count("loads that failed");
        ledger.warmth.loading_since = None;
        ledger.warmth.troubled = Some(Instant::now());
    }

    /// The model is in memory.
    pub(super) fn model_loaded(&self) {
        let mut ledger = self.ledger();
        let long = ledger.limits.token_timeout;
        let warmth = &mut ledger.warmth;
        // One that took longer than anybody waits was given up, perhaps.
        if let Some(since) = warmth.loading_since.take()
            && since.elapsed() + Duration::from_secs(1) >= long
        {
            warmth.troubled = Some(Instant::now());
        }
        warmth.loaded = Some(Instant::now());
        warmth.evicted = None;
    }

    /// The model server is another process, which was not there for so long. What could not be loaded before is tried again
    /// in its own time.
    pub(super) fn ollama_restarted(&self, absence: Duration, was_loaded: bool) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.count("restarts of Ollama");
        ledger.warmth.troubled = Some(now);
        ledger.warmth.loading_since = None;
        if absence >= NOTICED && was_loaded {
            ledger.count("restarts of Ollama that can be noticed");
            ledger.warmth.restarted = Some(now);
            ledger.warmth.evicted = None;
        }
    }

    /// The model had to leave the memory.
    pub(super) fn model_evicted(&self) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.count("evictions");
        ledger.warmth.troubled = Some(now);
        ledger.warmth.evicted = Some(now);
    }

    /// The model was deleted, or is there again.
    pub(super) fn model_comes_and_goes(&self, has: bool) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        ledger.count("times that the model came or went");
        let refusal = ledger.warmth.refused.map(|at| at + REFUSAL_COUNTS);
        let since = refusal.map_or(now, |over| over.max(now));
        ledger.warmth.troubled = Some(since);
        ledger.warmth.has_model_since = has.then_some(since);
        // It is another model now.
        ledger.warmth.evicted = None;
    }
}

impl Books {
    /// The model server is such, or no longer, that it may be taken for one that is not there.
    pub(super) fn was_unwell(&self) {
        let mut ledger = self.ledger();
        ledger.count("times that the model server was unwell");
        ledger.warmth.unwell = Some(Instant::now());
    }

    /// A chat, or a load, is refused for its key.
    pub(super) fn key_refused(&self) {
        let mut ledger = self.ledger();
        ledger.count("chats and loads refused for their key");
        ledger.warmth.refused = Some(Instant::now());
    }
}

impl Ledger {
    /// A load is asked for: not for a model that had to leave, unless an interview wants it.
    fn check_load(&mut self, now: Instant, is_loaded: bool) {
        let Some(evicted) = self.warmth.evicted.filter(|_| !is_loaded) else {
            return;
        };
        // Where Ollama could not be asked meanwhile, nobody can tell that from a restart.
        if self.ollama.calm_since() >= evicted {
            return;
        }
        let interviews = self.requests.values();
        let mut interviews = interviews.filter(|request| request.class == Some(Class::Interview));
        if now - evicted > UNSEEN && !interviews.any(|request| !request.made.is_empty()) {
            let what = format!("loaded again {:?} after an eviction", now - evicted);
            self.breach("ollama", RULE, &what);
        }
    }

    /// After a restart of Ollama what is to be kept loaded is loaded again.
    pub(super) fn check_warm(&mut self, now: Instant) {
        let (Some(restarted), Some(has_model)) =
            (self.warmth.restarted, self.warmth.has_model_since)
        else {
            return;
        };
        if !self.limits.preloads || self.is_draining() || !self.ollama.is_free() {
            return;
        }
        let over = self.drains.last().and_then(|drain| drain.over);
        let since = [Some(restarted), Some(has_model), over];
        let since = since.into_iter().flatten().max().unwrap_or(restarted);
        let since = since.max(self.ollama.calm_since());
        // A chat loads it just as well.
        let is_done = [self.warmth.load_asked, self.warmth.loaded]
            .iter()
            .flatten()
            .any(|at| *at >= restarted);
        if !is_done && now - since > LOAD_AGAIN + self.ollama.latency() * 8 {
            let what = format!("not loaded again {:?} after a restart", now - restarted);
            self.breach("ollama", RULE, &what);
        }
    }
}
