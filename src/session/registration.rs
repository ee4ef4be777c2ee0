//! What the gateway is told about this node, and how: generation 1 lists models, generation 2 registers its node first.

use std::sync::Arc;

use crate::{
    backend::Offer,
    config::{Config, Price},
    outbox::Outbox,
    protocol::{Control, Generation, Health, NodeRegistration},
};

/// The operator's fields of a node.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The dialect.
    pub generation: Generation,
    /// The node's name; a new one is a new node to the network.
    pub alias: String,
    /// Where it stands, as the protocol spells it.
    pub region: &'static str,
    /// US dollars for 1,000 tokens.
    pub price_per_thousand_tokens: Price,
    /// The model that interviews should ask.
    pub interview_model: Option<String>,
    /// Where earnings go.
    pub payout_address: Option<String>,
    /// How many chats run at once.
    pub capacity: usize,
}

impl Registration {
    /// As the settings have it.
    pub fn new(config: &Config) -> Self {
        Self {
            generation: config.identity.generation,
            alias: config.node.alias.clone(),
            region: config.node.region.as_str(),
            price_per_thousand_tokens: config.node.price_per_thousand_tokens.clone(),
            interview_model: config.node.interview_model.clone(),
            payout_address: config.node.payout_address.clone(),
            capacity: config.admission.capacity,
        }
    }

    /// The first frames of a session.
    pub(super) fn introduce(&self, outbox: &Outbox, offer: &Offer) {
        if let Some(payout_address) = &self.payout_address {
            outbox.control(Control::UpdateWallet {
                payout_address: payout_address.clone(),
            });
        }
        self.offer(outbox, offer);
    }

    /// Tells which models are served now.
    pub(super) fn offer(&self, outbox: &Outbox, offer: &Offer) {
        let models = names(offer);
        if self.generation == Generation::Operator {
            outbox.control(Control::RegisterNode(NodeRegistration {
                alias: self.alias.as_str().into(),
                models: models.clone(),
                capacity: self.capacity,
                region: self.region,
                price_per_thousand_tokens: self.price_per_thousand_tokens.as_json().to_owned(),
                interview_model: self.interview_model.clone(),
                api_mode: "ollama",
            }));
        }
        outbox.control(Control::ModelList { models });
    }

    /// Tells the models again, unchanged.
    pub(super) fn repeat_models(&self, outbox: &Outbox, offer: &Offer) {
        outbox.control(Control::ModelList {
            models: names(offer),
        });
    }

    /// A sign of life.
    pub(super) fn heartbeat(&self, outbox: &Outbox, offer: &Offer, current_load: usize) {
        let health = Health {
            current_load,
            capacity: self.capacity,
            models: offer.models.len(),
            gpu_memory_used: offer.vram_bytes,
        };
        outbox.control(Control::Heartbeat { health });
    }
}

fn names(offer: &Offer) -> Vec<Arc<str>> {
    let models = offer.models.iter();
    models.map(|model| Arc::clone(&model.name)).collect()
}
