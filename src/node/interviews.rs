//! Who of a node's interviews is run, and who waits.
//!
//! Invariant: one at a time is run, however many slots are free, and one more may wait. That one has the slot of the one
//! before it, which chats that wait do not get in between.

use std::sync::{Arc, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::slots::{Heir, Slot};

/// The interviews of one node.
pub struct Interviews {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
    next: Heir,
}

/// An interview's place: it is run, or is the next to be run. Dropping it gives it back.
pub struct InterviewPlace {
    all: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
    /// Where the slot of the one before it comes, if it has to wait for that one's end.
    inherited: Option<oneshot::Receiver<Slot>>,
    next: Heir,
    _place: OwnedSemaphorePermit,
}

impl Default for Interviews {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(2)),
            turn: Arc::new(Semaphore::new(1)),
            next: Heir::default(),
        }
    }
}

impl Interviews {
    /// Takes a place; `None` if one is run and another waits.
    pub fn enter(&self) -> Option<InterviewPlace> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let turn = Arc::clone(&self.turn).try_acquire_owned().ok();
        Some(InterviewPlace {
            all: Arc::clone(&self.turn),
            inherited: turn.is_none().then(|| self.inherit()),
            turn,
            next: Arc::clone(&self.next),
            _place: place,
        })
    }

    /// From now on the slot of the one that is run is for the one that waits.
    fn inherit(&self) -> oneshot::Receiver<Slot> {
        let (heir, slot) = oneshot::channel();
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(heir);
        slot
    }
}

impl InterviewPlace {
    /// Whether it may be run now.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits until it may be run. Gives the slot of the one before it, if that had one.
    pub async fn turn(&mut self) -> Option<Slot> {
        if self.turn.is_none() {
            // The semaphore is never closed.
            self.turn = Arc::clone(&self.all).acquire_owned().await.ok();
        }
        self.inherited.take()?.try_recv().ok()
    }

    /// Who has its slot after it: the interview that waits.
    pub fn next(&self) -> &Heir {
        &self.next
    }
}
