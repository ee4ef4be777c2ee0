//! The network between two ends of a TCP connection, as a proxy that can be broken in the ways a network breaks.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

use crate::listener::{Listener, Reset};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes flow.
    Whole,
    /// Connections stand, new ones are taken, and nothing flows: not even the end of a connection.
    Stalled,
    /// Connections are reset, new ones refused.
    Cut,
}

/// A running proxy; it stops when this is dropped.
pub struct Proxy {
    mode: watch::Sender<Mode>,
    taken: Arc<AtomicUsize>,
    listener: Listener,
}

impl Proxy {
    /// Leads from a loopback port, which the system chooses, to `target`.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let mode = watch::Sender::new(Mode::Whole);
        let taken = Arc::new(AtomicUsize::new(0));
        let (modes, count) = (mode.clone(), Arc::clone(&taken));
        let listener = Listener::start(move |client| {
            count.fetch_add(1, Ordering::Relaxed);
            forward(client, target, modes.subscribe())
        })?;
        Ok(Self {
            mode,
            taken,
            listener,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Resets every connection at both ends and refuses new ones.
    pub async fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
        self.listener.stop().await;
    }

    /// Keeps connections, takes new ones, and forwards nothing: what happens when a peer's power is cut or a firewall
    /// has forgotten a connection. What is sent meanwhile arrives after [`mend`](Proxy::mend).
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stalled);
    }

    /// Forwards again, and listens again on the same port.
    ///
    /// # Errors
    /// The system refuses the port.
    pub async fn mend(&self) -> io::Result<()> {
        self.mode.send_replace(Mode::Whole);
        self.listener.start_again()
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    // Each failure ends this connection, as the end of its other half would.
    let _ = mode.wait_for(|mode| *mode == Mode::Whole).await;
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let Ok(_ends) = Ends::of(&client, &server, &mode) else {
        return;
    };
    // Halves that own the stream would say goodbye when dropped, and a cut must not.
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (there, back) = (
        pump(from_client, to_server, mode.clone()),
        pump(from_server, to_client, mode),
    );
    let _ = tokio::try_join!(there, back);
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    to.as_ref().set_nodelay(true)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        mode.wait_for(|mode| *mode == Mode::Whole)
            .await
            .map_err(io::Error::other)?;
        let read = tokio::select! {
            biased;
            _ = mode.wait_for(|mode| *mode != Mode::Whole) => continue,
            read = from.read(&mut buffer) => read?,
        };
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Both ends of a connection; they are reset if it is dropped because the network was cut.
struct Ends {
    resets: [Reset; 2],
    mode: watch::Receiver<Mode>,
}

impl Ends {
    fn of(
        client: &TcpStream,
        server: &TcpStream,
        mode: &watch::Receiver<Mode>,
    ) -> io::Result<Self> {
        Ok(Self {
            resets: [Reset::of(client)?, Reset::of(server)?],
            mode: mode.clone(),
        })
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if *self.mode.borrow() == Mode::Cut {
            self.resets.iter().for_each(Reset::on_drop);
        }
    }
}
