//! The nodes of this process, and which of them a request goes to. A node is what the network knows by one alias: a model
//! server with what it offers, a price, and slots for so many jobs at once.
//!
//! Invariant: a request goes to a node that offers its model, and to none else.

mod interviews;
mod slots;
mod standing;
#[cfg(test)]
pub(crate) mod tests;

pub use interviews::{InterviewPlace, Interviews};
pub use slots::{Slot, Slots, Turn, Waiting};
pub use standing::{Registered, Standing, Verdict};

use std::{cmp::Reverse, future::pending, ops::Deref, sync::Arc};

use futures_util::future::{join_all, select_all};
use tokio::sync::watch;

use crate::{
    backend::{Backend, Model, Offer},
    config::NodeSettings,
};

/// One node.
pub struct Node {
    /// Its name; a new one is a new node to the network.
    pub alias: Arc<str>,
    /// What else the operator says of it.
    pub settings: NodeSettings,
    /// Who serves it.
    pub backend: Backend,
    /// The jobs that it may run at once.
    pub slots: Arc<Slots>,
    /// The interviews that it may run or have wait.
    pub interviews: Interviews,
    /// What the network has said of it.
    pub standing: Standing,
}

impl Node {
    /// A node that is served by this backend.
    pub fn new(settings: NodeSettings, backend: Backend) -> Self {
        Self {
            alias: settings.alias.as_str().into(),
            slots: Slots::new(settings.capacity),
            interviews: Interviews::default(),
            standing: Standing::default(),
            settings,
            backend,
        }
    }
}

/// A model that a node offers.
#[derive(Clone)]
pub struct Offered {
    /// Who offers it.
    pub node: Arc<Node>,
    /// The model as it is there.
    pub model: Model,
}

/// All nodes of this process, in the operator's order. Cheap to clone.
#[derive(Clone)]
pub struct Nodes(Arc<[Arc<Node>]>);

impl Deref for Nodes {
    type Target = [Arc<Node>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl FromIterator<Node> for Nodes {
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Self {
        Self(nodes.into_iter().map(Arc::new).collect())
    }
}

impl Nodes {
    /// Where a model is offered: on the node with the most free slots first, then in order.
    pub fn offering(&self, model: &str) -> Vec<Offered> {
        let mut offering: Vec<_> = self
            .iter()
            .filter_map(|node| offered(node, model))
            .collect();
        let free = |slots: &Slots| slots.capacity() - slots.taken();
        offering.sort_by_key(|offered| Reverse(free(&offered.node.slots)));
        offering
    }

    /// Looks at every model server.
    pub async fn look_now(&self) {
        join_all(self.iter().map(|node| node.backend.look_now())).await;
    }

    /// The node that the gateway means, by the id or the alias that it gave it or by the node's own alias.
    pub fn named(&self, name: &str) -> Option<&Arc<Node>> {
        let mut nodes = self.iter();
        nodes
            .find(|node| node.standing.goes_by(name))
            .or_else(|| self.iter().find(|node| *node.alias == *name))
    }

    /// The slots of each.
    pub fn slots(&self) -> Vec<Arc<Slots>> {
        self.iter().map(|node| Arc::clone(&node.slots)).collect()
    }

    /// What all of them offer.
    pub fn offers(&self) -> Offers {
        Offers(self.iter().map(|node| node.backend.offer()).collect())
    }

    /// Whether every list of models is so new that a model which is in none does not exist.
    pub fn are_fresh(&self) -> bool {
        self.iter().all(|node| node.backend.is_fresh())
    }

    /// Follows every model server for as long as it is polled.
    pub async fn follow(&self) {
        join_all(self.iter().map(|node| node.backend.follow())).await;
    }

    /// Frees the memory that models take which are kept loaded, until they are to be kept again.
    pub async fn unload(&self) {
        join_all(self.iter().map(|node| node.backend.unload())).await;
    }

    /// Keeps loaded what is to be.
    pub fn keep_preloaded_again(&self) {
        for node in self.iter() {
            node.backend.keep_preloaded_again();
        }
    }

    /// Waits until a model server has gone away and has been answering again for a while.
    pub async fn restarted(&self) {
        let restarted = self.iter().map(|node| Box::pin(node.backend.restarted()));
        select_all(restarted).await;
    }

    /// The node that is registered under this alias. The network appends `-a`, `-b`… to one that is taken.
    pub fn registered_as(&self, alias: &str) -> Option<&Arc<Node>> {
        let is_ours = |node: &&Arc<Node>| *node.alias == *alias;
        let appended = |node: &&Arc<Node>| {
            alias
                .strip_prefix(&*node.alias)
                .is_some_and(|rest| rest.starts_with('-'))
        };
        let mut nodes = self.iter();
        nodes
            .find(is_ours)
            .or_else(|| {
                self.iter()
                    .filter(appended)
                    .max_by_key(|node| node.alias.len())
            })
            .or_else(|| self.sole())
    }

    /// The node, if there is but one.
    pub fn sole(&self) -> Option<&Arc<Node>> {
        match &**self {
            [node] => Some(node),
            _ => None,
        }
    }
}

fn offered(node: &Arc<Node>, model: &str) -> Option<Offered> {
    Some(Offered {
        model: node.backend.find(model)?,
        node: Arc::clone(node),
    })
}

/// What the nodes offer, each in its place, as it changes.
#[derive(Clone)]
pub struct Offers(Vec<watch::Receiver<Offer>>);

impl Offers {
    /// What they offer now.
    pub fn now(&self) -> Vec<Offer> {
        self.0.iter().map(|offer| offer.borrow().clone()).collect()
    }

    /// Waits until one of them has changed since it was waited for.
    pub async fn changed(&mut self) {
        select_all(self.0.iter_mut().map(|offer| Box::pin(change(offer)))).await;
    }

    /// Waits until all of them have.
    pub async fn all_changed(&mut self) {
        join_all(self.0.iter_mut().map(change)).await;
    }
}

async fn change(offer: &mut watch::Receiver<Offer>) {
    if offer.changed().await.is_err() {
        // Whoever looks at the backend has ended, so that there will be no news.
        pending::<()>().await;
    }
}
