//! Ollama's endpoints, as far as they matter here.
//!
//! Invariant: what it says of itself and its models is bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;

use super::wire::{Facts, Running, Tag, tags, version};
use crate::{
    backend::{AskError, key::ApiKey, server::accepted},
    transport::http::{Body, HttpClient, HttpError, read_answer},
};

/// The largest list or description that is read, in bytes. A description carries licence and template.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Where chats go.
pub(super) const CHAT: &str = "/api/chat";

/// An Ollama's interface.
pub(super) struct Api {
    pub(super) client: HttpClient,
    pub(super) key: ApiKey,
    /// How long it may take to say something of itself.
    limit: Duration,
}

#[derive(Serialize)]
struct ModelRequest<'a> {
    model: &'a str,
}

impl Api {
    pub(super) fn new(client: HttpClient, key: ApiKey, limit: Duration) -> Self {
        Self { client, key, limit }
    }

    /// `None` where it answers and does not tell.
    pub(super) async fn version(&self) -> Result<Option<String>, HttpError> {
        match self.get("/api/version").await {
            Ok(json) => Ok(version(&json)),
            Err(
                HttpError::Status(_)
                | HttpError::Unexpected
                | HttpError::Encoded(_)
                | HttpError::NotHttp(_)
                | HttpError::TooLarge,
            ) => Ok(None),
            Err(error @ (HttpError::Dial(_) | HttpError::Broken | HttpError::Silent(_))) => {
                Err(error)
            }
        }
    }

    /// Whether it answers, at the least that costs.
    pub(super) async fn answers(&self) -> bool {
        match self.version().await {
            Ok(Some(_)) => true,
            Ok(None) => self.tags().await.is_ok(),
            Err(_) => false,
        }
    }

    /// All models that it has, offered or not.
    pub(super) async fn tags(&self) -> Result<Vec<Tag>, HttpError> {
        tags(&self.get("/api/tags").await?).ok_or(HttpError::Unexpected)
    }

    /// The models that are in memory; `None` where it does not tell, which is no reason not to serve those that it has.
    pub(super) async fn running(&self) -> Option<Running> {
        Running::read(&self.get("/api/ps").await.ok()?)
    }

    pub(super) async fn describe(&self, model: &str) -> Result<Facts, HttpError> {
        let asked = self.client.post("/api/show", about(model)?);
        let body = read_answer(asked, MAX_BODY, self.limit).await?;
        Facts::read(&String::from_utf8_lossy(&body)).ok_or(HttpError::Unexpected)
    }

    pub(super) async fn chat(&self, body: Bytes) -> Result<Body, AskError> {
        accepted(&self.client, CHAT, body).await
    }

    /// Sends a chat without messages, which only loads its model, and waits until that is done.
    pub(super) async fn load(&self, body: Bytes) -> Result<(), AskError> {
        let mut answer = self.chat(body).await?;
        let mut left = MAX_BODY;
        while let Some(bytes) = answer.next().await {
            left = left.checked_sub(bytes?.len()).ok_or(HttpError::TooLarge)?;
        }
        Ok(())
    }

    /// Has a model leave the memory: a chat without messages that is not to keep it.
    pub(super) async fn unload(&self, model: &str) -> Result<(), AskError> {
        let request = json!({"model": model, "messages": [], "keep_alive": 0, "stream": false});
        self.load(request.to_string().into()).await
    }

    pub(super) async fn pull(&self, model: &str) -> Result<Body, AskError> {
        accepted(&self.client, "/api/pull", about(model)?).await
    }

    /// See [`crate::backend::ModelServer::until_closed`].
    pub(super) async fn until_closed(&self) {
        self.client.until_closed().await;
    }

    /// What is no UTF-8 is replaced, and so known by the one who reads it.
    async fn get(&self, path: &str) -> Result<String, HttpError> {
        let body = read_answer(self.client.get(path), MAX_BODY, self.limit).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn about(model: &str) -> Result<Bytes, HttpError> {
    let request = serde_json::to_vec(&ModelRequest { model });
    request.map(Bytes::from).map_err(|_| HttpError::Broken)
}
