//! The chart in a real Kubernetes: what becomes of chats when pods end, in whichever way; in what order containers start
//! and stop; what probes, Secrets and mistakes do.
//!
//! `TEST_CLUSTER` names the script that has the cluster (see CONTRIBUTING.md). The gateway is devnet's, in this process, so
//! its books are at hand; Ollama is the real one, unless a test says otherwise. Each test has a namespace of its own, which
//! goes away with it. They mostly wait, so give them more threads than there are processors: `-- --test-threads 10`.

#![allow(clippy::unwrap_used, missing_docs)]

mod agents;
mod bundled;
mod chart;
mod chats;
mod cluster;
mod ends;
mod external;
mod namespace;
mod node;
mod pods;
mod probes;
mod release;
mod secrets;
mod security;
mod sidecar;
#[path = "../support/mod.rs"]
mod support;
