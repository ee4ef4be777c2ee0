//! Requests that are under way, probes among them, and what they do to their node's reputation.

use tokio::time::Instant;

use super::{
    Member, Network, Order, Policy,
    reputation::Deed,
    requests::{Request, is_probe},
};

impl Network {
    /// A request was sent over this connection.
    pub(crate) fn sent(
        &mut self,
        id: &str,
        connection: u64,
        model: &str,
        policy: &Policy,
        now: Instant,
    ) {
        let node = self
            .node_for(connection, model)
            .map(|node| node.alias.clone());
        self.requests
            .sent(id, Request::new(node, policy.give_up_after, now));
    }

    /// Which node a session gives a request to cannot be seen: it is taken to be the first that has the model, else the
    /// first.
    fn node_for(&self, connection: u64, model: &str) -> Option<&Member> {
        self.on(connection)
            .find(|node| node.has(model))
            .or_else(|| self.on(connection).next())
    }

    pub(crate) fn heard(&mut self, id: &str, now: Instant) {
        self.requests.heard(id, now);
    }

    pub(crate) fn cancelled(&mut self, id: &str) {
        self.requests.end(id);
    }

    /// The first answer to a request came; `well` unless it is an error. An answer that comes again, or to what is not
    /// asked for any more, changes nothing.
    pub(crate) fn answered(&mut self, id: &str, well: bool, policy: &Policy) {
        let Some(node) = self.requests.end(id).and_then(|request| request.node) else {
            return;
        };
        let Some(node) = self.members.get_mut(&node) else {
            return;
        };
        let deed = match (is_probe(id), well) {
            (_, true) => Deed::Answered,
            (true, false) => Deed::MissedProbe,
            (false, false) => Deed::Failed,
        };
        if is_probe(id) {
            node.probes.answered += usize::from(well);
            node.probes.missed += usize::from(!well);
        }
        node.reputation = policy.reputation.after(deed, node.reputation);
    }

    pub(super) fn give_up(&mut self, policy: &Policy, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        for (id, request) in self.requests.give_up(now) {
            let deed = if is_probe(&id) {
                Deed::MissedProbe
            } else {
                Deed::GivenUp
            };
            if let Some(node) = request.node.and_then(|alias| self.members.get_mut(&alias)) {
                node.reputation = policy.reputation.after(deed, node.reputation);
                node.probes.missed += usize::from(is_probe(&id));
            }
            if !is_probe(&id) {
                orders.push(Order::GiveUp(id, request.limit.unwrap_or_default()));
            }
        }
        orders
    }

    pub(super) fn probe(&mut self, policy: &Policy, now: Instant) -> Vec<Order> {
        let Some(probes) = &policy.probes else {
            return Vec::new();
        };
        let mut orders = Vec::new();
        for node in self.members.values_mut().filter(|node| node.is_probed()) {
            if node.calm_since + probes.every > now {
                continue;
            }
            node.calm_since = now;
            if let (Some(connection), Some(model)) = (node.connection, node.models.first()) {
                node.probes.sent += 1;
                let id = self.requests.fresh_probe_id();
                orders.push(Order::Send(connection, probes.request(&id, model)));
                let request = Request::new(Some(node.alias.clone()), Some(probes.limit), now);
                self.requests.sent(&id, request);
            }
        }
        orders
    }
}
