//! The outages of the servers behind the nodes, among the last things that went wrong.
//!
//! Invariant: each is told once, when it is seen to begin, and again only where it has become another kind of outage.

use std::sync::{Mutex, PoisonError};

use crate::{
    backend::speech::SpeechServer,
    node::Nodes,
    telemetry::{ErrorSource, RecentErrors, ServerOutage},
};

/// What was seen last of each node's model server and speech server.
#[derive(Default)]
pub(crate) struct ServerOutages(Mutex<Vec<[Option<ServerOutage>; 2]>>);

impl ServerOutages {
    /// How they are at this time in Unix seconds.
    pub(super) fn look(&self, nodes: &Nodes, recent_errors: &RecentErrors, at: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.resize(nodes.len(), [None; 2]);
        for (known, node) in known.iter_mut().zip(nodes.iter()) {
            let speech = node.speech.as_ref();
            let now = [node.backend.outage(), speech.and_then(SpeechServer::outage)];
            let of = [ErrorSource::ModelServer, ErrorSource::SpeechServer];
            for ((known, now), of) in known.iter_mut().zip(now).zip(of) {
                if let Some(outage) = now.filter(|_| *known != now) {
                    recent_errors.push(of(outage), at);
                }
                *known = now;
            }
        }
    }
}
