//! How far the pulls are, for whoever looks: `/status`, `/readyz` and the metrics.
//!
//! Invariant: as many entries as there are names in the settings, in their order; nothing of what Ollama said.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use super::progress::Bytes;
use crate::{
    backend::{Rules, names::suitability_by_name},
    label::labels,
    telemetry::{Metrics, gauge},
};

labels! {
    /// What has become of a model that is to be pulled.
    pub enum PullState {
        /// Its turn has not come, or Ollama is away. Ends when Ollama is asked for it, or has it.
        Waiting = "waiting",
        /// Ollama is fetching it. Ends with success, failure or the drain.
        Pulling = "pulling",
        /// Ollama has it, or had it: nothing more happens.
        Done = "done",
        /// The last attempt failed. Ends with the next one, or when Ollama has it.
        Failed = "failed",
    }
}

/// A model that is to be pulled.
#[derive(Clone, Debug)]
pub struct PullStatus {
    /// Its full name.
    pub model: Arc<str>,
    /// What has become of it.
    pub state: PullState,
    /// What Ollama has of it, in bytes.
    pub completed_bytes: u64,
    /// How large it is as far as is known: Ollama tells it layer by layer.
    pub total_bytes: u64,
}

/// All models that are to be pulled.
#[derive(Default)]
pub struct PullBoard(Box<[Entry]>);

struct Entry {
    model: Arc<str>,
    /// Whether its name allows that it is offered once it is there.
    may_be_offered: bool,
    now: Mutex<(PullState, Bytes)>,
    completed: IntGauge,
    expected: IntGauge,
}

impl PullBoard {
    /// Every model waiting, with its series of metrics at 0.
    pub(in crate::backend) fn new(models: Vec<Arc<str>>, rules: &Rules, metrics: &Metrics) -> Self {
        let entry = |model: Arc<str>| Entry {
            completed: metrics.model_pull_bytes_completed.of(&model),
            expected: metrics.model_pull_bytes_expected.of(&model),
            now: Mutex::new((PullState::Waiting, Bytes::default())),
            may_be_offered: rules.offers(&model, suitability_by_name(&model)),
            model,
        };
        Self(models.into_iter().map(entry).collect())
    }

    /// The models' names, each with whether it may be offered.
    pub(super) fn models(&self) -> impl Iterator<Item = (&Arc<str>, bool)> {
        self.0
            .iter()
            .map(|entry| (&entry.model, entry.may_be_offered))
    }

    /// All of them, in the order of the settings.
    pub fn list(&self) -> Vec<PullStatus> {
        let status = |entry: &Entry| {
            let (state, bytes) = *entry.now();
            PullStatus {
                model: Arc::clone(&entry.model),
                state,
                completed_bytes: bytes.completed,
                total_bytes: bytes.expected,
            }
        };
        self.0.iter().map(status).collect()
    }

    /// What to say to an operator who waits for a model to offer, if a pull has to do with it.
    pub fn sentence(&self) -> Option<String> {
        let first = |state: PullState| {
            let awaited = |entry: &&Entry| entry.may_be_offered && entry.now().0 == state;
            self.0.iter().find(awaited)
        };
        if let Some(entry) = first(PullState::Pulling) {
            let percent = entry.now().1.percent();
            let percent = percent.map(|percent| format!(" ({percent} %)"));
            let percent = percent.unwrap_or_default();
            return Some(format!("Ollama is pulling {}{percent}.", entry.model));
        }
        let failed = first(PullState::Failed)?;
        Some(format!(
            "There is no model to offer, and pulling {} failed: the log says why. It is tried again.",
            failed.model
        ))
    }

    pub(super) fn set_state(&self, place: usize, state: PullState) {
        self.0[place].now().0 = state;
    }

    pub(super) fn set_bytes(&self, place: usize, bytes: Bytes) {
        let entry = &self.0[place];
        entry.now().1 = bytes;
        entry.completed.set(gauge(bytes.completed));
        entry.expected.set(gauge(bytes.expected));
    }

    /// Nothing is pulled any more.
    pub(in crate::backend) fn stand_down(&self) {
        for entry in &self.0 {
            let mut now = entry.now();
            if now.0 == PullState::Pulling {
                now.0 = PullState::Waiting;
            }
        }
    }
}

impl Entry {
    fn now(&self) -> MutexGuard<'_, (PullState, Bytes)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
