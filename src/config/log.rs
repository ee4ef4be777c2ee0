//! Which log lines are written. What an operator asks for is not what happens: [`capped`](crate::telemetry::capped)
//! lowers it for targets that are not ours.
//!
//! Invariant: what no directive is about has the level that holds without a filter.

use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::{error::Invalid, field::Value, log_targets, plain::Blanks};

/// A filter as an operator writes it.
pub(super) struct LogFilter(pub(super) Targets);

impl Value for LogFilter {
    const BLANKS: Blanks = Blanks::BesideCommas;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || {
            Invalid::value(
                text,
                "is not a log filter; write a level (off, error, warn, info, debug, trace) or a list such as \
                 info,pin_sidecar::session=debug",
            )
        };
        let mut default = None;
        let mut targets = Vec::new();
        for directive in text
            .split(',')
            .map(str::trim)
            .filter(|directive| !directive.is_empty())
        {
            match directive.split_once('=') {
                // tracing itself would take a misspelt level for a target, and say nothing ever after.
                None => default = Some(directive.parse::<LevelFilter>().map_err(|_| invalid())?),
                Some((target, _)) if target.is_empty() || target.contains('[') => {
                    return Err(invalid());
                }
                Some((target, level)) => {
                    let level = level.parse::<LevelFilter>().map_err(|_| invalid())?;
                    log_targets::check(target).map_err(|nearest| {
                        let reason = format!(
                            "is about a target that logs nothing; the nearest is {nearest}"
                        );
                        Invalid::value(directive, reason)
                    })?;
                    targets.push((target, level));
                }
            }
        }
        if default.is_none() && targets.is_empty() {
            return Err(invalid());
        }
        let default = default.unwrap_or(LevelFilter::INFO);
        Ok(Self(
            Targets::new().with_default(default).with_targets(targets),
        ))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use tracing::Level;

    use super::*;
    use crate::telemetry::capped;

    fn filter(text: &str) -> Targets {
        capped(LogFilter::parse(text).unwrap().0)
    }

    #[test]
    fn a_level_is_for_our_lines_and_others_are_capped() {
        let trace = filter("trace");
        assert!(trace.would_enable("pin_sidecar::session", &Level::TRACE));
        assert!(trace.would_enable("tungstenite::protocol", &Level::INFO));
        assert!(!trace.would_enable("tungstenite::protocol", &Level::DEBUG));
        assert!(!filter("warn").would_enable("hyper", &Level::INFO));
    }

    #[test]
    fn a_library_cannot_be_asked_for_more_than_info() {
        for text in [
            "info,tungstenite=trace",
            "trace,tungstenite::protocol=debug",
            "tung=trace",
            "pin_sidecar=trace,t=trace",
        ] {
            assert!(
                !filter(text).would_enable("tungstenite::protocol", &Level::DEBUG),
                "{text}"
            );
        }
        assert!(!filter("info,hyper=off").would_enable("hyper", &Level::ERROR));
    }

    #[test]
    fn parts_of_ours_can_be_told_apart() {
        let session = filter("debug, pin_sidecar=info ,pin_sidecar::session=trace");
        assert!(session.would_enable("pin_sidecar::session::login", &Level::TRACE));
        assert!(session.would_enable("pin_sidecar::admin", &Level::INFO));
        assert!(!session.would_enable("pin_sidecar::admin", &Level::DEBUG));
    }

    #[test]
    fn what_no_directive_is_about_is_logged_as_without_a_filter() {
        for text in ["pin_sidecar::session=debug", "hyper=off"] {
            let filter = filter(text);
            assert!(
                filter.would_enable("pin_sidecar::admin", &Level::INFO),
                "{text}"
            );
            assert!(
                !filter.would_enable("pin_sidecar::admin", &Level::DEBUG),
                "{text}"
            );
            assert!(filter.would_enable("rustls", &Level::INFO), "{text}");
        }
        assert!(
            !filter("off,pin_sidecar::session=debug").would_enable("pin_sidecar", &Level::ERROR)
        );
    }

    #[test]
    fn a_target_of_ours_that_does_not_exist_is_refused_with_the_nearest() {
        for text in [
            "pin-sidecar=debug",
            "info,pin_sidecar.session=debug",
            "session=debug",
        ] {
            let refusal = LogFilter::parse(text).err().unwrap().to_string();
            let directive = text.trim_start_matches("info,");
            let told = format!(
                "{directive:?} is about a target that logs nothing; the nearest is pin_sidecar"
            );
            assert!(refusal.starts_with(&told), "{refusal}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_rather_than_taken_for_a_target() {
        for text in [
            "inof",
            "pin_sidecar",
            "info,debg",
            "hyper=loud",
            "=debug",
            "a[{b}]=info",
            ",",
            "a=b=c",
        ] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_lets_a_library_log_what_it_carries(text in "[a-z_:=,\\[\\]]*|(trace|debug|t[a-z]*=trace|pin_sidecar[a-z]?=trace)(,(trace|tungstenite=debug))*") {
            if let Ok(filter) = LogFilter::parse(&text) {
                prop_assert!(!capped(filter.0).would_enable("tungstenite::protocol", &Level::DEBUG));
            }
        }
    }
}
