//! Tries all that a sidecar needs once, step by step, and says what to do about each failure.

mod report;

pub use report::{Outcome, Report, Step};
