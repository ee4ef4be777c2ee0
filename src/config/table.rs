//! Every setting, once: its field, type, variable, default and meaning. The struct that `envy` fills, the list of
//! known names, the help text and the list of effective settings all come from this table.
//!
//! To add a setting: a row here, and the line in `config/mod.rs` that hands it to the part that wants it.

use std::{fmt, fmt::Write as _};

use serde::Deserialize;

use super::{
    error::ConfigError,
    field::{Field, Slot, Value},
    globs::Globs,
    host_names::HostNames,
    log::LogFilter,
    model_names::{InterviewModel, ModelNames, PreloadModels},
    proxy::{NoProxy, SharedProxy},
    speech::{SpeechModelMap, SpeechModels, Voice},
    url::{BackendUrl, GatewayUrl},
    value::{
        ApiMode, Choice, ClientId, Count, FilePath, Interval, ListenAddr, PayoutAddress, Price,
        Region, Secret, Size, Text, Timeout, Token, Tokens, UserAgent,
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
    /// What it means, as `--help` and docs/settings.md say it: what is to be typed stands between backticks.
    pub help: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
}

/// How wide `--help` is, and how far a setting's meaning stands to the right of its name's line.
const HELP_WIDTH: usize = 80;
const HELP_INDENT: usize = 6;

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
        "the id to log in as, `pin_...` or `op_...`";
    generation: Choice<Generation>, "PIN_GENERATION", FoundOut("by the client id"),
        "the protocol's generation: `1` (`pin_...`, desktop client) or `2` (`op_...`, operator daemon)";
    api_secret: Option<Secret>, "PIN_API_SECRET", Unset,
        "the secret of that id; a file is better, since whoever may inspect the process or container can read its \
         environment";
    api_secret_file: Option<FilePath>, "PIN_API_SECRET_FILE", FoundOut("/run/secrets/pin_api_secret if it exists"),
        "the file with the secret; it is read again at every login";
    server_url: GatewayUrl, "PIN_SERVER_URL", Is("wss://aiassist.net/api/v1/pin/ws"),
        "the gateway: `wss://HOST/PATH`, or a bare base such as `https://HOST`";
    user_agent: UserAgent, "PIN_USER_AGENT", FoundOut("pin-sidecar/VERSION"),
        "what the network's edge is told that we are; some values get a 403 there";
    signature: Choice<SignatureScheme>, "PIN_SIGNATURE", Is("sha256"),
        "how logins are signed: `sha256` or `hmac-sha256`";
    allow_plaintext: Choice<bool>, "PIN_ALLOW_PLAINTEXT", Is("false"),
        "`true` allows an unencrypted gateway (`ws://`, `http://`) on another machine";
    tls_ca_file: Option<FilePath>, "PIN_TLS_CA_FILE", Unset,
        "PEM file with root certificates to trust in addition to the built-in ones; it is read again for every connection";
    https_proxy: Option<SharedProxy>, "HTTPS_PROXY", Unset,
        "HTTP proxy to reach the gateway through: `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT` \
         (percent-encoded), `https://` for a proxy that speaks TLS itself; never used for Ollama, nor for a gateway on \
         this machine";
    no_proxy: Option<NoProxy>, "NO_PROXY", Unset,
        "what not to reach through the proxy, separated by commas: hosts, domains (with their subdomains), addresses, \
         networks such as `10.0.0.0/8`, each with or without a port; `*` for all";
    api_mode: Choice<ApiMode>, "PIN_API_MODE", Is("ollama"),
        "the model server's interface: `ollama`, or `openai` for vLLM, llama-server, LM Studio and all others that have \
         `/v1/chat/completions`";
    ollama_url: BackendUrl, "PIN_OLLAMA_URL", Is("http://localhost:11434"),
        "where Ollama is, or the OpenAI-compatible server (with `/v1` at the end or without); the URL may have a user, a \
         password and a base path";
    backend_api_key: Option<Token>, "PIN_BACKEND_API_KEY", Unset,
        "the key that the model server wants (`Authorization: Bearer KEY`); a file is better, as for the secret";
    backend_api_key_file: Option<FilePath>, "PIN_BACKEND_API_KEY_FILE", Unset,
        "the file with that key; it is read again at every look at the server";
    capacity: Count<1>, "PIN_CAPACITY", Is("4"),
        "how many chats run at once; the network is told the same number";
    queue: Count<0>, "PIN_QUEUE", FoundOut("as PIN_CAPACITY"),
        "how many chats may wait for a slot; one more is refused as `busy` at once";
    queue_bytes: Size<0>, "PIN_QUEUE_BYTES", Is("16MiB"),
        "how large the requests of all waiting chats may be together";
    queue_timeout: Interval, "PIN_QUEUE_TIMEOUT", Is("30s"),
        "the longest wait for a slot";
    node_alias: Text, "PIN_NODE_ALIAS", FoundOut("the hostname"),
        "the node's name; another name is a new node to the network";
    region: Choice<Region>, "PIN_REGION", Is("global"),
        "where the node is: `us-east`, `us-west`, `eu-west`, `eu-central`, `asia-pacific` or `global`";
    price_per_thousand_tokens: Price, "PIN_PRICE_PER_THOUSAND_TOKENS", Is("0.001"),
        "the price that the network is told, in US dollars";
    interview_model: Option<InterviewModel>, "PIN_INTERVIEW_MODEL", Unset,
        "the model that the network is told to interview (generation 2)";
    payout_address: Option<PayoutAddress>, "PIN_PAYOUT_ADDRESS", Unset,
        "the wallet that the network is told; never logged";
    allow_models: Globs<false>, "PIN_ALLOW_MODELS", Is("*"),
        "models to offer, separated by commas: globs over the names in `ollama list` or `/v1/models`, upper and \
         lower case alike; embedding-only and cloud models are offered only if named in full";
    deny_models: Option<Globs<true>>, "PIN_DENY_MODELS", Unset,
        "models not to offer, even if allowed";
    pull_models: Option<ModelNames>, "PIN_PULL_MODELS", Unset,
        "models that Ollama is to pull at start, separated by commas; those that it has are served meanwhile (Ollama only)";
    preload_models: PreloadModels, "PIN_PRELOAD_MODELS", Is("auto"),
        "models to load before the node is registered and to keep loaded, separated by commas; `none`; or `auto`: \
         PIN_INTERVIEW_MODEL, else a model that is loaded at start, else none";
    model_refresh_interval: Interval, "PIN_MODEL_REFRESH_INTERVAL", Is("15s"),
        "time between looks at the model server's list of models, and at the speech server";
    tts_url: Option<BackendUrl>, "PIN_TTS_URL", Unset,
        "where a speech server is that has `/v1/audio/speech` (with `/v1` at the end or without); the URL may have a user, a \
         password and a base path";
    tts_models: Option<SpeechModels>, "PIN_TTS_MODELS", Unset,
        "the speech models to offer, separated by commas, such as `kokoro`; the network is told of `tts:kokoro`";
    tts_voice: Option<Voice>, "PIN_TTS_VOICE", Unset,
        "the voice that the speech server is asked for where a request names none or `default`; unset, it is asked for none";
    tts_model_map: Option<SpeechModelMap>, "PIN_TTS_MODEL_MAP", Unset,
        "what the speech server calls models that are offered by another name: `offered=served`, separated by commas";
    max_context: Option<Tokens>, "PIN_MAX_CONTEXT", FoundOut("the model's context length"),
        "the `num_ctx` that every chat gets, in tokens; unset, a chat gets what was last sent for its model, or more if it \
         asks for more";
    max_output_tokens: Option<Tokens>, "PIN_MAX_OUTPUT_TOKENS", FoundOut("the model's context length"),
        "the largest `num_predict` that a chat gets, in tokens; once set, a chat that asks for none gets this one";
    allow_consumer_hardware_options: Choice<bool>, "PIN_ALLOW_CONSUMER_HARDWARE_OPTIONS", Is("false"),
        "`true` lets chats set `keep_alive`, `num_gpu`, `main_gpu`, `num_thread`, `num_batch` and `use_mmap`, and any \
         `num_ctx` up to PIN_MAX_CONTEXT, for which Ollama loads the model again";
    max_frame_bytes: Size<1024>, "PIN_MAX_FRAME_BYTES", Is("16MiB"),
        "the largest frame taken from the gateway";
    max_result_bytes: Size<1024>, "PIN_MAX_RESULT_BYTES", Is("8MiB"),
        "the largest answer taken from the model server";
    outbox_bytes: Size<1024>, "PIN_OUTBOX_BYTES", Is("32MiB"),
        "room for chunks and answers that wait to be delivered; when it is full, the model server is slowed down and new chats \
         are refused as `busy`";
    first_token_timeout: Interval, "PIN_FIRST_TOKEN_TIMEOUT", Is("5m"),
        "the longest silence of the model server before the first token";
    token_timeout: Interval, "PIN_TOKEN_TIMEOUT", Is("60s"),
        "the longest silence of the model server between two tokens";
    request_timeout: Interval, "PIN_REQUEST_TIMEOUT", Is("30m"),
        "the longest time that a request may take, from its receipt";
    connect_timeout: Interval, "PIN_CONNECT_TIMEOUT", Is("10s"),
        "the time limit of each step of connecting: DNS, TCP, TLS, upgrade, login";
    reconnect_min: Interval, "PIN_RECONNECT_MIN", FoundOut("500ms, or PIN_RECONNECT_MAX if that is less"),
        "the longest first wait before a reconnect; each further one may be twice as long";
    reconnect_max: Interval, "PIN_RECONNECT_MAX", Is("60s"),
        "the longest wait before a reconnect, unless the gateway asks for more or has refused the login";
    connects_per_minute: Count<0>, "PIN_CONNECTS_PER_MINUTE", Is("9"),
        "how often the gateway may be asked for a session in any 60s, whatever else is set: half of them at once, then one \
         at a time; `0` for no limit. The network turns away an address that asks more than 10 times a minute, so sidecars \
         behind one address should share these";
    heartbeat_interval: Interval, "PIN_HEARTBEAT_INTERVAL", FoundOut("15s, or a third of PIN_HEARTBEAT_TIMEOUT if that is less"),
        "time between heartbeats; the network drops a node after 60s of silence";
    heartbeat_timeout: Interval, "PIN_HEARTBEAT_TIMEOUT", Is("45s"),
        "the silence after which a session is given up";
    result_ttl: Interval, "PIN_RESULT_TTL", Is("10m"),
        "how long an answer is kept that is not known to have been delivered, and how long a delivered one is \
         remembered";
    orphan_grace: Timeout, "PIN_ORPHAN_GRACE", Is("30s"),
        "how long chats go on while the session is down";
    drain_timeout: Timeout, "PIN_DRAIN_TIMEOUT", Is("25s"),
        "how long running chats may go on after SIGTERM; the whole drain takes 5s more at most";
    listen_addr: ListenAddr, "PIN_LISTEN_ADDR", Is("127.0.0.1:9464"),
        "where probes and metrics are served; `[::]:9464` for all addresses, IPv4 too";
    admin_token: Option<Token>, "PIN_ADMIN_TOKEN", Unset,
        "what lets somebody on another machine pause, resume and test (`Authorization: Bearer TOKEN`); a file is better, \
         as for the secret";
    admin_token_file: Option<FilePath>, "PIN_ADMIN_TOKEN_FILE", Unset,
        "the file with that token";
    admin_hosts: Option<HostNames>, "PIN_ADMIN_HOSTS", Unset,
        "more names by which the page may be asked for, separated by commas, such as `gpu.tail1234.ts.net`: a reverse proxy's, \
         a VPN's; by these all but the page itself, probes and metrics needs the token";
    log: LogFilter, "PIN_LOG", Is("info"),
        "a level, or targets such as `info,pin_sidecar::session=debug`, where `info` holds unless a level stands alone; \
         libraries never log more than `info`";
    log_format: Option<Choice<LogFormat>>, "PIN_LOG_FORMAT", FoundOut("text on a terminal, else json"),
        "`text` or `json`";
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
        let _ = write!(text, "\n  {name} [{default}]");
        let mut column = HELP_WIDTH;
        for word in help.split_whitespace() {
            if column + 1 + word.len() > HELP_WIDTH {
                text.push_str("\n     ");
                column = HELP_INDENT - 1;
            }
            text.push(' ');
            text.push_str(word);
            column += 1 + word.len();
        }
    }
    text
}
