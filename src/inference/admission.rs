//! Who may run a job now, who may wait for it, and how many.
//!
//! Invariant: never more than `queue` jobs or `queue_bytes` bytes wait, over all nodes together, beside one interview a node.
//! Dropping a place gives back all that it holds.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::AdmissionSettings,
    node::{InterviewPlace, Node, Slot, Slots, Turn, Waiting},
    protocol::{Code, Failure},
};

/// The nodes' slots and the waiting room before them.
pub struct Admission {
    /// Of every node.
    slots: Vec<Arc<Slots>>,
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    settings: AdmissionSettings,
}

/// How busy this process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs that hold a slot.
    pub running: usize,
    /// Jobs that wait for one.
    pub waiting: usize,
}

impl Load {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            running: self.running.max(other.running),
            waiting: self.waiting.max(other.waiting),
        }
    }
}

/// A job's claim to run, now or later.
pub(super) enum Reservation {
    /// A chat's, or what waits like one.
    Job {
        claim: Claim,
        /// The longest wait.
        timeout: Duration,
    },
    /// An interview's, on the node that it is for.
    Interview(Interviewed),
}

/// It may run, or waits in the room.
pub(super) enum Claim {
    Slot(Slot),
    Waiting {
        _claim: Waiting,
        _place: OwnedSemaphorePermit,
        _bytes: OwnedSemaphorePermit,
    },
}

/// An interview's place on its node, and its slot or its claim to the next one.
pub(super) struct Interviewed {
    place: InterviewPlace,
    slot: Option<Slot>,
    _claim: Option<Waiting>,
}

/// The right to run, which ends when this is dropped: the slot before the place, so that the next interview finds it.
pub(super) struct Running {
    pub(super) slot: Slot,
    _interview: Option<InterviewPlace>,
}

impl Admission {
    pub(crate) fn new(slots: Vec<Arc<Slots>>, settings: AdmissionSettings) -> Self {
        let semaphore =
            |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            slots,
            room: semaphore(settings.queue),
            room_bytes: semaphore(settings.queue_bytes),
            settings,
        }
    }

    /// Takes a job of so many bytes in, for the first of these that has a slot free; `None` if none has and there is no
    /// place to wait.
    pub(super) fn enter(&self, slots: &[Arc<Slots>], bytes: usize) -> Option<Reservation> {
        let free = slots.iter().find_map(|slots| slots.take(Turn::Last));
        let claim = match free {
            Some(slot) => Claim::Slot(slot),
            None => self.wait(slots, bytes)?,
        };
        Some(Reservation::Job {
            claim,
            timeout: self.settings.queue_timeout,
        })
    }

    /// Takes an interview of this node in, ahead of all that wait for a slot; `None` if one is run and another waits.
    pub(super) fn enter_interview(node: &Node) -> Option<Reservation> {
        let place = node.interviews.enter()?;
        let has_turn = place.has_turn();
        let slot = has_turn.then(|| node.slots.take(Turn::First)).flatten();
        let slots = [Arc::clone(&node.slots)];
        Some(Reservation::Interview(Interviewed {
            _claim: (has_turn && slot.is_none()).then(|| Waiting::for_any(&slots)),
            place,
            slot,
        }))
    }

    fn wait(&self, slots: &[Arc<Slots>], bytes: usize) -> Option<Claim> {
        let bytes = u32::try_from(bytes).ok()?;
        let (room, room_bytes) = (Arc::clone(&self.room), Arc::clone(&self.room_bytes));
        Some(Claim::Waiting {
            _place: room.try_acquire_owned().ok()?,
            _bytes: room_bytes.try_acquire_many_owned(bytes).ok()?,
            _claim: Waiting::for_any(slots),
        })
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load {
            running: self.slots.iter().map(|slots| slots.taken()).sum(),
            waiting: self.settings.queue - self.room.available_permits(),
        }
    }

    /// How many jobs may run at once.
    pub fn capacity(&self) -> usize {
        self.slots.iter().map(|slots| slots.capacity()).sum()
    }

    /// How many jobs may wait.
    pub fn queue(&self) -> usize {
        self.settings.queue
    }
}

impl Reservation {
    /// Waits until the job may run: until it has one of these slots, and then until there is `room` for its
    /// answer. A job that waits was admitted when there was, and many like it would fill what they share without a bound.
    ///
    /// # Errors
    /// `queue_timeout`.
    pub(super) async fn slot(
        self,
        slots: &[Arc<Slots>],
        room: impl Future<Output = ()>,
    ) -> Result<Running, Failure> {
        let (claim, limit) = match self {
            Self::Job { claim, timeout } => (claim, timeout),
            Self::Interview(interviewed) => return Ok(interviewed.slot(slots).await),
        };
        let is_right = |slot: &Slot| slots.iter().any(|slots| slot.is_of(slots));
        let held = match claim {
            Claim::Slot(slot) if is_right(&slot) => return Ok(slot.into()),
            // A slot of another node was taken before it was known which nodes there are to choose from.
            held => held,
        };
        let may_run = async {
            let slot = Slot::next_of(slots, Turn::Last).await;
            // Its place in the waiting room is free for another.
            drop(held);
            room.await;
            slot.into()
        };
        timeout(limit, may_run).await.map_err(|_| {
            let limit = humantime::format_duration(limit);
            let sentence = format!("no slot became free within {limit}");
            Failure::new(Code::QueueTimeout, sentence)
        })
    }
}

impl Interviewed {
    /// Waits for as long as it takes: until no other interview of the node is run, and for the node's next slot.
    async fn slot(mut self, slots: &[Arc<Slots>]) -> Running {
        let of_the_one_before = self.place.turn().await;
        let slot = match self.slot.or(of_the_one_before) {
            Some(slot) => slot,
            None => Slot::next_of(slots, Turn::First).await,
        };
        Running {
            slot: slot.left_to(self.place.next()),
            _interview: Some(self.place),
        }
    }
}

impl From<Slot> for Running {
    fn from(slot: Slot) -> Self {
        Self {
            slot,
            _interview: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::{pending, ready};

    use super::*;

    struct Bench {
        admission: Admission,
        /// Of the one node.
        slots: Vec<Arc<Slots>>,
    }

    fn admission(capacity: usize, queue: usize, queue_bytes: usize) -> Bench {
        let slots = vec![Slots::new(capacity)];
        let settings = AdmissionSettings {
            queue,
            queue_bytes,
            queue_timeout: Duration::from_secs(30),
        };
        Bench {
            admission: Admission::new(slots.clone(), settings),
            slots,
        }
    }

    impl Bench {
        fn enter(&self, bytes: usize) -> Option<Reservation> {
            self.admission.enter(&self.slots, bytes)
        }

        fn load(&self) -> Load {
            self.admission.load()
        }

        async fn slot(&self, place: Reservation) -> Result<Running, Failure> {
            place.slot(&self.slots, ready(())).await
        }
    }

    fn waits(place: &Reservation) -> bool {
        matches!(
            place,
            Reservation::Job {
                claim: Claim::Waiting { .. },
                ..
            }
        )
    }

    #[tokio::test(start_paused = true)]
    async fn with_capacity_two_and_queue_one_of_four_jobs_two_run_one_waits_and_one_has_no_place() {
        let admission = admission(2, 1, 100);
        let first = admission.enter(1).unwrap();
        let second = admission.enter(1).unwrap();
        let third = admission.enter(1).unwrap();
        assert_eq!([&first, &second, &third].map(waits), [false, false, true]);
        assert!(admission.enter(1).is_none());
        assert_eq!(
            admission.load(),
            Load {
                running: 2,
                waiting: 1
            }
        );
        drop(first);
        let third = admission.slot(third).await.unwrap();
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
        assert!(waits(&admission.enter(1).unwrap()));
        assert!(admission.slot(waiting).await.is_ok());
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
        let failure = admission.slot(waiting).await.err().unwrap();
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
        let failure = first.slot(&admission.slots, pending()).await.err().unwrap();
        assert_eq!(failure.code, Code::QueueTimeout);
        assert!(admission.slot(second).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_of_a_node_that_does_not_offer_the_model_after_all_gives_way_to_one_that_does() {
        let both = [Slots::new(1), Slots::new(1)];
        let settings = AdmissionSettings {
            queue: 0,
            queue_bytes: 0,
            queue_timeout: Duration::from_secs(30),
        };
        let admission = Admission::new(both.to_vec(), settings);
        let early = admission.enter(&both, 1).unwrap();
        let running = early.slot(&both[1..], ready(())).await.unwrap();
        assert!(running.slot.is_of(&both[1]));
        assert_eq!(both[0].taken(), 0);
    }
}
