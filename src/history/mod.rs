//! What the page's plots and sums are made of: points, days, outages and verdicts, kept in memory for as long as the process
//! lives.
//!
//! Invariant: it holds some 120 KB at most, however long and whatever happens. Time is measured on tokio's clock; the wall
//! clock only labels it, so that one that jumps loses no sum and makes none negative. What was not measured is absent, never
//! zero. The data path looks once a second and tells nothing per token; whoever reads copies under a short lock.

mod days;
mod first_tokens;
mod observer;
mod outages;
mod plot;
mod server_outages;
#[cfg(test)]
mod tests;

pub(crate) use observer::Observer;
pub(crate) use server_outages::ServerOutages;

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use self::{
    days::Days,
    first_tokens::FirstTokens,
    outages::{Outages, Trouble},
    plot::{Plot, Totals},
};
use crate::{
    admin::{self, Verdict},
    clock::millis,
    inference::Load,
};

/// The last hour.
const FINE: (Duration, usize) = (Duration::from_secs(5), 720);

/// The last two days.
const COARSE: (Duration, usize) = (Duration::from_secs(120), 1_440);

/// How many verdicts are kept.
const MAX_VERDICTS: usize = 20;

/// A longer time between two looks was not measured: the process, or the machine, stood still.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// What is remembered. The data path writes it, the admin server reads it on its own thread.
pub struct History {
    /// When it began.
    began: (Instant, u64),
    /// What has come since the last look.
    arrived: Mutex<Arrived>,
    records: Mutex<Records>,
}

#[derive(Default)]
struct Arrived {
    peak: Load,
    first_tokens: FirstTokens,
}

struct Records {
    last_look: Instant,
    fine: Plot,
    coarse: Plot,
    days: Days,
    outages: Outages,
    verdicts: VecDeque<Verdict>,
}

/// What is seen at a look.
struct Look {
    now: Instant,
    /// Unix seconds.
    wall: u64,
    /// Whether a session is up.
    is_up: bool,
    load: Load,
    /// What keeps the node from earning though it is to.
    trouble: Option<Trouble>,
}

impl History {
    /// An empty one, which knows of what happens from now on. `wall`: now, in Unix seconds.
    pub fn new(wall: u64) -> Self {
        let now = Instant::now();
        Self {
            began: (now, wall),
            arrived: Mutex::default(),
            records: Mutex::new(Records {
                last_look: now,
                fine: Plot::new(FINE),
                coarse: Plot::new(COARSE),
                days: Days::default(),
                outages: Outages::default(),
                verdicts: VecDeque::new(),
            }),
        }
    }

    /// It is as busy as this now.
    pub(crate) fn busy(&self, load: Load) {
        let peak = &mut lock(&self.arrived).peak;
        *peak = peak.max(load);
    }

    /// A request has ended whose first token came so long after its receipt.
    pub(crate) fn first_token(&self, after: Duration) {
        let ms = u32::try_from(millis(after)).unwrap_or(u32::MAX);
        lock(&self.arrived).first_tokens.add(ms);
    }

    /// An interview has ended.
    pub(crate) fn judged(&self, verdict: Verdict) {
        let verdicts = &mut lock(&self.records).verdicts;
        verdicts.truncate(MAX_VERDICTS - 1);
        verdicts.push_front(verdict);
    }

    /// `totals` is only asked where a point is due.
    fn look(&self, look: Look, totals: impl FnOnce() -> Totals) {
        let mut records = lock(&self.records);
        {
            let mut arrived = lock(&self.arrived);
            let peak = arrived.peak.max(look.load);
            records.measure(&look, peak, &arrived.first_tokens);
            arrived.peak = look.load;
            arrived.first_tokens.clear();
        }
        records.outages.look(look.now, look.wall, look.trouble);
        if records.fine.is_due() {
            records.point(look.wall, totals());
        }
    }

    /// All of it, points only where they are younger than `since`. That a moment has yet to come can only mean that the
    /// clock was set back: then all points. Both are Unix seconds.
    pub(crate) fn read(&self, now: u64, since: u64) -> admin::History {
        let since = if since > now { 0 } else { since };
        let records = lock(&self.records);
        let age = records.last_look - self.began.0;
        let (fine, coarse) = (records.fine.since(since), records.coarse.since(since));
        let days = records.days.clone();
        let outages = records.outages.list();
        let interviews = records.verdicts.iter().cloned().collect();
        drop(records);
        admin::History {
            now,
            known_since: if self.began.1 <= now {
                self.began.1
            } else {
                now.saturating_sub(age.as_secs())
            },
            fine: fine.shown(),
            coarse: coarse.shown(),
            days: days.shown(),
            outages,
            interviews,
        }
    }
}

impl Records {
    fn measure(&mut self, look: &Look, peak: Load, first_tokens: &FirstTokens) {
        let passed = look.now - self.last_look;
        self.last_look = look.now;
        let known = if passed <= LONGEST_LOOK {
            passed
        } else {
            Duration::ZERO
        };
        let up = if look.is_up { known } else { Duration::ZERO };
        for plot in [&mut self.fine, &mut self.coarse] {
            plot.measure(known, up, peak, first_tokens);
        }
    }

    fn point(&mut self, wall: u64, totals: Totals) {
        let measured = self.fine.close(wall, totals);
        self.days.add(wall, &measured);
        if self.coarse.is_due() {
            self.coarse.close(wall, totals);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
