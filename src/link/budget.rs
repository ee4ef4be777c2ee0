//! How often the gateway may be asked for a session: a token bucket over the HTTP requests that ask for one. Pure: the
//! time is told.
//!
//! The network counts connection attempts by minute and address, and turns away who makes too many (protocol, "The
//! network's own clocks and rules"). Invariant: in no 60 s leave more requests than the budget has, whatever backoff,
//! drains, a changed secret or waiting answers ask for.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const MINUTE_NANOS: u64 = 60_000_000_000;

/// A budget of one a minute has nothing but its burst: the next one comes after more than a minute.
const MORE_THAN_A_MINUTE: Duration = Duration::from_secs(61);

/// What is left to spend. A transport spends when it sends its request, since only those are counted that got so far;
/// whoever asks for a link looks first whether there is anything left.
#[derive(Debug)]
pub struct ConnectBudget {
    /// `None`: no limit.
    pace: Option<Pace>,
    /// When the bucket is full again (the theoretical arrival time of the generic cell rate algorithm); `None`: it is full.
    full_at: Mutex<Option<Instant>>,
}

/// A bucket's size and how fast it fills.
#[derive(Clone, Copy, Debug)]
struct Pace {
    burst: u32,
    interval: Duration,
}

impl Pace {
    /// In any 60 s there are at most a burst and what comes back meanwhile: half of the budget each, so 4 and one each 12 s
    /// for 9.
    fn of(per_minute: u32) -> Self {
        let burst = (per_minute / 2).max(1);
        let interval = match per_minute - burst {
            0 => MORE_THAN_A_MINUTE,
            // Rounded up, or one more would fit in.
            refills => Duration::from_nanos(MINUTE_NANOS.div_ceil(u64::from(refills))),
        };
        Self { burst, interval }
    }
}

impl ConnectBudget {
    /// A full one of so many a minute; 0: no limit.
    pub fn new(per_minute: usize) -> Self {
        let per_minute = u32::try_from(per_minute).unwrap_or(u32::MAX);
        Self {
            pace: (per_minute > 0).then(|| Pace::of(per_minute)),
            full_at: Mutex::default(),
        }
    }

    /// How long the next attempt has to wait; zero if it may begin now.
    pub fn held(&self, now: Instant) -> Duration {
        let full_at = *self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(pace), Some(full_at)) = (self.pace, full_at) else {
            return Duration::ZERO;
        };
        let ahead = pace.interval * (pace.burst - 1);
        full_at.saturating_duration_since(now).saturating_sub(ahead)
    }

    /// A request leaves now.
    pub fn spend(&self, now: Instant) {
        if let Some(pace) = self.pace {
            let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
            *full_at = Some(full_at.map_or(now, |at| at.max(now)) + pace.interval);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// When requests leave, if one wants to leave so long after the one before and waits where it has to.
    fn departures(per_minute: usize, wants: &[u64]) -> Vec<Instant> {
        let budget = ConnectBudget::new(per_minute);
        let mut now = Instant::now();
        let mut left = Vec::new();
        for want in wants {
            now += Duration::from_millis(*want);
            now += budget.held(now);
            assert_eq!(budget.held(now), Duration::ZERO, "it may go now");
            budget.spend(now);
            left.push(now);
        }
        left
    }

    /// The most that fall into any 60 s, both ends included.
    fn most_in_a_minute(left: &[Instant]) -> usize {
        let mut window = VecDeque::new();
        let mut most = 0;
        for at in left {
            window.push_back(*at);
            while *at - window[0] > MINUTE {
                window.pop_front();
            }
            most = most.max(window.len());
        }
        most
    }

    proptest! {
        #[test]
        fn never_do_more_requests_leave_in_any_minute_than_the_budget_has(
            per_minute in prop_oneof![1..40_usize, Just(1_000), Just(999_999)],
            wants in prop::collection::vec(prop_oneof![3 => Just(0), 2 => 0..5_000_u64, 1 => 0..90_000_u64], 1..300),
        ) {
            let left = departures(per_minute, &wants);
            prop_assert!(most_in_a_minute(&left) <= per_minute);
        }

        #[test]
        fn whoever_has_been_away_for_long_may_come_back_at_once(per_minute in 1..1_000_usize) {
            let left = departures(per_minute, &[0; 50]);
            let later = *left.last().unwrap() + 2 * MINUTE;
            let budget = ConnectBudget::new(per_minute);
            left.iter().for_each(|at| budget.spend(*at));
            prop_assert_eq!(budget.held(later), Duration::ZERO);
        }
    }

    #[test]
    fn nine_a_minute_are_four_at_once_and_one_more_each_twelve_seconds() {
        let left = departures(9, &[0; 9]);
        let after: Vec<_> = left.iter().map(|at| (*at - left[0]).as_secs()).collect();
        assert_eq!(after, [0, 0, 0, 0, 12, 24, 36, 48, 60]);
    }

    #[test]
    fn a_budget_is_used_up_by_whoever_always_wants_to_come() {
        for per_minute in 1..=30 {
            let most = most_in_a_minute(&departures(per_minute, &vec![0; 3 * per_minute]));
            // Where 60 s cannot be divided, the last one comes some nanoseconds too late.
            assert!(per_minute - most <= 1, "{most} of {per_minute}");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let left = departures(0, &[0; 1_000]);
        assert_eq!(left[0], left[999]);
    }
}
