//! What the admin server may see of the rest: the sentences of `/readyz`, the numbers of `/status`, and the tick that
//! tells whether the data path lives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    admin::{self, Overview, Status},
    backend::{
        Offer,
        ollama::{PullBoard, PullStatus},
    },
    clock::WallClock,
    inference::Admission,
    label::Label,
    protocol::Generation,
    service::{Service, Stage},
    session::{Phase, Registration, SessionStatus, StatusBoard},
    telemetry::{Metrics, RecentTroubles},
};

/// The data path's sign of life, given every second by a task among its own.
pub(crate) struct Pulse {
    since: Instant,
    last_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// Beats for as long as it is polled.
    pub(crate) async fn beat(&self) {
        let mut clock = interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.last_ms
                .store(millis(self.since.elapsed()), Ordering::Relaxed);
        }
    }

    fn age(&self) -> Duration {
        Duration::from_millis(
            millis(self.since.elapsed()).saturating_sub(self.last_ms.load(Ordering::Relaxed)),
        )
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Everything that probes and people ask about.
pub(crate) struct View {
    pub(crate) generation: Generation,
    pub(crate) registration: Registration,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) offer: watch::Receiver<Offer>,
    pub(crate) pulls: Arc<PullBoard>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) troubles: Arc<RecentTroubles>,
    pub(crate) service: Arc<Service>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) clock: Arc<dyn WallClock>,
}

impl Overview for View {
    fn tick_age(&self) -> Duration {
        self.pulse.age()
    }

    fn pending(&self) -> Vec<String> {
        let service = service_sentence(self.service.stage());
        let session = session_sentence(&self.status.read());
        let backend = backend_sentence(&self.offer.borrow(), &self.pulls);
        [service, session, backend].into_iter().flatten().collect()
    }

    fn warnings(&self) -> Vec<String> {
        let trouble = self.status.read().secret_trouble;
        trouble
            .map(|trouble| format!("The last good secret is in use: {trouble}."))
            .into_iter()
            .collect()
    }

    fn status(&self) -> Status {
        let offer = self.offer.borrow().clone();
        let session = self.status.read();
        Status {
            nodes: vec![self.node(&session)],
            session: self.session(&session),
            models: offer
                .models
                .iter()
                .map(|model| admin::ModelStatus {
                    name: model.name.to_string(),
                    context_length: model.context_length,
                    loaded: model.loaded_context.is_some(),
                })
                .collect(),
            pulls: self.pulls.list().iter().map(pull).collect(),
            load: self.load(),
            counts: admin::Counts::of(&self.metrics),
            backend: admin::BackendStatus {
                up: offer.is_up,
                version: offer.version.clone(),
            },
            last_errors: self.troubles.list(),
            versions: admin::Versions::with_ollama(offer.version),
            draining: self.service.stage() != Stage::Open,
            uptime_seconds: self.pulse.since.elapsed().as_secs(),
        }
    }
}

impl View {
    fn session(&self, session: &SessionStatus) -> admin::SessionStatus {
        admin::SessionStatus {
            state: match session.phase {
                Phase::Connecting => "connecting",
                Phase::Up => "up",
                Phase::Waiting { .. } => "waiting",
                Phase::Ended => "ended",
            },
            since: session.phase_since,
            generation: self.generation,
            transport: "ws",
            logged_in_since: session.up_since,
            attempts: session.attempts,
            last_disconnect: session.last_disconnect,
            last_connect_failure: session.last_connect_failure,
            backoff_until: time_left(session.phase)
                .map(|left| self.clock.unix_seconds() + left.as_secs()),
        }
    }

    fn node(&self, session: &SessionStatus) -> admin::NodeStatus {
        admin::NodeStatus {
            alias: session.node.as_ref().map_or_else(
                || self.registration.alias.clone(),
                |node| node.alias.clone(),
            ),
            node_id: session.node.as_ref().map(|node| node.node_id.clone()),
            region: self.registration.region.to_owned(),
            api_mode: self.registration.api_mode,
            capacity: self.admission.capacity(),
            quality_tier: self.metrics.quality_tier.get(),
        }
    }

    fn load(&self) -> admin::Load {
        let load = self.admission.load();
        admin::Load {
            running: load.running,
            waiting: load.waiting,
            capacity: self.admission.capacity(),
            queue: self.admission.queue(),
        }
    }
}

fn pull(pull: &PullStatus) -> admin::PullStatus {
    admin::PullStatus {
        model: pull.model.to_string(),
        state: pull.state.as_str(),
        completed_bytes: pull.completed_bytes,
        total_bytes: pull.total_bytes,
    }
}

fn time_left(phase: Phase) -> Option<Duration> {
    match phase {
        Phase::Waiting { until } => {
            Some(until.saturating_duration_since(tokio::time::Instant::now()))
        }
        Phase::Connecting | Phase::Up | Phase::Ended => None,
    }
}

fn service_sentence(stage: Stage) -> Option<String> {
    let sentence = match stage {
        Stage::Open => return None,
        Stage::Draining(_) => "Draining: running chats finish, new ones are refused.",
        Stage::Drained => {
            "Drained as it was asked to. `POST /session/connect` opens the session again, and so does a restart of Ollama."
        }
        Stage::Ended => "Drained: the process ends.",
    };
    Some(sentence.to_owned())
}

fn session_sentence(session: &SessionStatus) -> Option<String> {
    let trouble = || {
        session
            .trouble
            .as_deref()
            .unwrap_or("No session with the gateway yet.")
    };
    match session.phase {
        Phase::Up => None,
        Phase::Ended => Some("The session is closed.".to_owned()),
        Phase::Connecting => Some(format!("{} Connecting now.", trouble())),
        Phase::Waiting { .. } => {
            let left = time_left(session.phase).unwrap_or_default().as_secs();
            Some(format!("{} Next attempt in {left} s.", trouble()))
        }
    }
}

/// A pull says more than that there is no model yet, but nothing to somebody whose Ollama is away.
fn backend_sentence(offer: &Offer, pulls: &PullBoard) -> Option<String> {
    let pull = || offer.is_up.then(|| pulls.sentence()).flatten();
    match &offer.trouble {
        Some(trouble) => Some(pull().unwrap_or_else(|| trouble.clone())),
        None if offer.models.is_empty() => {
            Some("Ollama has not been asked for its models yet.".to_owned())
        }
        None => None,
    }
}
