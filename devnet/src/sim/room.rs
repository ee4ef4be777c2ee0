//! What the books know of the room in the outbox: what the product's own gauge says whenever they are opened, so also as the
//! product reads a request.
//!
//! Invariant: a refusal for lack of room is excused by an outbox that was full since its request was read, and by no other:
//! it fills and empties between two looks, and one that was full long ago is no reason.

use tokio::time::Instant;

use super::{
    books::{Books, Seen},
    ledger::{Ledger, Request},
};

/// The gauge, and what it has said.
#[derive(Default)]
pub(super) struct Room {
    gauge: Option<Box<dyn Fn() -> i64 + Send>>,
    /// When the outbox was last seen to take nothing in.
    none: Option<Instant>,
}

impl Books {
    /// From now on the product's `outbox_bytes` can be read at any time.
    pub fn watch_outbox(&self, bytes: impl Fn() -> i64 + Send + 'static) {
        self.ledger().room.gauge = Some(Box::new(bytes));
    }
}

impl Ledger {
    /// Something is about to be entered.
    pub(super) fn look_at_room(&mut self) {
        let bytes = self.room.gauge.as_ref().map_or(0, |bytes| bytes());
        if u64::try_from(bytes).is_ok_and(|bytes| bytes >= self.limits.outbox_bytes) {
            self.room.none = Some(Instant::now());
        }
    }

    /// Whether what this refuses may have found the outbox full. A refusal ends with its session, so that it is one of a making
    /// there; which of several is not known.
    pub(super) fn had_no_room(&self, request: &Request, seen: &Seen<'_>) -> bool {
        let made = request.made.iter();
        let made = made.filter(|made| made.session == seen.session);
        let since = made.filter_map(|made| made.read).min();
        since.is_some_and(|since| self.room.none >= Some(since))
    }
}
