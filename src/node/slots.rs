//! The slots of a node: the right to run so many jobs at once.
//!
//! Invariant: never more than `capacity` slots are out, and whoever began to wait for one first has it first. Dropping a
//! slot gives it back.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of one node.
pub struct Slots {
    capacity: usize,
    permits: Arc<Semaphore>,
    /// Who waits for one of them.
    waiting: AtomicUsize,
}

/// The right to run one job.
pub struct Slot {
    of: Arc<Slots>,
    _permit: OwnedSemaphorePermit,
}

/// Somebody waits for one of these slots, which no newcomer may take before.
pub struct Waiting(Vec<Arc<Slots>>);

impl Slots {
    /// So many slots, all free.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            permits: Arc::new(Semaphore::new(capacity.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
        })
    }

    /// How many there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.capacity - self.permits.available_permits()
    }

    /// Takes a slot that is free and that nobody waits for.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        // Whoever waits has been here longer: a slot that is free for a moment is theirs.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.slot(permit))
    }

    async fn next(self: &Arc<Self>) -> Slot {
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => self.slot(permit),
            // The semaphore is never closed.
            Err(_) => pending().await,
        }
    }

    fn slot(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        Slot {
            of: Arc::clone(self),
            _permit: permit,
        }
    }
}

impl Slot {
    /// Waits for the next slot of any of these.
    pub async fn next_of(slots: &[Arc<Slots>]) -> Self {
        match slots {
            [] => pending().await,
            [slots] => slots.next().await,
            many => {
                select_all(many.iter().map(|slots| Box::pin(slots.next())))
                    .await
                    .0
            }
        }
    }

    /// Whether it is one of these.
    pub fn is_of(&self, slots: &Arc<Slots>) -> bool {
        Arc::ptr_eq(&self.of, slots)
    }
}

impl Waiting {
    /// Waits from now on, until it is dropped.
    pub fn for_any(slots: &[Arc<Slots>]) -> Self {
        for slots in slots {
            slots.waiting.fetch_add(1, Ordering::Relaxed);
        }
        Self(slots.to_vec())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for slots in &self.0 {
            slots.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
