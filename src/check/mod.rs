//! Tries all that a sidecar needs once, step by step, and says what to do about each failure: as a command of its own
//! ([`command`]), and in a sidecar that runs (`POST /check`).
//!
//! Invariant: it uses the parts that serve, so that what passes here works there; and nothing that it shows has a secret, a
//! prompt, an answer or the backend's address in it.

mod answer;
mod beside;
mod command;
mod desk;
mod gateway;
mod report;
mod screen;
mod way;

pub use command::{Options, Verdict, command};
pub(crate) use desk::{CheckDesk, Checks, Running};
pub use report::{Outcome, Report, Step};
