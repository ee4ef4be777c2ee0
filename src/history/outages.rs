//! Times in which the node earned nothing though it was to: without a session, or without a model to offer.
//!
//! Invariant: one at a time, with the first sentence that told why; [`MAX`] are kept.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::admin::Outage;

/// How many are kept, the one that lasts among them.
const MAX: usize = 20;

/// What is shorter is not told: a session that comes back at once, or the first that takes a moment.
const SHORTEST: Duration = Duration::from_secs(5);

/// The longest sentence that is kept, in characters.
const MAX_WHY: usize = 400;

/// What is told where nobody knows why.
const NO_SESSION_YET: &str = "No session with the gateway yet.";

/// Something keeps the node from earning.
pub(super) struct Trouble {
    /// Why, as a sentence for the operator, as soon as that is known.
    pub(super) why: Option<String>,
}

#[derive(Default)]
pub(super) struct Outages {
    /// Newest first.
    over: VecDeque<Outage>,
    current: Option<Current>,
}

struct Current {
    since: Instant,
    /// In Unix seconds.
    from: u64,
    lasted: Duration,
    why: Option<String>,
}

impl Outages {
    /// How things are now; `wall` is in Unix seconds.
    pub(super) fn look(&mut self, now: Instant, wall: u64, trouble: Option<Trouble>) {
        let Some(trouble) = trouble else {
            return self.end(now, wall);
        };
        let current = self.current.get_or_insert(Current {
            since: now,
            from: wall,
            lasted: Duration::ZERO,
            why: None,
        });
        current.last_until(now, wall);
        if current.why.is_none() {
            current.why = trouble.why.map(|why| why.chars().take(MAX_WHY).collect());
        }
    }

    fn end(&mut self, now: Instant, wall: u64) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        current.last_until(now, wall);
        if let Some(outage) = current.outage() {
            self.over.truncate(MAX - 1);
            self.over.push_front(Outage {
                to: Some(wall.max(outage.from)),
                ..outage
            });
        }
    }

    /// Newest first.
    pub(super) fn list(&self) -> Vec<Outage> {
        let current = self.current.as_ref().and_then(Current::outage);
        let all = current.into_iter().chain(self.over.iter().cloned());
        all.take(MAX).collect()
    }
}

impl Current {
    /// Where the wall clock was set, the beginning goes with it: a machine that starts in 1970 and learns the time an hour
    /// later had an outage of an hour. A time for which the machine slept is no part of it.
    fn last_until(&mut self, now: Instant, wall: u64) {
        self.lasted = now - self.since;
        let from = wall.saturating_sub(self.lasted.as_secs());
        if from.abs_diff(self.from) > 1 {
            self.from = from;
        }
    }

    /// It, if it is one.
    fn outage(&self) -> Option<Outage> {
        (self.lasted >= SHORTEST).then(|| Outage {
            from: self.from,
            to: None,
            why: self.why.as_deref().unwrap_or(NO_SESSION_YET).to_owned(),
        })
    }
}
