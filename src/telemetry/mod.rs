//! What the sidecar tells about itself: metrics and logs.
//!
//! Invariant: neither ever carries a secret, a prompt, an answer or an address of a backend, metrics no request's id
//! either, and telling never makes the data path wait.

mod families;
mod log_writer;
mod logging;
mod metrics;
mod reasons;
mod troubles;

pub use families::{
    CounterBy, CounterByModel, CounterByModelAnd, CounterByPair, HistogramBy, InfoBy,
};
pub use log_writer::LogGuard;
pub use logging::{LogFormat, capped, init};
pub use metrics::Metrics;
pub use reasons::{ConnectFailure, DisconnectReason, DropReason, Operation};
pub use troubles::{RecentTroubles, Trouble, What};
