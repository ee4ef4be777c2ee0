//! The targets that log lines of ours have: the modules that write them.
//!
//! Invariant: a filter for a target that looks like one of ours, and is none, is not taken for another program's.

/// Our crate.
const OURS: &str = "pin_sidecar";

/// The modules of ours that log, each below [`OURS`].
const MODULES: &[&str] = &[
    "admin",
    "admin::server",
    "admin::token",
    "backend::catalogue",
    "backend::ollama::descriptions",
    "backend::ollama::pull",
    "backend::ollama::pull::wanted",
    "backend::preload",
    "backend::preload::wanted",
    "backend::speech",
    "inference",
    "inference::interview",
    "inference::refusals",
    "link::websocket::login",
    "outbox",
    "relay::data_path",
    "reload",
    "session::dispatch",
    "session::interviews",
    "session::log",
    "session::notices",
    "session::supervisor",
    "telemetry::logging",
    "transport::dial",
    "transport::trust",
];

/// How unlike our crate's name a word may be that is meant to be it, in edits.
const UNLIKE_US: usize = 3;

/// Refuses a target that is meant to be ours and is none.
///
/// # Errors
/// The target that is most like it.
pub(super) fn check(target: &str) -> Result<(), String> {
    let is_real = targets().any(|real| real.starts_with(target));
    if is_real || !looks_like_ours(target) {
        Ok(())
    } else {
        Err(nearest(target))
    }
}

/// All that a filter can name, our crate first.
fn targets() -> impl Iterator<Item = String> {
    let ends = |module: &'static str| {
        let inner = module.match_indices("::").map(|(end, _)| end);
        inner.chain([module.len()]).map(|end| &module[..end])
    };
    let below = MODULES.iter().flat_map(move |module| ends(module));
    std::iter::once(OURS.to_owned()).chain(below.map(|name| format!("{OURS}::{name}")))
}

/// Whether its first word is nearly our crate's name, or one of our modules without it. Other crates have neither.
fn looks_like_ours(target: &str) -> bool {
    let written = spelled_as_rust(target);
    let first = written.split("::").next().unwrap_or_default();
    let is_module = |name: &str| {
        let outer = name.split("::").next().unwrap_or_default();
        first == outer || outer.len() > 4 && strsim::damerau_levenshtein(first, outer) < 2
    };
    first.starts_with("pin")
        || strsim::damerau_levenshtein(first, OURS) <= UNLIKE_US
        || MODULES.iter().any(|name| is_module(name))
}

fn nearest(target: &str) -> String {
    let mut written = spelled_as_rust(target);
    if !written.starts_with("pin") {
        written = format!("{OURS}::{written}");
    }
    targets()
        .min_by_key(|real| strsim::damerau_levenshtein(real, &written))
        .unwrap_or_else(|| OURS.to_owned())
}

fn spelled_as_rust(target: &str) -> String {
    let target = target.to_ascii_lowercase().replace('-', "_");
    target.replace(['.', '/'], "::")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    const MACROS: [&str; 6] = [
        "error!(",
        "warn!(",
        "info!(",
        "debug!(",
        "trace!(",
        "throttled!(",
    ];

    /// The modules below a directory whose code logs; that of tests does not count, nor does where the macro is made.
    fn modules_that_log(directory: &Path, module: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let inner = match (module, name.as_str()) {
                ("", _) => name.clone(),
                (_, "mod") => module.to_owned(),
                _ => format!("{module}::{name}"),
            };
            if path.is_dir() {
                modules_that_log(&path, &inner, found);
            } else if !["main", "tests", "log_throttle"].contains(&name.as_str()) {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\n#[allow").next().unwrap();
                let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
                if MACROS.iter().any(|name| code.contains(name)) {
                    found.insert(inner);
                }
            }
        }
    }

    #[test]
    fn every_module_that_logs_can_be_named_and_no_other() {
        let mut found = BTreeSet::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        modules_that_log(&source, "", &mut found);
        assert!(found.iter().eq(MODULES), "{found:#?}");
    }

    #[test]
    fn a_target_that_looks_like_ours_and_logs_nothing_is_told_with_the_nearest_one() {
        for (written, meant) in [
            ("pin-sidecar", "pin_sidecar"),
            ("PIN_SIDECAR", "pin_sidecar"),
            ("pinsidecar", "pin_sidecar"),
            ("pin_sidecar.session", "pin_sidecar::session"),
            ("session", "pin_sidecar::session"),
            ("pin_sidecar::sesion", "pin_sidecar::session"),
            (
                "pin_sidecar::session::supervisr",
                "pin_sidecar::session::supervisor",
            ),
            (
                "pin_sidecar::session::supervisor::x",
                "pin_sidecar::session::supervisor",
            ),
            ("backends::ollama", "pin_sidecar::backend::ollama"),
        ] {
            assert_eq!(check(written), Err(meant.to_owned()), "{written}");
        }
        for right in [
            "pin_sidecar",
            "pin_sidecar::session",
            "pin_sidecar::sess",
            "pin_sidecar::backend::ollama::pull",
            "hyper",
            "hyper_util::client",
            "tokio_tungstenite",
            "rustls",
            "t",
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
    }
}
