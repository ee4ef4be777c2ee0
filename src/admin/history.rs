//! What `/history` shows: the numbers behind the page's plots and sums. The shape is a contract: fields only ever get added.
//!
//! Invariant: what is not known is absent, never zero.

use serde::Serialize;

/// All that is known since a moment. Times are Unix seconds; what begins with the process ends with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct History {
    /// This machine's clock.
    pub now: u64,
    /// Since when anything is known.
    pub known_since: u64,
    /// The last hour, a point each 5 s.
    pub fine: Series,
    /// The last two days, a point each 2 min.
    pub coarse: Series,
    /// Sums of the days of UTC, oldest first; only those of which something is known. 400 at most.
    pub days: Vec<Day>,
    /// When there was no session, or no model to offer, though there should have been; newest first, 20 at most.
    pub outages: Vec<Outage>,
    /// How interviews ended, newest first; 20 at most.
    pub interviews: Vec<Verdict>,
}

/// Points at equal distances.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Series {
    /// Seconds between two points.
    pub step: u64,
    /// The points, oldest first; where nothing was measured there is none.
    pub points: Vec<Point>,
}

/// What happened in the time before a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// The end of that time.
    pub at: u64,
    /// Requests that held a slot, at most.
    pub running: u32,
    /// Requests that waited for one, at most.
    pub waiting: u32,
    /// Requests that ended, refused and cancelled ones too.
    pub requests: u32,
    /// Requests that failed or were refused.
    pub failures: u32,
    /// Tokens generated, counted when their answer was whole.
    pub tokens: u64,
    /// Half of the requests that ended had their first token within so many milliseconds; `null` where none had one.
    pub first_token_p50_ms: Option<u32>,
    /// 95 of 100 of them had.
    pub first_token_p95_ms: Option<u32>,
    /// Seconds with a session.
    pub up_seconds: u32,
    /// US dollars by the estimate, of answers that were proven delivered.
    pub usd: f64,
}

/// The sums of a day.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Day {
    /// Its date in UTC, such as `2026-11-27`.
    pub date: String,
    /// Its first second.
    pub from: u64,
    /// How many of its seconds are known.
    pub known_seconds: u64,
    /// How many of these had a session.
    pub up_seconds: u64,
    /// Requests that ended, refused and cancelled ones too.
    pub requests: u64,
    /// Requests that failed or were refused.
    pub failures: u64,
    /// Tokens generated.
    pub tokens: u64,
    /// US dollars by the estimate, of answers that were proven delivered.
    pub usd: f64,
}

/// A time of 5 s or more without a session, or without a model to offer. A pause, a drain and the end are none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outage {
    /// When it began.
    pub from: u64,
    /// When it was over; `null` while it lasts.
    pub to: Option<u64>,
    /// Why, as a sentence for the operator.
    pub why: String,
}

/// How an interview ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// When the network said so.
    pub at: u64,
    /// The node that it was of.
    pub node: String,
    /// `elite`, `high`, `standard`, `failed` or `other`.
    pub tier: &'static str,
    /// The share of answers that were right, where the network says.
    pub accuracy: Option<f64>,
    /// The speed that the network measured, where it says.
    pub tokens_per_second: Option<f64>,
}
