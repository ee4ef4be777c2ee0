//! The environment turned into [`Config`]: the only place that reads settings.
//!
//! Invariant: a `Config` is right as a whole. Whoever holds one need not check a value, and whoever asks for one in
//! vain is told every mistake at once.

mod checks;
mod environment;
mod error;
mod field;
mod globs;
mod groups;
mod host_names;
mod log;
mod log_targets;
mod model_names;
mod plain;
mod proxy;
mod speech;
mod table;
mod url;
mod value;

use std::{ffi::OsString, fmt, net::SocketAddr, time::Duration};

pub use self::{
    checks::Surroundings,
    error::{ConfigError, ConfigErrors, Invalid},
    globs::ModelGlobs,
    groups::{
        AdminSettings, AdmissionSettings, BackendSettings, GatewaySettings, Identity, JobSettings,
        LogSettings, NodeSettings, OutboxSettings, PolicySettings, PreloadSettings, SpeechModel,
        SpeechSettings,
    },
    model_names::PreloadModels,
    proxy::ProxyUrl,
    table::{Fallback, Setting, help, settings},
    url::{BackendUrl, GatewayUrl, Origin},
    value::{ApiMode, Price, Region},
};
use secrecy::SecretString;

use self::{field::Field, table::Values};
use crate::secret::SecretSource;
pub(crate) use url::is_in_zone;

/// Everything that an operator can set, grouped by the part that wants it.
#[derive(Clone)]
pub struct Config {
    /// Who logs in, and how.
    pub identity: Identity,
    /// The gateway and the session with it.
    pub gateway: GatewaySettings,
    /// The node.
    pub node: NodeSettings,
    /// The model server.
    pub backend: BackendSettings,
    /// The speech server, where there is one.
    pub speech: Option<SpeechSettings>,
    /// What requests may ask of the machine.
    pub policy: PolicySettings,
    /// How many requests wait.
    pub admission: AdmissionSettings,
    /// The limits of one request.
    pub job: JobSettings,
    /// What waits to be delivered.
    pub outbox: OutboxSettings,
    /// How long running work may go on during a drain; zero: not at all.
    pub drain_timeout: Duration,
    /// Who may look at it, and tell it what to do.
    pub admin: AdminSettings,
    /// Which log lines are written, and how they look.
    pub log: LogSettings,
    effective: Vec<(&'static str, String)>,
    skipped: Option<String>,
}

impl Config {
    /// Reads the settings. The secret is read once too, so that one which cannot be had is told now; this may block
    /// for as long as the keyring does.
    ///
    /// # Errors
    /// Every mistake in the settings.
    pub fn from_env(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let vars: Vec<_> = vars.into_iter().collect();
        let credentials = vars
            .iter()
            .find(|(name, _)| name == "CREDENTIALS_DIRECTORY");
        let credentials = credentials.map(|(_, directory)| directory);
        Self::from_env_in(&Surroundings::default().with_credentials(credentials), vars)
    }

    /// As [`Config::from_env`], on a machine with other files.
    ///
    /// # Errors
    /// Every mistake in the settings.
    pub fn from_env_in(
        surroundings: &Surroundings,
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let mut unknown = Vec::new();
        let mut fields = environment::read(vars, &mut unknown);
        checks::find_out_defaults(&mut fields, surroundings);
        let effective = fields.shown();
        let mut conflicts = checks::find_conflicts(&fields);
        let secret = checks::find_secret(&fields, surroundings, &mut conflicts);
        let admin_token = checks::find_admin_token(&fields, &mut conflicts);
        let backend_key = checks::find_backend_key(&fields, &mut conflicts);

        let mut errors = Vec::new();
        let values = fields.into_values(&mut errors);
        errors.append(&mut conflicts);
        errors.append(&mut unknown);
        match (values, secret) {
            (Some(values), Some(secret)) if errors.is_empty() => Ok(Self::assemble(
                values,
                secret,
                (admin_token, backend_key),
                effective,
            )),
            _ => Err(errors.into()),
        }
    }

    /// Every setting that has a value, defaults included, as it may be logged: secrets and passwords are redacted.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.effective
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    /// What of the settings is not heeded and may be missed, as a sentence for the operator.
    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    fn assemble(
        values: Values,
        secret: SecretSource,
        (admin_token, backend_key): (Option<SecretSource>, Option<SecretSource>),
        effective: Vec<(&'static str, String)>,
    ) -> Self {
        let speech = speech::Values {
            url: values.tts_url,
            models: values.tts_models,
            voice: values.tts_voice,
            map: values.tts_model_map,
            connect_timeout: values.connect_timeout.0,
            refresh_interval: values.model_refresh_interval.0,
        };
        let interview_model = values.interview_model.map(|model| model.0);
        let alias = values.node_alias.0;
        let proxies = (values.https_proxy.as_ref(), values.no_proxy.as_ref());
        let skipped = proxy::skipped_entries(&values.server_url, proxies.0, proxies.1);
        // One that cannot be used, though it would be, is among the conflicts.
        let proxy = proxy::on_the_way_to(&values.server_url, proxies.0, proxies.1);
        let proxy = proxy.ok().flatten().cloned();
        Self {
            identity: Identity {
                client_id: values.client_id.0,
                generation: values.generation.0,
                signature: values.signature.0,
                secret,
                payout_address: values.payout_address.map(|address| address.0),
            },
            gateway: GatewaySettings {
                proxy,
                url: values.server_url,
                user_agent: values.user_agent.0,
                ca_file: values.tls_ca_file.map(|file| file.0),
                max_frame_bytes: values.max_frame_bytes.0,
                connect_timeout: values.connect_timeout.0,
                reconnect_min: values.reconnect_min.0,
                reconnect_max: values.reconnect_max.0,
                connects_per_minute: values.connects_per_minute.0,
                heartbeat_interval: values.heartbeat_interval.0,
                heartbeat_timeout: values.heartbeat_timeout.0,
            },
            node: NodeSettings {
                alias: alias.clone(),
                region: values.region.0,
                price_per_thousand_tokens: values.price_per_thousand_tokens,
                interview_model: interview_model.clone(),
                capacity: values.capacity.0,
            },
            backend: BackendSettings {
                node: alias,
                mode: values.api_mode.0,
                url: values.ollama_url,
                key: backend_key,
                connect_timeout: values.connect_timeout.0,
                refresh_interval: values.model_refresh_interval.0,
                allow: values.allow_models.0,
                deny: values
                    .deny_models
                    .map(|models| models.0)
                    .unwrap_or_default(),
                pull: values.pull_models.map(|names| names.0).unwrap_or_default(),
                preload: PreloadSettings {
                    models: values.preload_models,
                    interview_model,
                    patience: values.first_token_timeout.0,
                },
            },
            speech: speech.settings(),
            policy: PolicySettings {
                max_context: values.max_context.map(|tokens| tokens.0),
                max_output_tokens: values.max_output_tokens.map(|tokens| tokens.0),
                allow_hardware_options: values.allow_consumer_hardware_options.0,
            },
            admission: AdmissionSettings {
                queue: values.queue.0,
                queue_bytes: values.queue_bytes.0,
                queue_timeout: values.queue_timeout.0,
            },
            job: JobSettings {
                first_token_timeout: values.first_token_timeout.0,
                token_timeout: values.token_timeout.0,
                request_timeout: values.request_timeout.0,
                max_result_bytes: values.max_result_bytes.0,
                orphan_grace: values.orphan_grace.0,
            },
            outbox: OutboxSettings {
                max_bytes: values.outbox_bytes.0,
                result_ttl: values.result_ttl.0,
            },
            drain_timeout: values.drain_timeout.0,
            admin: AdminSettings {
                listen: values.listen_addr.0,
                token: admin_token,
                hosts: values.admin_hosts.map(|hosts| hosts.0).unwrap_or_default(),
            },
            log: LogSettings {
                filter: values.log.0,
                format: values.log_format.map(|format| format.0),
            },
            effective,
            skipped,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.effective()).finish()
    }
}

/// The address of the admin server, and nothing else: a health check works whatever else is wrong.
///
/// # Errors
/// `PIN_LISTEN_ADDR` is not an address.
pub fn listen_addr(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<SocketAddr, ConfigErrors> {
    alone("PIN_LISTEN_ADDR", vars, |fields| fields.listen_addr).map(|address| address.0)
}

/// The token for commands, and nothing else: what asks a sidecar needs none of its settings.
///
/// # Errors
/// It is set twice, or cannot be read.
pub fn admin_token(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Option<SecretString>, ConfigErrors> {
    let mut errors = Vec::new();
    let is_one = |name: &OsString| name == "PIN_ADMIN_TOKEN" || name == "PIN_ADMIN_TOKEN_FILE";
    let vars = vars.into_iter().filter(|(name, _)| is_one(name));
    let fields = environment::read(vars, &mut errors);
    let token = checks::find_admin_token(&fields, &mut errors);
    fields
        .admin_token
        .tell_wrong("PIN_ADMIN_TOKEN", &mut errors);
    fields
        .admin_token_file
        .tell_wrong("PIN_ADMIN_TOKEN_FILE", &mut errors);
    if !errors.is_empty() {
        return Err(errors.into());
    }
    let read = token.map(|source| source.read()).transpose();
    read.map_err(|error| vec![ConfigError::from(error)].into())
}

/// The client id, and nothing else: its secret can be stored before the rest is right.
///
/// # Errors
/// `PIN_CLIENT_ID` is missing or cannot be one.
#[cfg(feature = "keyring")]
pub fn client_id(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<String, ConfigErrors> {
    alone("PIN_CLIENT_ID", vars, |fields| fields.client_id).map(|client_id| client_id.0)
}

/// Reads one setting as if there were no other.
fn alone<T>(
    name: &'static str,
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    field: impl FnOnce(table::Fields) -> Field<T>,
) -> Result<T, ConfigErrors> {
    let mut errors = Vec::new();
    let fields = environment::read(vars.into_iter().filter(|(key, _)| key == name), &mut errors);
    match field(fields) {
        Field::Right(value) if errors.is_empty() => return Ok(value),
        Field::Wrong(reason) => errors.push(ConfigError::Invalid { name, reason }),
        Field::Missing | Field::Undecided => errors.push(ConfigError::Missing {
            name,
            help: table::help_of(name),
        }),
        Field::Right(_) => {}
    }
    Err(errors.into())
}

#[cfg(test)]
pub(crate) mod tests;
