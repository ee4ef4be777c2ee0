//! What is promised of times, to the millisecond: the whole relay on a clock that jumps (`wire`). No machine is too busy for
//! these tests.
//!
//! They have a process of their own, as `tests/outage.rs` has, and for the same reason.

#![allow(clippy::unwrap_used, missing_docs)]

mod attempts;
mod backpressure;
mod drains;
mod flood;
mod log;
mod network;
mod ollama;
#[path = "../support/mod.rs"]
mod support;
mod times;
#[path = "../support/wire.rs"]
mod wire;

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Whatever is done at once.
const MOMENT: Duration = Duration::from_millis(1);
