//! How long the gateway asks an agent to stay away.
//!
//! Invariant: whatever number it names, the time is between nothing and [`RetryAfter::MAX`], so that it can be added to
//! any moment, and no gateway keeps a node away for longer by asking once.

use std::time::Duration;

/// A time to stay away, as it was asked for, [`RetryAfter::MAX`] at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryAfter(Duration);

impl RetryAfter {
    /// Who names more is obeyed for an hour, and may ask again.
    pub const MAX: Duration = Duration::from_secs(3600);

    /// From seconds, as JSON has them; `None` for what is no time.
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        // Longer than can be counted is longer than an hour.
        (seconds >= 0.0)
            .then(|| Duration::try_from_secs_f64(seconds).map_or(Self(Self::MAX), Self::from))
    }

    /// The time.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for RetryAfter {
    fn from(time: Duration) -> Self {
        Self(time.min(Self::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_may_ask_for_an_hour_and_no_more_whatever_number_it_names() {
        for (seconds, expected) in [
            (1.5, Some(Duration::from_millis(1_500))),
            (0.0, Some(Duration::ZERO)),
            (-0.0, Some(Duration::ZERO)),
            (3_600.0, Some(RetryAfter::MAX)),
            (3_600.1, Some(RetryAfter::MAX)),
            (31_536_000.0, Some(RetryAfter::MAX)),
            (1e30, Some(RetryAfter::MAX)),
            (f64::INFINITY, Some(RetryAfter::MAX)),
            (-1e-9, None),
            (f64::NEG_INFINITY, None),
            (f64::NAN, None),
        ] {
            let read = RetryAfter::from_secs_f64(seconds).map(RetryAfter::get);
            assert_eq!(read, expected, "{seconds}");
        }
        assert_eq!(RetryAfter::from(Duration::MAX).get(), RetryAfter::MAX);
    }
}
