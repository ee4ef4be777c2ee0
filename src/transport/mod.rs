//! Ways to reach others: dialling (DNS, TCP, TLS) and the link of frames that a session runs over.
//!
//! Everything above knows the network through [`Dial`] alone, so that the same code runs over a network that is not
//! there. Invariant: each step of reaching somebody has its own time limit and its own error.

mod dial;
mod error;
mod meter;
mod resolve;
mod tls;
mod websocket;

pub use dial::TcpDialer;
pub use error::{ConnectError, DialError, Step};
pub use meter::Meter;
pub use resolve::{NameError, Resolver, ServerTrouble, Sources, Trouble};
pub use tls::{TlsError, client_config};
pub use websocket::{Item, LinkEnd, LinkLimits, Received, Receiver, Sender, connect};

use std::fmt;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::{BackendUrl, GatewayUrl};

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

impl From<&GatewayUrl> for Endpoint {
    fn from(url: &GatewayUrl) -> Self {
        Self {
            host: url.host().to_owned(),
            port: url.port(),
            tls: url.tls(),
        }
    }
}

impl From<&BackendUrl> for Endpoint {
    fn from(url: &BackendUrl) -> Self {
        Self {
            host: url.host().to_owned(),
            port: url.port(),
            tls: url.tls(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A connection, ready to be spoken over.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection of any kind. One indirect call a read or write, beside the system call, is nothing; in return neither
/// session nor inference need to be generic.
pub type Stream = Box<dyn Duplex>;

/// Opens connections.
pub trait Dial: Send + Sync {
    /// Connects, TLS included where the endpoint says so.
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>>;
}
