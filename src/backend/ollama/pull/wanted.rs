//! One model's way to being there: when to ask for it next, and what to tell the log about it.
//!
//! Invariant: a failure that goes on is told once, then now and then; and no wait is shorter than the failures before
//! it deserve, unless bytes came that had not been there before.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::info;

use super::{
    error::{PullError, Remedy},
    progress::Bytes,
};
use crate::{
    backend::backoff::wait_after,
    telemetry::{LogThrottle, throttled},
};

/// How often it is looked whether something has been mended that only people can mend, give or take a fifth.
const OPERATOR_WAIT: Duration = Duration::from_secs(3600);

/// Progress is told after as much time and as many percent, whichever takes longer.
const PROGRESS_TIME: Duration = Duration::from_secs(30);
const PROGRESS_PERCENT: u64 = 10;

/// A model that Ollama does not have yet.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) model: Arc<str>,
    /// Its place among all that are to be pulled.
    pub(super) place: usize,
    pub(super) due: Instant,
    first_asked: Option<Instant>,
    attempts: u64,
    /// In a row, without new bytes in between.
    failures: u32,
    /// The most bytes that Ollama ever had of it.
    best: u64,
    trouble: LogThrottle<Remedy>,
    told_progress: (u64, Instant),
}

impl Wanted {
    pub(super) fn new(model: Arc<str>, place: usize) -> Self {
        let now = Instant::now();
        Self {
            model,
            place,
            due: now,
            first_asked: None,
            attempts: 0,
            failures: 0,
            best: 0,
            trouble: LogThrottle::outage(),
            told_progress: (0, now),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Ollama is asked for it.
    pub(super) fn begin(&mut self) {
        self.attempts += 1;
        if self.first_asked.is_none() {
            let now = Instant::now();
            (self.first_asked, self.told_progress) = (Some(now), (0, now));
            info!(model = &*self.model, "pulling a model");
        }
    }

    /// Ollama has so much of it.
    pub(super) fn progressed(&mut self, bytes: Bytes) {
        if bytes.completed > self.best {
            self.best = bytes.completed;
            self.failures = 0;
        }
        let Some(percent) = bytes.percent() else {
            return;
        };
        let (told, at) = &mut self.told_progress;
        // A layer that was not known before makes it less.
        *told = percent.min(*told);
        if percent >= *told + PROGRESS_PERCENT && at.elapsed() >= PROGRESS_TIME {
            self.told_progress = (percent, Instant::now());
            info!(
                model = &*self.model,
                completed_bytes = bytes.completed,
                total_bytes = bytes.expected,
                "pulling: {percent} %"
            );
        }
    }

    /// Ollama has it.
    pub(super) fn succeeded(&self, bytes: Bytes) {
        let took = self.first_asked.map_or(Duration::ZERO, |at| at.elapsed());
        info!(
            model = &*self.model,
            completed_bytes = bytes.completed,
            total_bytes = bytes.expected,
            duration_ms = crate::clock::millis(took),
            attempts = self.attempts,
            "the model is pulled"
        );
    }

    /// The attempt has failed; it becomes due again.
    pub(super) fn failed(&mut self, error: &PullError, random: &mut fastrand::Rng) {
        let remedy = error.remedy();
        self.due = Instant::now() + self.wait(remedy, random);
        self.failures = self.failures.saturating_add(1);
        self.tell(error, remedy);
    }

    fn wait(&self, remedy: Remedy, random: &mut fastrand::Rng) -> Duration {
        match remedy {
            Remedy::AskAgain => wait_after(self.failures, random),
            Remedy::Operator => OPERATOR_WAIT.mul_f64(0.8 + 0.4 * random.f64()),
        }
    }

    fn tell(&mut self, error: &PullError, remedy: Remedy) {
        let (model, told) = (&*self.model, self.trouble.seen(remedy));
        match remedy {
            Remedy::AskAgain => {
                throttled!(warn, told, [model, %error,] "the model is not pulled yet, and is tried again");
            }
            Remedy::Operator => {
                throttled!(
                    warn, told, [model, %error,]
                    "the model cannot be pulled: correct PIN_PULL_MODELS, or what Ollama says; it is tried again in an hour"
                );
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        backend::backoff::{WAIT_MAX, WAIT_MIN},
        transport::http::HttpError,
    };

    fn wanted() -> Wanted {
        let mut wanted = Wanted::new("a:latest".into(), 0);
        wanted.begin();
        wanted
    }

    fn wait_after(wanted: &mut Wanted, error: &PullError, random: &mut fastrand::Rng) -> Duration {
        wanted.failed(error, random);
        wanted.due - Instant::now()
    }

    fn bytes(completed: u64) -> Bytes {
        Bytes {
            completed,
            expected: 100,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_minutes_and_start_over_once_bytes_come_that_are_new() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut wanted = wanted();
        let broken = PullError::Http(HttpError::Broken);
        let waits: Vec<_> = (0..200)
            .map(|_| wait_after(&mut wanted, &broken, &mut random))
            .collect();
        assert!(waits[0] <= WAIT_MIN && waits.iter().all(|wait| *wait <= WAIT_MAX));
        assert!(waits[20..].iter().any(|wait| *wait > WAIT_MAX / 2));
        wanted.progressed(bytes(10));
        assert!(wait_after(&mut wanted, &broken, &mut random) <= WAIT_MIN);
        // What was there before is told again by every attempt.
        for _ in 0..20 {
            wanted.progressed(bytes(10));
            wanted.failed(&broken, &mut random);
        }
        assert!((0..20).any(|_| wait_after(&mut wanted, &broken, &mut random) > WAIT_MIN));
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_the_operator_can_mend_is_tried_hourly() {
        let mut random = fastrand::Rng::with_seed(7);
        let refused = PullError::Refused("no such model".into());
        for _ in 0..50 {
            let wait = wait_after(&mut wanted(), &refused, &mut random);
            assert!(wait >= OPERATOR_WAIT.mul_f64(0.8) && wait <= OPERATOR_WAIT.mul_f64(1.2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_goes_on_is_summed_up_as_any_outage_is() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut wanted = wanted();
        wanted.failed(&PullError::Ended, &mut random);
        assert_eq!(wanted.trouble.sum_due(), None, "the first is told at once");
        wanted.failed(&PullError::Http(HttpError::Broken), &mut random);
        let due = wanted.trouble.sum_due().unwrap();
        assert!(due > Instant::now(), "the same again waits for its sum");
        wanted.failed(&PullError::Refused(String::new()), &mut random);
        assert_eq!(
            wanted.trouble.sum_due(),
            None,
            "another kind is told at once"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_told_by_time_and_by_percent_whichever_is_rarer() {
        let mut wanted = wanted();
        let mut told = Vec::new();
        for second in 0..=100 {
            // One percent a second, then ten.
            let percent = if second <= 50 {
                second
            } else {
                50 + (second - 50).min(5) * 10
            };
            let before = wanted.told_progress;
            wanted.progressed(bytes(percent));
            if wanted.told_progress != before {
                told.push((second, percent));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [(30, 30), (60, 100)]);
    }
}
