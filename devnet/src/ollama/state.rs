//! What all connections of the stand-in share.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Behaviour,
    fault::Fault,
    models::{Loading, Manner, Models},
    pull::Registry,
    request::{ChatRequest, Refusal},
};
use crate::{journal::lock, model_server::Controls};

pub(super) struct State {
    pub(super) models: Mutex<Models>,
    pub(super) registry: Mutex<Registry>,
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) controls: Controls<Fault>,
}

impl State {
    pub(super) fn new(models: Models, registry: Registry, behaviour: Behaviour) -> Self {
        Self {
            models: Mutex::new(models),
            registry: Mutex::new(registry),
            behaviour: Mutex::new(behaviour),
            controls: Controls::default(),
        }
    }

    /// Refuses what Ollama would, in its order: model, what the model can, options.
    pub(super) fn admit(&self, mut chat: ChatRequest) -> Result<ChatRequest, Refusal> {
        let models = lock(&self.models);
        let name = &chat.model;
        let Some(full_name) = models.full_name(name) else {
            return Err(Refusal::no_such_model(name));
        };
        if chat.think == Some(true) && !models.can(name, "thinking") {
            return Err(Refusal::new(
                400,
                format!("\"{name}\" does not support thinking"),
            ));
        }
        if let Some(level) = chat.level.as_ref().filter(|_| !models.takes_levels(name)) {
            let error = format!("think value \"{level}\" is not supported for this model");
            return Err(Refusal::new(400, error));
        }
        if !models.can(name, "completion") {
            return Err(Refusal::new(
                400,
                format!("\"{name}\" does not support chat"),
            ));
        }
        if !chat.tools.is_empty() && !models.can(name, "tools") {
            let error = format!("registry.ollama.ai/library/{full_name} does not support tools");
            return Err(Refusal::new(400, error));
        }
        chat.read_options()?;
        Ok(chat)
    }

    /// A model that can think does so unless it is told not to.
    pub(super) fn thinks(&self, chat: &ChatRequest) -> bool {
        chat.think.unwrap_or(true) && lock(&self.models).can(&chat.model, "thinking")
    }

    /// Waits until the chat's model is loaded as it wants; gives what keeps it loaded, and how long that took. A request
    /// that goes away meanwhile takes the load with it.
    pub(super) async fn load(self: &Arc<Self>, chat: &ChatRequest) -> (UseOfModel, Duration) {
        let begun = Instant::now();
        let manner = {
            let behaviour = lock(&self.behaviour);
            Manner {
                takes: behaviour.load_delay,
                context: behaviour.context_length,
                room: behaviour.room,
            }
        };
        let loading = lock(&self.models).begin(&chat.model, chat.num_ctx, chat.keep_alive, manner);
        let ready = loading.as_ref().map(|loading| loading.ready);
        let use_of_model = UseOfModel {
            state: Arc::clone(self),
            model: chat.model.clone(),
            loading,
        };
        if let Some(ready) = ready.filter(|ready| *ready > begun) {
            tokio::time::sleep_until(ready).await;
        }
        (use_of_model, begun.elapsed())
    }
}

/// Somebody uses a model, until this is dropped.
pub(super) struct UseOfModel {
    state: Arc<State>,
    model: String,
    loading: Option<Loading>,
}

impl Drop for UseOfModel {
    fn drop(&mut self) {
        if let Some(loading) = &self.loading {
            lock(&self.state.models).end(&self.model, loading);
        }
    }
}
