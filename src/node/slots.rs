//! The slots of a node: the right to run so many jobs at once.
//!
//! Invariant: never more than `capacity` slots are out, and whoever began to wait for one first has it first, save that an
//! interview goes ahead of all others. Dropping a slot gives it to whoever is next.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::select_all;
use tokio::sync::oneshot;

/// The slots of one node.
pub struct Slots {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    /// How many have announced that they wait, whether or not they are in the queue yet.
    announced: usize,
    queue: VecDeque<oneshot::Sender<Slot>>,
}

/// The right to run one job.
pub struct Slot {
    of: Arc<Slots>,
    heir: Option<Heir>,
}

/// Who has a slot after whoever holds it, before all who wait in the queue; empty where that is nobody.
pub(super) type Heir = Arc<Mutex<Option<oneshot::Sender<Slot>>>>;

/// Somebody waits for one of these slots, which no newcomer may take before.
pub struct Waiting(Vec<Arc<Slots>>);

/// Where in the queue somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Behind all who wait already.
    Last,
    /// Before all of them, newcomers or not.
    First,
}

impl Slots {
    /// So many slots, all free.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            state: Mutex::default(),
        })
    }

    /// How many there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().taken
    }

    /// Takes a slot that is free and, unless it is one's turn before all others, that nobody waits for.
    pub fn take(self: &Arc<Self>, turn: Turn) -> Option<Slot> {
        let mut state = self.lock();
        // Whoever waits has been here longer: a slot that is free for a moment is theirs.
        let is_promised = turn == Turn::Last && state.announced > 0;
        if is_promised || state.taken >= self.capacity {
            return None;
        }
        state.taken += 1;
        drop(state);
        Some(self.slot())
    }

    async fn next(self: &Arc<Self>, turn: Turn) -> Slot {
        match self.enqueue(turn) {
            Ok(slot) => slot,
            Err(place) => match place.await {
                Ok(slot) => slot,
                // A place in the queue is only ever given up for a slot.
                Err(_) => pending().await,
            },
        }
    }

    /// Gives a slot, or a place in the queue for one.
    fn enqueue(self: &Arc<Self>, turn: Turn) -> Result<Slot, oneshot::Receiver<Slot>> {
        let mut state = self.lock();
        state.queue.retain(|place| !place.is_closed());
        let is_next = turn == Turn::First || state.queue.is_empty();
        if is_next && state.taken < self.capacity {
            state.taken += 1;
            drop(state);
            return Ok(self.slot());
        }
        let (sender, receiver) = oneshot::channel();
        match turn {
            Turn::Last => state.queue.push_back(sender),
            Turn::First => state.queue.push_front(sender),
        }
        Err(receiver)
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot {
            of: Arc::clone(self),
            heir: None,
        }
    }

    /// A slot is given back: it is for whoever is next, and free if there is nobody.
    fn pass_on(self: &Arc<Self>) {
        let next = {
            let mut state = self.lock();
            let next = loop {
                match state.queue.pop_front() {
                    Some(place) if place.is_closed() => {}
                    next => break next,
                }
            };
            if next.is_none() {
                state.taken -= 1;
            }
            next
        };
        if let Some(place) = next {
            // One that is given up at this very moment comes back, and with it the slot, which is passed on again.
            let _ = place.send(self.slot());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Waits for the next slot of any of these.
    pub async fn next_of(slots: &[Arc<Slots>], turn: Turn) -> Self {
        match slots {
            [] => pending().await,
            [slots] => slots.next(turn).await,
            many => {
                let next = |slots: &Arc<Slots>| {
                    let slots = Arc::clone(slots);
                    Box::pin(async move { slots.next(turn).await })
                };
                select_all(many.iter().map(next)).await.0
            }
        }
    }

    /// The same slot, which is this heir's once it is dropped.
    #[must_use]
    pub fn left_to(mut self, heir: &Heir) -> Self {
        self.heir = Some(Arc::clone(heir));
        self
    }

    /// Whether it is one of these.
    pub fn is_of(&self, slots: &Arc<Slots>) -> bool {
        Arc::ptr_eq(&self.of, slots)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let heir = self.heir.take();
        let heir = heir.and_then(|heir| heir.lock().unwrap_or_else(PoisonError::into_inner).take());
        match heir {
            // One that has given up gives it back, and the queue has it.
            Some(heir) => drop(heir.send(self.of.slot())),
            None => self.of.pass_on(),
        }
    }
}

impl Waiting {
    /// Waits from now on, until it is dropped.
    pub fn for_any(slots: &[Arc<Slots>]) -> Self {
        for slots in slots {
            slots.lock().announced += 1;
        }
        Self(slots.to_vec())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for slots in &self.0 {
            slots.lock().announced -= 1;
        }
    }
}
