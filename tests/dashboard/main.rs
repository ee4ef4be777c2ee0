//! The Grafana dashboard: written as its script says, complete, and every question that it asks has an answer when a real
//! Prometheus reads a real sidecar.

#![allow(clippy::unwrap_used, missing_docs)]

mod live;
mod page;
mod prometheus;
mod questions;
#[path = "../support/mod.rs"]
mod support;
