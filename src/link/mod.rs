//! The seam between a session and the network. A [`Connect`] opens a [`Link`]: a connection over which the gateway has
//! accepted the login. A link takes values, spells them as its transport has it, and gives what comes: frames, proof of
//! what the gateway has read, and at last its end.
//!
//! Invariant: a session does the same over every link. What a transport has of its own, such as logins, Pings, counted
//! acknowledgements and Close, stays behind its link, since each proves in its own way what was read.

mod budget;
mod error;
mod websocket;

pub use budget::ConnectBudget;
pub use error::OpenError;
pub use websocket::WebSocket;
#[cfg(test)]
pub(crate) use websocket::acknowledgements::{Acknowledged, Acknowledgements};

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::{
    protocol::{AgentMessage, Chunk, Control, FromGateway, Reply, Unreadable, encode},
    telemetry::printable,
};

/// Opens links with one gateway.
pub trait Connect: Send + Sync {
    /// What `/status` calls the transport.
    fn transport(&self) -> &'static str;

    /// What is wrong with a file that each connection reads again, while its last good content serves.
    fn trouble(&self) -> Option<String>;

    /// Reaches the gateway and logs in. Each step has its own time limit. Each request that asks the gateway for a session
    /// is taken from the budget, in which the caller has seen that there is one left.
    fn open<'a>(
        &'a self,
        secret: &'a SecretString,
        budget: &'a ConnectBudget,
    ) -> BoxFuture<'a, Result<Opened, OpenError>>;
}

/// A link that has just been opened.
pub struct Opened {
    /// The link.
    pub link: Box<dyn Link>,
    /// The node that the gateway knows this session as, where it says so at login.
    pub node_id: Option<String>,
}

/// A connection over which the login was accepted. Sending and receiving go on side by side.
pub trait Link: Send + Sync {
    /// Sends all of these in order, and returns when the system has taken them.
    ///
    /// # Errors
    /// The link has ended.
    fn send<'a>(&'a self, outgoing: &'a [Outgoing]) -> BoxFuture<'a, Result<(), LinkEnd>>;

    /// What comes next. Acknowledgements come as the proof that they are.
    ///
    /// # Errors
    /// The link has ended, for the reason given.
    fn next(&self) -> BoxFuture<'_, Result<Received, LinkEnd>>;

    /// Tells the gateway that nothing more is sent. Once it says that it has read all, [`Link::next`] gives
    /// [`LinkEnd::Finished`].
    ///
    /// # Errors
    /// The link has ended before.
    fn close(&self) -> BoxFuture<'_, Result<(), LinkEnd>>;

    /// Lets go of a link that has ended for this reason, and tells the gateway, if that still listens. How long it may
    /// take is the caller's to bound.
    fn leave(self: Box<Self>, end: LinkEnd) -> BoxFuture<'static, ()>;

    /// When the last byte came.
    fn last_received(&self) -> Instant;

    /// Since when the gateway has not been seen to read: heartbeats, which it has answered over this link, have had no
    /// answer of any kind.
    fn unanswered_since(&self) -> Option<Instant> {
        None
    }

    /// Answers at this position and beyond are proven by their own acknowledgement or by a heartbeat that is still to be
    /// sent; [`Position::END`] where heartbeats prove nothing.
    fn fenced(&self) -> Position {
        Position::END
    }
}

/// The place of an answer among those that a session has sent: 0 for the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl Position {
    /// Behind every answer.
    pub const END: Self = Self(u64::MAX);

    /// The next one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What is to be sent.
#[derive(Debug)]
pub enum Outgoing {
    /// What is about no request.
    Control(Control),
    /// What ends a request that was not taken. It is neither kept nor proven.
    Refusal(Reply),
    /// A piece of an answer.
    Chunk(Chunk),
    /// What ends a request that was taken, shared with whoever keeps it until it is proven. An answer that is sent again
    /// over the same link keeps its position: to have read it once is to have read it.
    Answer(Position, Arc<Reply>),
}

impl Outgoing {
    /// The type of the frame.
    pub fn message(&self) -> AgentMessage {
        match self {
            Self::Control(control) => control.message(),
            Self::Chunk(_) => AgentMessage::InferenceChunk,
            Self::Refusal(reply) => reply.message,
            Self::Answer(_, reply) => reply.message,
        }
    }

    /// The text of the frame, `type` included.
    fn encode(&self) -> String {
        match self {
            Self::Control(control) => encode(control),
            Self::Chunk(chunk) => encode(chunk),
            Self::Refusal(reply) => encode(reply),
            Self::Answer(_, reply) => encode(reply.as_ref()),
        }
    }
}

/// What has come.
#[derive(Debug)]
pub enum Received {
    /// A frame.
    Frame(FromGateway),
    /// A frame that cannot be used.
    Unreadable(Unreadable),
    /// The gateway has read answers.
    Proof(Proof),
    /// A sign of life.
    Nothing,
}

/// Which answers the gateway is known to have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// This one.
    Answer(Position),
    /// All before this position.
    Before(Position),
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// We have closed it, and the gateway has read all that was sent.
    #[error("closed")]
    Finished,
    /// The gateway has closed it.
    #[error("closed")]
    Closed(Option<CloseFrame>),
    /// The connection broke.
    #[error("the connection broke")]
    Reset,
    /// A message is larger than is read.
    #[error("a frame is larger than PIN_MAX_FRAME_BYTES")]
    TooLarge,
    /// A text is not UTF-8.
    #[error("a frame is not UTF-8")]
    NotUtf8,
    /// The peer broke the transport's rules.
    #[error("it broke the WebSocket protocol")]
    Protocol,
}

/// What the gateway said when it closed a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// The code of RFC 6455, section 7.4; 1005 where there was none.
    pub code: u16,
    /// Why, in its own words; often empty.
    pub reason: String,
}

impl fmt::Display for CloseFrame {
    /// Fit for an operator's eyes, whatever the peer wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.code)?;
        match self.reason.as_str() {
            "" => Ok(()),
            reason => write!(f, " ({})", printable(reason)),
        }
    }
}
