//! The session with the gateway: one at a time, and a supervisor that keeps one up.
//!
//! Invariant: the reader never waits for work, heartbeats have a clock of their own, a dead link is noticed within
//! `PIN_HEARTBEAT_TIMEOUT`, and the next session begins only when the last has ended.

mod active;
mod announcer;
mod backoff;
mod dispatch;
mod interviews;
mod log;
mod no_session;
mod notices;
mod status;
mod supervisor;

pub use status::{Phase, SessionStatus, StatusBoard};
pub use supervisor::{Supervisor, SupervisorParts};
