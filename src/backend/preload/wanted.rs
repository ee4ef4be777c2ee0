//! One model that is to be kept loaded: what has become of it, and when it is to be asked for next.
//!
//! Invariant: what a look shows counts only if it began after the last request that the server took, since a look takes time
//! and so does loading.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    backend::{AskError, Loaded, Model, backoff::wait_after},
    label::labels,
    telemetry::{LogThrottle, throttled},
};

/// A model that nobody asks for is asked for again after this: half the time for which each request has it kept.
const RENEWED_AFTER: Duration = Duration::from_secs(15 * 60);

labels! {
    /// What has become of a model that is to be kept loaded.
    pub enum PreloadState {
        /// It is not offered, its turn has not come, or the server is away. Ends when it is asked for.
        Waiting = "waiting",
        /// The server is loading it. Ends with success or failure.
        Loading = "loading",
        /// The server has loaded it. Ends when it is thrown out, or the server goes away.
        Loaded = "loaded",
        /// The last attempt failed. Ends with the next one, or with a request that the server takes.
        Failed = "failed",
        /// It was thrown out while the server stayed up. Ends with a request that loads it, or when the server goes away.
        Evicted = "evicted",
    }
}

/// Why a model is not loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The server cannot be asked, or refuses.
    #[error(transparent)]
    Failed(AskError),
    /// It was not loaded in this time.
    #[error("it was not loaded within {}", humantime::format_duration(*.0))]
    Slow(Duration),
}

/// What makes a failure worth a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unreachable,
    Refused(u16),
    Slow,
}

/// A model that is to be kept loaded.
pub(super) struct Wanted {
    /// Its name, in full once it is offered.
    pub(super) model: Arc<str>,
    pub(super) state: PreloadState,
    is_offered: bool,
    /// When the first attempt began since the server has been there.
    since: Option<Instant>,
    /// When it is to be asked for, where its state wants that.
    due: Instant,
    failures: u32,
    /// When the server last took a request for it.
    last_used: Instant,
    /// The last look did not show it in memory.
    is_missing: bool,
    /// A connection has ended that only a restart of the server, or something in between, would end.
    may_have_restarted: bool,
    trouble: LogThrottle<Kind>,
    /// What was last told of where it lies.
    told: Option<Loaded>,
}

impl Wanted {
    pub(super) fn new(model: Arc<str>) -> Self {
        let now = Instant::now();
        Self {
            model,
            state: PreloadState::Waiting,
            is_offered: false,
            since: None,
            due: now,
            failures: 0,
            last_used: now,
            is_missing: false,
            may_have_restarted: false,
            trouble: LogThrottle::outage(),
            told: None,
        }
    }

    /// When it is to be asked for.
    pub(super) fn due(&self) -> Option<Instant> {
        let is_due_some_time = match self.state {
            PreloadState::Waiting | PreloadState::Failed => true,
            // Between two requests of different wishes Ollama has it out of memory for a moment.
            PreloadState::Loaded => !self.is_missing,
            PreloadState::Loading | PreloadState::Evicted => false,
        };
        (self.is_offered && is_due_some_time).then_some(self.due)
    }

    /// Whether registration need not wait for it: it is loaded, was thrown out, is not there, or was waited for long enough.
    pub(super) fn is_warm(&self, patience: Duration) -> bool {
        match self.state {
            PreloadState::Loaded | PreloadState::Evicted => true,
            PreloadState::Waiting | PreloadState::Loading | PreloadState::Failed => {
                let until = self.since.map(|since| since + patience);
                !self.is_offered || until.is_some_and(|until| until <= Instant::now())
            }
        }
    }

    /// When registration will not wait for it any longer.
    pub(super) fn awaited_until(&self, patience: Duration) -> Option<Instant> {
        let is_awaited = !self.is_warm(patience);
        self.since
            .filter(|_| is_awaited)
            .map(|since| since + patience)
    }

    /// A look shows it so, or not among the models that are offered. `looked`: when memory was looked at, if it was.
    pub(super) fn seen(&mut self, model: Option<&Model>, looked: Option<Instant>) {
        let Some(model) = model else {
            return self.is_gone();
        };
        self.is_offered = true;
        self.model = Arc::clone(&model.name);
        if self.state != PreloadState::Loaded || looked.is_none_or(|began| began < self.last_used) {
            return;
        }
        if let Some(loaded) = model.loaded {
            (self.is_missing, self.may_have_restarted) = (false, false);
            self.tell_place(loaded);
        } else if self.may_have_restarted {
            self.begin_anew();
        } else if self.is_missing {
            self.state = PreloadState::Evicted;
            info!(
                model = &*self.model,
                "a preloaded model was thrown out of memory: it is loaded again when it is asked for"
            );
        } else {
            self.is_missing = true;
        }
    }

    /// The server does not answer, or no longer has it. Failures are remembered: a model that takes the server down with it
    /// each time it is loaded must not be waited for each time.
    pub(super) fn is_gone(&mut self) {
        self.is_offered = false;
        match self.state {
            PreloadState::Loaded | PreloadState::Evicted => self.begin_anew(),
            PreloadState::Waiting | PreloadState::Loading | PreloadState::Failed => {}
        }
    }

    /// The server may have been restarted: if the model is gone from memory, then that is why.
    pub(super) fn suspect_restart(&mut self) {
        self.may_have_restarted = true;
    }

    /// Whether the server has it.
    pub(super) fn is_offered(&self) -> bool {
        self.is_offered
    }

    /// As if it had never been loaded.
    pub(super) fn begin_anew(&mut self) {
        self.state = PreloadState::Waiting;
        self.since = None;
        self.due = Instant::now();
        self.failures = 0;
        (self.is_missing, self.may_have_restarted) = (false, false);
    }

    /// It is asked for now. Gives how long that may take; `None`: it need not be any more.
    pub(super) fn begin(&mut self, patience: Duration) -> Option<Duration> {
        let now = Instant::now();
        if self.due()? > now {
            return None;
        }
        if self.state != PreloadState::Loaded {
            self.state = PreloadState::Loading;
        }
        let until = *self.since.get_or_insert(now) + patience;
        // An attempt ends with the patience of whoever waits for it.
        Some(if until > now { until - now } else { patience })
    }

    /// The server has loaded it.
    pub(super) fn loaded(&mut self, took: Duration) {
        let was_loaded = self.state == PreloadState::Loaded;
        self.used();
        let told = self.trouble.gone();
        if told.is_some() || !was_loaded {
            let told = told.unwrap_or_default();
            info!(
                model = &*self.model,
                duration_ms = crate::clock::millis(took),
                attempts = told.attempts,
                since_s = told.since_s,
                "the model is loaded"
            );
        }
    }

    /// The server has taken a request for it.
    pub(super) fn used(&mut self) {
        let now = Instant::now();
        self.state = PreloadState::Loaded;
        self.last_used = now;
        self.due = now + RENEWED_AFTER;
        self.failures = 0;
        (self.is_missing, self.may_have_restarted) = (false, false);
    }

    /// It was not loaded; it becomes due again.
    pub(super) fn failed(&mut self, error: &LoadError, random: &mut fastrand::Rng) {
        self.state = PreloadState::Failed;
        self.due = Instant::now() + wait_after(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        let kind = match error {
            LoadError::Failed(AskError::Http(_)) => Kind::Unreachable,
            LoadError::Failed(AskError::Refused { status, .. }) => Kind::Refused(*status),
            LoadError::Slow(_) => Kind::Slow,
        };
        let (told, model) = (self.trouble.seen(kind), &*self.model);
        throttled!(warn, told, [model, %error,] "a model that is to be kept loaded cannot be loaded, and is tried again");
    }

    fn tell_place(&mut self, loaded: Loaded) {
        if self.told.replace(loaded) == Some(loaded) {
            return;
        }
        if let Some(trouble) = outside_the_gpu(loaded) {
            warn!(model = &*self.model, "{trouble}");
        }
    }
}

/// What is wrong with the place where a model lies, as a sentence for the operator.
fn outside_the_gpu(loaded: Loaded) -> Option<String> {
    if loaded.gpu_bytes >= loaded.bytes {
        return None;
    }
    if loaded.gpu_bytes == 0 {
        return Some("a preloaded model runs without a GPU: its answers will be slow".to_owned());
    }
    let percent = u128::from(loaded.gpu_bytes) * 100 / u128::from(loaded.bytes);
    Some(format!(
        "only {percent} % of a preloaded model is on the GPU: its answers will be slow; a smaller PIN_MAX_CONTEXT, or fewer \
         models in PIN_PRELOAD_MODELS, need less"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_lies_partly_outside_the_gpu_is_warned_about_and_one_within_is_not() {
        let trouble = |bytes, gpu_bytes| outside_the_gpu(Loaded { bytes, gpu_bytes });
        let begins =
            |trouble: Option<String>, words| trouble.is_some_and(|it| it.starts_with(words));
        assert_eq!(trouble(8, 8), None);
        assert_eq!(trouble(0, 0), None);
        assert!(begins(trouble(8, 6), "only 75 % of a preloaded model"));
        assert!(begins(trouble(u64::MAX, u64::MAX - 1), "only 99 %"));
        assert!(begins(
            trouble(8, 0),
            "a preloaded model runs without a GPU"
        ));
    }
}
