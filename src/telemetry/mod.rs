//! What the sidecar tells about itself: metrics and logs.
//!
//! Invariant: neither ever carries a secret, a prompt, an answer or an address of a backend, metrics no request's id
//! either, and telling never makes the data path wait.

mod backend;
mod by_model;
mod families;
mod log_throttle;
mod log_writer;
mod logging;
mod metrics;
mod reasons;
mod recent_errors;

pub use backend::BackendMetrics;
pub use by_model::{CounterByModel, CounterByModelAnd, SumByModel};
pub use families::{CounterBy, CounterByPair, GaugeBy, HistogramBy, InfoBy, OneOf};
pub(crate) use log_throttle::throttled;
pub use log_throttle::{LogThrottle, Occurrences, SETTLED};
pub use log_writer::LogGuard;
pub use logging::{LogFormat, capped, init};
pub use metrics::Metrics;
pub use reasons::{ConnectFailure, DisconnectReason, DropReason, ServerOutage, Tier};
pub use recent_errors::{ErrorSource, RecentError, RecentErrors};

/// Text that came from outside as it may stand in a log line or a sentence: one line, and not a long one.
pub fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_CHARS)
        .collect()
}

/// A count as a gauge has it.
pub(crate) fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
