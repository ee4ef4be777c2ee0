//! What the gateway is told about this node, and how: generation 1 lists models, generation 2 registers its node first.

use crate::{
    backend::Offer,
    config::{Config, Price},
    outbox::{Control, Outbox},
    protocol::{Generation, Health, NodeRegistration, ToGateway},
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
    /// What the network calls the model server's interface.
    pub api_mode: &'static str,
}

impl Registration {
    /// As the settings have it, and the model server.
    pub fn new(config: &Config, api_mode: &'static str) -> Self {
        Self {
            generation: config.identity.generation,
            alias: config.node.alias.clone(),
            region: config.node.region.as_str(),
            price_per_thousand_tokens: config.node.price_per_thousand_tokens.clone(),
            interview_model: config.node.interview_model.clone(),
            payout_address: config.node.payout_address.clone(),
            capacity: config.admission.capacity,
            api_mode,
        }
    }

    /// The first frames of a session.
    pub(super) fn introduce(&self, outbox: &Outbox, offer: &Offer) {
        if let Some(payout_address) = &self.payout_address {
            outbox.control(Control::new(&ToGateway::UpdateWallet { payout_address }));
        }
        self.offer(outbox, offer);
    }

    /// Tells which models are served now.
    pub(super) fn offer(&self, outbox: &Outbox, offer: &Offer) {
        let models = offer.names();
        if self.generation == Generation::Operator {
            let node = NodeRegistration {
                alias: &self.alias,
                models: &models,
                capacity: self.capacity,
                region: self.region,
                price_per_thousand_tokens: self.price_per_thousand_tokens.as_json(),
                interview_model: self.interview_model.as_deref(),
                api_mode: self.api_mode,
            };
            outbox.control(Control::new(&ToGateway::RegisterNode(node)));
        }
        outbox.control(Control::new(&ToGateway::ModelList { models: &models }));
    }

    /// Tells the models again, unchanged.
    pub(super) fn repeat_models(&self, outbox: &Outbox, offer: &Offer) {
        outbox.control(Control::new(&ToGateway::ModelList {
            models: &offer.names(),
        }));
    }

    /// A sign of life.
    pub(super) fn heartbeat(&self, outbox: &Outbox, offer: &Offer, current_load: usize) {
        let health = Health {
            current_load,
            capacity: self.capacity,
            models: offer.models.len(),
            gpu_memory_used: offer.vram_bytes,
        };
        outbox.control(Control::new(&ToGateway::Heartbeat { health }));
    }
}
