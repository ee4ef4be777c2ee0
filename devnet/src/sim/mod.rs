//! The world of the simulation: a [`wire`] in place of the internet, a model [`gateway`] with a [`network`] behind it that
//! keeps [`books`], a [`model_server`], a [`trace`] of what they saw, and the [`fate`] that decides what happens. All of it runs in one thread
//! on tokio's paused clock and follows from a seed. It knows the protocol and the delivery rules, and nothing of the
//! product.

mod attempts;
pub mod books;
mod end;
pub mod fate;
mod faults;
mod frames;
pub mod gateway;
#[cfg(test)]
mod histories;
mod http;
mod interview_rules;
pub mod interviews;
pub mod last_look;
mod ledger;
pub mod manners;
mod mischief;
pub mod model_server;
pub mod network;
mod pipe;
mod registration;
mod room;
mod rules;
mod said;
pub mod trace;
mod visit;
mod warmth;
pub mod wire;
