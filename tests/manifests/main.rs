//! The plain manifests in deploy/kubernetes: the chart's, and what they do to an Ollama that is there already. Rendered
//! with the real Helm and kubectl; no cluster is needed.
//!
//! `HELM` and `KUBECTL` name the programs where they are not on the PATH; one test needs `CHART_TOOLS` besides, which names
//! tools/chart-tools.

#![allow(clippy::unwrap_used, missing_docs)]

mod chart;
mod existing;
mod hook;
mod openai;
mod pages;
#[path = "../support/mod.rs"]
mod support;
mod tools;
