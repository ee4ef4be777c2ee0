//! What all connections of the stand-in share.

use std::{sync::Mutex, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    Behaviour,
    fault::Faults,
    models::Models,
    pull::Registry,
    record::{Chats, Request},
    request::{ChatRequest, Refusal},
};
use crate::journal::{Journal, lock};

pub(super) struct State {
    pub(super) models: Mutex<Models>,
    pub(super) registry: Mutex<Registry>,
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) faults: Faults,
    pub(super) requests: Journal<Request>,
    pub(super) chats: watch::Sender<Chats>,
    /// Where answers wait: after so many tokens.
    pub(super) pause: watch::Sender<Option<usize>>,
}

impl State {
    pub(super) fn new(models: Models, registry: Registry, behaviour: Behaviour) -> Self {
        Self {
            models: Mutex::new(models),
            registry: Mutex::new(registry),
            behaviour: Mutex::new(behaviour),
            faults: Faults::default(),
            requests: Journal::default(),
            chats: watch::Sender::new(Chats::default()),
            pause: watch::Sender::new(None),
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

    /// Waits until the chat's model is loaded as it wants; gives how long that took.
    pub(super) async fn load(&self, chat: &ChatRequest) -> Duration {
        let begun = Instant::now();
        let takes = lock(&self.behaviour).load_delay;
        let ready = lock(&self.models).load(&chat.model, chat.num_ctx, takes);
        if let Some(ready) = ready.filter(|ready| *ready > begun) {
            tokio::time::sleep_until(ready).await;
        }
        begun.elapsed()
    }

    pub(super) fn keep_or_unload(&self, chat: &ChatRequest) {
        if chat.unload {
            lock(&self.models).unload(&chat.model);
        }
    }
}
