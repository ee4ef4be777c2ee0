//! Who of a node's interviews is run, and who waits.
//!
//! Invariant: one at a time is run, however many slots are free, and one more may wait.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The interviews of one node.
pub struct Interviews {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// An interview's place: it is run, or is the next to be run. Dropping it gives it back.
pub struct InterviewPlace {
    all: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
    _place: OwnedSemaphorePermit,
}

impl Default for Interviews {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(2)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Interviews {
    /// Takes a place; `None` if one is run and another waits.
    pub fn enter(&self) -> Option<InterviewPlace> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(InterviewPlace {
            all: Arc::clone(&self.turn),
            turn: Arc::clone(&self.turn).try_acquire_owned().ok(),
            _place: place,
        })
    }
}

impl InterviewPlace {
    /// Whether it may be run now.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// Waits until it may be run.
    pub async fn turn(&mut self) {
        if self.turn.is_none() {
            // The semaphore is never closed.
            self.turn = Arc::clone(&self.all).acquire_owned().await.ok();
        }
    }
}
