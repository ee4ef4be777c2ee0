//! The session: how it comes up, lives, breaks, comes back and ends, over real sockets; what is promised to the second,
//! in virtual time (`wire`).

#![allow(clippy::unwrap_used, missing_docs)]

mod before_login;
mod connecting;
mod drain;
mod drained;
mod frames;
mod link;
mod liveness;
mod login;
mod paused;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wire.rs"]
mod wire;

use std::{sync::Arc, time::Duration};

use devnet::gateway::{Frame, Gateway, Sender};

/// A gateway that goes away is looked for again soon.
const QUICK: [(&str, &str); 2] = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];

/// [`QUICK`] and these.
fn quick<'a>(settings: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&QUICK, settings].concat()
}

/// What the agent said on one connection, without WebSocket's own frames.
fn said(gateway: &Gateway, connection: u64) -> Vec<Arc<Frame>> {
    let mut frames = gateway.frames();
    frames.retain(|frame| {
        frame.connection == connection
            && frame.sender == Sender::Agent
            && !matches!(frame.name(), "ping" | "pong" | "close")
    });
    frames
}

fn names(frames: &[Arc<Frame>]) -> Vec<&str> {
    frames.iter().map(|frame| frame.name()).collect()
}

/// The seconds in "Next attempt in 12 s."
fn next_attempt(pending: &[String]) -> Duration {
    let seconds = pending.iter().find_map(|sentence| {
        let (_, seconds) = sentence.split_once("Next attempt in ")?;
        seconds.split_once(' ')?.0.parse().ok()
    });
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("no next attempt in {pending:?}")))
}
