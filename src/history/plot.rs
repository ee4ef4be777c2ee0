//! Points at equal distances, and the one that is being measured.
//!
//! Invariant: never more points than were asked for, each 40 bytes; and each is labelled later than the one before it. Where
//! the wall clock was set back, points with labels that are yet to come are dropped: days have their sums.

use std::{collections::VecDeque, time::Duration};

use super::first_tokens::FirstTokens;
use crate::{
    admin::{Point, Series},
    inference::Load,
    label::Label,
    protocol::{Code, Operation},
    telemetry::Metrics,
};

/// Looks are a second apart, more or less: a point is due at the one that is nearest to its end.
const TOLERANCE: Duration = Duration::from_millis(500);

/// What was counted since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) failures: u64,
    pub(super) tokens: u64,
    pub(super) usd: f64,
}

/// What a point has found.
pub(super) struct Measured {
    pub(super) known: Duration,
    pub(super) up: Duration,
    pub(super) counted: Totals,
}

pub(super) struct Plot {
    step: Duration,
    max: usize,
    points: VecDeque<Packed>,
    window: Window,
}

/// The time since the last point.
#[derive(Default)]
struct Window {
    known: Duration,
    up: Duration,
    peak: Load,
    /// What had been counted when it began.
    before: Totals,
    first_tokens: FirstTokens,
}

/// A [`Point`] in 40 bytes. What is too large for its place is the largest that it holds.
#[derive(Clone, Copy)]
struct Packed {
    usd: f64,
    at: u32,
    requests: u32,
    failures: u32,
    tokens: u32,
    /// [`NONE`] where there is none.
    first_token_p50_ms: u32,
    first_token_p95_ms: u32,
    running: u16,
    waiting: u16,
    up_seconds: u16,
}

const NONE: u32 = u32::MAX;

impl Totals {
    pub(super) fn of(metrics: &Metrics) -> Self {
        let failures = &metrics.request_failures_total;
        let of_operation = |operation: &Operation| -> u64 {
            let counts = Code::ALL.iter();
            counts
                .map(|code| failures.of(*operation, *code).get())
                .sum()
        };
        Self {
            requests: metrics.requests_total.total(),
            failures: Operation::ALL.iter().map(of_operation).sum(),
            tokens: metrics.generation_tokens_total.total(),
            usd: metrics.earnings_estimate_usd_total.total(),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failures: self.failures.saturating_sub(before.failures),
            tokens: self.tokens.saturating_sub(before.tokens),
            usd: (self.usd - before.usd).max(0.0),
        }
    }
}

impl Plot {
    /// Points at this distance, so many of them.
    pub(super) fn new((step, max): (Duration, usize)) -> Self {
        Self {
            step,
            max,
            points: VecDeque::with_capacity(max),
            window: Window::default(),
        }
    }

    /// So much more time has been looked at.
    pub(super) fn measure(
        &mut self,
        known: Duration,
        up: Duration,
        peak: Load,
        first_tokens: &FirstTokens,
    ) {
        let window = &mut self.window;
        window.known += known;
        window.up += up;
        window.peak = window.peak.max(peak);
        window.first_tokens.add_all(first_tokens);
    }

    pub(super) fn is_due(&self) -> bool {
        self.window.known + TOLERANCE >= self.step
    }

    /// Makes the point that is due. `at`: now, in Unix seconds.
    pub(super) fn close(&mut self, at: u64, totals: Totals) -> Measured {
        let window = &mut self.window;
        let measured = Measured {
            known: window.known,
            up: window.up,
            counted: totals.since(window.before),
        };
        let [p50, p95] = window
            .first_tokens
            .take_percentiles([50, 95])
            .unwrap_or([NONE; 2]);
        let point = Packed::new(at, window.peak, &measured, self.step, [p50, p95]);
        (window.known, window.up) = (Duration::ZERO, Duration::ZERO);
        (window.peak, window.before) = (Load::default(), totals);
        self.push(point);
        measured
    }

    fn push(&mut self, point: Packed) {
        while self.points.back().is_some_and(|last| last.at >= point.at) {
            self.points.pop_back();
        }
        if self.points.len() == self.max {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.points.capacity() * size_of::<Packed>()
    }

    /// A copy of the points that are younger.
    pub(super) fn since(&self, since: u64) -> Copied {
        let younger = |point: &&Packed| u64::from(point.at) > since;
        Copied {
            step: self.step,
            points: self.points.iter().filter(younger).copied().collect(),
        }
    }
}

/// Points that were copied out from under the lock.
pub(super) struct Copied {
    step: Duration,
    points: Vec<Packed>,
}

impl Copied {
    pub(super) fn shown(self) -> Series {
        Series {
            step: self.step.as_secs(),
            points: self.points.into_iter().map(Point::from).collect(),
        }
    }
}

impl Packed {
    fn new(
        at: u64,
        peak: Load,
        measured: &Measured,
        step: Duration,
        [first_token_p50_ms, first_token_p95_ms]: [u32; 2],
    ) -> Self {
        let Measured { up, counted, .. } = measured;
        // To the nearest second: looks are never quite a second apart.
        let up_seconds = (*up + TOLERANCE).min(step).as_secs();
        Self {
            usd: counted.usd,
            at: narrow(at),
            requests: narrow(counted.requests),
            failures: narrow(counted.failures),
            tokens: narrow(counted.tokens),
            first_token_p50_ms,
            first_token_p95_ms,
            running: narrow16(peak.running),
            waiting: narrow16(peak.waiting),
            up_seconds: u16::try_from(up_seconds).unwrap_or(u16::MAX),
        }
    }
}

impl From<Packed> for Point {
    fn from(packed: Packed) -> Self {
        let known = |ms: u32| (ms != NONE).then_some(ms);
        Self {
            at: packed.at.into(),
            running: packed.running.into(),
            waiting: packed.waiting.into(),
            requests: packed.requests,
            failures: packed.failures,
            tokens: packed.tokens.into(),
            first_token_p50_ms: known(packed.first_token_p50_ms),
            first_token_p95_ms: known(packed.first_token_p95_ms),
            up_seconds: packed.up_seconds.into(),
            usd: packed.usd,
        }
    }
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn narrow16(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_takes_forty_bytes() {
        assert_eq!(size_of::<Packed>(), 40);
    }
}
