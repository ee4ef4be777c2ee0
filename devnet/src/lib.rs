//! A PIN network in one process, for development: a [`gateway`] and an [`ollama`] that behave like the real ones and
//! fail on demand, a [`network`] to break between them, name servers ([`dns`]), a [`proxy`] to lead there, and the
//! [`agent`] under test as a real process.
//!
//! It reads the protocol on its own and shares no code with the product, so that a mistake in the one cannot hide
//! behind the same mistake in the other. Everything listens on loopback, on a port that the system chose, unless it
//! is told where, and stops when its handle is dropped. Gateway and Ollama also serve a wire that is not there
//! ([`sim::wire`]), for tests in virtual time.
//!
//! Waiting calls have a deadline of [`PATIENCE`] and panic past it with what was seen instead: a test that hangs tells
//! nobody anything. What the stand-ins record is kept for as long as they live; a benchmark turns that off.

pub mod agent;
pub mod control;
pub mod dns;
pub mod gateway;
pub mod http;
mod interrupted;
mod journal;
mod listener;
mod model_server;
pub mod network;
pub mod ollama;
pub mod openai;
pub mod promtool;
pub mod proxy;
pub mod registry;
pub mod sim;
mod skip;
pub mod speech;

pub use interrupted::interrupted;
pub use journal::PATIENCE;
pub use skip::skip_without;
