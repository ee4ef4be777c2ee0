//! Ways to reach others: dialling (DNS, TCP, a proxy, TLS), and asking over HTTP.
//!
//! Everything above knows the network through [`Dial`] alone, so that the same code runs over a network that is not
//! there. Invariant: each step of reaching somebody has its own time limit and its own error.

mod address_order;
mod connections;
mod credentials;
mod dial;
mod error;
pub mod http;
mod meter;
mod pem;
mod probe;
mod proxy;
mod resolve;
mod tls;
mod tls_error;
mod trust;

pub use connections::Connections;
pub use credentials::Credentials;
pub use dial::TcpDialer;
pub use error::{DialError, ProxyError, Step};
pub use meter::{Meter, Metered};
pub use probe::{Findings, Probe, TlsFindings};
pub use proxy::ProxyDialer;
pub use resolve::{LookupFailure, NameError, Resolver, ServerFailure, Sources, UnreadableFile};
pub use tls::{TlsError, client_config};
pub use trust::Trust;

use std::fmt;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Origin;

/// What we call ourselves: to a proxy, and to the gateway unless PIN_USER_AGENT says otherwise.
pub(crate) const AGENT: &str = concat!("pin-sidecar/", env!("CARGO_PKG_VERSION"));

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

impl From<&Origin> for Endpoint {
    fn from(origin: &Origin) -> Self {
        Self {
            host: origin.host().to_owned(),
            port: origin.port(),
            tls: origin.tls(),
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

    /// The last connection to this endpoint was of no use: another of its addresses may do better.
    fn suspect(&self, _endpoint: &Endpoint) {}

    /// What is wrong with the files that it works with, though the last good ones still serve.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Reads those files again now, rather than for the next connection.
    fn read_again(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}
