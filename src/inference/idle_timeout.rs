//! How long we wait for a backend: for its next line, and for the whole.
//!
//! Invariant: towards silence only waiting for the backend counts. The time in which a full outbox keeps us from reading
//! does not; towards the whole it does.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// A limit on silence, and the end of all waiting. The timer is armed once a limit, not once a read: when it rings early,
/// it is set to when it should have rung.
pub(super) struct IdleTimeout {
    limit: Duration,
    spent: Duration,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// The backend was waited for in vain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TimedOut {
    /// It was silent for this long.
    Idle(Duration),
    /// The whole took too long.
    Overdue,
}

impl IdleTimeout {
    pub(super) fn new(limit: Duration, deadline: Instant) -> Self {
        let alarm = (Instant::now() + limit).min(deadline);
        Self {
            limit,
            spent: Duration::ZERO,
            deadline,
            alarm: Box::pin(sleep_until(alarm)),
        }
    }

    /// Waits for the backend for what is left of the limit.
    pub(super) async fn wait<T>(
        &mut self,
        backend: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        let began = Instant::now();
        let silent_at = began + self.limit.saturating_sub(self.spent);
        let over = silent_at.min(self.deadline);
        let mut backend = std::pin::pin!(backend);
        loop {
            tokio::select! {
                biased;
                output = &mut backend => {
                    self.spent += began.elapsed();
                    return Ok(output);
                }
                () = &mut self.alarm => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return Err(TimedOut::Overdue);
                    }
                    if now >= over {
                        return Err(TimedOut::Idle(self.limit));
                    }
                    self.alarm.as_mut().reset(over);
                }
            }
        }
    }

    /// The backend has shown life: from here on it may be silent for `limit`.
    pub(super) fn renew(&mut self, limit: Duration) {
        if limit != self.limit {
            *self = Self::new(limit, self.deadline);
        }
        self.spent = Duration::ZERO;
    }

    /// Nothing but the end matters any more, and that is then.
    pub(super) fn end_at(&mut self, deadline: Instant) {
        *self = Self::new(self.limit, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use tokio::time::sleep;

    const LIMIT: Duration = Duration::from_secs(60);

    fn far() -> Instant {
        Instant::now() + LIMIT * 100
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_after_its_limit_counted_from_the_last_sign_of_life() {
        let mut timeout = IdleTimeout::new(LIMIT, far());
        for _ in 0..3 {
            assert_eq!(
                timeout.wait(sleep(LIMIT - Duration::from_secs(1))).await,
                Ok(())
            );
            timeout.renew(LIMIT);
        }
        let began = Instant::now();
        assert_eq!(
            timeout.wait(pending::<()>()).await,
            Err(TimedOut::Idle(LIMIT))
        );
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_without_a_sign_of_life_add_up_but_time_between_them_does_not() {
        let mut timeout = IdleTimeout::new(LIMIT, far());
        assert_eq!(timeout.wait(sleep(LIMIT / 2)).await, Ok(()));
        sleep(LIMIT * 10).await;
        let began = Instant::now();
        assert_eq!(
            timeout.wait(pending::<()>()).await,
            Err(TimedOut::Idle(LIMIT))
        );
        assert_eq!(began.elapsed(), LIMIT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_limit_counts_from_when_it_was_set() {
        let mut timeout = IdleTimeout::new(LIMIT * 5, far());
        timeout.renew(LIMIT);
        let began = Instant::now();
        assert_eq!(
            timeout.wait(pending::<()>()).await,
            Err(TimedOut::Idle(LIMIT))
        );
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_is_over_at_its_deadline_whatever_signs_of_life_there_were() {
        let began = Instant::now();
        let mut timeout = IdleTimeout::new(LIMIT, began + LIMIT * 2);
        for _ in 0..3 {
            assert_eq!(timeout.wait(sleep(LIMIT / 2)).await, Ok(()));
            timeout.renew(LIMIT);
        }
        assert_eq!(timeout.wait(pending::<()>()).await, Err(TimedOut::Overdue));
        assert_eq!(began.elapsed(), LIMIT * 2);
    }
}
