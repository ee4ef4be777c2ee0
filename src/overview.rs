//! What the admin server may see of the rest: the sentences of `/readyz`, the numbers of `/status`, and the tick that
//! tells whether the data path lives.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    admin::{self, Overview, Status},
    backend::{Hidden, Offer, ollama::PullStatus},
    clock::millis,
    inference::{Admission, Requests},
    label::Label,
    node::Node,
    protocol::{Generation, Operation},
    service::{Pause, Service, Stage},
    session::{Phase, SessionStatus, StatusBoard},
    shared::Shared,
    telemetry::Tier,
    transport::Dial,
};

/// As many requests that fail in a row are more than consumers' own mistakes.
const MANY: usize = 10;

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
    /// Beats for as long as it is polled, and has somebody look around at each beat.
    pub(crate) async fn beat(&self, look: impl Fn()) {
        let mut clock = interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.last_ms
                .store(millis(self.since.elapsed()), Ordering::Relaxed);
            look();
        }
    }

    fn age(&self) -> Duration {
        Duration::from_millis(
            millis(self.since.elapsed()).saturating_sub(self.last_ms.load(Ordering::Relaxed)),
        )
    }
}

/// Everything that probes and people ask about.
pub(crate) struct View {
    pub(crate) generation: Generation,
    pub(crate) transport: &'static str,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) gateway: Arc<dyn Dial>,
    pub(crate) shared: Shared,
    pub(crate) admission: Arc<Admission>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) service: Arc<Service>,
    pub(crate) pulse: Arc<Pulse>,
}

impl Overview for View {
    fn tick_age(&self) -> Duration {
        self.pulse.age()
    }

    fn pending(&self) -> Vec<String> {
        let service = service_sentence(self.service.stage(), self.service.paused());
        let session = session_sentence(&self.status.read());
        // While there is a session the others may earn, or this one again.
        let interview = session
            .as_ref()
            .and_then(|_| self.shared.nodes.sole())
            .and_then(|node| barred_sentence(node));
        let nodes = &self.shared.nodes;
        let offer = (!nodes.have_offer()).then(|| nodes.without_chats());
        let all = [service, session, interview].into_iter().flatten();
        all.chain(offer.into_iter().flatten()).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let trouble = self.status.read().secret_error;
        let secret = trouble.map(|trouble| format!("The last good secret is in use: {trouble}."));
        let trouble = self.gateway.trouble();
        let roots = trouble
            .map(|trouble| format!("The last good root certificates are in use: {trouble}."));
        let nodes = self.shared.nodes.iter();
        let interviews =
            nodes.filter_map(|node| barred_sentence(node).or_else(|| failed_sentence(node)));
        let preloads = self.shared.nodes.iter();
        let preloads = preloads.filter_map(|node| node.backend.preload_sentence());
        let keys = self.shared.nodes.iter();
        let keys = keys.filter_map(|node| node.backend.trouble());
        let keys = keys
            .map(|trouble| format!("The last good key of the model server is in use: {trouble}."));
        let failing = [
            (Operation::Chat, "chats", "model server"),
            (Operation::Speech, "clips", "speech server"),
        ];
        let failing = failing.into_iter().filter_map(|(operation, what, server)| {
            let failed = self.requests.failed_in_a_row(operation);
            (failed >= MANY).then(|| {
                format!(
                    "The last {failed} {what} have failed at the {server}, and none was answered. Its log says why, and so does \
                     one that you ask it for by hand."
                )
            })
        });
        let unserved = self.shared.nodes.iter();
        let unserved = unserved.filter_map(|node| node.backend.why_less());
        let nodes = &self.shared.nodes;
        // Else it is what keeps it from being ready.
        let chats = nodes.have_offer().then(|| nodes.without_chats());
        let speech = nodes.iter();
        let speech = speech.filter_map(|node| node.speech.as_ref()?.why_nothing());
        secret
            .into_iter()
            .chain(roots)
            .chain(keys)
            .chain(unserved)
            .chain(failing)
            .chain(interviews)
            .chain(preloads)
            .chain(chats.into_iter().flatten())
            .chain(speech)
            .collect()
    }

    fn status(&self) -> Status {
        let session = self.status.read();
        let offers = self.shared.nodes.offers().now();
        let version = offers.iter().find_map(|offer| offer.version.clone());
        let models = offers.iter().flat_map(chat_models);
        let speech = offers.iter().flat_map(|offer| &offer.speech);
        let models = models.chain(speech.map(speech_model));
        let pulls = self.shared.nodes.iter().map(|node| node.backend.pulls());
        let preloads = self.shared.nodes.iter();
        let preloads = preloads.flat_map(|node| node.backend.preloads());
        Status {
            now: self.shared.clock.unix_seconds(),
            ready: self.pending().is_empty(),
            pause: self.service.paused().map(admin::PauseStatus::from),
            requests: self.requests.list(),
            hidden: self.hidden(),
            nodes: self
                .shared
                .nodes
                .iter()
                .map(|node| self.node(node))
                .collect(),
            session: self.session(&session),
            models: models.collect(),
            pulls: pulls
                .flat_map(|board| board.list())
                .map(|status| pull(&status))
                .collect(),
            preloads: preloads
                .map(|preload| admin::PreloadStatus {
                    model: preload.model.to_string(),
                    state: preload.state.as_str(),
                })
                .collect(),
            load: self.load(),
            counts: admin::Counts::of(&self.shared.metrics),
            backend: admin::BackendStatus {
                up: offers.iter().any(|offer| offer.is_up),
                version: version.clone(),
            },
            speech: self.shared.nodes.speak().then(|| admin::SpeechStatus {
                up: offers.iter().any(|offer| !offer.speech.is_empty()),
            }),
            last_errors: self.shared.recent_errors.list(),
            versions: admin::Versions::with_ollama(version),
            draining: self.service.stage() != Stage::Open,
            uptime_seconds: self.pulse.since.elapsed().as_secs(),
        }
    }

    fn history(&self, since: u64) -> admin::History {
        let now = self.shared.clock.unix_seconds();
        self.shared.history.read(now, since)
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
            transport: self.transport,
            logged_in_since: session.up_since,
            attempts: session.attempts,
            last_disconnect: session.last_disconnect,
            last_connect_failure: session.last_connect_failure,
            backoff_until: time_left(session.phase)
                .map(|left| self.shared.clock.unix_seconds() + left.as_secs()),
        }
    }

    fn node(&self, node: &Node) -> admin::NodeStatus {
        let (alias, node_id) = match node.standing.registered() {
            Some(registered) => (registered.alias, Some(registered.node_id)),
            None => (node.alias.to_string(), None),
        };
        admin::NodeStatus {
            alias,
            node_id,
            region: node.settings.region.as_str().to_owned(),
            api_mode: node.backend.mode(),
            capacity: node.slots.capacity(),
            quality_tier: self.shared.metrics.quality_tier.get(),
            interview: node
                .standing
                .verdict()
                .map(|verdict| admin::InterviewStatus {
                    at: verdict.at,
                    passed: verdict.tier != Tier::Failed,
                    accuracy: verdict.accuracy,
                    tokens_per_second: verdict.tokens_per_second,
                    retry_at: verdict.barred_until.map(|(_, at)| at),
                }),
        }
    }

    fn hidden(&self) -> Vec<admin::HiddenModel> {
        let nodes = self.shared.nodes.iter();
        let hidden = nodes.flat_map(|node| node.backend.hidden());
        hidden
            .take(Hidden::MAX)
            .map(|hidden| admin::HiddenModel {
                name: hidden.name.to_string(),
                why: hidden.why,
            })
            .collect()
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

fn chat_models(offer: &Offer) -> impl Iterator<Item = admin::ModelStatus> {
    offer.models.iter().map(|model| admin::ModelStatus {
        name: model.name.to_string(),
        context_length: model.context_length,
        loaded: (!offer.is_memory_unknown).then_some(model.loaded.is_some()),
    })
}

/// A speech server tells nothing but that it is there.
fn speech_model(name: &Arc<str>) -> admin::ModelStatus {
    admin::ModelStatus {
        name: name.to_string(),
        context_length: None,
        loaded: None,
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
        Phase::Waiting { until, .. } => {
            Some(until.saturating_duration_since(tokio::time::Instant::now()))
        }
        Phase::Connecting | Phase::Up | Phase::Ended => None,
    }
}

/// Why it takes no work, if it is not to.
pub(crate) fn service_sentence(stage: Stage, pause: Option<Pause>) -> Option<String> {
    let sentence = match (stage, pause) {
        (Stage::Open, _) => return None,
        (Stage::Draining(drain), Some(_)) if !drain.is_last => {
            "Pausing: running chats finish, new ones are refused."
        }
        (Stage::Draining(_), _) => "Draining: running chats finish, new ones are refused.",
        (Stage::Drained, Some(pause)) => return Some(pause_sentence(pause)),
        (Stage::Drained, None) => {
            "Drained as it was asked to. `POST /session/connect` opens the session again, and so does a restart of the model server."
        }
        (Stage::Ended, _) => "Drained: the process ends.",
    };
    Some(sentence.to_owned())
}

fn pause_sentence(pause: Pause) -> String {
    let until = match pause.until {
        Some((at, _)) => format!("until {}", rfc3339(at)),
        None => "until somebody ends that".to_owned(),
    };
    format!(
        "Paused {until}, as it was asked to. `pin-sidecar resume` or `POST /session/connect` ends it."
    )
}

fn rfc3339(seconds: u64) -> impl Display {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Why there is no session, if there is none.
pub(crate) fn session_sentence(session: &SessionStatus) -> Option<String> {
    let trouble = || {
        session
            .why_down
            .as_deref()
            .unwrap_or("No session with the gateway yet.")
    };
    match session.phase {
        Phase::Up => None,
        Phase::Ended => Some("The session is closed.".to_owned()),
        Phase::Connecting => Some(format!("{} Connecting now.", trouble())),
        Phase::Waiting { is_paced, .. } => {
            let left = time_left(session.phase).unwrap_or_default().as_secs();
            let pace = if is_paced {
                ", as PIN_CONNECTS_PER_MINUTE allows"
            } else {
                ""
            };
            Some(format!("{} Next attempt in {left} s{pace}.", trouble()))
        }
    }
}

/// Why a node stays away from the network, and until when.
fn barred_sentence(node: &Node) -> Option<String> {
    node.standing.barred_until()?;
    let failed = failed_sentence(node)?;
    let (_, at) = node.standing.verdict()?.barred_until?;
    Some(format!(
        "{failed} It wants to see the node again at {} and not before.",
        rfc3339(at)
    ))
}

/// That the network does not want a node as it is.
fn failed_sentence(node: &Node) -> Option<String> {
    let verdict = node.standing.verdict()?;
    let reason = match verdict.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let failed = format!(
        "The network failed the interview of node {}{reason}.",
        node.alias
    );
    (verdict.tier == Tier::Failed).then_some(failed)
}
