//! How many jobs may run, and how many may wait for it.
//!
//! Invariant: never more than `capacity` slots are out, never more than `queue` jobs or `queue_bytes` bytes wait, and
//! whoever began to wait first runs first. Dropping a place gives back all that it holds.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::AdmissionSettings,
    protocol::{Code, Failure},
};

/// The slots and the waiting room.
pub struct Admission {
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    settings: AdmissionSettings,
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that hold a slot.
    pub running: usize,
    /// Jobs that wait for one.
    pub waiting: usize,
}

/// A job's claim to run, now or later.
pub(super) enum Place {
    /// It may run.
    Slot(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    /// It waits in the room.
    Waiting(Waiting),
}

pub(super) struct Waiting {
    slots: Arc<Semaphore>,
    timeout: Duration,
    _place: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(settings: AdmissionSettings) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            slots: semaphore(settings.capacity),
            room: semaphore(settings.queue),
            room_bytes: semaphore(settings.queue_bytes),
            settings,
        }
    }

    /// Takes a job of so many bytes in; `None` if there is no slot and no place to wait.
    pub(super) fn enter(&self, bytes: usize) -> Option<Place> {
        // Whoever waits has been here longer: a slot that is free for a moment is theirs.
        if self.waiting() == 0
            && let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned()
        {
            return Some(Place::Slot(slot));
        }
        let bytes = u32::try_from(bytes).ok()?;
        Some(Place::Waiting(Waiting {
            _place: Arc::clone(&self.room).try_acquire_owned().ok()?,
            _bytes: Arc::clone(&self.room_bytes)
                .try_acquire_many_owned(bytes)
                .ok()?,
            slots: Arc::clone(&self.slots),
            timeout: self.settings.queue_timeout,
        }))
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load {
            running: self.settings.capacity - self.slots.available_permits(),
            waiting: self.waiting(),
        }
    }

    /// How many jobs may run at once.
    pub fn capacity(&self) -> usize {
        self.settings.capacity
    }

    /// How many jobs may wait.
    pub fn queue(&self) -> usize {
        self.settings.queue
    }

    fn waiting(&self) -> usize {
        self.settings.queue - self.room.available_permits()
    }
}

impl Place {
    /// Waits until the job may run: until it has a slot, and then until there is `room` for its answer. A job that waits
    /// was admitted when there was, and many like it would fill what they share without a bound.
    ///
    /// # Errors
    /// `queue_timeout`.
    pub(super) async fn slot(self, room: impl Future<Output = ()>) -> Result<Self, Failure> {
        let waiting = match self {
            Self::Slot(_) => return Ok(self),
            Self::Waiting(waiting) => waiting,
        };
        let limit = waiting.timeout;
        let may_run = async {
            let slot = Arc::clone(&waiting.slots).acquire_owned().await;
            // Its place in the waiting room is free for another.
            drop(waiting);
            room.await;
            slot
        };
        match timeout(limit, may_run).await {
            Ok(Ok(slot)) => Ok(Self::Slot(slot)),
            // The semaphore is never closed, so that only the time-out is left.
            Ok(Err(_)) | Err(_) => {
                let limit = humantime::format_duration(limit);
                Err(Failure::new(
                    Code::QueueTimeout,
                    format!("no slot became free within {limit}"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::{pending, ready};

    use super::*;

    fn admission(capacity: usize, queue: usize, queue_bytes: usize) -> Admission {
        Admission::new(AdmissionSettings {
            capacity,
            queue,
            queue_bytes,
            queue_timeout: Duration::from_secs(30),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn with_capacity_two_and_queue_one_of_four_jobs_two_run_one_waits_and_one_has_no_place() {
        let admission = admission(2, 1, 100);
        let first = admission.enter(1).unwrap();
        let second = admission.enter(1).unwrap();
        let third = admission.enter(1).unwrap();
        assert!(matches!(
            (&first, &second, &third),
            (Place::Slot(_), Place::Slot(_), Place::Waiting(_))
        ));
        assert!(admission.enter(1).is_none());
        assert_eq!(
            admission.load(),
            Load {
                running: 2,
                waiting: 1
            }
        );
        drop(first);
        let third = third.slot(ready(())).await.unwrap();
        assert_eq!(
            admission.load(),
            Load {
                running: 2,
                waiting: 0
            }
        );
        drop((second, third));
        assert_eq!(admission.load(), Load::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_becomes_free_goes_to_the_one_that_waits_and_not_to_a_newcomer() {
        let admission = admission(1, 2, 100);
        let running = admission.enter(1).unwrap();
        let waiting = admission.enter(1).unwrap();
        drop(running);
        assert!(matches!(admission.enter(1), Some(Place::Waiting(_))));
        assert!(waiting.slot(ready(())).await.is_ok());
    }

    #[test]
    fn the_waiting_room_is_bounded_in_bytes() {
        let admission = admission(1, 10, 100);
        let _running = admission.enter(1_000_000).unwrap();
        let _waiting = admission.enter(60).unwrap();
        assert!(admission.enter(60).is_none());
        assert!(admission.enter(40).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_a_refusal_after_the_queue_timeout() {
        let admission = admission(1, 1, 100);
        let _running = admission.enter(1).unwrap();
        let waiting = admission.enter(1).unwrap();
        let failure = waiting.slot(ready(())).await.err().unwrap();
        assert_eq!(
            failure.text(),
            "queue_timeout: no slot became free within 30s"
        );
        assert_eq!(admission.load().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_has_waited_begins_only_once_there_is_room_for_its_answer() {
        let admission = admission(1, 2, 100);
        let running = admission.enter(1).unwrap();
        let (first, second) = (admission.enter(1).unwrap(), admission.enter(1).unwrap());
        drop(running);
        let failure = first.slot(pending()).await.err().unwrap();
        assert_eq!(failure.code, Code::QueueTimeout);
        assert!(second.slot(ready(())).await.is_ok());
    }
}
