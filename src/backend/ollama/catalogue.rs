//! Which models Ollama has, and which of them are offered: looked at again and again, since models come and go, and so
//! does Ollama.
//!
//! Invariant: what does not answer is not offered. One look at a time, however many want one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{
    super::{Model, Offer},
    wire::{Facts, Running, Show, Tag, Tags, Version, in_a_cloud},
};
use crate::{
    config::ModelGlobs,
    telemetry::{Metrics, Repeats, Told},
    transport::http::{HttpClient, HttpError, read_body},
};

/// A list this young need not be asked for again (delivery rules, "Receipt").
const FRESH: Duration = Duration::from_secs(1);

/// Between two looks Ollama is asked this often whether it is there, so that its absence is told within seconds.
const PULSE: Duration = Duration::from_secs(3);

/// How soon an Ollama that was away is looked for again.
const RECOVERY: Duration = Duration::from_secs(1);

/// How many models are described at once. They are read from disk, and Ollama has other things to do.
const DESCRIBED_AT_ONCE: usize = 4;

/// The largest list or description that is read, in bytes. A description carries licence and template.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Which models may be offered.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) allow: ModelGlobs,
    pub(super) deny: ModelGlobs,
}

impl Rules {
    fn offers(&self, tag: &Tag, facts: &Facts) -> bool {
        let suits = facts.chats && !tag.is_remote();
        let allowed =
            self.allow.names_in_full(&tag.name) || (suits && self.allow.matches(&tag.name));
        allowed && !self.deny.matches(&tag.name)
    }

    /// Whether a model of this name may be offered, as far as the name tells.
    fn may_offer(&self, name: &str) -> bool {
        let allowed =
            self.allow.names_in_full(name) || (self.allow.matches(name) && !in_a_cloud(name));
        allowed && !self.deny.matches(name)
    }
}

/// Keeps the list.
pub(super) struct Catalogue {
    client: Arc<HttpClient>,
    rules: Rules,
    refresh: Duration,
    /// How long one answer may take.
    limit: Duration,
    offer: watch::Sender<Offer>,
    described: Mutex<HashMap<String, Facts>>,
    /// Held while a look is under way.
    looking: tokio::sync::Mutex<()>,
    /// When the last look that has ended began.
    last_look: Mutex<Option<Instant>>,
    look_now: Notify,
    outage: Mutex<Repeats<String>>,
    undescribed: Mutex<Repeats<String>>,
    metrics: Arc<Metrics>,
}

#[derive(Serialize)]
struct ShowRequest<'a> {
    model: &'a str,
}

impl Catalogue {
    pub(super) fn new(
        client: Arc<HttpClient>,
        rules: Rules,
        refresh: Duration,
        limit: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            rules,
            refresh,
            limit,
            offer: watch::Sender::default(),
            described: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            last_look: Mutex::default(),
            look_now: Notify::new(),
            outage: Mutex::new(Repeats::outage()),
            undescribed: Mutex::new(Repeats::outage()),
            metrics,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Offer> {
        self.offer.subscribe()
    }

    /// Looks for as long as it is polled.
    pub(super) async fn keep(&self) {
        loop {
            let began = Instant::now();
            self.look_after(began).await;
            let next = began
                + if self.is_up() {
                    self.refresh
                } else {
                    RECOVERY.min(self.refresh)
                };
            self.rest_until(next).await;
        }
    }

    /// Waits until `next`, or until Ollama is seen or said to be gone.
    async fn rest_until(&self, next: Instant) {
        loop {
            let pulse = Instant::now() + PULSE;
            tokio::select! {
                biased;
                () = sleep_until(next.min(pulse)) => {}
                () = self.look_now.notified() => return,
            }
            if next <= Instant::now() || (self.is_up() && self.version().await.is_err()) {
                return;
            }
        }
    }

    /// Somebody has seen Ollama fail: it is looked at again soon.
    pub(super) fn doubt(&self) {
        self.look_now.notify_one();
    }

    /// Whether Ollama answers just now.
    pub(super) async fn answers(&self) -> bool {
        self.version().await.is_ok()
    }

    /// Whether a model of this name may be offered, as far as the name tells.
    pub(super) fn may_offer(&self, name: &str) -> bool {
        self.rules.may_offer(name)
    }

    /// All models that Ollama has, offered or not.
    pub(super) async fn tags(&self) -> Result<Vec<Tag>, HttpError> {
        Ok(self.get::<Tags>("/api/tags").await?.models)
    }

    /// An offered model by its name, whatever its case; no tag means `latest`.
    pub(super) fn find(&self, name: &str) -> Option<Model> {
        let is_it = |model: &&Model| {
            model.name.eq_ignore_ascii_case(name)
                || model
                    .name
                    .strip_suffix(":latest")
                    .is_some_and(|short| short.eq_ignore_ascii_case(name))
        };
        self.offer.borrow().models.iter().find(is_it).cloned()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.last_look()
            .is_some_and(|began| began.elapsed() <= FRESH)
    }

    /// Makes sure of a look that began at `since` or later.
    pub(super) async fn look_after(&self, since: Instant) {
        let _looking = self.looking.lock().await;
        if self.last_look().is_none_or(|last| last < since) {
            let began = Instant::now();
            self.publish(self.look().await);
            *self
                .last_look
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(began);
        }
    }

    fn last_look(&self) -> Option<Instant> {
        *self
            .last_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        self.offer.borrow().version.is_some()
    }

    async fn look(&self) -> Result<Offer, HttpError> {
        let version = self.version().await?;
        let tags = self.tags().await?;
        let running: Running = self.get("/api/ps").await?;
        let facts = self.describe_all(&tags).await;
        let models: Vec<_> = tags
            .iter()
            .filter_map(|tag| Some((tag, facts.get(&tag.digest)?)))
            .filter(|(tag, facts)| self.rules.offers(tag, facts))
            .map(|(tag, facts)| Model {
                name: tag.name.as_str().into(),
                context_length: facts.context_length,
                thinks: facts.thinks,
                loaded_context: running
                    .models
                    .iter()
                    .find(|r| r.name == tag.name)
                    .and_then(|r| r.context_length),
            })
            .collect();
        Ok(Offer {
            trouble: models.is_empty().then(|| nothing_to_offer(tags.len())),
            models,
            vram_bytes: running.vram_bytes(),
            version: Some(version),
        })
    }

    /// What is known of each digest; descriptions are asked for once. One that has come is kept at once: whoever looks may
    /// be cancelled in the middle of it.
    async fn describe_all(&self, tags: &[Tag]) -> HashMap<String, Facts> {
        let new: Vec<_> = {
            let mut described = self.described();
            let is_there: HashSet<_> = tags.iter().map(|tag| &tag.digest).collect();
            described.retain(|digest, _| is_there.contains(digest));
            let is_new = |tag: &&Tag| !described.contains_key(&tag.digest);
            tags.iter().filter(is_new).cloned().collect()
        };
        let mut descriptions = stream::iter(new)
            .map(|tag| async move { (self.describe(&tag.name).await, tag) })
            .buffer_unordered(DESCRIBED_AT_ONCE);
        while let Some((description, tag)) = descriptions.next().await {
            match description {
                Ok(facts) => drop(self.described().insert(tag.digest, facts)),
                Err(error) => self.tell_undescribed(&tag.name, &error),
            }
        }
        self.described().clone()
    }

    fn described(&self) -> MutexGuard<'_, HashMap<String, Facts>> {
        self.described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn describe(&self, model: &str) -> Result<Facts, HttpError> {
        let request = serde_json::to_vec(&ShowRequest { model }).map_err(|_| HttpError::Broken)?;
        let body = self
            .in_time(self.client.post("/api/show", Bytes::from(request)))
            .await?;
        let show: Show<'_> = serde_json::from_slice(&body).map_err(|_| HttpError::Unexpected)?;
        Ok(show.facts())
    }

    async fn version(&self) -> Result<String, HttpError> {
        Ok(self.get::<Version>("/api/version").await?.version)
    }

    async fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, HttpError> {
        let body = self.in_time(self.client.get(path)).await?;
        serde_json::from_slice(&body).map_err(|_| HttpError::Unexpected)
    }

    async fn in_time(
        &self,
        ask: impl Future<Output = Result<hyper::Response<hyper::body::Incoming>, HttpError>>,
    ) -> Result<Bytes, HttpError> {
        let answer = async {
            let answer = ask.await?;
            if !answer.status().is_success() {
                return Err(HttpError::Status(answer.status().as_u16()));
            }
            read_body(answer.into_body(), MAX_BODY).await
        };
        timeout(self.limit, answer)
            .await
            .unwrap_or(Err(HttpError::Silent(self.limit)))
    }

    fn publish(&self, seen: Result<Offer, HttpError>) {
        let offer = seen.unwrap_or_else(|error| Offer {
            trouble: Some(format!(
                "Ollama does not answer: {error}. Start it, or correct PIN_OLLAMA_URL."
            )),
            ..Offer::default()
        });
        self.show(&offer);
        self.tell_trouble(&offer);
        self.offer.send_if_modified(|current| {
            if *current == offer {
                return false;
            }
            tell_models(current, &offer);
            *current = offer;
            true
        });
    }

    /// Logs whether Ollama can be used. Asked at every look, so that what comes and goes is told once it has settled.
    fn tell_trouble(&self, offer: &Offer) {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match &offer.trouble {
            Some(trouble) => {
                if let Some(Told { attempts, since_s }) = outage.seen(trouble.clone()) {
                    warn!(attempts, since_s, "no models to offer: {trouble}");
                }
            }
            None => {
                if let Some(Told { attempts, since_s }) = outage.gone() {
                    let version = offer.version.as_deref();
                    info!(version, attempts, since_s, "Ollama answers");
                }
            }
        }
    }

    fn tell_undescribed(&self, model: &str, error: &HttpError) {
        let mut undescribed = self
            .undescribed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Told { attempts, since_s }) = undescribed.seen(model.to_owned()) {
            warn!(model, %error, attempts, since_s, "a model is not offered: Ollama does not describe it");
        }
    }

    fn show(&self, offer: &Offer) {
        self.metrics
            .ollama_up
            .set(i64::from(offer.version.is_some()));
        self.metrics
            .ollama_models
            .set(i64::try_from(offer.models.len()).unwrap_or(i64::MAX));
        self.metrics
            .ollama_vram_bytes
            .set(i64::try_from(offer.vram_bytes).unwrap_or(i64::MAX));
        if let Some(version) = &offer.version {
            self.metrics.set_ollama_version(version);
        }
    }
}

fn nothing_to_offer(models: usize) -> String {
    match models {
        0 => "Ollama has no model. Pull one, for example with: ollama pull llama3.2".to_owned(),
        n => format!(
            "Ollama has models ({n}) but none that may be offered. Check PIN_ALLOW_MODELS and PIN_DENY_MODELS; \
             embedding-only and cloud models are offered only if PIN_ALLOW_MODELS names them in full."
        ),
    }
}

fn tell_models(before: &Offer, now: &Offer) {
    let names = |offer: &Offer| {
        offer
            .models
            .iter()
            .map(|model| model.name.to_string())
            .collect::<Vec<_>>()
    };
    if names(before) != names(now) {
        info!(models = names(now).join(" "), "models offered");
    }
}
