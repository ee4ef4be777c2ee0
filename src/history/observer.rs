//! Looks at the data path once a second, from within.
//!
//! Invariant: a look allocates nothing while all is well and no point is due, and waits for nobody.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Look, ServerOutages, outages::Trouble, plot::Totals};
use crate::{inference::Admission, service::Stages, session::StatusBoard, shared::Shared};

/// What is looked at.
pub(crate) struct Observer {
    pub(crate) shared: Shared,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) stages: Stages,
    pub(crate) admission: Arc<Admission>,
    pub(crate) server_outages: ServerOutages,
}

impl Observer {
    /// Looks, and has it remembered.
    pub(crate) fn look(&self) {
        let metrics = &self.shared.metrics;
        let is_up = metrics.session_up.get() == 1;
        let wall = self.shared.clock.unix_seconds();
        if self.stages.is_open() {
            let Shared {
                nodes,
                recent_errors,
                ..
            } = &self.shared;
            self.server_outages.look(nodes, recent_errors, wall);
        }
        let look = Look {
            now: Instant::now(),
            wall,
            is_up,
            load: self.admission.load(),
            trouble: self.trouble(is_up),
        };
        self.shared.history.look(look, || Totals::of(metrics));
    }

    /// None while it drains, is drained or paused, or ends: then there is to be no session.
    fn trouble(&self, is_up: bool) -> Option<Trouble> {
        if !self.stages.is_open() {
            return None;
        }
        if !is_up {
            let why = self.status.read().why_lost;
            return Some(Trouble { why });
        }
        let nodes = &self.shared.nodes;
        (!nodes.have_offer()).then(|| Trouble {
            why: nodes.without_chats().next(),
        })
    }
}
