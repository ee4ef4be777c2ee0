//! How long we wait for a backend: for its next line, and for the whole.
//!
//! Invariant: towards silence only waiting for the backend counts. The time in which a full outbox keeps us from reading
//! does not; towards the whole it does. And nobody is given up while what he said may lie unread: after a time in which this
//! process did not run (SIGSTOP, a machine that slept) that is read first.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// An alarm that rings later than this did so because this process did not run. Timers are kept to a millisecond.
const LATE: Duration = Duration::from_millis(10);

/// How long what came meanwhile is then read, line by line. It lies in the buffers of this machine.
const CATCH_UP: Duration = Duration::from_secs(1);

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
        let mut over = silent_at.min(self.deadline);
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
                    if now >= over {
                        if now <= self.alarm.deadline() + LATE {
                            return Err(self.timed_out(now));
                        }
                        over = self.catch_up(now);
                    }
                    self.alarm.as_mut().reset(over);
                }
            }
        }
    }

    /// The time is over, but was not ours: until when what came meanwhile is read.
    fn catch_up(&mut self, now: Instant) -> Instant {
        let over = now + CATCH_UP;
        if self.deadline <= now {
            self.deadline = over;
        }
        over.min(self.deadline)
    }

    fn timed_out(&self, now: Instant) -> TimedOut {
        if now >= self.deadline {
            TimedOut::Overdue
        } else {
            TimedOut::Idle(self.limit)
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
    use tokio::{
        sync::mpsc,
        time::{advance, sleep},
    };

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

    /// What comes of an answer in two parts that came while this process did not run for `stopped`, when it has a limit on
    /// silence and one on the whole. It takes the connection's own task a moment to read each.
    async fn after_a_stop(stopped: Duration, limit: Duration, whole: Duration) -> [bool; 2] {
        let mut timeout = IdleTimeout::new(limit, Instant::now() + whole);
        let (parts, mut body) = mpsc::channel(1);
        let connection = async {
            advance(stopped).await;
            for part in 0..2 {
                sleep(Duration::from_millis(5)).await;
                let _ = parts.send(part).await;
            }
            pending::<()>().await;
        };
        let reading = async {
            let first = timeout.wait(body.recv()).await.is_ok();
            timeout.renew(limit);
            [first, timeout.wait(body.recv()).await.is_ok()]
        };
        tokio::select! {
            read = reading => read,
            () = connection => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_came_while_the_process_was_stopped_is_read_whichever_limit_is_over() {
        for (limit, whole) in [(LIMIT, LIMIT * 9), (LIMIT, LIMIT), (LIMIT * 9, LIMIT)] {
            let read = after_a_stop(LIMIT * 2, limit, whole).await;
            assert_eq!(read, [true, true], "{limit:?} {whole:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stop_a_silent_backend_is_given_up_at_once() {
        for (limit, whole, expected) in [
            (LIMIT, LIMIT * 9, TimedOut::Idle(LIMIT)),
            (LIMIT * 9, LIMIT, TimedOut::Overdue),
        ] {
            let mut timeout = IdleTimeout::new(limit, Instant::now() + whole);
            let began = Instant::now();
            let (silent, ()) = tokio::join!(timeout.wait(pending::<()>()), advance(LIMIT * 2));
            assert_eq!(silent, Err(expected));
            assert_eq!(began.elapsed(), LIMIT * 2 + CATCH_UP);
        }
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
