//! What one variable alone does not tell: defaults that have to be found out, settings that contradict each other, and
//! where the secret is.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    BackendUrl,
    error::{ConfigError, Invalid},
    field::{Field, Value},
    proxy::on_the_way_to,
    table::Fields,
    value::{ApiMode, Choice, Count, FilePath, Text, Time, Token, UserAgent},
};
use crate::{
    protocol::Generation,
    secret::{Kind, SecretSource},
    transport::AGENT,
};

/// The files of the machine that settings fall back to. Tests give their own, so that sidecars can share a process.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the secret is looked for, where neither the environment nor a file named there has it.
    pub secret_files: Vec<PathBuf>,
    /// The hostname.
    pub hostname_file: PathBuf,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            secret_files: vec![PathBuf::from("/run/secrets/pin_api_secret")],
            hostname_file: PathBuf::from("/proc/sys/kernel/hostname"),
        }
    }
}

impl Surroundings {
    /// With the credentials that systemd hands to a service (systemd.exec, "Credentials").
    pub(super) fn with_credentials(mut self, directory: Option<&OsString>) -> Self {
        let file = directory.map(|directory| Path::new(directory).join("pin_api_secret"));
        self.secret_files.splice(0..0, file);
        self
    }

    fn hostname(&self) -> Result<Text, Invalid> {
        let unknown = |error| {
            Invalid::new(format!(
                "not set, and the hostname cannot be read ({error}); set it"
            ))
        };
        let hostname = fs::read_to_string(&self.hostname_file).map_err(unknown)?;
        match hostname.trim() {
            "" => Err(Invalid::new(
                "not set, and this machine has no hostname; set it",
            )),
            hostname => Text::parse(hostname),
        }
    }
}

/// Where the backoff begins, unless it has to end earlier.
const RECONNECT_MIN: Duration = Duration::from_millis(500);

/// The time between heartbeats, unless silence is suffered for a shorter time: two may then be lost before the third.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Fills in the defaults that depend on something. A default gives way to what was set.
pub(super) fn find_out_defaults(fields: &mut Fields, surroundings: &Surroundings) {
    let generation = fields.client_id.right().map(|id| {
        Generation::of_client_id(&id.0).map(Choice).ok_or_else(|| {
            let reason = "(PIN_CLIENT_ID) does not tell it, since it begins with neither pin_ nor op_; write 1 for pin_ \
                          (desktop client) or 2 for op_ (operator daemon)";
            Invalid::value(&id.0, reason)
        })
    });
    fields.generation.fill(generation);
    let queue = fields
        .capacity
        .right()
        .map(|capacity| Ok(Count(capacity.0)));
    fields.queue.fill(queue);
    let at_most = |limit: Duration, default| Some(Ok(Time(limit.min(default))));
    let reconnect_min = fields.reconnect_max.right().map(|max| max.0);
    let reconnect_min = reconnect_min.and_then(|max| at_most(max, RECONNECT_MIN));
    fields.reconnect_min.fill(reconnect_min);
    let heartbeat = fields
        .heartbeat_timeout
        .right()
        .map(|timeout| timeout.0 / 3);
    let heartbeat = heartbeat.and_then(|third| at_most(third, HEARTBEAT_INTERVAL));
    fields.heartbeat_interval.fill(heartbeat);
    fields.user_agent.fill(Some(UserAgent::parse(AGENT)));
    if !fields.node_alias.is_set() {
        fields.node_alias.fill(Some(surroundings.hostname()));
    }
}

/// Finds settings that are right by themselves but not together. Where one of them is wrong anyway, that is enough.
pub(super) fn find_conflicts(fields: &Fields) -> Vec<ConfigError> {
    let checks = [
        backoff_order,
        heartbeat_order,
        plaintext,
        proxy,
        admin_hosts,
        key_beside_password,
        model_endpoint,
        pulls,
        context,
        paths,
        speech_server,
        speech_endpoint,
        speech_models,
        mapped_models,
    ];
    let conflicts = checks.into_iter().filter_map(|check| check(fields));
    conflicts
        .map(|(name, sentence)| ConfigError::Invalid {
            name,
            reason: Invalid::new(sentence),
        })
        .collect()
}

/// The setting to change and what is wrong with it.
type Conflict = (&'static str, String);

fn backoff_order(fields: &Fields) -> Option<Conflict> {
    let (min, max) = (fields.reconnect_min.right()?, fields.reconnect_max.right()?);
    (min > max).then(|| {
        (
            "PIN_RECONNECT_MIN",
            format!("{min} is more than PIN_RECONNECT_MAX, which is {max}"),
        )
    })
}

fn heartbeat_order(fields: &Fields) -> Option<Conflict> {
    let (interval, timeout) = (
        fields.heartbeat_interval.right()?,
        fields.heartbeat_timeout.right()?,
    );
    (interval >= timeout).then(|| {
        let sentence =
            format!("{interval} is not less than PIN_HEARTBEAT_TIMEOUT, which is {timeout}");
        ("PIN_HEARTBEAT_INTERVAL", sentence)
    })
}

fn plaintext(fields: &Fields) -> Option<Conflict> {
    let (url, Choice(allowed)) = (fields.server_url.right()?, fields.allow_plaintext.right()?);
    (!url.origin().tls() && !url.origin().is_loopback() && !allowed).then(|| {
        let sentence = format!(
            "{url} is not encrypted and not on this machine; write wss:// or https://, or set PIN_ALLOW_PLAINTEXT=true \
             if nobody can listen in between"
        );
        ("PIN_SERVER_URL", sentence)
    })
}

fn proxy(fields: &Fields) -> Option<Conflict> {
    let (url, proxy) = (fields.server_url.right()?, fields.https_proxy.right());
    let unusable = on_the_way_to(url, proxy, fields.no_proxy.right()).err()?;
    Some(("HTTPS_PROXY", unusable.to_string()))
}

/// A page that may be asked for by a name that others know needs a lock.
fn admin_hosts(fields: &Fields) -> Option<Conflict> {
    let has_token = fields.admin_token.is_set() || fields.admin_token_file.is_set();
    (fields.admin_hosts.is_set() && !has_token).then(|| {
        let sentence = "set, and no token is, which whoever comes by these names must bring; set PIN_ADMIN_TOKEN_FILE too";
        ("PIN_ADMIN_HOSTS", sentence.to_owned())
    })
}

fn key_beside_password(fields: &Fields) -> Option<Conflict> {
    let has_key = fields.backend_api_key.is_set() || fields.backend_api_key_file.is_set();
    let has_password = fields.ollama_url.right()?.authorization().is_some();
    (has_key && has_password).then(|| {
        let sentence = "has a user and password, and PIN_BACKEND_API_KEY is set too; a request has room for one of them";
        ("PIN_OLLAMA_URL", sentence.to_owned())
    })
}

/// A URL that was copied from an example of a chat, where a base URL is wanted.
fn model_endpoint(fields: &Fields) -> Option<Conflict> {
    let endpoints: &[_] = match fields.api_mode.right()?.0 {
        ApiMode::OpenAi => &["/chat/completions", "/v1/models"],
        ApiMode::Ollama => &["/api/chat", "/api/tags"],
    };
    endpoint("PIN_OLLAMA_URL", fields.ollama_url.right()?, endpoints)
}

/// Nothing else would tell: a look takes any answer for one.
fn speech_endpoint(fields: &Fields) -> Option<Conflict> {
    endpoint("PIN_TTS_URL", fields.tts_url.right()?, &["/audio/speech"])
}

fn endpoint(name: &'static str, url: &BackendUrl, endpoints: &[&str]) -> Option<Conflict> {
    let end = endpoints.iter().find(|end| url.ends_with(end))?;
    let sentence =
        format!("{url} ends with {end}, which the sidecar adds by itself; leave that out");
    Some((name, sentence))
}

/// What only Ollama has, and an operator would believe to hold.
fn pulls(fields: &Fields) -> Option<Conflict> {
    let is_in_vain = is_openai(fields) && fields.pull_models.is_set();
    is_in_vain.then(|| {
        let sentence = "only Ollama pulls models; leave it out with PIN_API_MODE=openai, and have the model server get them";
        ("PIN_PULL_MODELS", sentence.to_owned())
    })
}

fn context(fields: &Fields) -> Option<Conflict> {
    let is_in_vain = is_openai(fields) && fields.max_context.is_set();
    is_in_vain.then(|| {
        let sentence = "only Ollama takes a context with each chat; leave it out with PIN_API_MODE=openai, and start the model \
                        server with the context that it is to have";
        ("PIN_MAX_CONTEXT", sentence.to_owned())
    })
}

/// Ollama's models have no paths for names.
fn paths(fields: &Fields) -> Option<Conflict> {
    let is_in_vain = fields.allow_models.right()?.0.has_path() && !is_openai(fields);
    is_in_vain.then(|| {
        let sentence = "has a path, which no model of Ollama's has for a name; write the names in `ollama list`";
        ("PIN_ALLOW_MODELS", sentence.to_owned())
    })
}

fn is_openai(fields: &Fields) -> bool {
    let mode = fields.api_mode.right();
    mode.is_some_and(|mode| mode.0 == ApiMode::OpenAi)
}

/// What is said of a speech server means nothing without one.
fn speech_server(fields: &Fields) -> Option<Conflict> {
    if fields.tts_url.is_set() {
        return None;
    }
    let of_it = [
        ("PIN_TTS_MODELS", fields.tts_models.is_set()),
        ("PIN_TTS_VOICE", fields.tts_voice.is_set()),
        ("PIN_TTS_MODEL_MAP", fields.tts_model_map.is_set()),
    ];
    let (name, _) = of_it.into_iter().find(|(_, is_set)| *is_set)?;
    let sentence = "set, and PIN_TTS_URL is not; set that too, to where the speech server is";
    Some((name, sentence.to_owned()))
}

/// No server of this interface can be asked what it speaks with.
fn speech_models(fields: &Fields) -> Option<Conflict> {
    (fields.tts_url.is_set() && !fields.tts_models.is_set()).then(|| {
        let sentence = "set, and PIN_TTS_MODELS is not; name there the speech models to offer";
        ("PIN_TTS_URL", sentence.to_owned())
    })
}

fn mapped_models(fields: &Fields) -> Option<Conflict> {
    let (models, map) = (fields.tts_models.right()?, fields.tts_model_map.right()?);
    let is_offered = |name: &str| {
        models
            .0
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    let mut pairs = map.0.iter();
    let (name, _) = pairs.find(|(name, _)| !is_offered(name))?;
    let sentence = format!(
        "{name:?} is not among PIN_TTS_MODELS, which are {models}; add it there or take it out here"
    );
    Some(("PIN_TTS_MODEL_MAP", sentence))
}

/// Finds the token for commands, if one is set, and reads it once.
pub(super) fn find_admin_token(
    fields: &Fields,
    errors: &mut Vec<ConfigError>,
) -> Option<SecretSource> {
    let names = ("PIN_ADMIN_TOKEN", "PIN_ADMIN_TOKEN_FILE");
    find_token(names, &fields.admin_token, &fields.admin_token_file, errors)
}

/// Finds the model server's key, if one is set, and reads it once.
pub(super) fn find_backend_key(
    fields: &Fields,
    errors: &mut Vec<ConfigError>,
) -> Option<SecretSource> {
    let names = ("PIN_BACKEND_API_KEY", "PIN_BACKEND_API_KEY_FILE");
    let (key, file) = (&fields.backend_api_key, &fields.backend_api_key_file);
    find_token(names, key, file, errors)
}

fn find_token(
    names: (&'static str, &'static str),
    value: &Field<Token>,
    file: &Field<FilePath>,
    errors: &mut Vec<ConfigError>,
) -> Option<SecretSource> {
    if is_twice(names, value, file, errors) {
        return None;
    }
    let source = match (value.right(), file.right()) {
        (Some(secret), _) => SecretSource::Value(secret.0.clone()),
        (None, Some(file)) => SecretSource::File {
            path: file.0.clone(),
            setting: names.1,
            kind: Kind::Token,
        },
        (None, None) => return None,
    };
    readable(source, errors)
}

/// Whether a secret is set both as a value and as a file.
fn is_twice<V>(
    (name, file_name): (&'static str, &str),
    value: &Field<V>,
    file: &Field<FilePath>,
    errors: &mut Vec<ConfigError>,
) -> bool {
    let is_twice = value.is_set() && file.is_set();
    if is_twice {
        let reason = Invalid::new(format!("set, and {file_name} too; keep one of them"));
        errors.push(ConfigError::Invalid { name, reason });
    }
    is_twice
}

fn readable(source: SecretSource, errors: &mut Vec<ConfigError>) -> Option<SecretSource> {
    let read = source.read().map(drop);
    read.map_err(|error| errors.push(error.into()))
        .ok()
        .map(|()| source)
}

/// Decides where the secret comes from and reads it once.
pub(super) fn find_secret(
    fields: &Fields,
    surroundings: &Surroundings,
    errors: &mut Vec<ConfigError>,
) -> Option<SecretSource> {
    let names = ("PIN_API_SECRET", "PIN_API_SECRET_FILE");
    if is_twice(names, &fields.api_secret, &fields.api_secret_file, errors) {
        return None;
    }
    // One that is set and wrong is told as such, and is not missing.
    let wrong = [
        fields.api_secret.is_set() && fields.api_secret.right().is_none(),
        fields.api_secret_file.is_set() && fields.api_secret_file.right().is_none(),
    ];
    if wrong.contains(&true) {
        return None;
    }
    let source = SecretSource::find(
        fields.api_secret.right().map(|secret| secret.0.clone()),
        fields.api_secret_file.right().map(|file| file.0.clone()),
        &surroundings.secret_files,
        fields.client_id.right().map(|id| id.0.as_str()),
    );
    match source {
        Ok(source) => readable(source, errors),
        Err(error) => {
            errors.push(error.into());
            None
        }
    }
}
