//! What the gateway is told about the nodes, and how: generation 1 lists models, generation 2 registers its nodes first.

use std::{collections::HashSet, sync::Arc};

use crate::{
    backend::Offer,
    config::Identity,
    node::{Node, Nodes},
    outbox::Outbox,
    protocol::{Control, Generation, Health, NodeRegistration},
};

/// Tells the gateway about the nodes.
pub(super) struct Announcer {
    generation: Generation,
    payout_address: Option<String>,
    nodes: Nodes,
    outbox: Arc<Outbox>,
}

impl Announcer {
    pub(super) fn new(identity: Identity, nodes: Nodes, outbox: Arc<Outbox>) -> Self {
        Self {
            generation: identity.generation,
            payout_address: identity.payout_address,
            nodes,
            outbox,
        }
    }

    /// The first frames of a session. `offers`: what each node offers.
    pub(super) fn introduce(&self, offers: &[Offer]) {
        if let Some(payout_address) = &self.payout_address {
            self.outbox.control(Control::UpdateWallet {
                payout_address: payout_address.clone(),
            });
        }
        for (node, offer) in self.nodes.iter().zip(offers) {
            self.register(node, offer);
        }
        self.list_models(offers);
    }

    /// Tells what is offered now, if that is anything else than what was `told`.
    pub(super) fn update(&self, told: &[Offer], offers: &[Offer]) {
        let offered = self.nodes.iter().zip(offers);
        let changed: Vec<_> = offered
            .zip(told)
            .filter(|((_, now), before)| !now.names().eq(before.names()))
            .map(|(changed, _)| changed)
            .collect();
        for (node, offer) in &changed {
            self.register(node, offer);
        }
        if !changed.is_empty() {
            self.list_models(offers);
        }
    }

    /// Tells the models of all nodes, each once.
    pub(super) fn list_models(&self, offers: &[Offer]) {
        let mut listed = HashSet::new();
        let names = offers.iter().flat_map(Offer::names);
        let models = names.filter(|name| listed.insert(*name)).cloned().collect();
        self.outbox.control(Control::ModelList { models });
    }

    /// A sign of life.
    pub(super) fn heartbeat(&self, offers: &[Offer], current_load: usize) {
        let vram = offers.iter().map(|offer| offer.vram_bytes);
        let health = Health {
            current_load,
            capacity: self.nodes.iter().map(|node| node.slots.capacity()).sum(),
            models: offers.iter().map(|offer| offer.models.len()).sum(),
            gpu_memory_used: vram.fold(0, u64::saturating_add),
        };
        self.outbox.control(Control::Heartbeat { health });
    }

    fn register(&self, node: &Node, offer: &Offer) {
        if self.generation == Generation::Desktop {
            return;
        }
        let settings = &node.settings;
        let price = settings.price_per_thousand_tokens.as_json();
        self.outbox.control(Control::RegisterNode(NodeRegistration {
            alias: Arc::clone(&node.alias),
            models: offer.names().cloned().collect(),
            capacity: node.slots.capacity(),
            region: settings.region.as_str(),
            price_per_thousand_tokens: price.to_owned(),
            interview_model: settings.interview_model.clone(),
            api_mode: node.backend.mode(),
        }));
    }
}
