//! What the parts of the data path share, and those who look at it from outside.

use std::sync::Arc;

use crate::{
    backend::{Backend, speech::SpeechServer},
    clock::WallClock,
    config::{ApiMode, Config},
    history::History,
    node::{Node, Nodes},
    outbox::Outbox,
    secret::SecretError,
    telemetry::{Metrics, RecentErrors},
    transport::{Connections, Dial},
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

impl Shared {
    /// The nodes that the settings name, of which nothing has been asked yet, and all that counts what they do. `backend`
    /// opens their connections, which are among `connections`.
    ///
    /// # Errors
    /// A model server's key cannot be had.
    pub fn new(
        config: &Config,
        backend: Arc<dyn Dial>,
        clock: Arc<dyn WallClock>,
        connections: Connections,
    ) -> Result<Self, SecretError> {
        let metrics = Arc::new(Metrics::new());
        let speech = config.speech.clone().map(|settings| {
            SpeechServer::new(
                settings,
                Arc::clone(&backend),
                &metrics,
                connections.clone(),
            )
        });
        let make = match config.backend.mode {
            ApiMode::Ollama => Backend::ollama,
            ApiMode::OpenAi => Backend::openai,
        };
        let (settings, policy) = (config.backend.clone(), config.policy.clone());
        let backend = make(settings, policy, backend, &metrics, connections)?;
        let node = Node::new(config.node.clone(), backend).with_speech(speech);
        let nodes: Nodes = [node].into_iter().collect();
        for node in nodes.iter() {
            let region = node.settings.region.as_str();
            metrics.set_node(&node.alias, &node.alias, "", region);
        }
        Ok(Self {
            nodes,
            outbox: Arc::new(Outbox::new(config.outbox, Arc::clone(&metrics))),
            recent_errors: Arc::default(),
            history: Arc::new(History::new(clock.unix_seconds())),
            clock,
            metrics,
        })
    }
}
