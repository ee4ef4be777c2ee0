//! Who tried to connect when, and who is refused for having tried too often.
//!
//! Invariant: an attempt that is refused does not count against the next one, as with the sliding windows of common
//! rate limiters: whoever knocks on and on is let in again as soon as the oldest attempt that counts is a minute old.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// What the limit is about.
const WINDOW: Duration = Duration::from_secs(60);

/// How many attempts are remembered: hours of an agent that keeps to its limit, and far above any limit.
const KEPT: usize = 4096;

/// A connection that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When.
    pub at: Instant,
    /// From where; `None` over a wire that is not there.
    pub from: Option<IpAddr>,
    /// Whether it was refused for coming too often.
    pub refused: bool,
}

#[derive(Debug, Default)]
pub(super) struct Attempts(VecDeque<Attempt>);

impl Attempts {
    /// Notes an attempt; true if it is one more than `limit` within a minute.
    pub(super) fn note(&mut self, from: Option<IpAddr>, limit: Option<usize>, at: Instant) -> bool {
        let recent = self.0.iter().rev();
        let counted = recent
            .take_while(|attempt| at - attempt.at < WINDOW)
            .filter(|attempt| attempt.from == from && !attempt.refused)
            .count();
        let refused = limit.is_some_and(|limit| counted >= limit);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Attempt { at, from, refused });
        refused
    }

    /// The newest attempts, in their order.
    pub(super) fn all(&self) -> Vec<Attempt> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_eleventh_attempt_in_any_minute_is_refused_and_does_not_count_itself() {
        let mut attempts = Attempts::default();
        let begun = Instant::now();
        let mut at = |second: u64| {
            let now = begun + Duration::from_secs(second);
            attempts.note(None, Some(10), now)
        };
        assert!((0..10).all(|second| !at(second)));
        assert!((10..60).all(&mut at));
        assert!(!at(60), "the first one is a minute old");
        assert!(at(60), "the second one is not");
        assert!(!at(61));
    }

    #[test]
    fn each_address_has_its_own_ten() {
        let mut attempts = Attempts::default();
        let now = Instant::now();
        let address = |last| Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        for last in [1, 2] {
            assert!((0..10).all(|_| !attempts.note(address(last), Some(10), now)));
            assert!(attempts.note(address(last), Some(10), now));
        }
        assert!(!attempts.note(address(1), None, now), "without a limit");
        assert_eq!(attempts.all().len(), 23);
    }
}
