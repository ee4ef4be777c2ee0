//! What a check has found. Its JSON is a contract: fields only ever get added.
//!
//! Invariant: no secret, prompt, answer or raw error text of others has a place in it.

use serde::Serialize;

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
    /// Its name, from a closed set: `settings`, `secret`, `dns`, `tcp`, `tls`, `clock`, `login`, `backend`, `models`, `answer`.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, as a sentence.
    pub found: String,
    /// What to do about a failure, as a sentence.
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
