//! Which answers were sent in this session and are not known to have been read, in the order of sending. Pure.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::answers::Serial;
use crate::link::{Position, Proof};

#[derive(Debug, Default)]
pub(super) struct Sent {
    unproven: BTreeMap<Position, Unproven>,
    /// Where in that order each of them is.
    positions: BTreeMap<Serial, Position>,
    next: Position,
}

#[derive(Debug)]
struct Unproven {
    serial: Serial,
    /// When the answer was made.
    created: Instant,
}

impl Sent {
    /// An answer is about to be written, perhaps once more. Gives its place among what this session has sent.
    pub(super) fn begin(&mut self, serial: Serial, created: Instant) -> Position {
        if let Some(position) = self.positions.get(&serial) {
            return *position;
        }
        let position = self.next;
        self.next = position.next();
        self.unproven.insert(position, Unproven { serial, created });
        self.positions.insert(serial, position);
        position
    }

    /// Takes out what has been read.
    pub(super) fn prove(&mut self, proof: Proof) -> Vec<Serial> {
        let proven: Vec<_> = match proof {
            Proof::Answer(position) => self.unproven.remove(&position).into_iter().collect(),
            Proof::Before(end) => {
                let rest = self.unproven.split_off(&end);
                let proven = std::mem::replace(&mut self.unproven, rest);
                proven.into_values().collect()
            }
        };
        let serials = proven.iter().map(|answer| answer.serial).collect();
        for answer in proven {
            self.positions.remove(&answer.serial);
        }
        serials
    }

    /// An answer is no longer to be proven.
    pub(super) fn forget(&mut self, serial: Serial) {
        if let Some(position) = self.positions.remove(&serial) {
            self.unproven.remove(&position);
        }
    }

    /// When the oldest of those at this position and beyond was made.
    pub(super) fn oldest_from(&self, position: Position) -> Option<Instant> {
        let later = self.unproven.range(position..);
        later.map(|(_, unproven)| unproven.created).min()
    }
}
