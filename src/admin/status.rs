//! What `/status` shows. The shape is a contract: fields only ever get added.
//!
//! Invariant: no secret, prompt, client id, payout address, backend address or raw error text has a place in it.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::{
    label::Label,
    protocol::{Code, Generation, Operation},
    telemetry::{ConnectFailure, DisconnectReason, Metrics, RecentError, Tier},
};

/// The sidecar at a glance. All times are Unix seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This machine's clock.
    pub now: u64,
    /// Whether it can be given work; `/readyz` says why not.
    pub ready: bool,
    /// That it was told to stay away, while it was.
    pub pause: Option<PauseStatus>,
    /// What runs, and what ran last; nothing of what was said.
    pub requests: RequestsStatus,
    /// The session to the gateway.
    pub session: SessionStatus,
    /// The nodes that this process serves.
    pub nodes: Vec<NodeStatus>,
    /// The models that are offered.
    pub models: Vec<ModelStatus>,
    /// The models that are not offered, and why.
    pub hidden: Vec<HiddenModel>,
    /// The models that Ollama was told to pull, in the order of the settings.
    pub pulls: Vec<PullStatus>,
    /// The models that are kept loaded, in their order.
    pub preloads: Vec<PreloadStatus>,
    /// How busy it is.
    pub load: Load,
    /// What was counted since the start.
    pub counts: Counts,
    /// The model server.
    pub backend: BackendStatus,
    /// The speech server, where one is set.
    pub speech: Option<SpeechStatus>,
    /// The last things that went wrong, newest first.
    pub last_errors: Vec<RecentError>,
    /// What runs here.
    pub versions: Versions,
    /// Whether it is draining.
    pub draining: bool,
    /// How long the process has been running, in seconds.
    pub uptime_seconds: u64,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PauseStatus {
    /// When it was asked for.
    pub since: u64,
    /// When it ends by itself, if it does.
    pub until: Option<u64>,
}

/// Requests, as far as an operator may see them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestsStatus {
    /// When the network last asked for something.
    pub last_at: Option<u64>,
    /// Those that wait or run, oldest first.
    pub running: Vec<RunningRequest>,
    /// Those that have ended, newest first; 50 at most.
    pub recent: Vec<EndedRequest>,
}

/// A request that waits or runs. Times are milliseconds since it was received.
#[derive(Clone, Debug, Serialize)]
pub struct RunningRequest {
    /// The network's id for it.
    pub id: String,
    /// The model that it is for, if that is one of ours.
    pub model: Option<String>,
    /// `chat`, `speech` or `interview`.
    pub operation: &'static str,
    /// When it was received, in Unix seconds.
    pub received: u64,
    /// How old it is.
    pub age_ms: u64,
    /// How long it waited for its slot; `null` while it does.
    pub wait_ms: Option<u64>,
    /// When its first token came; `null` before that.
    pub first_token_ms: Option<u64>,
}

/// A request that has ended, or was refused. Times are milliseconds since it was received.
#[derive(Clone, Debug, Serialize)]
pub struct EndedRequest {
    /// The network's id for it.
    pub id: String,
    /// The model that it was for, if that is one of ours.
    pub model: Option<String>,
    /// `chat`, `speech` or `interview`.
    pub operation: &'static str,
    /// `ok`, the code of its error, or why nothing was said of it.
    pub outcome: &'static str,
    /// When it was received, in Unix seconds.
    pub received: u64,
    /// How long it waited for its slot, if it had one.
    pub wait_ms: Option<u64>,
    /// When its first token came, if one did.
    pub first_token_ms: Option<u64>,
    /// How long it took.
    pub duration_ms: u64,
    /// Tokens of its prompt, if it was answered.
    pub prompt_tokens: Option<u64>,
    /// Tokens generated, if it was answered.
    pub generation_tokens: Option<u64>,
}

/// The session to the gateway.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStatus {
    /// The state's word, from the closed set of the supervisor.
    pub state: &'static str,
    /// Since when it is in this state.
    pub since: u64,
    /// The generation of agents that it speaks as: 1 or 2.
    #[serde(serialize_with = "generation_number")]
    pub generation: Generation,
    /// `ws` or `sse`.
    pub transport: &'static str,
    /// Since when it is logged in.
    pub logged_in_since: Option<u64>,
    /// Attempts to connect since the start.
    pub attempts: u64,
    /// Why the last session ended.
    #[serde(serialize_with = "word")]
    pub last_disconnect: Option<DisconnectReason>,
    /// Why the last attempt to connect that failed did so.
    #[serde(serialize_with = "word")]
    pub last_connect_failure: Option<ConnectFailure>,
    /// When the next attempt will be made.
    pub backoff_until: Option<u64>,
}

/// A node, as the network knows it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// The operator's name for it.
    pub alias: String,
    /// The network's id for it, once it gave one.
    pub node_id: Option<String>,
    /// Where it is.
    pub region: String,
    /// `ollama` or `openai`.
    pub api_mode: &'static str,
    /// How many requests it runs at once.
    pub capacity: usize,
    /// The tier that its last interview gave, once there was one.
    #[serde(serialize_with = "word")]
    pub quality_tier: Option<Tier>,
    /// How its last interview ended, once one has.
    pub interview: Option<InterviewStatus>,
}

/// How an interview ended.
#[derive(Clone, Debug, Serialize)]
pub struct InterviewStatus {
    /// When the network said so.
    pub at: u64,
    /// Whether it gave a tier to earn in.
    pub passed: bool,
    /// The share of answers that were right, where the network says.
    pub accuracy: Option<f64>,
    /// The speed that the network measured, where it says.
    pub tokens_per_second: Option<f64>,
    /// Before when the network does not want to see the node again.
    pub retry_at: Option<u64>,
}

/// A model that is offered.
#[derive(Clone, Debug, Serialize)]
pub struct ModelStatus {
    /// Its full name.
    pub name: String,
    /// The longest context, in tokens, where the backend says.
    pub context_length: Option<u64>,
    /// Whether it is in memory, where the backend says.
    pub loaded: Option<bool>,
}

/// A model that is there and is not offered.
#[derive(Clone, Debug, Serialize)]
pub struct HiddenModel {
    /// Its full name.
    pub name: String,
    /// Why, as a sentence that names the setting.
    pub why: &'static str,
}

/// A model that Ollama was told to pull.
#[derive(Clone, Debug, Serialize)]
pub struct PullStatus {
    /// Its full name.
    pub model: String,
    /// `waiting`, `pulling`, `done` or `failed`; what failed is tried again.
    pub state: &'static str,
    /// What Ollama has of it, in bytes.
    pub completed_bytes: u64,
    /// How large it is, in bytes, as far as is known: Ollama tells it layer by layer.
    pub total_bytes: u64,
}

/// A model that is to be kept loaded.
#[derive(Clone, Debug, Serialize)]
pub struct PreloadStatus {
    /// Its name, in full once it is offered.
    pub model: String,
    /// `waiting`, `loading`, `loaded`, `failed` or `evicted`; what failed is tried again.
    pub state: &'static str,
}

/// How busy it is, in requests.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Requests that hold a slot.
    pub running: usize,
    /// Requests in the waiting room.
    pub waiting: usize,
    /// How many may run at once.
    pub capacity: usize,
    /// How many may wait.
    pub queue: usize,
}

/// What was counted since the start.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// Requests that have ended, refused and cancelled ones too.
    pub requests: u64,
    /// Requests that were refused or failed, by code; only codes that occurred.
    pub failures: BTreeMap<&'static str, u64>,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generation_tokens: u64,
    /// Requests that the gateway cancelled.
    pub cancelled: u64,
    /// Requests that came again.
    pub duplicates: u64,
    /// Requests that nobody can answer.
    pub ignored: u64,
    /// Interviews that have ended.
    pub interviews: u64,
    /// Interviews that failed.
    pub interview_failures: u64,
    /// US dollars by model: tokens of delivered answers times the price. An estimate, not a bill.
    pub earnings_estimate_usd: BTreeMap<String, f64>,
}

impl Counts {
    /// The counts as the metrics have them.
    pub fn of(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.requests_total.total(),
            failures: failures(metrics),
            prompt_tokens: metrics.prompt_tokens_total.total(),
            generation_tokens: metrics.generation_tokens_total.total(),
            cancelled: metrics.cancelled_requests_total.get(),
            duplicates: metrics.duplicate_requests_total.get(),
            ignored: metrics.ignored_requests_total.get(),
            interviews: metrics.interviews_total.get(),
            interview_failures: metrics.interview_failures_total.get(),
            earnings_estimate_usd: metrics.earnings_estimate_usd_total.by_model(),
        }
    }
}

fn failures(metrics: &Metrics) -> BTreeMap<&'static str, u64> {
    let count = |code| {
        Operation::ALL
            .iter()
            .map(|operation| metrics.request_failures_total.of(*operation, code).get())
            .sum()
    };
    let all = Code::ALL.iter().map(|code| (code.as_str(), count(*code)));
    all.filter(|(_, count)| *count > 0).collect()
}

/// The model server.
#[derive(Clone, Debug, Serialize)]
pub struct BackendStatus {
    /// Whether it answered when it was last asked.
    pub up: bool,
    /// The version that it says it is.
    pub version: Option<String>,
}

/// The speech server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SpeechStatus {
    /// Whether it could be used when it was last asked.
    pub up: bool,
}

/// What runs here.
#[derive(Clone, Debug, Serialize)]
pub struct Versions {
    /// The sidecar's version.
    pub sidecar: &'static str,
    /// The revision that it was built from.
    pub revision: &'static str,
    /// The version of the Ollama that it serves with.
    pub ollama: Option<String>,
}

impl Versions {
    /// This build, with an Ollama of the given version.
    pub fn with_ollama(ollama: Option<String>) -> Self {
        Self {
            sidecar: Metrics::VERSION,
            revision: Metrics::REVISION,
            ollama,
        }
    }
}

fn word<S: Serializer>(label: &Option<impl Label>, serializer: S) -> Result<S::Ok, S::Error> {
    label.map(Label::as_str).serialize(serializer)
}

fn generation_number<S: Serializer>(
    generation: &Generation,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(match generation {
        Generation::Desktop => 1,
        Generation::Operator => 2,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_metrics() {
        let metrics = Metrics::new();
        metrics
            .requests_total
            .of(Some("tiny:latest"), Operation::Chat)
            .inc_by(3);
        metrics.requests_total.of(None, Operation::Chat).inc();
        metrics
            .request_failures_total
            .of(Operation::Chat, Code::ModelNotFound)
            .inc();
        metrics
            .generation_tokens_total
            .of(Some("tiny:latest"))
            .inc_by(64);
        metrics
            .earnings_estimate_usd_total
            .of(Some("tiny:latest"))
            .inc_by(0.25);
        let counts = serde_json::to_string(&Counts::of(&metrics)).unwrap();
        assert_eq!(
            counts,
            r#"{"requests":4,"failures":{"model_not_found":1},"prompt_tokens":0,"generation_tokens":64,"cancelled":0,"duplicates":0,"ignored":0,"interviews":0,"interview_failures":0,"earnings_estimate_usd":{"tiny:latest":0.25}}"#
        );
    }
}
