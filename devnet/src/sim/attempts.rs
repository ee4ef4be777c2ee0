//! The rule about attempts to connect: the network's edge refuses the eleventh of an address within a minute, so that the
//! product makes nine at most.
//!
//! Invariant: an attempt is a connection on which the product has begun to write. One that never came so far cost the edge
//! nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::ledger::Ledger;

/// `PIN_CONNECTS_PER_MINUTE`: so many attempts within a [`MINUTE`].
const MOST: usize = 9;

/// So many may be made at once, and one more after each [`REFILL`].
const BURST: usize = 4;

/// See [`BURST`].
pub(super) const REFILL: Duration = Duration::from_secs(12);

/// What attempts are counted over.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

impl Ledger {
    pub(super) fn check_attempts(&mut self) {
        let attempts = self.gateway.begun();
        if let Some((at, so_many)) = too_many(&attempts) {
            let what = format!(
                "{so_many} attempts to connect within a minute, at {:?}",
                at - self.began
            );
            self.breach("gateway", "13 (attempts)", &what);
        }
    }

    /// Whether the product may have to wait for leave to make another attempt.
    pub(super) fn may_have_used_up_attempts(&self, now: Instant) -> bool {
        let attempts = self.gateway.begun();
        let lately = attempts.iter().rev();
        let lately = lately.take_while(|at| now - **at < MINUTE);
        lately.count() >= BURST
    }
}

/// The first attempt that was one too many, and how many there had been in the minute before.
fn too_many(attempts: &[Instant]) -> Option<(Instant, usize)> {
    attempts
        .windows(MOST + 1)
        .find(|window| window[MOST] - window[0] < MINUTE)
        .map(|window| (window[MOST], MOST + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(seconds: &[u64]) -> Vec<Instant> {
        let began = Instant::now();
        let at = |seconds: &u64| began + Duration::from_secs(*seconds);
        seconds.iter().map(at).collect()
    }

    #[test]
    fn a_burst_and_one_each_twelve_seconds_are_allowed() {
        let kept = attempts(&[0, 0, 0, 0, 12, 24, 36, 48, 60, 72, 84]);
        assert_eq!(too_many(&kept), None);
    }

    #[test]
    fn the_tenth_within_a_minute_is_one_too_many_wherever_the_minute_begins() {
        let unbounded = attempts(&[0, 30, 31, 32, 33, 34, 35, 36, 37, 38, 89]);
        let tenth = unbounded[9];
        assert_eq!(too_many(&unbounded), Some((tenth, 10)));
    }
}
