//! The agent that runs beside a model server and serves its models to the PIN network.
//!
//! A request comes down the session, is checked and admitted, goes to the model server, and its answer goes back
//! through the outbox: `transport` → `session` → `inference` → `backend`, and `outbox` → `session` → `transport`.
//! [`relay`] puts the parts together, [`app`] adds the server for probes; ARCHITECTURE.md has the picture.

pub mod admin;
#[cfg(test)]
mod any_json;
pub mod app;
pub mod backend;
pub mod check;
pub mod clock;
pub mod config;
mod controls;
mod event_stream;
pub mod file_access;
pub mod history;
pub mod inference;
mod invisible;
pub mod label;
pub mod link;
pub mod node;
pub mod outbox;
mod overview;
pub mod protocol;
mod queue;
pub mod relay;
pub mod reload;
pub mod secret;
pub mod service;
pub mod session;
pub mod shared;
pub mod signals;
mod systemd;
pub mod telemetry;
pub mod transport;
