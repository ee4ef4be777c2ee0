//! What all connections of a gateway share: policy, records, who is connected, and which chats wait for what.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use async_tungstenite::tungstenite::Message;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Signature,
    attempts::Attempts,
    books::Books,
    chat::Chat,
    frame::{Frame, Sender},
    network::{Network, is_probe},
    nodes::Nodes,
    policy::Policy,
};
use crate::journal::{Journal, lock};

/// How many sessions there are, that is connections whose login succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Open now.
    pub open: usize,
    /// Ever opened.
    pub ever: usize,
    /// The most that were open at once.
    pub most: usize,
}

pub(super) struct Hub {
    pub(super) signature: Signature,
    pub(super) secrets: Mutex<HashMap<String, String>>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) policy: watch::Sender<Policy>,
    pub(super) reading: watch::Sender<bool>,
    pub(super) frames: Journal<Frame>,
    pub(super) nodes: Mutex<Nodes>,
    pub(super) attempts: Mutex<Attempts>,
    pub(super) network: Mutex<Network>,
    /// Told when the network's rules may have something else to do, or to show.
    pub(super) news: watch::Sender<()>,
    sessions: watch::Sender<Sessions>,
    books: Mutex<Books>,
    chats: Mutex<HashMap<String, Vec<Inbox>>>,
    connections: Mutex<BTreeMap<u64, Connection>>,
    next_connection: AtomicU64,
    next_chat: AtomicU64,
}

/// A connection from the outside: what can be done to it.
struct Connection {
    outgoing: Outgoing,
    reset: CancellationToken,
    operator: Option<String>,
    models: Vec<String>,
}

/// What waits to be written. Without a bound on purpose: only the test that owns the gateway fills it, and a gateway
/// that made its reader wait for its writer could deadlock with the agent under test.
pub(super) type Outgoing = mpsc::UnboundedSender<Message>;

/// A chat's end of the way from the agent; without a bound for the same reason.
type Inbox = mpsc::UnboundedSender<Arc<Frame>>;

/// Takes a connection off the list when it ends.
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) reset: CancellationToken,
    hub: Arc<Hub>,
}

impl Hub {
    pub(super) fn new(
        signature: Signature,
        secrets: HashMap<String, String>,
        tls: Option<TlsAcceptor>,
        policy: Policy,
    ) -> Self {
        Self {
            signature,
            secrets: Mutex::new(secrets),
            tls,
            policy: watch::Sender::new(policy),
            reading: watch::Sender::new(true),
            frames: Journal::default(),
            nodes: Mutex::default(),
            attempts: Mutex::default(),
            network: Mutex::default(),
            news: watch::Sender::new(()),
            sessions: watch::Sender::new(Sessions::default()),
            books: Mutex::default(),
            chats: Mutex::default(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            next_chat: AtomicU64::new(1),
        }
    }

    pub(super) fn enter(self: &Arc<Self>, outgoing: Outgoing) -> Entry {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let reset = CancellationToken::new();
        let connection = Connection {
            outgoing,
            reset: reset.clone(),
            operator: None,
            models: Vec::new(),
        };
        lock(&self.connections).insert(number, connection);
        Entry {
            number,
            reset,
            hub: Arc::clone(self),
        }
    }

    pub(super) fn log_in(&self, number: u64, operator: &str) {
        if let Some(connection) = lock(&self.connections).get_mut(&number) {
            connection.operator = Some(operator.to_owned());
        }
        self.sessions.send_modify(|sessions| {
            sessions.open += 1;
            sessions.ever += 1;
            sessions.most = sessions.most.max(sessions.open);
        });
    }

    /// Ends every other session of this operator, as a gateway does that allows one.
    pub(super) fn end_older_sessions(&self, number: u64, operator: &str, message: &Message) {
        for (other, connection) in lock(&self.connections).iter() {
            if *other != number && connection.operator.as_deref() == Some(operator) {
                // It may be ending just now.
                let _ = connection.outgoing.send(message.clone());
            }
        }
    }

    fn leave(&self, number: u64) {
        let connection = lock(&self.connections).remove(&number);
        if connection.is_some_and(|connection| connection.operator.is_some()) {
            self.ended(number);
            self.sessions.send_modify(|sessions| sessions.open -= 1);
        }
    }

    pub(super) fn sessions(&self) -> watch::Receiver<Sessions> {
        self.sessions.subscribe()
    }

    pub(super) fn record(&self, connection: u64, sender: Sender, message: Message) -> Arc<Frame> {
        let frame = Arc::new(Frame::new(connection, sender, message));
        let policy = self.policy.borrow();
        if policy.record && (policy.record_chats || !frame.is_about_a_chat()) {
            self.frames.push(Arc::clone(&frame));
        }
        frame
    }

    /// Records what is about to be written; cheap where nothing is kept.
    pub(super) fn record_outgoing(&self, connection: u64, message: &Message) {
        if self.policy.borrow().record {
            self.record(connection, Sender::Gateway, message.clone());
        }
    }

    /// Notes what an agent says it has.
    pub(super) fn offer(&self, number: u64, models: Vec<String>) {
        if let Some(connection) = lock(&self.connections).get_mut(&number) {
            connection.models = models;
        }
    }

    /// What the newest session has; nothing where there is none.
    pub(super) fn models(&self) -> Vec<String> {
        newest(&lock(&self.connections))
            .map_or_else(Vec::new, |(_, session)| session.models.clone())
    }

    /// To the newest session; false if there is none.
    pub(super) fn send(&self, message: Message) -> bool {
        newest(&lock(&self.connections))
            .is_some_and(|(_, session)| session.outgoing.send(message).is_ok())
    }

    /// The number of the newest session's connection.
    pub(super) fn newest_session(&self) -> Option<u64> {
        newest(&lock(&self.connections)).map(|(number, _)| number)
    }

    /// Over one connection, if it is still there.
    pub(super) fn send_over(&self, number: u64, message: Message) {
        if let Some(connection) = lock(&self.connections).get(&number) {
            // It may be ending just now.
            let _ = connection.outgoing.send(message);
        }
    }

    /// To every connection.
    pub(super) fn send_to_all(&self, message: &Message) {
        for connection in lock(&self.connections).values() {
            // It may be ending just now.
            let _ = connection.outgoing.send(message.clone());
        }
    }

    pub(super) fn reset_all(&self) {
        lock(&self.connections)
            .values()
            .for_each(|connection| connection.reset.cancel());
    }

    /// Enters an answer in the books, unless it is a probe's: those are for nobody, and not paid.
    pub(super) fn book(&self, frame: &Frame) {
        if !is_probe(frame.request_id()) {
            lock(&self.books).enter(frame);
        }
    }

    pub(super) fn book_as_given_up(&self, id: &str) {
        lock(&self.books).give_up(id);
    }

    pub(super) fn books(&self) -> Books {
        lock(&self.books).clone()
    }

    /// Hands a frame to the chats that wait for it.
    pub(super) fn deliver(&self, frame: &Arc<Frame>) {
        for inbox in lock(&self.chats)
            .get(frame.request_id())
            .into_iter()
            .flatten()
        {
            // The chat may be going away just now.
            let _ = inbox.send(Arc::clone(frame));
        }
    }

    /// A chat that hears what comes for this id; there may be several.
    pub(super) fn chat(self: &Arc<Self>, id: &str) -> Chat {
        let (inbox, receiver) = mpsc::unbounded_channel();
        lock(&self.chats)
            .entry(id.to_owned())
            .or_default()
            .push(inbox);
        Chat::new(id.to_owned(), receiver, self)
    }

    pub(super) fn fresh_id(&self) -> String {
        format!("req-{}", self.next_chat.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes the chats of this id off the list that hear nothing any more.
    pub(super) fn forget_chats(&self, id: &str) {
        let mut chats = lock(&self.chats);
        if let Some(inboxes) = chats.get_mut(id) {
            inboxes.retain(|inbox| !inbox.is_closed());
            if inboxes.is_empty() {
                chats.remove(id);
            }
        }
    }

    /// The gateway's clock.
    pub(super) fn now(&self) -> SystemTime {
        let ahead = self.policy.borrow().clock_ahead;
        let distance = std::time::Duration::from_secs(ahead.unsigned_abs());
        if ahead < 0 {
            SystemTime::now() - distance
        } else {
            SystemTime::now() + distance
        }
    }

    pub(super) fn unix_now(&self) -> i64 {
        let since = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

fn newest(connections: &BTreeMap<u64, Connection>) -> Option<(u64, &Connection)> {
    let mut connections = connections.iter().rev();
    let newest = connections.find(|(_, connection)| connection.operator.is_some());
    newest.map(|(number, connection)| (*number, connection))
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hub.leave(self.number);
    }
}
