//! The one way out: everything that is to be sent waits here, and a session takes it from here. It outlives sessions, so
//! that answers do.
//!
//! Invariant: an answer leaves this place for one of the reasons of the delivery rules and no other: proven delivered,
//! cancelled, superseded, rejected, expired, or the end of the process; each is counted, and logged where it is a loss.
//! Nobody who puts something in waits for the network, save those who must be slowed by it: a job before it begins and with
//! a chunk while there is no room, and the reader with a refusal while a thousand others wait. Memory is bounded by
//! `PIN_OUTBOX_BYTES` for chunks and remembered bodies, and for answers but for those of jobs that had begun by then; by a
//! quarter of it for remembered ids, by number for the rest.

mod answers;
mod lanes;
mod sent;
#[cfg(test)]
mod tests;

pub use lanes::Batch;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use self::{
    answers::{Answer, Answers, Removed, Serial, Whereabouts},
    lanes::{Lanes, weight},
    sent::Sent,
};
use crate::{
    config::OutboxSettings,
    link::{Position, Proof},
    protocol::{Chunk, Control, Reply, RequestId, encode},
    telemetry::{DropReason, Metrics, gauge},
};

/// An unproven answer of this age is fenced: a heartbeat goes, whose acknowledgement proves it.
const FENCE_AGE: Duration = Duration::from_secs(1);

/// Fences go at most this often.
const FENCE_PAUSE: Duration = Duration::from_secs(1);

/// However small the outbox is, ids of delivered responses may take this many bytes: a thousand of them, and more.
const MIN_REMEMBERED: usize = 256 * 1024;

/// What something that waits holds beside its text, in bytes: the entry itself and the allocator's rounding.
const FRAME_OVERHEAD: usize = 128;

/// What an answer earns once it is proven delivered, by an estimate. It travels with the answer, so that the price is the
/// one that held when the answer was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Earning {
    /// The model that answered, by its full name.
    pub model: Arc<str>,
    /// US dollars.
    pub usd: f64,
}

/// A session's number: 1 for the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionNumber(u64);

impl SessionNumber {
    /// As the log has it.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What is to be done about a request whose id nobody works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It is new work.
    New,
    /// It has been answered, and the answer goes once more.
    SentAgain,
    /// It has been answered, and the answer is no longer held.
    Forgotten,
}

/// What waits to be sent. Shared by the jobs, which fill it, and the session, which empties it.
pub struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    room: Notify,
    settings: OutboxSettings,
    metrics: Arc<Metrics>,
}

struct State {
    sessions: u64,
    /// What is sent and proven in the session that is up; `None` while none is.
    session: Option<Session>,
    answers: Answers,
    lost: usize,
}

#[derive(Default)]
struct Session {
    lanes: Lanes,
    sent: Sent,
    last_fence: Option<Instant>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(settings: OutboxSettings, metrics: Arc<Metrics>) -> Self {
        let state = State {
            sessions: 0,
            session: None,
            answers: Answers::new(settings.result_ttl),
            lost: 0,
        };
        Self {
            state: Mutex::new(state),
            filled: Notify::new(),
            room: Notify::new(),
            settings,
            metrics,
        }
    }

    /// A session has come up: unproven answers go again.
    pub fn open(&self) -> SessionNumber {
        let mut state = self.lock();
        state.sessions += 1;
        state.session = Some(Session {
            lanes: Lanes::new(&state.answers),
            ..Session::default()
        });
        let number = SessionNumber(state.sessions);
        drop(state);
        self.filled.notify_one();
        number
    }

    /// The session has ended. Chunks and refusals that wait are dropped; answers are kept, but for one that too many
    /// sessions seem to have ended of. Tells whether this one may have ended of an answer.
    pub fn close(&self, ended_by_gateway: bool) -> bool {
        let mut state = self.lock();
        let on_trial = state
            .session
            .take()
            .and_then(|session| session.lanes.on_trial());
        let rejected = state
            .answers
            .session_ended(ended_by_gateway, on_trial, Instant::now());
        let suspicious =
            rejected.is_some() || state.answers.undelivered().any(|(_, a)| a.is_suspect);
        if let Some((_, answer)) = rejected {
            self.lose(&mut state, &answer, DropReason::Rejected);
        }
        self.changed(state);
        suspicious
    }

    /// Sends before all else. One that still waits and says the same of the same node is replaced.
    pub fn control(&self, control: Control) {
        let mut state = self.lock();
        if let Some(session) = &mut state.session {
            session.lanes.control(control, Instant::now());
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Sends a refusal; waits while too many others wait.
    pub async fn refuse(&self, refusal: Reply) {
        let mut refusal = Some(refusal);
        self.when_room(|state| {
            let Some(session) = &mut state.session else {
                return Some(());
            };
            match session.lanes.refuse(refusal.take()?) {
                Ok(()) => Some(()),
                Err(back) => {
                    refusal = Some(back);
                    None
                }
            }
        })
        .await;
    }

    /// Sends a piece of an answer in this session, if it is still up; waits while there is no room, which is how a slow
    /// gateway slows the backend.
    pub async fn chunk(&self, number: SessionNumber, chunk: Chunk) {
        let max = self.settings.max_bytes;
        let weight = weight(&chunk);
        let mut chunk = Some(chunk);
        self.when_room(|state| {
            if state.number() != Some(number) {
                return Some(());
            }
            let held = state.bytes();
            if held > 0 && held + weight > max {
                return None;
            }
            if let (Some(session), Some(chunk)) = (&mut state.session, chunk.take()) {
                session.lanes.chunk(chunk);
            }
            Some(())
        })
        .await;
    }

    /// Keeps an answer, and sends it if a session is up. It has had its place since its request was admitted, so it
    /// never waits.
    pub fn answer(&self, reply: Reply, earning: Option<Earning>) {
        let mut state = self.lock();
        let request_id = reply.request_id.clone();
        let serial = state.answers.add(Arc::new(reply), earning, Instant::now());
        if let Some(session) = &mut state.session {
            session.lanes.answer(request_id, serial);
        }
        self.changed(state);
        self.filled.notify_one();
    }

    /// A request has come whose id nobody works on. If it has had a response, that goes again.
    pub fn repeat(&self, request_id: &RequestId) -> Repeat {
        let mut state = self.lock();
        let serial = match state.answers.find(request_id) {
            None => return Repeat::New,
            Some(Whereabouts::Undelivered(serial)) => {
                let answer = state.answers.get(serial);
                if answer.is_none_or(|answer| !answer.reply.is_result()) {
                    return Repeat::New;
                }
                if !state.answers.wait_again(serial) {
                    return Repeat::SentAgain;
                }
                serial
            }
            Some(Whereabouts::Delivered(serial)) => {
                match state.answers.recall(serial, Instant::now()) {
                    Some(serial) => serial,
                    None => return Repeat::Forgotten,
                }
            }
        };
        if let Some(session) = &mut state.session {
            session.lanes.answer(request_id.clone(), serial);
        }
        self.changed(state);
        self.filled.notify_one();
        Repeat::SentAgain
    }

    /// A request is worked on anew: an error that an earlier one of its id ended with is worth nothing any more.
    pub fn supersede(&self, request_id: &RequestId) {
        self.remove(request_id, DropReason::Superseded);
    }

    /// Removes what waits or is remembered of a request that is no longer wanted. Tells whether an answer to it was here.
    pub fn cancel(&self, request_id: &RequestId) -> bool {
        if let Some(session) = &mut self.lock().session {
            session.lanes.cancel(request_id);
        }
        self.remove(request_id, DropReason::Cancelled)
    }

    fn remove(&self, request_id: &RequestId, reason: DropReason) -> bool {
        let mut state = self.lock();
        let removed = state.answers.remove(request_id);
        if let Some(removed) = removed {
            info!(
                request_id = request_id.as_str(),
                %reason,
                "an answer is no longer wanted"
            );
            self.metrics.results_dropped_total.of(reason).inc();
            if let (Removed::Undelivered(serial), Some(session)) = (removed, &mut state.session) {
                session.forget(request_id, serial);
            }
        }
        self.changed(state);
        removed.is_some()
    }

    /// Whether another request may be admitted.
    pub fn has_room(&self) -> bool {
        self.lock().bytes() < self.settings.max_bytes
    }

    /// Waits until another job may begin.
    pub async fn room(&self) {
        let max = self.settings.max_bytes;
        self.when_room(|state| (state.bytes() < max).then_some(()))
            .await;
    }

    /// Answers lost since the start: dropped though somebody may have waited for them.
    pub fn lost(&self) -> usize {
        self.lock().lost
    }

    /// Answers that are not known to have been delivered.
    pub fn undelivered(&self) -> usize {
        self.lock().answers.count()
    }

    /// Waits until every answer is known to have been delivered, or lost.
    pub async fn emptied(&self) {
        self.when_room(|state| (state.answers.count() == 0).then_some(()))
            .await;
    }

    /// Gives up answers when they are too old, for as long as it is polled.
    pub async fn keep_fresh(&self) -> Infallible {
        loop {
            sleep_until(self.expire()).await;
        }
    }

    /// Gives up what is too old now; tells when something will be, at the earliest.
    fn expire(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.lock();
        for (serial, answer) in state.answers.expire(now) {
            if let Some(session) = &mut state.session {
                session.forget(&answer.reply.request_id, serial);
            }
            self.lose(&mut state, &answer, DropReason::Expired);
        }
        let next = state.answers.next_expiry(now);
        self.changed(state);
        next
    }

    /// The process ends: what is not delivered is lost.
    pub fn abandon(&self) {
        let mut state = self.lock();
        for (_, answer) in state.answers.discard_all() {
            self.lose(&mut state, &answer, DropReason::Shutdown);
        }
        self.changed(state);
    }

    /// Waits until there is something to send or something was proven, perhaps in vain.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// What to send next.
    pub fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        let State {
            session, answers, ..
        } = &mut *state;
        let session = session.as_mut()?;
        let batch = session.lanes.take(answers, &mut session.sent)?;
        self.metrics
            .results_redelivered_total
            .inc_by(batch.repeated);
        Some(batch)
    }

    /// A batch has been written to the socket.
    pub fn written(&self, batch: &Batch) {
        for outgoing in &batch.outgoing {
            let sent = &self.metrics.messages_sent_total;
            sent.of(outgoing.message()).inc();
        }
        let mut state = self.lock();
        if let Some(session) = &mut state.session {
            session.lanes.written(batch);
        }
        self.changed(state);
    }

    /// Since when a heartbeat has been waiting to be written.
    pub fn heartbeat_due_since(&self) -> Option<Instant> {
        self.lock().session.as_ref()?.lanes.heartbeat_due_since()
    }

    /// When a heartbeat should go as a fence behind answers that lack proof; `None` while none do that are not `fenced`
    /// ([`Link::fenced`](crate::link::Link::fenced)), or one is about to go. `hurry`: there is nothing else to wait for.
    pub fn fence_due(&self, fenced: Position, hurry: bool) -> Option<Instant> {
        let state = self.lock();
        let session = state.session.as_ref()?;
        let oldest = session.sent.oldest_from(fenced)?;
        if session.lanes.has_heartbeat() {
            return None;
        }
        if hurry {
            return Some(oldest);
        }
        let half_full = state.bytes() >= self.settings.max_bytes / 2;
        let due = if half_full {
            oldest
        } else {
            oldest + FENCE_AGE
        };
        let pause_over = session.last_fence.map(|last| last + FENCE_PAUSE);
        Some(pause_over.map_or(due, |over| over.max(due)))
    }

    /// A fence is being put up.
    pub fn fenced(&self) {
        if let Some(session) = &mut self.lock().session {
            session.last_fence = Some(Instant::now());
        }
    }

    /// The gateway is known to have read answers.
    pub fn prove(&self, proof: Proof) {
        let now = Instant::now();
        let mut state = self.lock();
        let State {
            session, answers, ..
        } = &mut *state;
        let Some(session) = session else { return };
        let mut any = false;
        for serial in session.sent.prove(proof) {
            if let Some(answer) = answers.get(serial) {
                // It may wait to be sent once more.
                session.lanes.forget(&answer.reply.request_id, serial);
            }
            if let Some(Earning { model, usd }) = answers.take_earning(serial) {
                let earnings = &self.metrics.earnings_estimate_usd_total;
                earnings.of(Some(&model)).inc_by(usd);
            }
            any |= answers.deliver(serial, now);
        }
        if any {
            self.changed(state);
            // The next suspect may go, and whoever waits for proof may have it.
            self.filled.notify_one();
        }
    }

    /// Tries to put something in until it succeeds.
    async fn when_room(&self, mut put: impl FnMut(&mut State) -> Option<()>) {
        let mut room = std::pin::pin!(self.room.notified());
        loop {
            // Listening begins before looking, so that room made in between is not missed.
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if put(&mut state).is_some() {
                    self.show(&mut state);
                    break;
                }
            }
            room.as_mut().await;
            room.set(self.room.notified());
        }
        self.filled.notify_one();
    }

    /// An answer is given up that somebody may have waited for.
    fn lose(&self, state: &mut State, answer: &Answer, reason: DropReason) {
        if answer.was_proven && reason != DropReason::Rejected {
            // It was delivered once. That it was wanted again and nobody came for it is no loss.
            return;
        }
        state.lost += 1;
        self.metrics.results_dropped_total.of(reason).inc();
        warn!(
            request_id = answer.reply.request_id.as_str(),
            %reason,
            bytes = encode(&*answer.reply).len(),
            "an answer was lost"
        );
    }

    /// Something may have become less: room is given to what is remembered and to those who wait for it.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        self.show(&mut state);
        drop(state);
        self.room.notify_waiters();
    }

    fn show(&self, state: &mut State) {
        let bytes = state.bytes();
        let max = self.settings.max_bytes;
        state
            .answers
            .evict(max.saturating_sub(bytes), (max / 4).max(MIN_REMEMBERED));
        self.metrics.outbox_bytes.set(gauge(bytes));
        self.metrics
            .undelivered_results
            .set(gauge(state.answers.count()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot have left it half changed in a way that matters more than going on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// An answer is no longer to be sent or proven.
    fn forget(&mut self, request_id: &RequestId, serial: Serial) {
        self.lanes.forget(request_id, serial);
        self.sent.forget(serial);
    }
}

impl State {
    /// The session that is up.
    fn number(&self) -> Option<SessionNumber> {
        self.session.as_ref().map(|_| SessionNumber(self.sessions))
    }

    /// What waits to be delivered: answers, and chunks of this session.
    fn bytes(&self) -> usize {
        let chunks = self.session.as_ref();
        self.answers.bytes() + chunks.map_or(0, |session| session.lanes.chunk_bytes())
    }
}
