//! Every setting, once: its field, type, variable, default and meaning. The struct that `envy` fills, the list of
//! known names, the help text and the list of effective settings all come from this table.
//!
//! To add a setting: a row here, and the line in `config/mod.rs` that hands it to the part that wants it.

use std::{fmt, fmt::Write as _};

use serde::Deserialize;

use super::{
    error::ConfigError,
    field::{Field, Slot, Value},
    globs::ModelGlobs,
    log::LogFilter,
    model_names::ModelNames,
    proxy::{NoProxy, ProxyUrl},
    url::{BackendUrl, GatewayUrl},
    value::{
        Choice, ClientId, Count, FilePath, Interval, ListenAddr, Price, PrivateText, Region,
        Secret, Size, Text, Timeout, Tokens,
    },
};
use crate::{
    protocol::{Generation, SignatureScheme},
    telemetry::LogFormat,
};

/// A setting, as far as help and documentation are concerned.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// What holds where it is not set.
    pub default: Fallback,
    /// What it means, for a terminal.
    pub help: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
}

/// What the names of our own settings begin with.
pub(super) const PREFIX: &str = "PIN_";

impl Setting {
    /// The names of the variables that it is read from, the first that is set counts. One that we share with other
    /// programs may be in lower case, which goes first, as it does for curl.
    pub(super) fn spellings(&self) -> Vec<String> {
        let own = self.name.starts_with(PREFIX);
        let lower = (!own).then(|| self.name.to_ascii_lowercase());
        lower.into_iter().chain([self.name.to_owned()]).collect()
    }

    /// The name of its field.
    pub(super) fn field(&self) -> String {
        let name = self.name.strip_prefix(PREFIX).unwrap_or(self.name);
        name.to_ascii_lowercase()
    }
}

/// What holds where a setting is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The sidecar does not start without it.
    Required,
    /// A value, written as one would write it in the environment.
    Value(&'static str),
    /// Something that has to be found out: a description of it.
    FoundOut(&'static str),
    /// Nothing.
    Unset,
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Value(text) | Self::FoundOut(text) => text,
            Self::Unset => "unset",
        })
    }
}

/// Declares the settings. A row is `field: Type, variable, fallback, help;`. A type is `Option` where there may be no
/// value in the end. `envy` takes a variable's name, less our prefix and in lower case, for the field's.
macro_rules! settings {
    ($($field:ident: $type:ty, $name:literal, $fallback:expr, $help:literal;)+) => {
        pub(super) const SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            default: $fallback,
            help: $help,
            secret: <$type as Slot>::Value::PRIVATE,
        },)+];

        /// What the environment holds, each value right or wrong by itself.
        #[derive(Deserialize)]
        pub(super) struct Fields { $(
            #[serde(default)]
            pub(super) $field: Field<<$type as Slot>::Value>,
        )+ }

        /// What the environment holds, all of it right.
        #[expect(dead_code, reason = "a few are only looked at together with others, in `checks`")]
        pub(super) struct Values { $(pub(super) $field: $type,)+ }

        impl Fields {
            /// Each setting's name and its value as it may be shown; those without a value are left out.
            pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
                let all = [$(($name, self.$field.right().map(ToString::to_string)),)+];
                all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }

            /// The values, or `None` after every wrong and every missing one was added to `errors`.
            pub(super) fn into_values(self, errors: &mut Vec<ConfigError>) -> Option<Values> {
                $(let $field = <$type as Slot>::into_values(self.$field, $name, $help, errors);)+
                Some(Values { $($field: $field?,)+ })
            }
        }
    };
}

use Fallback::{FoundOut, Required, Unset, Value as Is};

settings! {
    client_id: ClientId, "PIN_CLIENT_ID", Required,
        "the id to log in as, pin_... or op_...";
    generation: Choice<Generation>, "PIN_GENERATION", FoundOut("by the client id"),
        "the protocol's generation: 1 (pin_..., desktop client) or 2 (op_..., operator daemon)";
    api_secret: Option<Secret>, "PIN_API_SECRET", Unset,
        "the secret of that id; better in a file";
    api_secret_file: Option<FilePath>, "PIN_API_SECRET_FILE", FoundOut("/run/secrets/pin_api_secret if it exists"),
        "the file with the secret, read again at every login";
    server_url: GatewayUrl, "PIN_SERVER_URL", Is("wss://aiassist.net/api/v1/pin/ws"),
        "the gateway";
    signature: Choice<SignatureScheme>, "PIN_SIGNATURE", Is("sha256"),
        "how logins are signed: sha256 or hmac-sha256";
    allow_plaintext: Choice<bool>, "PIN_ALLOW_PLAINTEXT", Is("false"),
        "true allows a gateway by ws:// or http:// beyond this machine";
    tls_ca_file: Option<FilePath>, "PIN_TLS_CA_FILE", Unset,
        "PEM file with more root certificates to trust the gateway by";
    https_proxy: Option<ProxyUrl>, "HTTPS_PROXY", Unset,
        "proxy to reach the gateway through, http://user:password@host:port; never used for Ollama";
    no_proxy: Option<NoProxy>, "NO_PROXY", Unset,
        "hosts, domains, addresses and networks not to reach through it, with commas between; * for all";
    ollama_url: BackendUrl, "PIN_OLLAMA_URL", Is("http://localhost:11434"),
        "Ollama; a user, a password and a base path are understood";
    capacity: Count<1>, "PIN_CAPACITY", Is("4"),
        "chats at once, interviews included";
    queue: Count<0>, "PIN_QUEUE", FoundOut("as PIN_CAPACITY"),
        "chats that may wait for a slot; one more is refused as busy";
    queue_bytes: Size<0>, "PIN_QUEUE_BYTES", Is("16MiB"),
        "the same in bytes";
    queue_timeout: Interval, "PIN_QUEUE_TIMEOUT", Is("30s"),
        "the longest wait for a slot";
    node_alias: Text, "PIN_NODE_ALIAS", FoundOut("the hostname"),
        "the node's name; another name is a new node to the network";
    region: Choice<Region>, "PIN_REGION", Is("global"),
        "us-east, us-west, eu-west, eu-central, asia-pacific or global";
    price_per_thousand_tokens: Price, "PIN_PRICE_PER_THOUSAND_TOKENS", Is("0.001"),
        "US dollars";
    interview_model: Option<Text>, "PIN_INTERVIEW_MODEL", Unset,
        "the model that the network should interview";
    payout_address: Option<PrivateText>, "PIN_PAYOUT_ADDRESS", Unset,
        "the wallet to tell the network";
    allow_models: ModelGlobs, "PIN_ALLOW_MODELS", Is("*"),
        "models to offer: globs with commas between; embedding and cloud models only if named in full";
    deny_models: Option<ModelGlobs>, "PIN_DENY_MODELS", Unset,
        "models not to offer, even if allowed";
    pull_models: Option<ModelNames>, "PIN_PULL_MODELS", Unset,
        "models to pull through Ollama at start, with commas between";
    max_context: Option<Tokens>, "PIN_MAX_CONTEXT", FoundOut("the model's context length"),
        "cap on num_ctx, in tokens";
    max_output_tokens: Option<Tokens>, "PIN_MAX_OUTPUT_TOKENS", FoundOut("the model's context length"),
        "cap on num_predict";
    allow_consumer_hardware_options: Choice<bool>, "PIN_ALLOW_CONSUMER_HARDWARE_OPTIONS", Is("false"),
        "true lets the network set keep_alive, num_gpu, num_thread and the like";
    max_frame_bytes: Size<1024>, "PIN_MAX_FRAME_BYTES", Is("16MiB"),
        "the largest frame taken from the gateway";
    max_result_bytes: Size<1024>, "PIN_MAX_RESULT_BYTES", Is("8MiB"),
        "the largest answer taken from Ollama";
    outbox_bytes: Size<1024>, "PIN_OUTBOX_BYTES", Is("32MiB"),
        "room for all that waits to be delivered";
    first_token_timeout: Interval, "PIN_FIRST_TOKEN_TIMEOUT", Is("5m"),
        "the longest silence of Ollama before the first token";
    token_timeout: Interval, "PIN_TOKEN_TIMEOUT", Is("60s"),
        "the longest silence between two tokens";
    request_timeout: Interval, "PIN_REQUEST_TIMEOUT", Is("30m"),
        "the longest that a request may take, from its receipt";
    connect_timeout: Interval, "PIN_CONNECT_TIMEOUT", Is("10s"),
        "for DNS, TCP, TLS, upgrade and login, each";
    reconnect_min: Interval, "PIN_RECONNECT_MIN", FoundOut("500ms, or PIN_RECONNECT_MAX if that is less"),
        "where the backoff begins";
    reconnect_max: Interval, "PIN_RECONNECT_MAX", Is("60s"),
        "where the backoff ends";
    heartbeat_interval: Interval, "PIN_HEARTBEAT_INTERVAL", FoundOut("15s, or a third of PIN_HEARTBEAT_TIMEOUT if that is less"),
        "time between heartbeats; the network drops a node after 60s of silence";
    heartbeat_timeout: Interval, "PIN_HEARTBEAT_TIMEOUT", Is("45s"),
        "the silence after which a session is given up";
    model_refresh_interval: Interval, "PIN_MODEL_REFRESH_INTERVAL", Is("15s"),
        "time between looks at Ollama's models";
    result_ttl: Interval, "PIN_RESULT_TTL", Is("10m"),
        "how long an undelivered answer is kept, and a delivered one remembered";
    orphan_grace: Timeout, "PIN_ORPHAN_GRACE", Is("30s"),
        "how long chats go on while the session is down";
    drain_timeout: Timeout, "PIN_DRAIN_TIMEOUT", Is("25s"),
        "how long running chats may go on after SIGTERM; the whole drain takes 5s more at most";
    listen_addr: ListenAddr, "PIN_LISTEN_ADDR", Is("127.0.0.1:9464"),
        "where probes, metrics and the page are served";
    log: LogFilter, "PIN_LOG", Is("info"),
        "a level, or targets such as info,pin_sidecar::session=debug; libraries never log more than info";
    log_format: Option<Choice<LogFormat>>, "PIN_LOG_FORMAT", FoundOut("text on a terminal, else json"),
        "text or json";
}

/// Every setting of this version.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter()
}

/// What a setting means.
pub(super) fn help_of(name: &str) -> &'static str {
    settings()
        .find(|setting| setting.name == name)
        .map_or("", |setting| setting.help)
}

/// Every setting with its default and its meaning, for `--help`.
pub fn help() -> String {
    let mut text =
        String::from("Settings, from the environment (durations need a unit; blank is unset):\n");
    for Setting {
        name,
        default,
        help,
        ..
    } in settings()
    {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n  {name} [{default}]\n      {help}");
    }
    text
}
