//! The network between two ends of a TCP connection, as a proxy that can be broken in the ways a network breaks.

mod line;
mod storm;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

pub use storm::Storm;

use crate::listener::{ANY_LOOPBACK, Listener};
use line::Line;

/// One of the two directions, as seen by the client: who connects to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the target.
    Up,
    /// From the target to the client.
    Down,
}

/// How bytes travel in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As they come.
    #[default]
    Full,
    /// Each in a segment of its own.
    Bytewise,
    /// So many a second, out of small buffers, so that the sender notices.
    Slow {
        /// At least one.
        bytes_per_second: usize,
    },
}

/// Which connections a loss hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that are open.
    Open,
    /// Those that are open and those to come.
    All,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// Bytes flow.
    #[default]
    Whole,
    /// Connections stand, new ones are taken, and nothing flows: not even the end of a connection.
    Stalled,
    /// Connections are reset, new ones refused.
    Cut,
}

/// What holds for all connections.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    mode: Mode,
    up: Condition,
    down: Condition,
}

/// What holds in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    pace: Pace,
    /// Connections with a number below this have lost the direction.
    lost_below: usize,
}

/// What all connections share.
struct Network {
    target: SocketAddr,
    weather: watch::Sender<Weather>,
    taken: AtomicUsize,
    /// How many more bytes may pass, up and down, before the connection that carries the last of them is reset.
    fuses: [AtomicU64; 2],
}

/// A running proxy; it stops when this is dropped.
pub struct Proxy {
    network: Arc<Network>,
    listener: Listener,
}

impl Proxy {
    /// Leads from a loopback port, which the system chooses, to `target`.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let network = Arc::new(Network {
            target,
            weather: watch::Sender::default(),
            taken: AtomicUsize::new(0),
            fuses: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
        });
        let shared = Arc::clone(&network);
        let listener = Listener::start(ANY_LOOPBACK, move |client| {
            let number = shared.taken.fetch_add(1, Ordering::Relaxed);
            Line::serve(Arc::clone(&shared), number, client)
        })?;
        Ok(Self { network, listener })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.network.taken.load(Ordering::Relaxed)
    }

    /// Resets every connection at both ends and refuses new ones.
    pub async fn cut(&self) {
        self.change(|weather| weather.mode = Mode::Cut);
        self.listener.stop().await;
    }

    /// Keeps connections, takes new ones, and forwards nothing: what happens when a cable is out for a moment. What is
    /// sent meanwhile arrives after [`mend`](Proxy::mend).
    pub fn stall(&self) {
        self.change(|weather| weather.mode = Mode::Stalled);
    }

    /// Half-open: what is sent in this direction vanishes without a FIN or a reset, a connection's end included, as
    /// when a peer's power is cut or a firewall has forgotten a connection. A connection that has lost a direction
    /// never gets it back.
    pub fn lose(&self, way: Way, reach: Reach) {
        let hit = match reach {
            Reach::Open => self.connections(),
            Reach::All => usize::MAX,
        };
        self.change(|weather| weather.way(way).lost_below = hit);
    }

    /// How bytes travel in this direction from now on.
    pub fn pace(&self, way: Way, pace: Pace) {
        self.change(|weather| weather.way(way).pace = pace);
    }

    /// Resets the connection that carries the last of the next so many bytes in this direction, once. New ones are
    /// taken.
    pub fn reset_after(&self, way: Way, bytes: u64) {
        self.network.fuses[way as usize].store(bytes.max(1), Ordering::Relaxed);
    }

    /// Forwards again, all that comes, and listens again on the same port. Connections that lost a direction stay as
    /// they are.
    ///
    /// # Errors
    /// The system refuses the port.
    pub async fn mend(&self) -> io::Result<()> {
        for fuse in &self.network.fuses {
            fuse.store(u64::MAX, Ordering::Relaxed);
        }
        let taken = self.connections();
        self.change(|weather| {
            let mended = |condition: Condition| Condition {
                pace: Pace::Full,
                lost_below: condition.lost_below.min(taken),
            };
            *weather = Weather {
                mode: Mode::Whole,
                up: mended(weather.up),
                down: mended(weather.down),
            };
        });
        self.listener.start_again()
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.network.weather.send_modify(change);
    }
}

impl Weather {
    fn way(&mut self, way: Way) -> &mut Condition {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    fn condition(&self, way: Way) -> Condition {
        match way {
            Way::Up => self.up,
            Way::Down => self.down,
        }
    }

    /// Whether this connection has lost a direction.
    fn is_lost(&self, number: usize, way: Way) -> bool {
        number < self.condition(way).lost_below
    }
}

impl Network {
    /// Counts bytes that have passed; true if a fuse has burnt through.
    fn burn(&self, way: Way, bytes: usize) -> bool {
        let fuse = &self.fuses[way as usize];
        let burn = |left: u64| {
            let armed = left != u64::MAX;
            armed.then(|| match left.saturating_sub(bytes as u64) {
                0 => u64::MAX,
                rest => rest,
            })
        };
        let before = fuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, burn);
        before.is_ok_and(|left| left <= bytes as u64)
    }

    /// How many bytes may pass before a fuse burns through.
    fn fuse(&self, way: Way) -> usize {
        let left = self.fuses[way as usize].load(Ordering::Relaxed);
        usize::try_from(left).unwrap_or(usize::MAX)
    }
}
