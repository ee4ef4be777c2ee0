//! What the network has said of a node: under which name it knows it, and what it thinks of its interviews.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::telemetry::Tier;

/// A node as the gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The alias that it goes by, which may differ from the one asked for.
    pub alias: String,
    /// The gateway's id for it.
    pub node_id: String,
}

/// How the last interview ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The tier that it gave; [`Tier::Failed`] where it failed.
    pub tier: Tier,
    /// The share of answers that were right.
    pub accuracy: Option<f64>,
    /// The speed that the gateway measured.
    pub tokens_per_second: Option<f64>,
    /// More about it, in the gateway's words, cleaned; often empty.
    pub reason: String,
    /// When the gateway said so, in Unix seconds.
    pub at: u64,
    /// Before when the gateway does not want to see the node again: as a moment, and in Unix seconds.
    pub barred_until: Option<(Instant, u64)>,
}

/// What is known of a node's standing.
#[derive(Default)]
pub struct Standing(Mutex<Known>);

#[derive(Default)]
struct Known {
    registered: Option<Registered>,
    verdict: Option<Verdict>,
}

impl Standing {
    /// The node as the gateway has acknowledged it, once it has.
    pub fn registered(&self) -> Option<Registered> {
        self.lock().registered.clone()
    }

    /// The gateway has acknowledged the node under this name.
    pub fn register(&self, registered: Registered) {
        self.lock().registered = Some(registered);
    }

    /// Whether the gateway knows the node by this id or alias.
    pub fn goes_by(&self, name: &str) -> bool {
        let known = self.lock();
        let registered = known.registered.as_ref();
        registered.is_some_and(|node| node.node_id == name || node.alias == name)
    }

    /// How its last interview ended, once one has.
    pub fn verdict(&self) -> Option<Verdict> {
        self.lock().verdict.clone()
    }

    /// An interview has ended.
    pub fn judge(&self, verdict: Verdict) {
        self.lock().verdict = Some(verdict);
    }

    /// Until when the gateway does not want to see the node, if that is not over.
    pub fn barred_until(&self) -> Option<Instant> {
        let known = self.lock();
        let (until, _) = known.verdict.as_ref()?.barred_until?;
        (until > Instant::now()).then_some(until)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
