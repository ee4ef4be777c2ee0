//! The program as its user meets it: the real binary as a process of its own, its exit codes, words, signals and log.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod bad_input;
#[path = "../support/certificates.rs"]
mod certificates;
mod check;
mod commands;
mod descriptors;
mod healthcheck;
mod log;
mod openai;
mod program;
mod reloads;
mod settings;
mod signals;
mod speech;
mod start;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod systemd;
