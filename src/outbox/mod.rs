//! The one way out: everything that is to be sent waits here, and a session takes it from here.
//!
//! Invariant: nobody who puts something in waits for the network, save those who must be slowed by it: a job with a chunk
//! while the outbox is full, and the reader with a refusal while a thousand others wait. Memory is bounded by
//! `PIN_OUTBOX_BYTES` for chunks, by admission for answers, by number for the rest.

mod lanes;
mod proof;

pub use lanes::{Batch, Frame};

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::warn;

use self::{lanes::Lanes, proof::Proof};
use crate::{
    protocol::RequestId,
    telemetry::{DropReason, Metrics},
};

/// What waits to be sent. Shared by the jobs, which fill it, and the session, which empties it.
pub struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    room: Notify,
    max_bytes: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    /// Whether a session is up. Without one nothing is taken in: answers are not kept across sessions yet.
    open: bool,
    lanes: Lanes,
    proof: Proof,
    dropped: usize,
}

impl Outbox {
    /// An outbox that holds up to `max_bytes` of chunks and answers before it makes chunks wait.
    pub fn new(max_bytes: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            filled: Notify::new(),
            room: Notify::new(),
            max_bytes,
            metrics,
        }
    }

    /// A session has come up.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// The session has ended: whatever waits is dropped, and what was not proven delivered may be lost.
    pub fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        let unsent = state.lanes.clear();
        let proof = std::mem::take(&mut state.proof);
        for request_id in unsent.into_iter().chain(proof.into_unproven()) {
            warn!(%request_id, "an answer may have been lost with the session");
            self.drop_answers(&mut state, 1, DropReason::Expired);
        }
        self.show(&state);
        drop(state);
        self.room.notify_waiters();
    }

    /// Sends before all else. A frame of the same type that still waits is replaced.
    pub fn control(&self, frame: Frame) {
        self.put(|lanes| lanes.control(frame, Instant::now()));
    }

    /// Sends a refusal; waits while too many others wait.
    pub async fn refuse(&self, frame: Frame) {
        let mut frame = Some(frame);
        self.when_room(|state| match state.lanes.refuse(frame.take()?) {
            Ok(()) => Some(()),
            Err(back) => {
                frame = Some(back);
                None
            }
        })
        .await;
    }

    /// Sends a piece of an answer; waits while the outbox is full, which is how a slow gateway slows the backend.
    pub async fn chunk(&self, frame: Frame) {
        let max = self.max_bytes;
        let weight = frame.weight();
        let mut frame = Some(frame);
        self.when_room(|state| {
            let held = state.lanes.bytes();
            if held > 0 && held + weight > max {
                return None;
            }
            state.lanes.data(frame.take()?);
            Some(())
        })
        .await;
    }

    /// Sends an answer. It has had its place since its request was admitted, so it never waits.
    pub fn answer(&self, frame: Frame) {
        let mut state = self.lock();
        if state.open {
            state.lanes.data(frame);
            self.show(&state);
            drop(state);
            self.filled.notify_one();
        } else {
            self.drop_answers(&mut state, 1, DropReason::Expired);
        }
    }

    /// Removes what waits of a request that is no longer wanted.
    pub fn cancel(&self, request_id: &RequestId) {
        let mut state = self.lock();
        let answers = state.lanes.remove(request_id);
        self.metrics
            .results_dropped_total
            .of(DropReason::Cancelled)
            .inc_by(answers as u64);
        self.show(&state);
        drop(state);
        self.room.notify_waiters();
    }

    /// Whether another request may be admitted.
    pub fn has_room(&self) -> bool {
        self.lock().lanes.bytes() < self.max_bytes
    }

    /// Answers dropped since the start, for any reason but a cancel.
    pub fn dropped(&self) -> usize {
        self.lock().dropped
    }

    /// Waits until there is something to send, perhaps in vain.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// What to send next.
    pub fn take(&self) -> Option<Batch> {
        self.lock().lanes.take()
    }

    /// A batch has been written to the socket.
    pub fn written(&self, batch: &Batch) {
        let mut state = self.lock();
        state.lanes.written(batch);
        // Answers of the batch come after its heartbeat, since control frames lead it.
        for _ in 0..batch.heartbeats {
            state.proof.heartbeat_written(Instant::now());
        }
        for request_id in &batch.answers {
            state.proof.answer_written(request_id.clone());
        }
        for message in &batch.messages {
            self.metrics.messages_sent_total.of(*message).inc();
        }
        self.show(&state);
        drop(state);
        self.room.notify_waiters();
    }

    /// Since when a heartbeat has been waiting to be written.
    pub fn heartbeat_due_since(&self) -> Option<Instant> {
        self.lock().lanes.heartbeat_due_since()
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.lock().lanes.is_idle()
    }

    /// Answers written but not yet known to have been read.
    pub fn unproven(&self) -> usize {
        self.lock().proof.unproven()
    }

    /// The gateway has acknowledged an answer.
    pub fn result_acknowledged(&self, request_id: &RequestId) {
        self.prove(|proof| proof.result_acknowledged(request_id));
    }

    /// The gateway has acknowledged a heartbeat.
    pub fn heartbeat_acknowledged(&self) {
        let round_trip = self.prove(|proof| proof.heartbeat_acknowledged(Instant::now()));
        self.show_round_trip(round_trip);
    }

    /// The gateway's socket has answered the Ping that went with the n-th heartbeat.
    pub fn pong(&self, heartbeat: u64) {
        let round_trip = self.prove(|proof| proof.pong(heartbeat, Instant::now()));
        self.show_round_trip(round_trip);
    }

    /// The gateway has answered our Close, so it has read all that was written.
    pub fn close_answered(&self) {
        self.prove(Proof::closed);
    }

    /// Whoever waits for something to send may also wait for proof.
    fn prove<T>(&self, prove: impl FnOnce(&mut Proof) -> T) -> T {
        let mut state = self.lock();
        let proven = prove(&mut state.proof);
        self.show(&state);
        drop(state);
        self.filled.notify_one();
        proven
    }

    fn show_round_trip(&self, round_trip: Option<Duration>) {
        if let Some(round_trip) = round_trip {
            self.metrics
                .heartbeat_rtt_seconds
                .observe(round_trip.as_secs_f64());
        }
    }

    fn put(&self, queue: impl FnOnce(&mut Lanes)) {
        let mut state = self.lock();
        if state.open {
            queue(&mut state.lanes);
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Tries to put something in until it succeeds or there is no session to send it over.
    async fn when_room(&self, mut put: impl FnMut(&mut State) -> Option<()>) {
        let mut room = std::pin::pin!(self.room.notified());
        loop {
            // Listening begins before looking, so that room made in between is not missed.
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if !state.open || put(&mut state).is_some() {
                    self.show(&state);
                    break;
                }
            }
            room.as_mut().await;
            room.set(self.room.notified());
        }
        self.filled.notify_one();
    }

    fn drop_answers(&self, state: &mut State, count: usize, reason: DropReason) {
        state.dropped += count;
        self.metrics
            .results_dropped_total
            .of(reason)
            .inc_by(count as u64);
    }

    fn show(&self, state: &State) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.outbox_bytes.set(gauge(state.lanes.bytes()));
        let undelivered = state.lanes.answers() + state.proof.unproven();
        self.metrics.undelivered_results.set(gauge(undelivered));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot have left it half changed in a way that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
