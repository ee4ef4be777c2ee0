//! What was asked of the stand-in, which chats run, and which of them the client left.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use hyper::HeaderMap;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::journal::lock;

/// A request as it came.
pub struct Request {
    /// When all of it had come.
    pub at: Instant,
    /// `GET`, `POST`…
    pub method: String,
    /// Its path, without a query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    left: OnceLock<Instant>,
    gone: CancellationToken,
    stalled: Mutex<Option<Instant>>,
}

impl Request {
    pub(crate) fn new(method: String, path: String, headers: HeaderMap, body: Bytes) -> Self {
        Self {
            at: Instant::now(),
            method,
            path,
            headers,
            body,
            left: OnceLock::new(),
            gone: CancellationToken::new(),
            stalled: Mutex::new(None),
        }
    }

    /// Its body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// When the client closed the connection before the answer was complete, for a chat or a pull.
    pub fn left_at(&self) -> Option<Instant> {
        self.left.get().copied()
    }

    /// Waits until the client closes the connection before the answer is complete.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_until_left(&self) -> Instant {
        let left = tokio::time::timeout(crate::PATIENCE, self.gone.cancelled()).await;
        assert!(left.is_ok(), "the client never closed {self:?}");
        self.left_at().unwrap_or_else(Instant::now)
    }

    /// For how long a streamed answer has had a piece that the client does not take; zero while it takes them.
    pub fn stalled_for(&self) -> Duration {
        lock(&self.stalled).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The client takes nothing until the guard is dropped.
    pub(crate) fn stall(&self) -> Stalled<'_> {
        *lock(&self.stalled) = Some(Instant::now());
        Stalled(self)
    }

    pub(crate) fn leave(&self) {
        // Only the first time counts.
        let _ = self.left.set(Instant::now());
        self.gone.cancel();
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 300;
        let body: String = String::from_utf8_lossy(&self.body)
            .chars()
            .take(SHOWN)
            .collect();
        write!(f, "{} {} {body}", self.method, self.path)
    }
}

/// An answer that cannot go on.
pub(crate) struct Stalled<'a>(&'a Request);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        *lock(&self.0.stalled) = None;
    }
}

/// How many chats run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chats {
    /// Now.
    pub running: usize,
    /// Ever, those that run included.
    pub ever: usize,
    /// The most that ran at once.
    pub most: usize,
}

/// A chat that runs until this is dropped; the client left unless it was told to have finished.
pub(crate) struct ChatGuard {
    request: Arc<Request>,
    chats: watch::Sender<Chats>,
    finished: bool,
}

impl ChatGuard {
    pub(crate) fn start(request: &Arc<Request>, chats: &watch::Sender<Chats>) -> Self {
        chats.send_modify(|chats| {
            chats.running += 1;
            chats.ever += 1;
            chats.most = chats.most.max(chats.running);
        });
        Self {
            request: Arc::clone(request),
            chats: chats.clone(),
            finished: false,
        }
    }

    pub(crate) fn request(&self) -> Arc<Request> {
        Arc::clone(&self.request)
    }

    pub(crate) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for ChatGuard {
    fn drop(&mut self) {
        if !self.finished {
            self.request.leave();
        }
        self.chats.send_modify(|chats| chats.running -= 1);
    }
}
