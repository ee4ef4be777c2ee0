//! Sums of the days of UTC, by this machine's clock.
//!
//! Invariant: sums only ever grow, and there are [`MAX`] days at most. What was measured while the clock was wrong is in the
//! day that the clock told.

use std::time::{Duration, UNIX_EPOCH};

use super::plot::{Measured, Totals};
use crate::admin::Day;

/// How many days are kept: a year, and the month before it.
const MAX: usize = 400;

const SECONDS: u64 = 24 * 60 * 60;

/// The sums, oldest day first.
#[derive(Clone, Default)]
pub(super) struct Days(Vec<Sums>);

#[derive(Clone, Copy, Default)]
struct Sums {
    /// The number of the day since 1970.
    day: u32,
    known: Duration,
    up: Duration,
    counted: Totals,
}

impl Days {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Sums>()
    }

    /// Something was measured that ends now (`wall`, Unix seconds). It is of the day in which it began.
    pub(super) fn add(&mut self, wall: u64, measured: &Measured) {
        let from = wall.saturating_sub(measured.known.as_secs());
        let day = u32::try_from(from / SECONDS).unwrap_or(u32::MAX);
        let sums = self.of(day);
        sums.known += measured.known;
        sums.up += measured.up;
        sums.counted.requests += measured.counted.requests;
        sums.counted.failures += measured.counted.failures;
        sums.counted.tokens += measured.counted.tokens;
        sums.counted.usd += measured.counted.usd;
        if self.0.len() > MAX {
            self.0.remove(0);
        }
    }

    fn of(&mut self, day: u32) -> &mut Sums {
        let place = self.0.partition_point(|sums| sums.day < day);
        if self.0.get(place).is_none_or(|sums| sums.day != day) {
            let empty = Sums {
                day,
                ..Sums::default()
            };
            self.0.insert(place, empty);
        }
        &mut self.0[place]
    }

    pub(super) fn shown(&self) -> Vec<Day> {
        self.0.iter().map(Sums::shown).collect()
    }
}

impl Sums {
    fn shown(&self) -> Day {
        let from = u64::from(self.day) * SECONDS;
        // An hour that the clock has told twice makes no day longer.
        let known_seconds = self.known.as_secs().min(SECONDS);
        Day {
            date: date(from),
            from,
            known_seconds,
            up_seconds: self.up.as_secs().min(known_seconds),
            requests: self.counted.requests,
            failures: self.counted.failures,
            tokens: self.counted.tokens,
            usd: self.counted.usd,
        }
    }
}

/// `2026-11-27`.
fn date(unix_seconds: u64) -> String {
    // The year 9999, beyond which there is no such text.
    let moment = UNIX_EPOCH + Duration::from_secs(unix_seconds.min(253_402_300_799));
    let mut text = humantime::format_rfc3339_seconds(moment).to_string();
    text.truncate("2026-11-27".len());
    text
}
