//! The PIN protocol: frames, failures and signatures. Pure: no I/O, no clock, no randomness, and it knows no other
//! module. One enum per direction, [`FromGateway`] and [`ToGateway`], is the only place where a frame is spelled.

mod failure;
mod generation;
mod incoming;
mod outgoing;
mod retry_after;
mod signature;

pub use failure::{Code, Failure};
pub use generation::Generation;
pub use incoming::{FromGateway, GatewayMessage, RequestId, Unreadable};
pub use outgoing::{AgentMessage, ChunkKind, Health, NodeRegistration, ToGateway};
pub use retry_after::RetryAfter;
pub use signature::{SignatureScheme, sign};
