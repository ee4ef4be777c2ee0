//! The page as people meet it: in a real Chromium, from a real server, with a sidecar behind it in every state.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod browser;
mod buttons;
mod crowd;
mod history;
mod nginx;
mod scenes;
mod sidecar;
mod states;
mod usable;
