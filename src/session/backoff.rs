//! How long to stay away from the gateway. Pure: randomness is handed in, time is told.
//!
//! A gateway that restarts sees all its operators at once: full jitter spreads them best (Brooker, "Exponential Backoff
//! And Jitter", 2015). Invariant: a link that breaks as soon as it is up is not tried faster and faster, and a login
//! that was refused is not tried until somebody can have mended it.

use std::time::Duration;

use crate::protocol::RetryAfter;

/// A session that lasted this long was healthy: trouble after it is new trouble.
pub(super) const HEALTHY: Duration = Duration::from_secs(30);

/// How often in a row a gateway may close young sessions without a word before it is left alone.
const SHORT_SESSIONS: u32 = 3;

const REFUSED_MIN: Duration = Duration::from_secs(60);
const REFUSED_MAX: Duration = Duration::from_secs(600);

/// What has gone wrong of late, as far as it decides how long to wait.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    random: fastrand::Rng,
    failures: u32,
    refusals: u32,
    short_sessions: u32,
    forgiven: bool,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration, random: fastrand::Rng) -> Self {
        Self {
            min,
            max,
            random,
            failures: 0,
            refusals: 0,
            short_sessions: 0,
            forgiven: false,
        }
    }

    /// No session came about, or one broke: `0` to `min × 2ⁿ`, at most `max`, and at most `limit` where somebody waits.
    pub(super) fn failed(&mut self, limit: Option<Duration>) -> Duration {
        let ceiling = self
            .min
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(self.max)
            .min(limit.unwrap_or(self.max));
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.random.f64())
    }

    /// The gateway sent a frame that may not be read: no reason to stay away, unless it does so again and again.
    pub(super) fn unreadable(&mut self, limit: Option<Duration>) -> Duration {
        if std::mem::replace(&mut self.forgiven, true) {
            self.failed(limit)
        } else {
            Duration::ZERO
        }
    }

    /// The login was refused: one minute, doubled each time up to ten, give or take a fifth.
    pub(super) fn refused(&mut self) -> Duration {
        let wait = REFUSED_MIN
            .saturating_mul(1_u32.checked_shl(self.refusals).unwrap_or(u32::MAX))
            .min(REFUSED_MAX);
        self.refusals = self.refusals.saturating_add(1);
        wait.mul_f64(0.8 + 0.4 * self.random.f64())
    }

    /// The gateway has named a time: that and up to a tenth more, so that not all come at once. One that names hardly any
    /// has not asked to be run at: then it is met as any failure is.
    pub(super) fn asked_to(
        &mut self,
        retry_after: RetryAfter,
        limit: Option<Duration>,
    ) -> Duration {
        let asked = retry_after.get().mul_f64(1.0 + 0.1 * self.random.f64());
        if retry_after.get() < self.min {
            asked.max(self.failed(limit))
        } else {
            asked
        }
    }

    /// The login was accepted.
    pub(super) fn logged_in(&mut self) {
        self.refusals = 0;
    }

    /// A session has ended after this long. `unexplained`: the gateway ended it without saying why.
    pub(super) fn session_ended(&mut self, lasted: Duration, unexplained: bool) {
        if lasted >= HEALTHY {
            self.failures = 0;
            self.forgiven = false;
        }
        if lasted < HEALTHY && unexplained {
            self.short_sessions = self.short_sessions.saturating_add(1);
        } else {
            self.short_sessions = 0;
        }
    }

    /// Whether the gateway keeps ending young sessions, as it does when two agents push each other out; then only the
    /// longest wait ends the fight.
    pub(super) fn is_pushed_out(&self) -> bool {
        self.short_sessions >= SHORT_SESSIONS
    }

    /// The longest wait, give or take nothing: whoever fights for an id must come back later than the other leaves.
    pub(super) fn longest(&self, limit: Option<Duration>) -> Duration {
        self.max.min(limit.unwrap_or(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(60);

    fn backoff() -> Backoff {
        Backoff::new(MIN, MAX, fastrand::Rng::with_seed(7))
    }

    #[test]
    fn waits_grow_to_the_maximum_and_are_spread_over_their_whole_range() {
        let mut ceilings = vec![Duration::ZERO; 10];
        let mut floors = vec![MAX; 10];
        for seed in 0..1000 {
            let mut backoff = Backoff::new(MIN, MAX, fastrand::Rng::with_seed(seed));
            for (ceiling, floor) in ceilings.iter_mut().zip(&mut floors) {
                let wait = backoff.failed(None);
                *ceiling = wait.max(*ceiling);
                *floor = wait.min(*floor);
            }
        }
        for (n, (ceiling, floor)) in ceilings.into_iter().zip(floors).enumerate() {
            let expected = (MIN * 2_u32.pow(u32::try_from(n).unwrap_or_default())).min(MAX);
            assert!(
                ceiling <= expected && ceiling > expected.mul_f64(0.98),
                "{n}: {ceiling:?}"
            );
            assert!(floor < expected.mul_f64(0.02), "{n}: {floor:?}");
        }
    }

    #[test]
    fn only_a_healthy_session_makes_the_next_reconnect_quick() {
        let mut backoff = backoff();
        for _ in 0..20 {
            backoff.failed(None);
        }
        backoff.session_ended(HEALTHY - MIN, false);
        assert!((0..20).any(|_| backoff.failed(None) > MAX / 2));
        backoff.session_ended(HEALTHY, false);
        assert!(backoff.failed(None) <= MIN);
    }

    #[test]
    fn a_frame_that_may_not_be_read_is_forgiven_once_until_a_session_was_healthy() {
        let mut backoff = backoff();
        for _ in 0..20 {
            backoff.failed(None);
        }
        assert_eq!(backoff.unreadable(None), Duration::ZERO);
        backoff.session_ended(MIN, false);
        assert!(backoff.unreadable(None) > Duration::ZERO);
        backoff.session_ended(HEALTHY, false);
        assert_eq!(backoff.unreadable(None), Duration::ZERO);
    }

    #[test]
    fn while_somebody_waits_no_wait_is_longer_than_they_can_bear_and_all_are_still_spread() {
        let limit = Duration::from_secs(5);
        let waits: Vec<_> = (0..1000)
            .map(|seed| {
                let mut backoff = Backoff::new(MIN, MAX, fastrand::Rng::with_seed(seed));
                for _ in 0..10 {
                    backoff.failed(None);
                }
                backoff.failed(Some(limit))
            })
            .collect();
        assert!(waits.iter().all(|wait| *wait <= limit));
        assert!(waits.iter().filter(|wait| **wait < limit / 2).count() > 400);
        assert_eq!(backoff().longest(Some(limit)), limit);
    }

    #[test]
    fn a_refused_login_comes_back_after_a_minute_then_slower_up_to_ten() {
        let mut backoff = backoff();
        for expected in [60, 120, 240, 480, 600, 600].map(Duration::from_secs) {
            let wait = backoff.refused();
            assert!(
                wait >= expected.mul_f64(0.8) && wait <= expected.mul_f64(1.2),
                "{wait:?}"
            );
        }
        backoff.logged_in();
        assert!(backoff.refused() <= REFUSED_MIN.mul_f64(1.2));
    }

    #[test]
    fn a_gateway_that_ends_three_young_sessions_without_a_word_is_left_alone() {
        let mut backoff = backoff();
        for pushed_out in [false, false, true] {
            backoff.session_ended(MIN, true);
            assert_eq!(backoff.is_pushed_out(), pushed_out);
        }
        backoff.session_ended(HEALTHY, true);
        assert!(!backoff.is_pushed_out());
    }

    #[test]
    fn a_gateway_that_names_a_time_is_left_alone_for_that_and_up_to_a_tenth_more() {
        let asked = Duration::from_secs(7);
        let waits = (0..100).map(|seed| {
            let mut backoff = Backoff::new(MIN, MAX, fastrand::Rng::with_seed(seed));
            backoff.asked_to(asked.into(), None)
        });
        let (shortest, longest) = (waits.clone().min(), waits.max());
        assert!(shortest >= Some(asked) && longest <= Some(asked.mul_f64(1.1)));
        assert!(longest > Some(asked.mul_f64(1.05)), "not all at once");
    }

    #[test]
    fn a_gateway_that_names_no_time_to_speak_of_is_not_run_at() {
        let mut longest = Duration::ZERO;
        let mut backoff = backoff();
        for _ in 0..20 {
            longest = longest.max(backoff.asked_to(Duration::ZERO.into(), None));
        }
        assert!(longest > MAX / 2, "{longest:?}");
        let limit = Duration::from_secs(5);
        let wait = backoff.asked_to(Duration::from_millis(1).into(), Some(limit));
        assert!(
            wait >= Duration::from_millis(1) && wait <= limit,
            "{wait:?}"
        );
    }
}
