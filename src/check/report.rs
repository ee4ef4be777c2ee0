//! What a check has found. Its JSON is a contract: fields only ever get added.
//!
//! Invariant: no secret, prompt, answer or raw error text of others has a place in it.

use std::time::Duration;

use serde::Serialize;

use crate::clock::millis;

/// Everything that was tried, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether nothing failed.
    pub passed: bool,
    /// Step by step.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Its name, from a closed set: `settings`, `secret`, `dns`, `tcp`, `proxy` (where one is set, to which `dns` and `tcp`
    /// belong then), `tls`, `clock`, `login`, `backend`, `models`, `speech` (where a speech server is set), `answer`.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, in sentences. Those of `/readyz` say what to do as well.
    pub found: String,
    /// What to do, as a sentence, where `found` does not say it.
    pub advice: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is well.
    Passed,
    /// It is well, and yet there is something to mend.
    Warned,
    /// It has failed.
    Failed,
    /// It was left out; `found` says why.
    Skipped,
}

impl Report {
    /// What these steps come to.
    pub(super) fn of(steps: Vec<Step>) -> Self {
        let is_failed = |step: &Step| step.outcome == Outcome::Failed;
        Self {
            passed: !steps.iter().any(is_failed),
            steps,
        }
    }
}

impl Step {
    pub(super) fn passed(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Outcome::Passed, found, None)
    }

    pub(super) fn warned(
        name: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Outcome::Warned, found, Some(advice.into()))
    }

    /// A failure whose sentence says what to do.
    pub(super) fn failed(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Outcome::Failed, found, None)
    }

    pub(super) fn skipped(name: &'static str, reason: impl Into<String>) -> Self {
        Self::new(name, Outcome::Skipped, reason, None)
    }

    /// Left out since what it needs has failed.
    pub(super) fn skipped_after(name: &'static str, failed: &str) -> Self {
        Self::skipped(name, format!("Not tried, since `{failed}` failed."))
    }

    pub(super) fn advising(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    pub(super) fn lasting(self, duration: Duration) -> Self {
        Self {
            duration_ms: millis(duration),
            ..self
        }
    }

    fn new(
        name: &'static str,
        outcome: Outcome,
        found: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        Self {
            name,
            outcome,
            found: found.into(),
            advice,
            duration_ms: 0,
        }
    }
}
