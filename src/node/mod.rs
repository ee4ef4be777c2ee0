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

use std::{cmp::Reverse, future::pending, iter, ops::Deref, sync::Arc};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join, join_all, select_all},
};
use tokio::sync::watch;

use crate::{
    backend::{
        Backend, Model, Offer,
        speech::{SpeechOffer, SpeechServer},
    },
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
    /// Who speaks for it, if somebody does.
    pub speech: Option<SpeechServer>,
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
            speech: None,
        }
    }

    /// The same with a speech server beside its model server.
    #[must_use]
    pub fn with_speech(mut self, speech: Option<SpeechServer>) -> Self {
        self.speech = speech;
        self
    }

    /// Whether there is anything to offer, chats or speech.
    pub fn has_offer(&self) -> bool {
        let speaks = self.speech.as_ref().is_some_and(SpeechServer::has_models);
        speaks || self.backend.has_models()
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
        self.offered_by(|node| node.backend.find(model))
    }

    /// Where a speech model is offered, by its name with `tts:`; in the same order.
    pub fn speaking(&self, model: &str) -> Vec<Offered> {
        self.offered_by(|node| {
            let model = node.speech.as_ref()?.find(model)?;
            Some(Model::named(&model.name))
        })
    }

    fn offered_by(&self, find: impl Fn(&Node) -> Option<Model>) -> Vec<Offered> {
        let offered = |node: &Arc<Node>| {
            Some(Offered {
                model: find(node)?,
                node: Arc::clone(node),
            })
        };
        let mut offering: Vec<_> = self.iter().filter_map(offered).collect();
        let free = |slots: &Slots| slots.capacity() - slots.taken();
        offering.sort_by_key(|offered| Reverse(free(&offered.node.slots)));
        offering
    }

    /// Whether one of them has anything to offer: that is enough to be ready.
    pub fn have_offer(&self) -> bool {
        self.iter().any(|node| node.has_offer())
    }

    /// Why model servers have nothing to offer, each that has not.
    pub fn without_chats(&self) -> impl Iterator<Item = String> {
        self.iter().filter_map(|node| node.backend.why_nothing())
    }

    /// Whether there is any speech server.
    pub fn speak(&self) -> bool {
        self.speech().next().is_some()
    }

    /// Whether a speech model that is not offered may be found to be, if its server is looked at.
    pub fn may_be_speaking(&self, model: &str) -> bool {
        self.speech().any(|speech| speech.may_offer(model))
    }

    /// Looks at every speech server.
    pub async fn look_for_speech(&self) {
        join_all(self.speech().map(SpeechServer::look_now)).await;
    }

    fn speech(&self) -> impl Iterator<Item = &SpeechServer> {
        self.iter().filter_map(|node| node.speech.as_ref())
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
        let offer = |node: &Arc<Node>| NodeOffer {
            chat: node.backend.offer(),
            speech: node.speech.as_ref().map(SpeechServer::offer),
        };
        Offers(self.iter().map(offer).collect())
    }

    /// Whether every list of models is so new that a model which is in none does not exist.
    pub fn are_fresh(&self) -> bool {
        self.iter().all(|node| node.backend.is_fresh())
    }

    /// Follows every model server and speech server for as long as it is polled.
    pub async fn follow(&self) {
        let chat = join_all(self.iter().map(|node| node.backend.follow()));
        let speech = join_all(self.speech().map(SpeechServer::follow));
        join(chat, speech).await;
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

/// What the nodes offer, each in its place, as it changes.
#[derive(Clone)]
pub struct Offers(Vec<NodeOffer>);

/// What one of them offers.
#[derive(Clone)]
struct NodeOffer {
    chat: watch::Receiver<Offer>,
    speech: Option<watch::Receiver<SpeechOffer>>,
}

impl NodeOffer {
    fn now(&self) -> Offer {
        let mut offer = self.chat.borrow().clone();
        if let Some(speech) = &self.speech {
            offer.speech.clone_from(&speech.borrow().names);
        }
        offer
    }

    /// Both, each a change that is waited for.
    fn changes(&mut self) -> impl Iterator<Item = BoxFuture<'_, ()>> {
        let speech = self.speech.as_mut().map(|speech| change(speech).boxed());
        iter::once(change(&mut self.chat).boxed()).chain(speech)
    }
}

impl Offers {
    /// What they offer now.
    pub fn now(&self) -> Vec<Offer> {
        self.0.iter().map(NodeOffer::now).collect()
    }

    /// Waits until one of them has changed since it was waited for.
    pub async fn changed(&mut self) {
        select_all(self.0.iter_mut().flat_map(NodeOffer::changes)).await;
    }

    /// Waits until all of them have.
    pub async fn all_changed(&mut self) {
        join_all(self.0.iter_mut().flat_map(NodeOffer::changes)).await;
    }
}

async fn change<T>(offer: &mut watch::Receiver<T>) {
    if offer.changed().await.is_err() {
        // Whoever looks at the server has ended, so that there will be no news.
        pending::<()>().await;
    }
}
