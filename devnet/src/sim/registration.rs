//! The rules about REGISTER_NODE: once per session, with a model, after what is preloaded is loaded, never while draining.
//!
//! Invariant: each excuse is written beside its rule.

use std::time::Duration;

use tokio::time::Instant;

use super::{books::Books, ledger::Ledger};

const RULE: &str = "14 (registration)";

/// What was decided before a drain began may be written in its first moment.
const MOMENT: Duration = Duration::from_millis(5);

/// How soon a node is registered that has a model: the list of models is read every 15 s, and once more if that failed.
const SOON: Duration = Duration::from_secs(35);

impl Books {
    /// The gateway has read REGISTER_NODE with so many models, which the product began to write then.
    pub(super) fn registers(&self, session: u64, models: usize, written: Instant) {
        let mut ledger = self.ledger();
        ledger.count("registrations");
        let state = ledger.sessions.entry(session).or_default();
        let is_second = state.registered.replace(written).is_some();
        let subject = format!("session {session}");
        for what in [
            is_second.then_some("the node is registered twice"),
            (models == 0).then_some("a node is registered that has no model"),
            (ledger.limits.generation == 1).then_some("generation 1 registers no node"),
            ledger
                .registers_in_drain(session, written)
                .then_some("a node is registered that drains"),
            ledger
                .registers_cold(written)
                .then_some("a node is registered before its model is loaded"),
        ]
        .into_iter()
        .flatten()
        {
            ledger.breach(&subject, RULE, what);
        }
    }
}

impl Ledger {
    fn registers_in_drain(&self, session: u64, written: Instant) -> bool {
        // What found no way out may have been decided on before.
        let facts = self.gateway.facts(session);
        let blocked = facts.and_then(|facts| facts.client_blocked);
        // A node that has drained on request serves again by itself, once the model server was away and is back.
        let away = Some(self.ollama.calm_since()).max(self.warmth.unwell);
        let is_before_the_end = self.ending_since.is_none_or(|ending| written < ending);
        let reopens = |began| is_before_the_end && away >= Some(began);
        let mut drains = self.drains.iter().filter(|drain| !reopens(drain.began));
        drains.any(|drain| {
            let in_time = drain.over.is_none_or(|over| written < over);
            written > drain.began + MOMENT && in_time && blocked.is_none_or(|at| at < drain.began)
        })
    }

    /// Nothing that is to be preloaded was ever loaded, and that was not waited for long enough to be given up.
    fn registers_cold(&self, written: Instant) -> bool {
        // One that could be asked before there was trouble may have been waited for since then.
        let calm = self.ollama.calm_since();
        let first = self.ollama.facts(1).and_then(|facts| facts.client_closed);
        let was_there = first.is_some_and(|closed| closed <= calm);
        let since = if was_there {
            self.began
        } else {
            calm.max(self.began)
        };
        self.limits.preloads
            && self.warmth.is_awaited(written, self.limits.token_timeout)
            && !self.warmth.is_troubled(Some(since))
            && written.saturating_duration_since(since) < self.limits.token_timeout
    }

    /// A node that has a model is registered before long.
    pub(super) fn check_registered(&mut self, now: Instant) {
        let Some((number, session)) = self.sessions.iter().next_back() else {
            return;
        };
        let (Some(up), Some(free)) = (session.up, self.free_since(*number)) else {
            return;
        };
        if self.limits.generation == 1 || session.registered.is_some() || self.is_draining() {
            return;
        }
        let Some(has_model) = self
            .warmth
            .has_model_since
            .filter(|_| self.ollama.is_free())
        else {
            return;
        };
        let since = up.max(free).max(has_model).max(self.ollama.calm_since());
        let most = SOON + self.limits.token_timeout + self.ollama.latency() * 8;
        if now - since > most {
            let (subject, what) = (
                format!("session {number}"),
                format!("no REGISTER_NODE for {:?}", now - since),
            );
            self.breach(&subject, RULE, &what);
        }
    }
}
