//! A listener, on loopback unless told otherwise, that can be stopped and started again on the same port; or one at the
//! end of a wire that is not there, where there are no ports.
//!
//! Invariants: while it lives nobody else is given its port, also while nothing listens there and connections are
//! refused; nothing that it serves outlives it, nor a stop.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    journal::lock,
    sim::wire::{End, Link},
};

const BACKLOG: u32 = 4096;

/// After a failed accept: the reason is nearly always a lack of file descriptors, which passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port of this machine's own that the system chooses.
pub(crate) const ANY_LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Stands in a URL for the far end of a wire: whoever dials one is there, whatever the address.
const FAR_END: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

type Serve = Arc<dyn Fn(TcpStream) -> BoxFuture<'static, ()> + Send + Sync>;

pub(crate) struct Listener {
    /// `None`: at the end of a wire.
    port: Option<(Port, Serve)>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Listener {
    /// Opens a port, one that the system chooses if it is 0; each connection is served by its own task.
    pub(crate) fn start<F>(
        addr: SocketAddr,
        serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let serve: Serve = Arc::new(move |stream| Box::pin(serve(stream)));
        let listener = Self {
            port: Some((Port::reserve(addr)?, serve)),
            running: Mutex::new(None),
        };
        listener.start_again()?;
        Ok(listener)
    }

    /// Serves what arrives over a wire.
    pub(crate) fn on_wire<F>(
        mut arrivals: mpsc::UnboundedReceiver<End>,
        serve: impl Fn(End) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    () = stopped.cancelled() => break,
                    Some(end) = arrivals.recv() => { connections.spawn(serve(end)); }
                    Some(_) = connections.join_next() => {}
                }
            }
            connections.shutdown().await;
        });
        Self {
            port: None,
            running: Mutex::new(Some(Running { stop, task })),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.as_ref().map_or(FAR_END, |(port, _)| port.addr)
    }

    /// Ends what is served and refuses connections; both are done when this returns.
    pub(crate) async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(Running { stop, task }) = running {
            stop.cancel();
            // Fails only if the runtime itself is going away.
            let _ = task.await;
        }
    }

    /// Does nothing if it is listening. Fails at the end of a wire: there it is the wire that is cut and mended.
    pub(crate) fn start_again(&self) -> io::Result<()> {
        let mut running = lock(&self.running);
        if running.is_none() {
            let (port, serve) = self.port.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            let stop = CancellationToken::new();
            let task = tokio::spawn(accept(port.listen()?, Arc::clone(serve), stop.clone()));
            *running = Some(Running { stop, task });
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.running).take() {
            running.stop.cancel();
        }
    }
}

async fn accept(listener: TcpListener, serve: Serve, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(serve(stream)); }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

struct Port {
    addr: SocketAddr,
    /// Bound and never listening: it holds the number.
    _reservation: TcpSocket,
}

impl Port {
    fn reserve(addr: SocketAddr) -> io::Result<Self> {
        let reservation = bound(addr)?;
        Ok(Self {
            addr: reservation.local_addr()?,
            _reservation: reservation,
        })
    }

    fn listen(&self) -> io::Result<TcpListener> {
        bound(self.addr)?.listen(BACKLOG)
    }
}

fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// A free port for a process that can only be told a number, kept from everybody else who wants any free port for as
/// long as the socket is held. Who asks for it by its number and with `SO_REUSEADDR` gets it.
pub(crate) fn reserved_port() -> io::Result<(u16, socket2::Socket)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&ANY_LOOPBACK.into())?;
    let addr = socket.local_addr()?.as_socket();
    Ok((addr.map_or(0, |addr| addr.port()), socket))
}

/// A second handle on a connection, through which it can be reset while somebody else reads and writes it.
pub(crate) enum Reset {
    Socket(socket2::Socket),
    Wire(Link, u64),
}

impl Reset {
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        socket2::SockRef::from(stream).try_clone().map(Self::Socket)
    }

    pub(crate) fn of_wire(end: &End) -> Self {
        Self::Wire(end.link(), end.number())
    }

    /// Makes the end of the connection, which comes when its last handle is dropped, a TCP reset: no goodbye, and
    /// what was not read yet is lost.
    pub(crate) fn on_drop(&self) {
        match self {
            // Fails only on a socket that is gone already.
            Self::Socket(socket) => drop(socket.set_linger(Some(Duration::ZERO))),
            Self::Wire(link, number) => link.reset(*number),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_stopped_listener_refuses_and_drops_and_comes_back_on_its_port() {
        let listener = Listener::start(ANY_LOOPBACK, |stream| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
        .unwrap();
        for _ in 0..3 {
            let mut open = TcpStream::connect(listener.addr()).await.unwrap();
            listener.stop().await;
            assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
            let refused = TcpStream::connect(listener.addr()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            listener.start_again().unwrap();
        }
    }
}
