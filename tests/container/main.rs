//! The image as Docker runs it: what is in it, what it needs and does not need, its health, its end, its memory.
//!
//! A real engine runs it: where `DOCKER_LAB` names the script that has one (see CONTRIBUTING.md). The gateway and Ollama
//! are devnet's, in this process, unless a test says otherwise; each test has containers of its own and takes them away.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod docker;
mod health;
mod image;
mod lab;
mod memory;
mod names;
mod node;
mod published;
mod secrets;
mod stop;
#[path = "../support/mod.rs"]
mod support;
