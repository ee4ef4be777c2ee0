//! The chart, rendered by the real Helm: no cluster is needed. What a cluster makes of it is shown in `tests/kubernetes`.
//!
//! These tests run where Helm is on the PATH or named by `HELM`; two of them need `CHART_TOOLS` besides, which names
//! `tools/chart-tools`: `eval "$(tools/chart-tools env)"` sets both.

#![allow(clippy::unwrap_used, missing_docs)]

mod chart;
mod env;
mod examples;
mod files;
mod hook;
mod mistakes;
mod network;
mod pods;
mod releases;
mod rollouts;
#[path = "../support/mod.rs"]
mod support;
