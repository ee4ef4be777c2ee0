//! What one variable alone does not tell: defaults that have to be found out, settings that contradict each other, and
//! where the secret is.

use std::{fs, path::PathBuf, time::Duration};

use super::{
    error::{ConfigError, Invalid},
    field::Value,
    proxy::on_the_way_to,
    table::Fields,
    value::{Choice, Count, Text, Time, UserAgent},
};
use crate::{protocol::Generation, secret::SecretSource, transport::AGENT};

/// The files of the machine that settings fall back to. Tests give their own, so that sidecars can share a process.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The secret, where neither the environment nor a file named there has it.
    pub secret_file: PathBuf,
    /// The hostname.
    pub hostname_file: PathBuf,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            secret_file: PathBuf::from("/run/secrets/pin_api_secret"),
            hostname_file: PathBuf::from("/proc/sys/kernel/hostname"),
        }
    }
}

impl Surroundings {
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
    let checks = [backoff_order, heartbeat_order, plaintext, proxy];
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

/// Decides where the secret comes from and reads it once.
pub(super) fn find_secret(
    fields: &Fields,
    surroundings: &Surroundings,
    errors: &mut Vec<ConfigError>,
) -> Option<SecretSource> {
    if fields.api_secret.is_set() && fields.api_secret_file.is_set() {
        let reason = Invalid::new("set, and PIN_API_SECRET_FILE too; keep one of them");
        errors.push(ConfigError::Invalid {
            name: "PIN_API_SECRET",
            reason,
        });
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
        &surroundings.secret_file,
        fields.client_id.right().map(|id| id.0.as_str()),
    );
    match source.and_then(|source| source.read().map(|_| source)) {
        Ok(source) => Some(source),
        Err(error) => {
            errors.push(error.into());
            None
        }
    }
}
