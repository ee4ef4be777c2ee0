//! The PIN protocol: frames, failures and signatures. Pure: no I/O, no clock, no randomness, and it knows no other
//! module. What the gateway sends is spelled in `incoming`, what the agent sends in `outgoing`, and nowhere else.

mod failure;
mod generation;
mod incoming;
mod operation;
mod outgoing;
mod request_id;
mod retry_after;
mod signature;

pub use failure::{Code, Failure};
pub use generation::Generation;
pub use incoming::{FromGateway, GatewayMessage, Unreadable};
pub use operation::Operation;
pub use outgoing::{
    AgentMessage, Auth, Body, Chunk, ChunkKind, Control, Health, InterviewAnswers,
    NodeRegistration, PromptAnswer, Reply, encode,
};
pub use request_id::RequestId;
pub use retry_after::RetryAfter;
pub use signature::{SignatureScheme, sign};
