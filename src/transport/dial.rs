//! Opens TCP connections, with TLS where asked for.
//!
//! Invariant: an address that does not answer does not keep the next one from being tried (RFC 8305).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Dial, DialError, Duplex, Endpoint, Step, Stream};

/// How long one address is given before the next is tried beside it: RFC 8305's recommended connection attempt delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How much the system may hold that it cannot send yet, in bytes: two batches of the outbox, so that it never runs dry.
const MAX_NOT_SENT: u32 = 128 * 1024;

/// Dials over the machine's own network.
pub struct TcpDialer {
    tls: TlsConnector,
    step_timeout: Duration,
}

impl TcpDialer {
    /// A dialer that trusts what `tls` trusts and gives each step `step_timeout`.
    pub fn new(tls: Arc<rustls::ClientConfig>, step_timeout: Duration) -> Self {
        Self {
            tls: TlsConnector::from(tls),
            step_timeout,
        }
    }

    async fn within<T>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        timeout(self.step_timeout, work)
            .await
            .unwrap_or(Err(DialError::Timeout {
                step,
                limit: self.step_timeout,
            }))
    }

    /// How long each step may take.
    pub(super) fn step_timeout(&self) -> Duration {
        self.step_timeout
    }

    /// Speaks TLS over a connection that leads to the endpoint, if that is what is spoken there.
    pub(super) async fn secure(
        &self,
        endpoint: &Endpoint,
        connection: impl Duplex + 'static,
    ) -> Result<Stream, DialError> {
        if endpoint.tls {
            let encrypted = self.encrypt(&endpoint.host, connection);
            self.within(Step::Tls, encrypted).await
        } else {
            Ok(Box::new(connection))
        }
    }

    async fn encrypt(
        &self,
        host: &str,
        connection: impl Duplex + 'static,
    ) -> Result<Stream, DialError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| DialError::Tls(error.to_string()))?;
        let stream = self
            .tls
            .connect(name, connection)
            .await
            .map_err(|error| DialError::Tls(error.to_string()))?;
        Ok(Box::new(stream))
    }
}

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        async move {
            let addresses = self
                .within(Step::Dns, resolve(&endpoint.host, endpoint.port))
                .await?;
            let tcp = self.within(Step::Tcp, first_to_answer(&addresses)).await?;
            prefer_latency(&tcp).map_err(|error| DialError::Tcp(error.kind()))?;
            self.secure(endpoint, tcp).await
        }
        .boxed()
    }
}

/// Frames are small and somebody waits for each. What the system would queue beyond what it can send is left with us
/// instead, where a control frame overtakes it: without that megabytes would be ahead of a heartbeat on a slow link.
fn prefer_latency(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_notsent_lowat(MAX_NOT_SENT)
}

/// The addresses of `host`, families taking turns, the system's preferred one first.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|_| DialError::Dns)?
        .collect();
    if addresses.is_empty() {
        return Err(DialError::Dns);
    }
    let mut seen_of_family = [0, 0];
    addresses.sort_by_cached_key(|address| {
        let seen = &mut seen_of_family[usize::from(address.is_ipv4())];
        *seen += 1;
        *seen
    });
    Ok(addresses)
}

async fn first_to_answer(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = DialError::Refused;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(*address));
        }
        let delay = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep(ATTEMPT_DELAY).await,
            }
        };
        tokio::select! {
            biased;
            attempt = attempts.next() => match attempt {
                Some(Ok(tcp)) => return Ok(tcp),
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => last_error = DialError::Refused,
                Some(Err(error)) => last_error = DialError::Tcp(error.kind()),
                None => return Err(last_error),
            },
            () = delay => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_address_where_nobody_listens_does_not_keep_the_next_from_being_reached() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [closed.local_addr().unwrap(), open.local_addr().unwrap()];
        drop(closed);
        let tcp = first_to_answer(&addresses).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), addresses[1]);
        assert!(matches!(
            first_to_answer(&addresses[..1]).await,
            Err(DialError::Refused)
        ));
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_a_dns_error() {
        assert!(matches!(
            resolve("no-such-host.invalid", 1).await,
            Err(DialError::Dns)
        ));
    }
}
