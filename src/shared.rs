//! What the parts of the data path share, and those who look at it from outside.

use std::sync::Arc;

use crate::{
    clock::WallClock,
    history::History,
    node::Nodes,
    outbox::Outbox,
    telemetry::{Metrics, RecentErrors},
};

/// What everybody needs. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Who does the work.
    pub nodes: Nodes,
    /// Where answers go.
    pub outbox: Arc<Outbox>,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// Where failures are remembered.
    pub recent_errors: Arc<RecentErrors>,
    /// Where it is remembered how things went.
    pub history: Arc<History>,
    /// What time it is.
    pub clock: Arc<dyn WallClock>,
}
