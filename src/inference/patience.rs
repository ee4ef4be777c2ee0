//! How long we wait for a backend that is silent.
//!
//! Invariant: only waiting for the backend counts. The time in which a full outbox keeps us from reading does not.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// A limit on silence. The timer is armed once a limit, not once a read: when it rings early, it is set to when it
/// should have rung.
pub(super) struct Patience {
    limit: Duration,
    spent: Duration,
    alarm: Pin<Box<Sleep>>,
}

/// The backend was silent for this long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Silent(pub(super) Duration);

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            spent: Duration::ZERO,
            alarm: Box::pin(sleep_until(Instant::now() + limit)),
        }
    }

    /// Waits for the backend for what is left of the limit.
    pub(super) async fn wait<T>(&mut self, backend: impl Future<Output = T>) -> Result<T, Silent> {
        let began = Instant::now();
        let deadline = began + self.limit.saturating_sub(self.spent);
        let mut backend = std::pin::pin!(backend);
        loop {
            tokio::select! {
                biased;
                output = &mut backend => {
                    self.spent += began.elapsed();
                    return Ok(output);
                }
                () = &mut self.alarm => {
                    if Instant::now() >= deadline {
                        return Err(Silent(self.limit));
                    }
                    self.alarm.as_mut().reset(deadline);
                }
            }
        }
    }

    /// The backend has shown life: from here on it may be silent for `limit`.
    pub(super) fn renew(&mut self, limit: Duration) {
        if limit != self.limit {
            *self = Self::new(limit);
        }
        self.spent = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_limit_counted_from_the_last_sign_of_life() {
        let mut patience = Patience::new(LIMIT);
        for _ in 0..3 {
            assert_eq!(
                patience.wait(sleep(LIMIT - Duration::from_secs(1))).await,
                Ok(())
            );
            patience.renew(LIMIT);
        }
        let began = Instant::now();
        assert_eq!(patience.wait(pending::<()>()).await, Err(Silent(LIMIT)));
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_without_a_sign_of_life_add_up_but_time_between_them_does_not() {
        let mut patience = Patience::new(LIMIT);
        assert_eq!(patience.wait(sleep(LIMIT / 2)).await, Ok(()));
        sleep(LIMIT * 10).await;
        let began = Instant::now();
        assert_eq!(patience.wait(pending::<()>()).await, Err(Silent(LIMIT)));
        assert_eq!(began.elapsed(), LIMIT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_limit_counts_from_when_it_was_set() {
        let mut patience = Patience::new(LIMIT * 5);
        patience.renew(LIMIT);
        let began = Instant::now();
        assert_eq!(patience.wait(pending::<()>()).await, Err(Silent(LIMIT)));
        assert_eq!(began.elapsed(), LIMIT);
    }
}
