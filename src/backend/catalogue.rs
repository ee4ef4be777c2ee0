//! Which models a server has, and which of them are offered: looked at again and again, since models come and go, and so
//! do servers.
//!
//! Invariant: what does not answer is not offered. One look at a time, however many want one.

use std::{
    mem,
    sync::{self, Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use super::{AskError, ModelServer, Seen, Suitability, preload::Preload, standing::Standing};
use crate::{
    config::{ModelGlobs, PreloadSettings, SpeechModel},
    telemetry::{BackendMetrics, LogThrottle, throttled},
    transport::http::HttpError,
};

/// A list this young need not be asked for again (delivery rules, "Receipt").
pub(super) const FRESH: Duration = Duration::from_secs(1);

/// Between two looks the server is asked this often whether it is there, so that its absence is told within seconds.
const PULSE: Duration = Duration::from_secs(3);

/// How soon a server that was away is looked for again.
pub(super) const RECOVERY: Duration = Duration::from_secs(1);

/// How long a trial may take that shows whether chats are served. A refusal comes at once; a model that is loaded takes longer.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A model that is offered to the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// The name by which it is offered. Ollama's have their tag: `llama3.2:latest`.
    pub name: Arc<str>,
    /// What the backend itself calls it: its name, or the operator's path to it.
    pub id: Arc<str>,
    /// The longest context that the model was made for, in tokens; `None` where the backend does not say.
    pub context_length: Option<u64>,
    /// How the model can be made to think.
    pub thinking: Thinking,
    /// What it takes just now; `None` while it is not in memory.
    pub loaded: Option<Loaded>,
    /// Whether the operator wants it kept in memory (`PIN_PRELOAD_MODELS`).
    pub is_preloaded: bool,
}

/// How a model can be made to think.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// It cannot think, and refuses to be asked to.
    #[default]
    None,
    /// It thinks or it does not: a level is refused.
    OnOrOff,
    /// It also takes a level: `low`, `medium`, `high`.
    Levels,
}

impl Model {
    /// A model of which nothing else is known.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            id: name.into(),
            ..Self::default()
        }
    }

    /// Whether this is its name, whatever its case; no tag means `latest`, to whoever lists it as to whoever asks for it.
    pub fn is_called(&self, name: &str) -> bool {
        untagged(&self.name).eq_ignore_ascii_case(untagged(name))
    }
}

/// A name without the tag that goes without saying.
fn untagged(name: &str) -> &str {
    const LATEST: &str = ":latest";
    match name.split_at_checked(name.len().saturating_sub(LATEST.len())) {
        Some((untagged, tag)) if tag.eq_ignore_ascii_case(LATEST) => untagged,
        Some(_) | None => name,
    }
}

/// What a model that is in memory takes of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// In all.
    pub bytes: u64,
    /// In the GPU's memory.
    pub gpu_bytes: u64,
}

/// What a node has to offer just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Whether the backend answers.
    pub is_up: bool,
    /// Whether what is to be loaded before the node is registered is loaded, or was waited for long enough. Never while the
    /// backend does not answer.
    pub is_warm: bool,
    /// The models that are served, in the order in which the network is told: the one to interview, those that are kept
    /// loaded, the others by name. None while the backend does not answer.
    pub models: Vec<Model>,
    /// The names of the speech models that are served beside them, `tts:` included.
    pub speech: Vec<Arc<str>>,
    /// GPU memory that loaded models take, in bytes.
    pub vram_bytes: u64,
    /// Whether the backend does not tell which models are in memory.
    pub is_memory_unknown: bool,
    /// Why there is nothing to offer, as a sentence for the operator.
    pub why_empty: Option<String>,
    /// Why a model is not offered that the server has and does not serve, where others are; likewise.
    pub why_less: Option<String>,
    /// The backend's version, while it answers and where it tells.
    pub version: Option<String>,
}

impl Offer {
    /// The models' names, those of speech last.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let chat = self.models.iter().map(|model| &model.name);
        chat.chain(&self.speech)
    }
}

/// A model that is there and is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Its full name.
    pub name: Arc<str>,
    /// Why, as a sentence that names the setting.
    pub why: &'static str,
}

impl Hidden {
    /// How many are told of.
    pub const MAX: usize = 100;
}

/// Which models may be offered, and which of them come first and stay loaded.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Those to offer.
    pub allow: ModelGlobs,
    /// Those not to offer, even if allowed.
    pub deny: ModelGlobs,
    /// Those to keep loaded.
    pub preload: PreloadSettings,
}

impl Rules {
    /// Whether a model may be offered.
    pub fn offers(&self, name: &str, suitability: Suitability) -> bool {
        self.why_hidden(name, suitability).is_none()
    }

    /// Why a model may not be offered, as a sentence, if it may not.
    pub fn why_hidden(&self, name: &str, suitability: Suitability) -> Option<&'static str> {
        if SpeechModel::is_name_of_one(name) {
            return Some("The network would take it for speech: its name begins with tts:.");
        }
        if self.deny.matches(name) {
            return Some("PIN_DENY_MODELS names it.");
        }
        if !self.allow.matches(name) {
            return Some("PIN_ALLOW_MODELS does not name it.");
        }
        let why = match suitability {
            Suitability::Suits => return None,
            Suitability::Unknown => return Some("It is not known yet whether it can chat."),
            Suitability::NotReady => return Some("Its server says that it is not ready."),
            Suitability::CannotChat => {
                "It is not made for chats; named in full in PIN_ALLOW_MODELS it would be offered."
            }
            Suitability::RunsElsewhere => {
                "It runs in somebody's cloud; named in full in PIN_ALLOW_MODELS it would be offered."
            }
        };
        (!self.allow.names_in_full(name)).then_some(why)
    }
}

/// Keeps the list.
pub struct Catalogue {
    server: Arc<dyn ModelServer>,
    rules: Rules,
    preload: Arc<Preload>,
    standing: Arc<Standing>,
    refresh: Duration,
    offer: watch::Sender<Offer>,
    /// What the last look has found and not offered.
    hidden: sync::Mutex<Vec<Hidden>>,
    /// When the last look that has ended began.
    last_look: watch::Sender<Option<Instant>>,
    look_now: Notify,
    /// Why there is nothing to offer. Held while a look is under way.
    outage: Mutex<LogThrottle<String>>,
    metrics: BackendMetrics,
}

impl Catalogue {
    pub(super) fn new(
        server: Arc<dyn ModelServer>,
        rules: Rules,
        preload: Arc<Preload>,
        standing: Arc<Standing>,
        refresh: Duration,
        metrics: BackendMetrics,
    ) -> Self {
        Self {
            server,
            rules,
            preload,
            standing,
            refresh,
            offer: watch::Sender::default(),
            hidden: sync::Mutex::default(),
            last_look: watch::Sender::default(),
            look_now: Notify::new(),
            outage: Mutex::new(LogThrottle::outage()),
            metrics,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Offer> {
        self.offer.subscribe()
    }

    pub(super) fn offer(&self) -> watch::Ref<'_, Offer> {
        self.offer.borrow()
    }

    pub(super) fn hidden(&self) -> Vec<Hidden> {
        self.lock_hidden().clone()
    }

    /// Looks for as long as it is polled.
    pub(super) async fn keep(&self) {
        loop {
            let began = Instant::now();
            self.look_after(began).await;
            let pause = if self.is_up() { self.refresh } else { RECOVERY };
            self.rest_until(began + pause.min(self.refresh)).await;
        }
    }

    /// Waits until `next`, or until the server is seen or said to be gone.
    async fn rest_until(&self, next: Instant) {
        loop {
            let pulse = Instant::now() + PULSE;
            tokio::select! {
                biased;
                () = sleep_until(next.min(pulse)) => {}
                () = self.look_now.notified() => return,
            }
            if next <= Instant::now() || (self.is_up() && !self.server.answers().await) {
                return;
            }
        }
    }

    /// Somebody has seen the server fail: it is looked at again soon.
    pub(super) fn doubt(&self) {
        self.look_now.notify_one();
    }

    /// An offered model by its name, whatever its case; no tag means `latest`.
    pub(super) fn find(&self, name: &str) -> Option<Model> {
        let offer = self.offer.borrow();
        let mut models = offer.models.iter();
        models.find(|model| model.is_called(name)).cloned()
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.last_look
            .borrow()
            .is_some_and(|began| began.elapsed() <= FRESH)
    }

    /// Makes sure of a look that began at `since` or later.
    pub(super) async fn look_after(&self, since: Instant) {
        let mut outage = self.outage.lock().await;
        if self.last_look.borrow().is_none_or(|last| last < since) {
            let began = Instant::now();
            match self.server.look().await {
                Ok(seen) => {
                    self.standing.looked(&seen);
                    self.try_chats(&seen).await;
                    self.publish(Ok(seen), began, &mut outage);
                }
                Err(error) => {
                    let is_there = self.standing.is_there_although(&error, began);
                    if !(is_there && self.is_up()) {
                        self.publish(Err(error), began, &mut outage);
                    }
                }
            }
            self.last_look.send_replace(Some(began));
        }
    }

    /// Tries those models of which chats have it in doubt that they are served. Ends with the first that is, or when it has
    /// lasted: the others have time until the next look, for which somebody may wait.
    async fn try_chats(&self, seen: &Seen) {
        let began = Instant::now();
        for (model, suitability) in &seen.models {
            if began.elapsed() >= TRIAL_TIMEOUT {
                break;
            }
            let is_offered = self.rules.offers(&model.name, *suitability);
            if !is_offered || !self.standing.is_to_be_tried(model, seen.is_list_missing) {
                continue;
            }
            let why_unserved = match timeout(TRIAL_TIMEOUT, self.server.load(model)).await {
                Ok(Err(error)) if error.is_no_service() => Some(self.why_unserved(&error)),
                // It takes its time, or fails in a way that may pass.
                Ok(Ok(()) | Err(_)) | Err(_) => None,
            };
            let is_served = why_unserved.is_none();
            self.standing.tried(&model.name, why_unserved, self.refresh);
            if is_served {
                break;
            }
        }
    }

    fn why_unserved(&self, error: &AskError) -> String {
        let of_status = || match error {
            AskError::Refused {
                status: status @ (401 | 403),
                ..
            } => self.server.why_silent(&HttpError::Status(*status)),
            AskError::Refused { status, .. } => format!(
                "Its chats are answered with HTTP {status}, also one that says no more than hello. The model server's log says more."
            ),
            AskError::Http(error) => self.server.why_silent(error),
        };
        self.server.why_odd(error).unwrap_or_else(of_status)
    }

    fn is_up(&self) -> bool {
        self.offer.borrow().is_up
    }

    fn publish(
        &self,
        seen: Result<Seen, HttpError>,
        began: Instant,
        outage: &mut LogThrottle<String>,
    ) {
        let offer = match seen {
            Ok(seen) => self.offer_of(seen, began),
            Err(error) => {
                self.preload.server_is_away();
                self.lock_hidden().clear();
                Offer {
                    why_empty: Some(self.server.why_silent(&error)),
                    ..Offer::default()
                }
            }
        };
        self.show(&offer);
        self.tell_trouble(&offer, outage);
        self.offer.send_if_modified(|current| {
            if *current == offer {
                return false;
            }
            tell_models(current, &offer);
            *current = offer;
            true
        });
    }

    /// Tells whether registration has something to wait for, where that has changed.
    pub(super) fn show_warmth(&self) {
        self.offer.send_if_modified(|offer| {
            let is_warm = offer.is_up && self.preload.is_warm();
            mem::replace(&mut offer.is_warm, is_warm) != is_warm
        });
    }

    fn offer_of(&self, seen: Seen, began: Instant) -> Offer {
        let count = seen.models.len();
        let is_unknown = |(model, suitability): &(Model, Suitability)| {
            let would_be_offered = self
                .rules
                .why_hidden(&model.name, Suitability::Suits)
                .is_none();
            let is_unknown = matches!(suitability, Suitability::Unknown | Suitability::NotReady);
            is_unknown && would_be_offered
        };
        let has_unknown = seen.models.iter().any(is_unknown);
        let why_unknown = seen.why_unknown.filter(|_| has_unknown);
        let why_nothing = || self.server.why_nothing(count, why_unknown.as_deref());
        let mut models = Vec::new();
        let mut hidden = Vec::new();
        let mut unserved = None;
        for (model, suitability) in seen.models {
            let name = &model.name;
            let why_hidden = self.rules.why_hidden(name, suitability).or_else(|| {
                let why = self.standing.why_unserved(name)?;
                unserved.get_or_insert_with(|| (Arc::clone(name), why));
                Some("Its chats are refused, also one that says no more than hello: see /readyz.")
            });
            match why_hidden {
                None => models.push(model),
                Some(why) if hidden.len() < Hidden::MAX => hidden.push(Hidden {
                    name: Arc::clone(name),
                    why,
                }),
                Some(_) => {}
            }
        }
        *self.lock_hidden() = hidden;
        let is_empty = models.is_empty();
        let (why_empty, why_less) = match unserved {
            Some((_, why)) if is_empty => (Some(why), None),
            Some((name, why)) => (
                None,
                Some(format!("The model {name} is not offered. {why}")),
            ),
            None => (is_empty.then(why_nothing), None),
        };
        let looked_at_memory = (!seen.is_memory_unknown).then_some(began);
        self.preload.arrange(&mut models, looked_at_memory);
        Offer {
            is_up: true,
            is_warm: self.preload.is_warm(),
            why_empty,
            why_less,
            models,
            // Whose server is looked at by itself.
            speech: Vec::new(),
            vram_bytes: seen.vram_bytes,
            is_memory_unknown: seen.is_memory_unknown,
            version: seen.version,
        }
    }

    fn lock_hidden(&self) -> MutexGuard<'_, Vec<Hidden>> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs whether the server can be used. Asked at every look, so that what comes and goes is told once it has settled.
    fn tell_trouble(&self, offer: &Offer, outage: &mut LogThrottle<String>) {
        match &offer.why_empty {
            Some(trouble) => {
                let told = outage.seen(trouble.clone());
                throttled!(warn, told, [] "no models to offer: {trouble}");
            }
            None => {
                let (version, name) = (offer.version.as_deref(), self.server.guide().name);
                throttled!(info, outage.gone(), [version,] "{name} answers");
            }
        }
    }

    fn show(&self, offer: &Offer) {
        let names = offer.names().map(AsRef::as_ref);
        self.metrics.seen(offer.is_up, offer.vram_bytes, names);
        if let Some(version) = &offer.version {
            self.metrics.has_version(version);
        }
    }
}

fn tell_models(before: &Offer, now: &Offer) {
    if !before.names().eq(now.names()) {
        let names: Vec<&str> = now.names().map(AsRef::as_ref).collect();
        info!(models = names.join(" "), "models offered");
    }
    if let Some(why) = &now.why_less
        && before.why_less.as_ref() != Some(why)
    {
        warn!("{why}");
    }
}
