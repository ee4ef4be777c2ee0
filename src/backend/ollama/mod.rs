//! Ollama, through its own interface (`/api/…`).

mod answer;
mod catalogue;
mod policy;
mod prepare;
mod pull;
mod restart;
mod result;
mod translate;
mod wire;

pub use policy::Policy;
pub use pull::{PullBoard, PullState, PullStatus};

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    answer::ChatDecoder,
    catalogue::{Catalogue, Rules},
    pull::Pulls,
};
use super::{Answering, Backend, Chat, Model, Offer, error_text::words_of_status};
use crate::{
    config::BackendSettings,
    protocol::{Code, Failure},
    telemetry::Metrics,
    transport::{
        Dial,
        http::{HttpClient, HttpError, read_body},
    },
};

/// The largest body of a failed request that is looked at, in bytes: more than any error text is worth.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// An Ollama server.
pub struct Ollama {
    client: Arc<HttpClient>,
    catalogue: Catalogue,
    pulls: Pulls,
    policy: Policy,
}

impl Ollama {
    /// The server that the settings name. Nothing is asked of it before [`Ollama::keep_looking`].
    pub fn new(
        settings: BackendSettings,
        policy: Policy,
        dial: Arc<dyn Dial>,
        metrics: &Arc<Metrics>,
        tasks: TaskTracker,
    ) -> Self {
        let client = Arc::new(HttpClient::new(dial, settings.url, tasks));
        let rules = Rules {
            allow: settings.allow,
            deny: settings.deny,
        };
        let catalogue = Catalogue::new(
            Arc::clone(&client),
            rules,
            settings.refresh_interval,
            settings.connect_timeout,
            Arc::clone(metrics),
        );
        let pulls = Pulls::new(Arc::clone(&client), settings.pull, &catalogue, metrics);
        Self {
            client,
            catalogue,
            pulls,
            policy,
        }
    }

    /// Follows the server's models for as long as it is polled.
    pub async fn keep_looking(&self) {
        self.catalogue.keep().await;
    }

    /// Waits until the server has gone away and has been answering again for a while.
    pub async fn restarted(&self) {
        restart::restarted(&self.catalogue).await;
    }

    /// Has the server pull the models that the settings name, until all are there or `stop` is told. Needs somebody who
    /// keeps looking.
    pub async fn keep_pulling(&self, random: fastrand::Rng, stop: CancellationToken) {
        self.pulls.keep(&self.catalogue, random, &stop).await;
    }

    /// How far the pulls are.
    pub fn pulls(&self) -> Arc<PullBoard> {
        self.pulls.board()
    }

    /// What there is to offer, now and whenever it changes.
    pub fn offer(&self) -> watch::Receiver<Offer> {
        self.catalogue.subscribe()
    }

    async fn ask(&self, body: Bytes) -> Result<Answering, Failure> {
        let answer = self
            .client
            .post("/api/chat", body)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status != hyper::StatusCode::OK {
            // A body that cannot be read whole says no less than one that is no JSON.
            let body = read_body(answer.into_body(), MAX_ERROR_BODY)
                .await
                .unwrap_or_default();
            let words = words_of_status(status.as_u16(), &body);
            return Err(Failure::new(Code::Backend, words));
        }
        Ok(Answering {
            body: answer.into_body(),
            decoder: Box::<ChatDecoder>::default(),
        })
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        self.catalogue.doubt();
        let sentence = match error {
            HttpError::Dial(_) => "the model server cannot be reached",
            HttpError::Broken
            | HttpError::Status(_)
            | HttpError::Unexpected
            | HttpError::TooLarge
            | HttpError::Silent(_) => "the connection to the model server broke before it answered",
        };
        Failure::new(Code::Backend, sentence)
    }
}

impl Backend for Ollama {
    fn is_fresh(&self) -> bool {
        self.catalogue.is_fresh()
    }

    fn find(&self, name: &str) -> Option<Model> {
        self.catalogue.find(name)
    }

    fn find_fresh<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Model>> {
        async move {
            self.catalogue.look_after(Instant::now()).await;
            self.catalogue.find(name)
        }
        .boxed()
    }

    fn prepare(&self, chat: &Chat) -> Result<Bytes, Failure> {
        prepare::prepare(&chat.payload, &chat.model, &self.policy)
    }

    fn chat(&self, body: Bytes) -> BoxFuture<'_, Result<Answering, Failure>> {
        self.ask(body).boxed()
    }
}
