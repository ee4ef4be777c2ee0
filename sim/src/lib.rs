//! The real relay, run in one thread on a clock that jumps from event to event, in a world that follows from a seed.
//!
//! # What is simulated
//! The network (latency, jitter, bounded buffers, cuts, half-open connections, stalls, slow links, refused and hanging
//! dials), the gateway and the network behind it (interviews, probes, a reputation, an edge that counts attempts), a model
//! server and what it has in memory (Ollama, or in three stories of ten one with OpenAI's interface), in two of ten a speech
//! server beside it, the time of day and SIGTERM: `devnet::sim`. Everything between them is the product as it ships,
//! WebSocket framing and the HTTP client included, put together by `Relay::new`; no part of it can tell.
//!
//! # What is not
//! TLS, DNS, proxies, real sockets, real threads, the server for probes, and a process that is killed. The tests over
//! real sockets have these.
//!
//! # What is checked
//! The delivery rules, by the books (`devnet::sim::books`, `rules`, `last_look`): after each frame, each virtual second, and once
//! all is over. A breach is a sentence with the request, the virtual time and the rule. Interviews, registration, attempts
//! and warm models have files of their own (`interview_rules`, `registration`, `attempts`, `warmth`); `histories.rs` holds
//! their rules against agents that break one each.
//!
//! # How to read a trace
//! `cargo sim -- --seed 7 --trace` tells the story in virtual milliseconds: `gateway >` is a frame that the gateway sent,
//! `sidecar has read` the moment at which the product's socket had its last byte, `gateway, session 3 <` a frame that
//! the gateway read on the third connection, `ollama:` what the model server, whichever it is, or the speech server was
//! asked and how it ended, `link: …` what was done to the network. The same seed gives the same trace, always: what
//! `trace_hash` of a verdict is for.
//!
//! # How to add a rule
//! Keep in `ledger.rs` what it needs to know, enter that in `books.rs`, and call [`breach`] there if an event can break
//! it, or in `rules.rs` if time can, or `last_look.rs` if only the end shows it. Write each excuse down beside it. Break
//! the product on purpose, once, and see the rule speak.
//!
//! # How to add a trouble
//! An `Event` in `scenario.rs`, and in `run/events.rs` what it does to the world, and how it is mended. What is rare, or has to
//! meet something else, is a plot (`plots.rs`). Have it counted: the summary of a range shows whether it happens at all.
//!
//! [`breach`]: devnet::sim::books::Books::breach

mod operator;
mod plots;
mod run;
mod scenario;
mod servers;
mod world;

pub use run::{Verdict, count_panics, run, run_hour};
