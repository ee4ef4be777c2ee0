//! Model servers. A [`Backend`] says which models one has and has it answer chats, whatever its dialect; the job that asks
//! reads the answer's body itself, so that time-outs, cancelling and backpressure live in one place, and feeds it to the
//! server's [`Decoder`], which is pure.
//!
//! What a look brings goes from the [`ModelServer`] as [`Seen`] through the operator's [`Rules`] and becomes the
//! [`Offer`], in which models are looked up and which sessions tell the network.
//!
//! Invariant: what a model server sends is never trusted in size, shape or encoding, and none of it reaches a log, except its
//! own words, cleaned, on a model that it cannot load.

mod answer;
mod arguments;
mod away;
mod backoff;
mod catalogue;
pub mod chat;
mod completion;
mod error_text;
mod fields;
mod halves;
mod key;
mod names;
mod object;
pub mod ollama;
mod openai;
mod preload;
mod restart;
mod server;
pub mod speech;
mod standing;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    answer::{Arrival, ChatStream, Completion, Decoder, Deltas, ResultContext},
    catalogue::{Catalogue, Hidden, Loaded, Model, Offer, Rules, Thinking},
    chat::RequestHead,
    preload::{PreloadState, PreloadStatus},
    server::{AskError, Guide, ModelServer, Prepared, Seen, Suitability},
    standing::RunningChat,
};

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{ollama::PullBoard, preload::Preload, standing::Standing};
use crate::{
    protocol::{Code, Failure},
    telemetry::{BackendMetrics, ServerOutage},
    transport::http::HttpError,
};

/// A model could not be loaded.
#[derive(Debug)]
pub struct NotLoaded {
    /// Why, as the network may read it.
    pub failure: Failure,
    /// Where that was not the server's own doing: what came and what to do, as a sentence for the operator.
    pub why_odd: Option<String>,
}

/// A model server as its node sees it.
pub struct Backend {
    server: Arc<dyn ModelServer>,
    catalogue: Catalogue,
    preload: Arc<Preload>,
    standing: Arc<Standing>,
}

impl Backend {
    /// Any model server, looked at every `refresh`. Nothing is asked of it before [`Backend::follow`].
    pub fn new(
        server: Arc<dyn ModelServer>,
        rules: Rules,
        refresh: Duration,
        metrics: BackendMetrics,
    ) -> Self {
        let preload = Arc::new(Preload::new(rules.preload.clone()));
        let standing = Arc::<Standing>::default();
        let catalogue = Catalogue::new(
            Arc::clone(&server),
            rules,
            Arc::clone(&preload),
            Arc::clone(&standing),
            refresh,
            metrics,
        );
        Self {
            server,
            catalogue,
            preload,
            standing,
        }
    }

    /// What the network and `/status` call its interface.
    pub fn mode(&self) -> &'static str {
        self.server.mode()
    }

    /// What people who run such a server may be told.
    pub fn guide(&self) -> &'static Guide {
        self.server.guide()
    }

    /// Follows the server's models for as long as it is polled.
    pub async fn follow(&self) {
        self.catalogue.keep().await;
    }

    /// What there is to offer, now and whenever it changes.
    pub fn offer(&self) -> watch::Receiver<Offer> {
        self.catalogue.subscribe()
    }

    /// Whether there is something to offer.
    pub fn has_models(&self) -> bool {
        !self.catalogue.offer().models.is_empty()
    }

    /// Why there is nothing to offer, if there is not. A pull says more than that there is no model yet, but nothing to
    /// somebody whose model server is away.
    pub fn why_nothing(&self) -> Option<String> {
        let offer = self.catalogue.offer();
        match &offer.why_empty {
            Some(trouble) => {
                let pull = offer.is_up.then(|| self.pulls().sentence()).flatten();
                Some(pull.unwrap_or_else(|| trouble.clone()))
            }
            None if offer.models.is_empty() => {
                Some("The model server has not told its models yet.".to_owned())
            }
            None => None,
        }
    }

    /// The outage that there is, if one is known.
    pub fn outage(&self) -> Option<ServerOutage> {
        let offer = self.catalogue.offer();
        let kind = if offer.is_up {
            ServerOutage::NoModels
        } else {
            ServerOutage::Down
        };
        offer.why_empty.is_some().then_some(kind)
    }

    /// Why the last good key is used, if the one that is set cannot be read.
    pub fn trouble(&self) -> Option<String> {
        self.server.trouble()
    }

    /// Why a model that the server has is not offered since its chats are refused, where others are offered.
    pub fn why_less(&self) -> Option<String> {
        self.catalogue.offer().why_less.clone()
    }

    /// Why a model of that name is not offered although its server has it: its chats are refused.
    pub fn why_unserved(&self, model: &Arc<str>) -> Option<String> {
        self.standing.why_unserved(model)
    }

    /// The models that are there and not offered; a hundred at most.
    pub fn hidden(&self) -> Vec<Hidden> {
        self.catalogue.hidden()
    }

    /// Whether the list of models is so new that a model that is not in it does not exist.
    pub fn is_fresh(&self) -> bool {
        self.catalogue.is_fresh()
    }

    /// Looks up a model among those offered, without regard to case and with `:latest` understood.
    pub fn find(&self, name: &str) -> Option<Model> {
        self.catalogue.find(name)
    }

    /// Looks at the model server.
    pub async fn look_now(&self) {
        self.catalogue.look_after(Instant::now()).await;
    }

    /// Has the server pull the models that the settings name, until all are there or `stop` is told. Needs somebody who
    /// follows it.
    pub async fn keep_pulling(&self, random: fastrand::Rng, stop: CancellationToken) {
        let pulling = self.server.keep_pulling(&self.catalogue, random);
        if stop.run_until_cancelled(pulling).await.is_none() {
            self.pulls().stand_down();
        }
    }

    /// How far the pulls are.
    pub fn pulls(&self) -> Arc<PullBoard> {
        self.server.pulls()
    }

    /// Checks and rewrites a chat with this model by the operator's policy; gives what to send. Does no I/O.
    /// What it gives belongs to one request: it is sent, or dropped.
    ///
    /// # Errors
    /// `invalid`, with what is wrong with the request.
    pub fn prepare(&self, payload: &[u8], model: &Model) -> Result<Prepared, Failure> {
        self.server.prepare(payload, model)
    }

    /// Sends a prepared chat and waits for the head of the answer. Whoever reads it tells what comes.
    ///
    /// # Errors
    /// `rejected`: it says that the request is at fault. `backend`: it cannot be reached, in which case it is soon looked
    /// at again, or it fails.
    pub async fn chat(&self, chat: Prepared) -> Result<(ChatStream, RunningChat), Failure> {
        let model = Arc::clone(&chat.model);
        let running = self.standing.begin();
        let asked = self.server.chat(chat).await;
        Ok((self.taken(&model, asked)?, running))
    }

    /// Has the server load a model, with the context and for the time that every request for it asks for, and waits until
    /// it is loaded. Not tried again. Dropping it closes the request, and Ollama then gives up loading.
    ///
    /// # Errors
    /// As [`Backend::chat`].
    pub async fn load(&self, model: &Model) -> Result<(), NotLoaded> {
        let asked = self.server.load(model).await;
        let why_odd = asked.as_ref().err();
        let why_odd = why_odd.and_then(|error| self.server.why_odd(error));
        let taken = self.taken(&model.name, asked);
        taken.map_err(|failure| NotLoaded { failure, why_odd })
    }

    fn taken<T>(&self, model: &Arc<str>, asked: Result<T, AskError>) -> Result<T, Failure> {
        asked
            .inspect(|_| {
                self.standing.served(model);
                self.preload.used(model);
                self.catalogue.show_warmth();
            })
            .map_err(|error| self.failure(model, error))
    }

    fn failure(&self, model: &Arc<str>, error: AskError) -> Failure {
        if error.is_no_service() && self.standing.refused(model) {
            self.catalogue.doubt();
        }
        match error {
            AskError::Http(error) => self.unreachable(&error),
            AskError::Refused { status, words, .. } => {
                Failure::new(AskError::code_of(status), words)
            }
        }
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        self.catalogue.doubt();
        let sentence = match error {
            HttpError::Dial(_) => "the model server cannot be reached".to_owned(),
            HttpError::Encoded(_) | HttpError::NotHttp(_) => {
                format!("the answer cannot be read: {error}")
            }
            HttpError::Broken
            | HttpError::Status(_)
            | HttpError::Unexpected
            | HttpError::TooLarge
            | HttpError::Silent(_) => {
                "the connection to the model server broke before it answered".to_owned()
            }
        };
        Failure::new(Code::Backend, sentence)
    }
}
