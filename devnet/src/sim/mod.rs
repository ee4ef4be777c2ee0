//! The world of the simulation: a [`wire`] in place of the network, a model [`gateway`] that keeps [`books`], a model
//! [`ollama`], a [`trace`] of what they saw, and the [`fate`] that decides what happens. All of it runs in one thread
//! on tokio's paused clock and follows from a seed. It knows the protocol and the delivery rules, and nothing of the
//! product.

pub mod books;
mod end;
pub mod fate;
mod faults;
mod frames;
pub mod gateway;
mod http;
mod ledger;
pub mod manners;
mod mischief;
pub mod ollama;
mod pipe;
pub mod rules;
pub mod trace;
mod visit;
pub mod wire;
