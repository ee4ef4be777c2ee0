//! What all connections of the stand-in share.

use std::sync::Mutex;

use tokio::time::Instant;

use super::{
    Behaviour, asked::Rules, fault::Fault, models::Models, refusal::Refusal, style::Style,
};
use crate::{
    journal::lock,
    model_server::{Controls, Request},
};

pub(super) struct State {
    pub(super) style: Style,
    pub(super) models: Mutex<Models>,
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) controls: Controls<Fault>,
    /// Until when every path says that the model is being loaded.
    pub(super) loading: Mutex<Option<Instant>>,
    pub(super) asleep: Mutex<bool>,
}

impl State {
    pub(super) fn new(style: Style, models: Models, behaviour: Behaviour) -> Self {
        Self {
            style,
            models: Mutex::new(models),
            behaviour: Mutex::new(behaviour),
            controls: Controls::default(),
            loading: Mutex::new(None),
            asleep: Mutex::new(false),
        }
    }

    pub(super) fn is_loading(&self) -> bool {
        lock(&self.loading).is_some_and(|until| until > Instant::now())
    }

    /// Whether a request may ask at all.
    pub(super) fn authorize(&self, request: &Request) -> Result<(), Refusal> {
        let behaviour = lock(&self.behaviour);
        let Some(key) = &behaviour.api_key else {
            return Ok(());
        };
        let open = match self.style {
            Style::LlamaServer => matches!(request.path.as_str(), "/health" | "/v1/health"),
            _ => !request.path.starts_with("/v1/"),
        };
        let given = request.headers.get(hyper::header::AUTHORIZATION);
        if open || given.is_some_and(|given| given.as_bytes() == format!("Bearer {key}").as_bytes())
        {
            return Ok(());
        }
        Err(Refusal::new(401, "authentication_error", "Invalid API Key"))
    }

    pub(super) fn rules<'a>(&self, behaviour: &'a Behaviour) -> Rules<'a> {
        Rules {
            style: self.style,
            refuses: &behaviour.refuses,
            context: behaviour.context,
        }
    }
}
