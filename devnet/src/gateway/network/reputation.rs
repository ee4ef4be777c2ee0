//! What a node's deeds do to its reputation.
//!
//! Invariant: a reputation is between 0 and [`Reputation::most`].

/// How much what is worth, in points. The network says only what raises and what lowers; the numbers are this gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reputation {
    /// What a new node begins with.
    pub start: u32,
    /// No node has more.
    pub most: u32,
    /// An answer adds this.
    pub answer: u32,
    /// An `INFERENCE_ERROR` takes this, `busy` like any other.
    pub error: u32,
    /// A request that had to be given up takes this.
    pub given_up: u32,
    /// A probe that was not answered in time, or with an error, takes this.
    pub probe_missed: u32,
}

impl Default for Reputation {
    fn default() -> Self {
        Self {
            start: 100,
            most: 100,
            answer: 1,
            error: 5,
            given_up: 10,
            probe_missed: 5,
        }
    }
}

/// What a node did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Answered,
    Failed,
    GivenUp,
    MissedProbe,
}

impl Reputation {
    /// What a node has that had so much.
    pub(super) fn after(&self, deed: Deed, points: u32) -> u32 {
        match deed {
            Deed::Answered => points.saturating_add(self.answer).min(self.most),
            Deed::Failed => points.saturating_sub(self.error),
            Deed::GivenUp => points.saturating_sub(self.given_up),
            Deed::MissedProbe => points.saturating_sub(self.probe_missed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_raise_and_everything_else_lowers_within_bounds() {
        let worth = Reputation::default();
        assert_eq!(worth.after(Deed::Answered, 100), 100);
        assert_eq!(worth.after(Deed::Answered, 50), 51);
        assert_eq!(worth.after(Deed::Failed, 50), 45);
        assert_eq!(worth.after(Deed::GivenUp, 50), 40);
        assert_eq!(worth.after(Deed::MissedProbe, 50), 45);
        assert_eq!(worth.after(Deed::GivenUp, 3), 0);
    }
}
