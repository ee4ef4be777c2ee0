//! What the sidecar tells about itself: figures that an operator is paid by, and a log that stays short when things go
//! wrong for long.

#![allow(clippy::unwrap_used, missing_docs)]

mod figures;
mod outage;
#[path = "../support/mod.rs"]
mod support;
