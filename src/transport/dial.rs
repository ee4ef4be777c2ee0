//! Opens TCP connections, with TLS where asked for.
//!
//! Invariant: an address that does not answer does not keep the next one from being tried (RFC 8305).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Dial, DialError, Duplex, Endpoint, Resolver, Step, Stream, Trust, tls_error};

/// How long one address is given before the next is tried beside it: RFC 8305's recommended connection attempt delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How much the system may hold that it cannot send yet, in bytes: two batches of the outbox, so that it never runs dry.
const MAX_NOT_SENT: u32 = 128 * 1024;

/// Dials over the machine's own network.
pub struct TcpDialer {
    tls: Trust,
    names: Resolver,
    step_timeout: Duration,
}

impl TcpDialer {
    /// A dialer that trusts what `tls` trusts, looks up `names`, and gives each step `step_timeout`.
    pub fn new(tls: impl Into<Trust>, names: Resolver, step_timeout: Duration) -> Self {
        Self {
            tls: tls.into(),
            names,
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

    /// Connects without TLS, whatever is spoken there.
    async fn connect(&self, endpoint: &Endpoint) -> Result<TcpStream, DialError> {
        let addresses = self
            .names
            .resolve(&endpoint.host, endpoint.port, self.step_timeout)
            .await?;
        let addresses = in_turns(with_a_route(addresses));
        let tcp = self.within(Step::Tcp, first_to_answer(&addresses)).await?;
        prefer_latency(&tcp).map_err(|error| DialError::Tcp(error.kind()))?;
        Ok(tcp)
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
        let connector = TlsConnector::from(self.tls.current().await);
        let stream = connector
            .connect(name, connection)
            .await
            .map_err(|error| DialError::Tls(tls_error::explain(&error)))?;
        Ok(Box::new(stream))
    }
}

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        async move {
            let tcp = self.connect(endpoint).await?;
            self.secure(endpoint, tcp).await
        }
        .boxed()
    }

    fn trouble(&self) -> Option<String> {
        self.tls.trouble()
    }

    fn read_again(&self) -> BoxFuture<'_, ()> {
        self.tls.read_again().boxed()
    }
}

/// Frames are small and somebody waits for each. What the system would queue beyond what it can send is left with us
/// instead, where a control frame overtakes it: without that megabytes would be ahead of a heartbeat on a slow link.
fn prefer_latency(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_notsent_lowat(MAX_NOT_SENT)
}

/// The addresses to which this machine has a route; all of them if it has none at all. Without IPv6 to the outside, what
/// an IPv4 address has to say would else be followed by an error of no use.
fn with_a_route(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let reachable: Vec<_> = addresses.iter().copied().filter(has_route).collect();
    if reachable.is_empty() {
        addresses
    } else {
        reachable
    }
}

/// Connecting a UDP socket sends nothing: the system only looks for a way.
fn has_route(address: &SocketAddr) -> bool {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect(address).is_ok())
}

/// The families taking turns, beginning with that of the first address.
fn in_turns(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen_of_family = [0, 0];
    addresses.sort_by_cached_key(|address| {
        let seen = &mut seen_of_family[usize::from(address.is_ipv4())];
        *seen += 1;
        *seen
    });
    addresses
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
    use std::net::SocketAddrV6;

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

    /// A connection to a server that is there, opened as any to a gateway or an Ollama is.
    async fn dialled() -> TcpStream {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: server.local_addr().unwrap().port(),
            tls: false,
        };
        let tls = crate::transport::client_config(None).unwrap();
        let dialer = TcpDialer::new(tls, Resolver::default(), Duration::from_secs(10));
        dialer.connect(&endpoint).await.unwrap()
    }

    #[tokio::test]
    async fn a_small_frame_does_not_wait_for_the_acknowledgement_of_the_one_before() {
        assert!(dialled().await.nodelay().unwrap());
    }

    #[tokio::test]
    async fn what_the_system_cannot_send_yet_waits_where_a_heartbeat_can_overtake_it() {
        let tcp = dialled().await;
        let not_sent = SockRef::from(&tcp).tcp_notsent_lowat().unwrap();
        assert_eq!(not_sent, MAX_NOT_SENT);
    }

    #[test]
    fn both_families_get_their_chance_early() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [six, seven] = ["[2001:db8::6]:1", "[2001:db8::7]:1"].map(parse);
        let [four, five] = ["192.0.2.4:1", "192.0.2.5:1"].map(parse);
        assert_eq!(
            in_turns(vec![six, seven, four, five]),
            [six, four, seven, five]
        );
        assert_eq!(in_turns(vec![four, five]), [four, five]);
    }

    #[test]
    fn an_address_without_a_route_is_tried_only_if_there_is_no_other() {
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        // Another zone's loopback: there is no such interface.
        let nowhere = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 1, 0, u32::MAX);
        let nowhere = SocketAddr::from(nowhere);
        assert_eq!(with_a_route(vec![nowhere, here]), [here]);
        assert_eq!(with_a_route(vec![nowhere]), [nowhere]);
    }
}
