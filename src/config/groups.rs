//! The settings as the parts of the sidecar take them: plain values that have been checked, a struct for each part.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use tracing_subscriber::filter::Targets;

use super::{ApiMode, BackendUrl, GatewayUrl, ModelGlobs, PreloadModels, Price, ProxyUrl, Region};
use crate::{
    protocol::{Generation, SignatureScheme},
    secret::SecretSource,
    telemetry::LogFormat,
};

/// Who logs in, and how. No `Debug`: the payout address is private.
#[derive(Clone)]
pub struct Identity {
    /// The client id: visible ASCII.
    pub client_id: String,
    /// The dialect of the protocol.
    pub generation: Generation,
    /// How logins are signed.
    pub signature: SignatureScheme,
    /// Where the secret comes from. It was readable when the settings were read.
    pub secret: SecretSource,
    /// Where earnings go. Never logged or shown.
    pub payout_address: Option<String>,
}

/// The gateway and the session with it.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Its WebSocket; encrypted, or on this machine, or allowed to be neither.
    pub url: GatewayUrl,
    /// The proxy to reach it through.
    pub proxy: Option<ProxyUrl>,
    /// What it is told that we are.
    pub user_agent: HeaderValue,
    /// PEM file with more roots to trust.
    pub ca_file: Option<PathBuf>,
    /// The largest frame that is taken.
    pub max_frame_bytes: usize,
    /// For DNS, TCP, TLS, upgrade and login, each.
    pub connect_timeout: Duration,
    /// Where the backoff begins; at most `reconnect_max`.
    pub reconnect_min: Duration,
    /// Where the backoff ends.
    pub reconnect_max: Duration,
    /// How often it may be asked for a session in any 60 s; 0: no limit.
    pub connects_per_minute: usize,
    /// Time between heartbeats; less than `heartbeat_timeout`.
    pub heartbeat_interval: Duration,
    /// The silence after which the session is given up.
    pub heartbeat_timeout: Duration,
}

/// A node, its model server apart.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The node's name.
    pub alias: String,
    /// Where it is.
    pub region: Region,
    /// US dollars for a thousand tokens.
    pub price_per_thousand_tokens: Price,
    /// The model that should be interviewed.
    pub interview_model: Option<String>,
    /// Jobs at once; at least 1.
    pub capacity: usize,
}

/// The model server.
#[derive(Clone, Debug)]
pub struct BackendSettings {
    /// The name of the node that it serves.
    pub node: String,
    /// Which interface it has.
    pub mode: ApiMode,
    /// Its base URL.
    pub url: BackendUrl,
    /// The token that it wants to be asked with. It was readable when the settings were read.
    pub key: Option<SecretSource>,
    /// For DNS, TCP and TLS, each.
    pub connect_timeout: Duration,
    /// Time between looks at its models.
    pub refresh_interval: Duration,
    /// Models to offer.
    pub allow: ModelGlobs,
    /// Models not to offer, even if allowed.
    pub deny: ModelGlobs,
    /// Models that it is to pull, by the names under which it lists them; each once, and few.
    pub pull: Vec<Arc<str>>,
    /// Which of its models come first and stay loaded.
    pub preload: PreloadSettings,
}

/// What is to be loaded before the node is registered, and kept loaded.
#[derive(Clone, Debug)]
pub struct PreloadSettings {
    /// Which models.
    pub models: PreloadModels,
    /// The model that should be interviewed.
    pub interview_model: Option<String>,
    /// How long a model that cannot be loaded keeps the node from being registered.
    pub patience: Duration,
}

/// The speech server.
#[derive(Clone, Debug)]
pub struct SpeechSettings {
    /// Its base URL, without `/v1`.
    pub url: BackendUrl,
    /// What it offers; at least one, and few.
    pub models: Vec<SpeechModel>,
    /// The voice to ask for where a request names none; `None`: none is asked for.
    pub voice: Option<String>,
    /// For DNS, TCP and TLS, each, and for its answer to a look.
    pub connect_timeout: Duration,
    /// Time between looks at it.
    pub refresh_interval: Duration,
}

/// A speech model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechModel {
    /// The name that the network is told, `tts:` included.
    pub name: Arc<str>,
    /// What the server calls it.
    pub served: Arc<str>,
}

impl SpeechModel {
    /// What stands before the name of every speech model.
    pub const PREFIX: &str = "tts:";

    /// Whether the network takes a model with this name for one that speaks.
    pub fn is_name_of_one(name: &str) -> bool {
        let prefix = name.get(..Self::PREFIX.len());
        prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(Self::PREFIX))
    }
}

/// What requests may ask of the machine.
#[derive(Clone, Debug, Default)]
pub struct PolicySettings {
    /// Cap on `num_ctx`, in tokens; at least 1.
    pub max_context: Option<u64>,
    /// Cap on `num_predict`, in tokens; at least 1.
    pub max_output_tokens: Option<u64>,
    /// Whether `keep_alive` and the options that concern the hardware are passed on.
    pub allow_hardware_options: bool,
}

/// How many requests wait.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    /// Jobs that may wait; 0: none.
    pub queue: usize,
    /// The same in bytes.
    pub queue_bytes: usize,
    /// The longest wait.
    pub queue_timeout: Duration,
}

/// The limits of one request.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// The longest silence before the first token.
    pub first_token_timeout: Duration,
    /// The longest silence between two tokens.
    pub token_timeout: Duration,
    /// The longest time from receipt to answer.
    pub request_timeout: Duration,
    /// The largest body taken from the backend.
    pub max_result_bytes: usize,
    /// How long it goes on while the session is down; zero: not at all.
    pub orphan_grace: Duration,
}

/// What waits to be delivered.
#[derive(Clone, Copy, Debug)]
pub struct OutboxSettings {
    /// Room for answers and chunks.
    pub max_bytes: usize,
    /// How long an undelivered answer is kept, and a delivered one remembered.
    pub result_ttl: Duration,
}

/// Who may look at the sidecar, and tell it what to do.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where the server listens.
    pub listen: SocketAddr,
    /// The token that stands for being on this machine. It was readable when the settings were read.
    pub token: Option<SecretSource>,
    /// More names by which the page may be asked for, in lower case.
    pub hosts: Vec<String>,
}

/// Which log lines are written, and how they look.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The filter as it was written.
    pub filter: Targets,
    /// `None`: text on a terminal, else JSON.
    pub format: Option<LogFormat>,
}
