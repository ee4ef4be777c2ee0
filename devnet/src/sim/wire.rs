//! A network that is not there: connections whose bytes take time, get stuck, vanish and break on command.
//!
//! Invariant: bytes of one direction arrive in order or not at all; a pipe never holds more than [`BUFFER`] bytes that
//! the other end has not read; nothing here looks at a clock other than tokio's, and nothing polls.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

use super::{
    fate::Fate,
    pipe::{Mark, Pipe},
    trace::Trace,
};
use crate::journal::lock;

pub use super::{end::End, pipe::BUFFER};

/// A client that got no answer asks for the connection again after so long.
const KNOCK_AGAIN: Duration = Duration::from_secs(1);

/// What new connections and bytes meet.
#[derive(Clone, Debug)]
pub struct Weather {
    /// How long a byte travels.
    pub latency: Duration,
    /// What is added to that, between nothing and this.
    pub jitter: Duration,
    /// Bytes per second and direction; `None`: as many as there are.
    pub rate: Option<u64>,
    /// Now and then a read gives at most so many bytes; `None`: all there is.
    pub pieces: Option<usize>,
    /// What becomes of somebody who dials.
    pub dialling: Dialling,
    /// Whether what is under way is held back.
    pub held: bool,
    /// Whether the client's system takes nothing more from it.
    pub stuck: bool,
}

/// What becomes of somebody who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialling {
    /// A connection.
    Accepted,
    /// Connection refused.
    Refused,
    /// Nothing, until that changes.
    Hangs,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever dialled.
    Client,
    /// Whoever was dialled.
    Server,
}

/// What is known of a connection from outside.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// When the client's end was let go; `None`: it is open.
    pub client_closed: Option<Instant>,
    /// When it was cut, if it was.
    pub cut: Option<Instant>,
    /// Whether that took it from a client that still held its end.
    pub client_cut_off: bool,
    /// When it became half-open towards the client, if it did.
    pub deaf: Option<Instant>,
    /// When it became half-open towards the server, if it did.
    pub mute: Option<Instant>,
    /// When the client's writing last had to wait for room, if ever.
    pub client_blocked: Option<Instant>,
    /// Bytes that the client has written.
    pub written_up: u64,
    /// Bytes that the client wrote and the server has not read.
    pub under_way_up: u64,
}

/// A way to one server. Cheap to clone.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Mutex<State>>);

pub(super) struct State {
    pub(super) name: &'static str,
    pub(super) weather: Weather,
    pub(super) fate: Fate,
    pub(super) trace: Trace,
    pub(super) connections: BTreeMap<u64, Connection>,
    dialled: u64,
    most_open: usize,
    calm_since: Instant,
    /// Told when the weather has changed.
    changed: Arc<Notify>,
    incoming: mpsc::UnboundedSender<End>,
}

pub(super) struct Connection {
    /// From the client to the server.
    up: Pipe,
    /// From the server to the client.
    down: Pipe,
    pub(super) client_closed: Option<Instant>,
    cut: Option<Instant>,
    client_cut_off: bool,
    deaf: Option<Instant>,
    mute: Option<Instant>,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            jitter: Duration::ZERO,
            rate: None,
            pieces: None,
            dialling: Dialling::Accepted,
            held: false,
            stuck: false,
        }
    }
}

impl Link {
    /// A link of this name, and what arrives at its server. The queue of arrivals is bounded by the one client, which
    /// dials again only when it has given up what came of it before.
    pub fn new(
        name: &'static str,
        weather: Weather,
        fate: Fate,
        trace: Trace,
    ) -> (Self, mpsc::UnboundedReceiver<End>) {
        let (incoming, arrivals) = mpsc::unbounded_channel();
        let state = State {
            name,
            weather,
            fate,
            trace,
            connections: BTreeMap::new(),
            dialled: 0,
            most_open: 0,
            calm_since: Instant::now(),
            changed: Arc::default(),
            incoming,
        };
        (Self(Arc::new(Mutex::new(state))), arrivals)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Nobody listens there just now.
    pub async fn dial(&self) -> io::Result<End> {
        loop {
            let changed = Arc::clone(&lock(&self.0).changed);
            let mut changed = std::pin::pin!(changed.notified());
            // Listening begins before looking, so that no change is missed.
            changed.as_mut().enable();
            let (dialling, round_trip) = self.dialling();
            if dialling == Dialling::Hangs {
                changed.await;
                sleep(KNOCK_AGAIN).await;
                continue;
            }
            sleep(round_trip).await;
            match (dialling, self.dialling().0) {
                (_, Dialling::Hangs) => {}
                (Dialling::Accepted, Dialling::Accepted) => return Ok(self.connect()),
                _ => return Err(self.refuse()),
            }
        }
    }

    fn refuse(&self) -> io::Error {
        let state = lock(&self.0);
        state
            .trace
            .say(format_args!("{}: connection refused", state.name));
        io::ErrorKind::ConnectionRefused.into()
    }

    fn dialling(&self) -> (Dialling, Duration) {
        let state = lock(&self.0);
        let dialling = if state.weather.held {
            Dialling::Hangs
        } else {
            state.weather.dialling
        };
        (dialling, state.weather.latency * 2)
    }

    fn connect(&self) -> End {
        let mut state = lock(&self.0);
        state.dialled += 1;
        let number = state.dialled;
        state.connections.insert(number, Connection::new());
        state.most_open = state.most_open.max(state.open());
        state
            .trace
            .say(format_args!("{}: connection {number} opens", state.name));
        // A link whose server is gone leaves its clients alone with a silent connection, which is what it is.
        let sent = state.incoming.send(End::new(self, number, Side::Server));
        drop(state);
        // An end that nobody takes closes itself, for which it wants the state.
        drop(sent);
        End::new(self, number, Side::Client)
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        let mut state = lock(&self.0);
        let (was_held, was_slow) = (state.weather.held, state.weather.rate.is_some());
        change(&mut state.weather);
        let now = Instant::now();
        state.calm_since = now;
        if was_held && !state.weather.held {
            let latency = state.weather.latency;
            state.each(|connection| {
                connection.up.release(now + latency);
                connection.down.release(now + latency);
            });
        }
        if was_slow && state.weather.rate.is_none() {
            let due = now + state.weather.latency + state.weather.jitter;
            state.each(|connection| {
                connection.up.hasten(due);
                connection.down.hasten(due);
            });
        }
        if !state.weather.stuck {
            state.each(|connection| connection.up.make_room());
        }
        let weather = state.weather.clone();
        state.changed.notify_waiters();
        state
            .trace
            .say(format_args!("{}: weather {weather:?}", state.name));
    }

    /// Breaks every connection: both ends are told at once, what is under way is lost.
    pub fn cut(&self) {
        let mut state = lock(&self.0);
        let now = Instant::now();
        state.trace.say(format_args!("{}: cut", state.name));
        state.calm_since = now;
        state.each(|connection| connection.reset(now));
    }

    /// Breaks one connection in the same way.
    pub fn reset(&self, number: u64) {
        let mut state = lock(&self.0);
        state
            .trace
            .say(format_args!("{}: connection {number} is reset", state.name));
        if let Some(connection) = state.connections.get_mut(&number) {
            connection.reset(Instant::now());
        }
    }

    /// Makes every connection that is open carry nothing any more, in one or both directions, without telling anybody.
    pub fn lose(&self, up: bool, down: bool) {
        let mut state = lock(&self.0);
        let now = Instant::now();
        state.calm_since = now;
        state
            .trace
            .say(format_args!("{}: loses up={up} down={down}", state.name));
        state.each(|connection| {
            if up {
                connection.up.lose();
                connection.mute.get_or_insert(now);
            }
            if down {
                connection.down.lose();
                connection.deaf.get_or_insert(now);
            }
        });
    }

    /// Since when nothing was done to the link.
    pub fn calm_since(&self) -> Instant {
        lock(&self.0).calm_since
    }

    /// Whether somebody who dials gets through.
    pub fn is_usable(&self) -> bool {
        self.dialling().0 == Dialling::Accepted
    }

    /// Whether dials get through and nothing is slowed down.
    pub fn is_free(&self) -> bool {
        self.is_usable() && lock(&self.0).weather.rate.is_none()
    }

    /// How long a byte may travel at most, the rate aside.
    pub fn latency(&self) -> Duration {
        let state = lock(&self.0);
        state.weather.latency + state.weather.jitter
    }

    /// How many connections are open at the client's end.
    pub fn open(&self) -> usize {
        lock(&self.0).open()
    }

    /// How many connections there ever were.
    pub fn dialled(&self) -> u64 {
        lock(&self.0).dialled
    }

    /// The most connections that ever were open at once at the client's end.
    pub fn most_open(&self) -> usize {
        lock(&self.0).most_open
    }

    /// When the client began to write on each connection that it has written on, in order.
    pub fn begun(&self) -> Vec<Instant> {
        let state = lock(&self.0);
        let connections = state.connections.values();
        connections
            .filter_map(|connection| connection.up.began())
            .collect()
    }

    /// When the client last let go of a connection.
    pub fn last_closed(&self) -> Option<Instant> {
        let state = lock(&self.0);
        state
            .connections
            .values()
            .filter_map(|connection| connection.client_closed)
            .max()
    }

    /// What is known of a connection.
    pub fn facts(&self, number: u64) -> Option<Facts> {
        let state = lock(&self.0);
        let connection = state.connections.get(&number)?;
        Some(Facts {
            client_closed: connection.client_closed,
            cut: connection.cut,
            client_cut_off: connection.client_cut_off,
            deaf: connection.deaf,
            mute: connection.mute,
            client_blocked: connection.up.blocked(),
            written_up: connection.up.written_so_far(),
            under_way_up: connection.up.under_way(),
        })
    }

    /// Calls `mark` when the client has read all that the server has written so far; at once, if it has.
    pub fn when_read(&self, number: u64, mark: impl FnOnce(Instant) + Send + 'static) {
        let mut state = lock(&self.0);
        let mark: Mark = Box::new(mark);
        let Some(connection) = state.connections.get_mut(&number) else {
            return;
        };
        let reached = connection.down.mark(mark);
        drop(state);
        if let Some(mark) = reached {
            mark(Instant::now());
        }
    }

    /// Writes something as the server, past whoever has its end, as far as there is anybody to read it.
    pub fn slip(&self, number: u64, bytes: &[u8]) {
        let mut state = lock(&self.0);
        let due = Instant::now() + state.weather.latency;
        if let Some(connection) = state.connections.get_mut(&number) {
            connection.down.slip(due, bytes);
        }
    }

    /// Whether the client has read all that the server has written.
    pub fn is_all_read(&self, number: u64) -> bool {
        let state = lock(&self.0);
        let connection = state.connections.get(&number);
        connection.is_some_and(|connection| connection.down.under_way() == 0)
    }

    /// How many bytes the server has read so far.
    pub fn read_by_server(&self, number: u64) -> u64 {
        let state = lock(&self.0);
        state
            .connections
            .get(&number)
            .map_or(0, |connection| connection.up.read_so_far())
    }

    /// When the client wrote the byte at this place of what it has written. Places are asked for in rising order.
    pub fn written_at(&self, number: u64, place: u64) -> Instant {
        let mut state = lock(&self.0);
        let connection = state.connections.get_mut(&number);
        connection
            .and_then(|connection| connection.up.written_at(place))
            .unwrap_or_else(Instant::now)
    }
}

impl State {
    fn open(&self) -> usize {
        self.connections
            .values()
            .filter(|connection| connection.client_closed.is_none())
            .count()
    }

    fn each(&mut self, act: impl FnMut(&mut Connection)) {
        self.connections
            .values_mut()
            .filter(|connection| !connection.is_over())
            .for_each(act);
    }
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            up: Pipe::default(),
            down: Pipe::default(),
            client_closed: None,
            cut: None,
            client_cut_off: false,
            deaf: None,
            mute: None,
        }
    }

    fn is_over(&self) -> bool {
        self.up.is_over() && self.down.is_over()
    }

    fn reset(&mut self, now: Instant) {
        self.cut.get_or_insert(now);
        self.client_cut_off |= self.client_closed.is_none();
        self.up.reset();
        self.down.reset();
    }

    pub(super) fn read_by(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.down,
            Side::Server => &mut self.up,
        }
    }

    pub(super) fn written_by(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        }
    }
}
