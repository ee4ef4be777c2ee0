//! Keeps the models loaded that the operator wants to be (`PIN_PRELOAD_MODELS`), so that neither the network's first question
//! nor an interview meets a cold one: loads them before the node is registered, has every request for them say how long to
//! keep them, and asks again when there was none for a while.
//!
//! Each look at the server goes through [`Preload`], which knows what is to be loaded and what has become of it; a task of
//! its own ([`Backend::keep_preloaded`]) does what is due. No slot is taken.
//!
//! Invariants: one model is loaded at a time, in their order. What was thrown out of memory while the server stayed up is not
//! loaded again from here: the GPU has no room, or its owner wants it. No model keeps the node from being registered for
//! longer than `PIN_FIRST_TOKEN_TIMEOUT`, nor does one that is not offered: a pull may take a day, and one that is being pulled
//! is not offered yet, so that it is never loaded meanwhile.

#[cfg(test)]
mod tests;
mod wanted;

pub use wanted::PreloadState;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::wanted::{LoadError, Wanted};
use super::{AskError, Backend, Model};
use crate::config::{PreloadModels, PreloadSettings};

/// How long to wait before a connection is opened again that the server has closed: some close each that says nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a server may take to free a model's memory.
const UNLOAD_LIMIT: Duration = Duration::from_secs(10);

/// Connections that were closed after equal times, give or take this, were closed for being idle.
const ALIKE: Duration = Duration::from_millis(500);

/// A model that is to be kept loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreloadStatus {
    /// Its name, in full once it is offered.
    pub model: Arc<str>,
    /// What has become of it.
    pub state: PreloadState,
}

/// What is to be kept loaded, and what has become of it.
pub(super) struct Preload {
    settings: PreloadSettings,
    /// `None` until the first look tells what `auto` means.
    wanted: Mutex<Option<Vec<Wanted>>>,
    /// Whether nothing is to be loaded, since the GPU's owner wants it.
    is_suspended: watch::Sender<bool>,
    /// Something may have become due.
    changed: Notify,
}

/// What is to be done next.
enum Due {
    /// This model is to be loaded, or to be asked for again.
    Now(Arc<str>),
    /// Nothing before this.
    At(Instant),
    /// Nothing before something changes.
    Unknown,
    /// Nothing, ever.
    Never,
}

impl Preload {
    pub(super) fn new(settings: PreloadSettings) -> Self {
        Self {
            settings,
            wanted: Mutex::default(),
            is_suspended: watch::Sender::default(),
            changed: Notify::new(),
        }
    }

    /// Takes in what a look has shown, which was at memory as it was at `looked` or later, if at all. Puts the models into the order in which they are offered: first
    /// the one to interview, then those that are kept loaded, then the others by name; and marks those.
    pub(super) fn arrange(&self, models: &mut [Model], looked: Option<Instant>) {
        models.sort_by(|one, other| one.name.cmp(&other.name));
        let mut wanted = self.lock();
        let wanted = wanted.get_or_insert_with(|| self.choose(models));
        for wanted in &mut *wanted {
            let mut offered = models.iter_mut();
            let model = offered.find(|model| model.is_called(&wanted.model));
            wanted.seen(model.as_deref(), looked);
            if let Some(model) = model {
                model.is_preloaded = true;
            }
        }
        let interviewed = self.settings.interview_model.as_deref();
        let place = |model: &Model| wanted.iter().position(|one| one.model == model.name);
        models.sort_by_key(|model| {
            if interviewed.is_some_and(|name| model.is_called(name)) {
                return 0;
            }
            place(model).map_or(usize::MAX, |place| place + 1)
        });
        self.changed.notify_one();
    }

    /// The server does not answer. Whatever it had loaded, it may come back without.
    pub(super) fn server_is_away(&self) {
        for wanted in self.lock().iter_mut().flatten() {
            wanted.is_gone();
        }
        self.changed.notify_one();
    }

    /// Whether registration has nothing more to wait for.
    pub(super) fn is_warm(&self) -> bool {
        let patience = self.settings.patience;
        let wanted = self.lock();
        wanted.iter().flatten().all(|one| one.is_warm(patience))
    }

    /// The server has taken a request for this model: it is loaded, and is kept as long as the request said.
    pub(super) fn used(&self, model: &str) {
        self.with(model, Wanted::used);
        self.changed.notify_one();
    }

    /// Nothing is loaded any more. Gives what may be in memory.
    fn suspend(&self) -> Vec<Arc<str>> {
        self.is_suspended.send_replace(true);
        let wanted = self.lock();
        let offered = wanted.iter().flatten().filter(|one| one.is_offered());
        offered.map(|one| Arc::clone(&one.model)).collect()
    }

    /// What is to be loaded is loaded again, whatever has become of it.
    fn resume(&self) {
        if !self.is_suspended.send_replace(false) {
            return;
        }
        for wanted in self.lock().iter_mut().flatten() {
            wanted.begin_anew();
        }
        self.changed.notify_one();
    }

    /// All of them, in their order.
    pub(super) fn list(&self) -> Vec<PreloadStatus> {
        let status = |wanted: &Wanted| PreloadStatus {
            model: Arc::clone(&wanted.model),
            state: wanted.state,
        };
        self.lock().iter().flatten().map(status).collect()
    }

    /// What registration waits for, as a sentence for the operator.
    pub(super) fn sentence(&self) -> Option<String> {
        let patience = self.settings.patience;
        let wanted = self.lock();
        let awaited = wanted.iter().flatten().find(|one| !one.is_warm(patience))?;
        let model = &awaited.model;
        Some(match awaited.state {
            PreloadState::Failed => format!(
                "Loading {model} before the node is registered has failed, and is tried again: the log says why."
            ),
            PreloadState::Waiting
            | PreloadState::Loading
            | PreloadState::Loaded
            | PreloadState::Evicted => {
                format!("Loading {model} before the node is registered.")
            }
        })
    }

    /// What the settings mean, now that the first list of models is there.
    fn choose(&self, models: &[Model]) -> Vec<Wanted> {
        let interviewed = self.settings.interview_model.as_deref().map(Arc::from);
        let mut loaded = models.iter().filter(|model| model.loaded.is_some());
        let names = match &self.settings.models {
            PreloadModels::Named(names) => names.clone(),
            PreloadModels::Auto => interviewed
                .or_else(|| loaded.next().map(|model| Arc::clone(&model.name)))
                .into_iter()
                .collect(),
        };
        names.into_iter().map(Wanted::new).collect()
    }

    fn due(&self) -> Due {
        let patience = self.settings.patience;
        let wanted = self.lock();
        let Some(wanted) = &*wanted else {
            return Due::Unknown;
        };
        if wanted.is_empty() {
            return Due::Never;
        }
        let now = Instant::now();
        if let Some(due) = wanted
            .iter()
            .find(|one| one.due().is_some_and(|at| at <= now))
        {
            return Due::Now(Arc::clone(&due.model));
        }
        let times = wanted
            .iter()
            .flat_map(|one| [one.due(), one.awaited_until(patience)]);
        let next = times.flatten().filter(|at| *at > now).min();
        next.map_or(Due::Unknown, Due::At)
    }

    fn with<T>(&self, model: &str, change: impl FnOnce(&mut Wanted) -> T) -> Option<T> {
        let mut wanted = self.lock();
        let mut all = wanted.iter_mut().flatten();
        all.find(|one| *one.model == *model).map(change)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Wanted>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// Loads the models that are to be kept loaded, and keeps them, until `stop` is told; ends by itself where there are
    /// none. Needs somebody who follows the server.
    pub async fn keep_preloaded(&self, mut random: fastrand::Rng, stop: CancellationToken) {
        let keeping = async {
            tokio::select! {
                biased;
                () = self.load_what_is_due(&mut random) => {}
                () = self.watch_for_restart() => {}
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    /// The models that are to be kept loaded, and what has become of them.
    pub fn preloads(&self) -> Vec<PreloadStatus> {
        self.preload.list()
    }

    /// What registration of the node waits for, as a sentence for the operator.
    pub fn preload_sentence(&self) -> Option<String> {
        self.preload.sentence()
    }

    /// Frees the memory of what is kept loaded, and keeps nothing loaded from now on. Whatever the server says to that, it
    /// is not asked twice.
    pub async fn unload(&self) {
        for model in self.preload.suspend() {
            match timeout(UNLOAD_LIMIT, self.server.unload(&model)).await {
                Ok(Ok(true)) => info!(model = &*model, "the model was unloaded"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    warn!(model = &*model, %error, "a model could not be unloaded");
                }
                Err(_) => warn!(model = &*model, "a model could not be unloaded in time"),
            }
        }
    }

    /// Keeps loaded what is to be, after [`Backend::unload`].
    pub fn keep_preloaded_again(&self) {
        self.preload.resume();
        self.catalogue.show_warmth();
    }

    async fn load_what_is_due(&self, random: &mut fastrand::Rng) {
        let mut is_suspended = self.preload.is_suspended.subscribe();
        loop {
            // Fails only where nobody is left who could suspend it.
            let _ = is_suspended.wait_for(|suspended| !suspended).await;
            let changed = self.preload.changed.notified();
            match self.preload.due() {
                // A load that is given up closes its request, upon which Ollama gives up as well.
                Due::Now(model) => tokio::select! {
                    biased;
                    _ = is_suspended.wait_for(|suspended| *suspended) => {}
                    () = self.preload_one(&model, random) => {}
                },
                Due::At(at) => tokio::select! {
                    biased;
                    () = sleep_until(at) => {}
                    () = changed => {}
                },
                Due::Unknown => changed.await,
                Due::Never => return,
            }
            // Time alone ends the wait for a model that cannot be loaded.
            self.catalogue.show_warmth();
        }
    }

    async fn preload_one(&self, name: &Arc<str>, random: &mut fastrand::Rng) {
        if !self.is_fresh() {
            // Somebody may have thrown it out since the last look, which is to be respected.
            self.catalogue.look_after(Instant::now()).await;
        }
        let Some(model) = self.catalogue.find(name) else {
            return;
        };
        let patience = self.preload.settings.patience;
        let Some(Some(limit)) = self.preload.with(name, |wanted| wanted.begin(patience)) else {
            return;
        };
        let begun = Instant::now();
        match timeout(limit, self.server.load(&model)).await {
            Ok(Ok(())) => {
                self.preload
                    .with(name, |wanted| wanted.loaded(begun.elapsed()));
                self.catalogue.look_after(Instant::now()).await;
            }
            Ok(Err(error)) => {
                if matches!(error, AskError::Http(_)) {
                    self.catalogue.doubt();
                }
                let error = LoadError::Failed(error);
                self.preload
                    .with(name, |wanted| wanted.failed(&error, random));
            }
            Err(_) => {
                let error = LoadError::Slow(limit);
                self.preload
                    .with(name, |wanted| wanted.failed(&error, random));
            }
        }
    }

    /// A server that is restarted is away for less time than passes between two looks at it, and comes back with nothing
    /// loaded, as if all had been thrown out. But no connection survives it. Some servers, and what stands before them, close
    /// each connection that says nothing, after the same time each, which means nothing.
    async fn watch_for_restart(&self) {
        let mut offer = self.offer();
        let mut held_before = Duration::ZERO;
        loop {
            let is_loaded = |model: &Model| model.is_preloaded && model.loaded.is_some();
            // Fails only if the catalogue is gone, and nobody would poll this then.
            let _ = offer
                .wait_for(|offer| offer.models.iter().any(is_loaded))
                .await;
            let begun = Instant::now();
            self.server.until_closed().await;
            let held = begun.elapsed();
            let is_habit = held > PAUSE && held.abs_diff(held_before) < ALIKE;
            held_before = held;
            if is_habit {
                continue;
            }
            self.look_for_restart().await;
            sleep(PAUSE).await;
            // No connection was held meanwhile.
            self.look_for_restart().await;
        }
    }

    async fn look_for_restart(&self) {
        for wanted in self.preload.lock().iter_mut().flatten() {
            wanted.suspect_restart();
        }
        self.catalogue.look_after(Instant::now()).await;
    }
}
