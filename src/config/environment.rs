//! What of the environment is ours: every variable that begins with `PIN_`, and the few settings that we share with
//! other programs. No other is looked at.
//!
//! Invariant: what goes on to `envy` is clean, that is known names, each once, with text that is not blank. `envy` by
//! itself gives up at the first wrong value and panics on one that is not UTF-8.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    error::ConfigError,
    table::{Fallback, Fields, PREFIX, SETTINGS, Setting},
};

/// What `docker-compose.yml` reads from the file that has the settings, too: about the sidecar, not for it.
const FOR_COMPOSE: [&str; 4] = [
    "PIN_SIDECAR_ENV_FILE",
    "PIN_SIDECAR_IMAGE",
    "PIN_SIDECAR_MEMORY",
    "PIN_SIDECAR_PORT",
];

/// Reads the settings; what is no setting, or not text, is added to `errors`.
pub(super) fn read(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    errors: &mut Vec<ConfigError>,
) -> Fields {
    let mut given = BTreeMap::new();
    for (name, value) in vars {
        let name = name.to_string_lossy();
        match classify(&name, value) {
            Ok(Some(text)) => {
                // The first one counts, as it does for getenv.
                given.entry(name.into_owned()).or_insert(text);
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    fields(given)
}

/// What a variable is: a setting, of which this gives the text, nothing that concerns us, or a mistake.
fn classify(name: &str, value: OsString) -> Result<Option<String>, ConfigError> {
    let is_setting = |setting: &Setting| {
        setting.name.eq_ignore_ascii_case(name)
            && setting.spellings().iter().any(|spelt| spelt == name)
    };
    if !SETTINGS.iter().any(is_setting) {
        if !name.starts_with(PREFIX) || FOR_COMPOSE.contains(&name) || is_service_link(name) {
            return Ok(None);
        }
        return Err(ConfigError::Unknown {
            name: name.to_owned(),
            nearest: nearest(name),
        });
    }
    let text = match value.into_string() {
        Ok(text) => text,
        // Not ours alone: it is judged once it is needed.
        Err(bytes) if !name.starts_with(PREFIX) => bytes.to_string_lossy().into_owned(),
        Err(_) => {
            let name = name.to_owned();
            return Err(ConfigError::NotUtf8 { name });
        }
    };
    Ok((!text.trim().is_empty()).then_some(text))
}

/// Whether Kubernetes gives a variable of this name to every pod of a namespace with a Service called `pin` or
/// `pin-…`. See <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(name: &str) -> bool {
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    {
        return false;
    }
    let ends_as_a_link = |suffix: &str| {
        matches!(suffix, "SERVICE_HOST" | "SERVICE_PORT" | "PORT")
            || suffix
                .strip_prefix("SERVICE_PORT_")
                .is_some_and(|port_name| !port_name.is_empty())
            || suffix.strip_prefix("PORT_").is_some_and(is_docker_link)
    };
    // The Service's name may have such words too, so each underscore may be the one where it ends.
    name.match_indices('_')
        .any(|(index, _)| ends_as_a_link(&name[index + 1..]))
}

/// Whether this is what follows `…_PORT_`: `80_TCP`, and then possibly one of its parts.
fn is_docker_link(rest: &str) -> bool {
    let mut words = rest.split('_');
    let port = words
        .next()
        .is_some_and(|digits| digits.parse::<u16>().is_ok());
    let protocol = matches!(words.next(), Some("TCP" | "UDP" | "SCTP"));
    let part = matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR"));
    port && protocol && part && words.next().is_none()
}

/// The setting whose name is most like this one.
fn nearest(name: &str) -> &'static str {
    let name = name.to_ascii_uppercase();
    let likeness = |setting: &&Setting| strsim::damerau_levenshtein(setting.name, &name);
    SETTINGS
        .iter()
        .min_by_key(likeness)
        .map_or("", |setting| setting.name)
}

fn fields(mut given: BTreeMap<String, String>) -> Fields {
    let pairs = SETTINGS.iter().filter_map(|setting| {
        let default = match setting.default {
            Fallback::Value(text) => Some(text.to_owned()),
            Fallback::Required | Fallback::FoundOut(_) | Fallback::Unset => None,
        };
        let spellings = setting.spellings();
        let text = spellings.iter().find_map(|name| given.remove(name));
        Some((setting.field(), text.or(default)?))
    });
    match envy::from_iter(pairs) {
        Ok(fields) => fields,
        // Names are known and given once, and a field takes any text.
        Err(error) => unreachable!("settings that were checked cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_gives_for_a_service_called_pin_is_no_mistake() {
        for name in [
            "PIN_GATEWAY_SERVICE_HOST",
            "PIN_GATEWAY_SERVICE_PORT",
            "PIN_GATEWAY_SERVICE_PORT_HTTPS",
            "PIN_GATEWAY_SERVICE_PORT_HTTP_ADMIN",
            "PIN_X_PORT",
            "PIN_X_PORT_80_TCP",
            "PIN_X_PORT_80_TCP_PROTO",
            "PIN_X_PORT_80_TCP_PORT",
            "PIN_X_PORT_80_TCP_ADDR",
            "PIN_X_Y2_PORT_5353_UDP_ADDR",
            "PIN_PORT_X_PORT_80_TCP",
            "PIN_SERVICE_HOST",
        ] {
            assert!(is_service_link(name), "{name}");
        }
    }

    #[test]
    fn what_compose_reads_from_the_same_file_is_no_mistake() {
        let compose = include_str!("../../docker-compose.yml");
        let mut read: Vec<&str> = compose
            .split("${")
            .skip(1)
            .filter_map(|rest| rest.split([':', '}']).next())
            .filter(|name| SETTINGS.iter().all(|setting| setting.name != *name))
            .collect();
        read.sort_unstable();
        assert_eq!(read, FOR_COMPOSE);
    }

    #[test]
    fn every_name_in_the_example_for_compose_is_one() {
        let example = include_str!("../../.env.example");
        let names = example.lines().filter_map(|line| {
            let name = line.trim_start_matches('#').split_once('=')?.0;
            name.starts_with(PREFIX).then_some(name)
        });
        for name in names {
            let known = SETTINGS.iter().any(|setting| setting.name == name);
            assert!(known || FOR_COMPOSE.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_misspelt_setting_is_not_taken_for_a_service() {
        for name in [
            "PIN_CAPACTY",
            "PIN_X_PORTS",
            "PIN_XPORT",
            "PIN_X_SERVICE",
            "PIN_X_SERVICE_PORT_",
            "PIN_X_SERVICE_HOST_NAME",
            "PIN_X_PORT_",
            "PIN_X_PORT_HTTP",
            "PIN_X_PORT_80",
            "PIN_X_PORT_80_TCP_NAME",
            "PIN_X_PORT_80_TCP_ADDR_X",
            "PIN_X_PORT_99999_TCP",
            "PIN_x_PORT",
        ] {
            assert!(!is_service_link(name), "{name}");
        }
    }

    #[test]
    fn the_nearest_setting_is_the_one_that_was_meant() {
        for (name, meant) in [
            ("PIN_CAPACTY", "PIN_CAPACITY"),
            ("PIN_capacity", "PIN_CAPACITY"),
            ("PIN_API_SECERT", "PIN_API_SECRET"),
            ("PIN_OLAMA_URL", "PIN_OLLAMA_URL"),
            ("PIN_PIN_LOG", "PIN_LOG"),
        ] {
            assert_eq!(nearest(name), meant, "{name}");
        }
    }

    #[test]
    fn no_setting_looks_like_a_service() {
        assert_eq!(
            SETTINGS
                .iter()
                .map(|setting| setting.name)
                .find(|name| is_service_link(name)),
            None
        );
    }
}
