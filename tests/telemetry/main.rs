//! What the sidecar tells about itself: figures that an operator is paid by.

#![allow(clippy::unwrap_used, missing_docs)]

mod figures;
mod history;
#[path = "../support/mod.rs"]
mod support;
