//! The key that a model server wants (`PIN_BACKEND_API_KEY`), for a process that runs for months while files are rotated.
//!
//! Invariant: a read that fails does not take away the last good key.

use std::sync::{Mutex, PoisonError};

use crate::{
    secret::{SecretError, SecretKeeper, SecretSource},
    transport::http::HttpClient,
};

/// The key, where there is one.
#[derive(Default)]
pub(super) struct ApiKey {
    kept: Option<SecretKeeper>,
    trouble: Mutex<Option<String>>,
}

impl ApiKey {
    /// Reads it for the first time. Blocks as [`SecretSource::read`] does.
    ///
    /// # Errors
    /// It cannot be had.
    pub(super) fn new(source: Option<SecretSource>) -> Result<Self, SecretError> {
        Ok(Self {
            kept: source.map(SecretKeeper::new).transpose()?,
            trouble: Mutex::default(),
        })
    }

    /// Has the client ask with the key as it is now.
    pub(super) async fn hand_to(&self, client: &HttpClient) {
        let Some(kept) = &self.kept else {
            return;
        };
        let (key, trouble) = kept.current().await;
        let trouble = trouble.map(|error| error.to_string());
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        client.ask_with(&key);
    }

    /// Why the last good one is used, if it could not be read.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }
}
