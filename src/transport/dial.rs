//! Opens TCP connections, with TLS where asked for.
//!
//! Invariant: an address that does not answer does not keep the next one from being tried (RFC 8305), whether it is silent
//! from the start or takes the connection and says nothing to TLS.

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
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::{
    Dial, DialError, Duplex, Endpoint, Findings, Probe, Resolver, Step, Stream, TlsFindings, Trust,
    address_order::AddressOrder, tls_error,
};

/// How long one address is given before the next is tried beside it: RFC 8305's recommended connection attempt delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long a connection is given for TLS before the next address is tried beside it. Longer, since the peer is there, and
/// over a slow link or behind a busy machine this takes some round trips.
const TLS_DELAY: Duration = Duration::from_secs(2);

/// How much the system may hold that it cannot send yet, in bytes: two batches of the outbox, so that it never runs dry.
const MAX_NOT_SENT: u32 = 128 * 1024;

/// Dials over the machine's own network.
pub struct TcpDialer {
    tls: Trust,
    names: Resolver,
    step_timeout: Duration,
    order: AddressOrder,
    probe: Probe,
}

impl TcpDialer {
    /// A dialer that trusts what `tls` trusts, looks up `names`, and gives each step `step_timeout`.
    pub fn new(tls: impl Into<Trust>, names: Resolver, step_timeout: Duration) -> Self {
        Self {
            tls: tls.into(),
            names,
            step_timeout,
            order: AddressOrder::default(),
            probe: Probe::default(),
        }
    }

    /// The same dialer, noting what it finds.
    #[must_use]
    pub fn noting(self, probe: Probe) -> Self {
        Self { probe, ..self }
    }

    /// Where it notes that.
    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    fn too_slow(&self, step: Step) -> DialError {
        DialError::Timeout {
            step,
            limit: self.step_timeout,
        }
    }

    /// How long each step may take.
    pub(super) fn step_timeout(&self) -> Duration {
        self.step_timeout
    }

    /// The addresses of an endpoint, in the order in which to try them.
    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, DialError> {
        let (host, port) = (&endpoint.host, endpoint.port);
        let found = self.names.resolve(host, port, self.step_timeout).await?;
        let note = |findings: &mut Findings| {
            findings.addresses = Some((Instant::now(), found.clone()));
        };
        self.probe.note(note);
        Ok(self.order.of(endpoint, with_a_route(found)))
    }

    /// The connection to the first address that has one, TLS included. An address is tried when those before it have
    /// failed or had their time; they may still come first.
    async fn first_to_answer(
        &self,
        endpoint: &Endpoint,
        addresses: &[SocketAddr],
    ) -> Result<(SocketAddr, Stream), DialError> {
        let began = Instant::now();
        let mut waiting = addresses.iter();
        let (mut connecting, mut securing) = (FuturesUnordered::new(), FuturesUnordered::new());
        let mut next_due = began;
        let mut failure = None;
        loop {
            if next_due <= Instant::now()
                && let Some(address) = waiting.next()
            {
                connecting.push(self.connect(*address, began + self.step_timeout));
                next_due = Instant::now() + ATTEMPT_DELAY;
            }
            let failed = tokio::select! {
                biased;
                Some(secured) = securing.next() => match secured {
                    Ok(reached) => return Ok(reached),
                    Err(error) => error,
                },
                Some(connected) = connecting.next() => match connected {
                    Ok((address, tcp)) => {
                        let secure = self.secure(endpoint, tcp);
                        securing.push(secure.map(move |stream| Ok((address, stream?))));
                        next_due = Instant::now() + TLS_DELAY.min(self.step_timeout / 4);
                        continue;
                    }
                    Err(error) => error,
                },
                () = sleep_until(next_due), if waiting.len() > 0 => continue,
                else => return Err(failure.unwrap_or(DialError::Refused)),
            };
            next_due = Instant::now();
            failure = Some(further(failure, failed));
        }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        deadline: Instant,
    ) -> Result<(SocketAddr, TcpStream), DialError> {
        let connected = timeout_at(deadline, TcpStream::connect(address)).await;
        let tcp = match connected {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(DialError::Refused);
            }
            Ok(Err(error)) => return Err(DialError::Tcp(error.kind())),
            Err(_) => return Err(self.too_slow(Step::Tcp)),
        };
        self.probe
            .note(|findings| findings.connected = Some((Instant::now(), address)));
        prefer_latency(&tcp);
        Ok((address, tcp))
    }

    /// Speaks TLS over a connection that leads to the endpoint, if that is what is spoken there.
    pub(super) async fn secure(
        &self,
        endpoint: &Endpoint,
        connection: impl Duplex + 'static,
    ) -> Result<Stream, DialError> {
        if endpoint.tls {
            let encrypted = self.encrypt(&endpoint.host, connection);
            let encrypted = timeout(self.step_timeout, encrypted).await;
            encrypted.unwrap_or_else(|_| Err(self.too_slow(Step::Tls)))
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
            .map_err(|error| DialError::Tls(format!("{error}; correct the host")))?;
        let sent = matches!(name, ServerName::DnsName(_)).then(|| host.to_owned());
        let connector = TlsConnector::from(self.tls.current().await);
        let stream = connector
            .connect(name, connection)
            .await
            .map_err(|error| DialError::Tls(tls_error::explain(&error)))?;
        self.probe.note(|findings| {
            let found = TlsFindings::of(stream.get_ref().1, sent);
            findings.secured = Some((Instant::now(), found));
        });
        Ok(Box::new(stream))
    }
}

impl Dial for TcpDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        async move {
            let addresses = self.addresses(endpoint).await?;
            let (reached, stream) = self.first_to_answer(endpoint, &addresses).await?;
            self.order
                .reached(endpoint, addresses.first().copied(), reached);
            Ok(stream)
        }
        .boxed()
    }

    fn suspect(&self, endpoint: &Endpoint) {
        self.order.suspect(endpoint);
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
/// A system that refuses one of these (seccomp, gVisor) makes a connection slower, not useless.
fn prefer_latency(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    for (option, set) in [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        (
            "TCP_NOTSENT_LOWAT",
            socket.set_tcp_notsent_lowat(MAX_NOT_SENT),
        ),
    ] {
        if let Err(error) = set {
            debug!(option, %error, "the system refuses an option of the socket, which goes on without it");
        }
    }
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

/// Of two failures the one that tells more: it got as far as TLS, or came later.
fn further(before: Option<DialError>, now: DialError) -> DialError {
    let is_of_tls = |error: &DialError| {
        matches!(
            error,
            DialError::Tls(_)
                | DialError::Timeout {
                    step: Step::Tls,
                    ..
                }
        )
    };
    before
        .filter(|before| is_of_tls(before) && !is_of_tls(&now))
        .unwrap_or(now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Read as _, net::SocketAddrV6, os::fd::OwnedFd};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn an_address_where_nobody_listens_does_not_keep_the_next_from_being_reached() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [closed.local_addr().unwrap(), open.local_addr().unwrap()];
        drop(closed);
        let (dialer, endpoint) = (dialer(), endpoint_at(addresses[1]));
        let reached = dialer.first_to_answer(&endpoint, &addresses).await;
        assert_eq!(reached.ok().unwrap().0, addresses[1]);
        let nobody = dialer.first_to_answer(&endpoint, &addresses[..1]).await;
        assert!(matches!(nobody.err(), Some(DialError::Refused)));
    }

    fn dialer() -> TcpDialer {
        let tls = crate::transport::client_config(None).unwrap();
        TcpDialer::new(tls, Resolver::default(), Duration::from_secs(10))
    }

    fn endpoint_at(address: SocketAddr) -> Endpoint {
        Endpoint {
            host: address.ip().to_string(),
            port: address.port(),
            tls: false,
        }
    }

    /// A connection to a server that is there, opened as any to a gateway or an Ollama is.
    async fn dialled() -> TcpStream {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        dialer().connect(address, deadline).await.unwrap().1
    }

    #[test]
    fn what_tls_says_is_not_hidden_by_an_address_where_nobody_listens() {
        let tls = || DialError::Tls("unknown issuer".to_owned());
        for (before, now) in [
            (Some(tls()), DialError::Refused),
            (Some(DialError::Refused), tls()),
        ] {
            assert!(matches!(further(before, now), DialError::Tls(_)));
        }
        assert!(matches!(
            further(None, DialError::Refused),
            DialError::Refused
        ));
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

    #[tokio::test]
    async fn a_system_that_refuses_options_is_no_reason_not_to_connect() {
        // These are options of TCP, which a socket of another kind refuses.
        let (socket, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = std::net::TcpStream::from(OwnedFd::from(socket));
        let mut tcp = TcpStream::from_std(socket).unwrap();
        assert!(SockRef::from(&tcp).set_tcp_nodelay(true).is_err());
        prefer_latency(&tcp);
        tcp.write_all(b"frame").await.unwrap();
        let mut read = [0; 5];
        peer.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"frame");
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
