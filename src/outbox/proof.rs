//! Which of the answers that were written are known to have been read. Pure.
//!
//! Invariant: an answer is proven by its own acknowledgement, or by that of something written after it, never by less.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::protocol::RequestId;

/// The books of one session.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Answers without proof, in the order of writing, each with the number of heartbeats written before it.
    unproven: VecDeque<(RequestId, u64)>,
    heartbeats_written: u64,
    heartbeats_acknowledged: u64,
    /// The last heartbeat that was written, and when.
    last_heartbeat: Option<(u64, Instant)>,
    gateway_acknowledges: bool,
}

impl Proof {
    pub(super) fn answer_written(&mut self, request_id: RequestId) {
        self.unproven
            .push_back((request_id, self.heartbeats_written));
    }

    pub(super) fn heartbeat_written(&mut self, now: Instant) {
        self.heartbeats_written += 1;
        self.last_heartbeat = Some((self.heartbeats_written, now));
    }

    pub(super) fn result_acknowledged(&mut self, request_id: &RequestId) {
        self.gateway_acknowledges = true;
        if let Some(at) = self.unproven.iter().position(|(id, _)| id == request_id) {
            self.unproven.remove(at);
        }
    }

    /// The n-th acknowledgement proves what was written before the n-th heartbeat; one too many proves nothing. Gives
    /// the round trip, if it is that of the last heartbeat.
    pub(super) fn heartbeat_acknowledged(&mut self, now: Instant) -> Option<Duration> {
        self.gateway_acknowledges = true;
        if self.heartbeats_acknowledged == self.heartbeats_written {
            return None;
        }
        self.heartbeats_acknowledged += 1;
        self.prove_before(self.heartbeats_acknowledged);
        self.round_trip(self.heartbeats_acknowledged, now)
    }

    /// The Pong to the Ping that went with the n-th heartbeat. It says only that the socket's other end has read, so it
    /// counts where the gateway acknowledges nothing by itself.
    pub(super) fn pong(&mut self, heartbeat: u64, now: Instant) -> Option<Duration> {
        if self.gateway_acknowledges || heartbeat > self.heartbeats_written {
            return None;
        }
        self.prove_before(heartbeat);
        self.round_trip(heartbeat, now)
    }

    fn round_trip(&self, heartbeat: u64, now: Instant) -> Option<Duration> {
        self.last_heartbeat
            .filter(|(last, _)| *last == heartbeat)
            .map(|(_, written)| now - written)
    }

    /// The peer has answered our Close, so it has read everything.
    pub(super) fn closed(&mut self) {
        self.unproven.clear();
    }

    pub(super) fn unproven(&self) -> usize {
        self.unproven.len()
    }

    pub(super) fn into_unproven(self) -> impl Iterator<Item = RequestId> {
        self.unproven.into_iter().map(|(request_id, _)| request_id)
    }

    fn prove_before(&mut self, heartbeat: u64) {
        while self
            .unproven
            .front()
            .is_some_and(|(_, before)| *before < heartbeat)
        {
            self.unproven.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(id: &str) -> RequestId {
        RequestId::new(id).unwrap()
    }

    #[test]
    fn an_acknowledged_heartbeat_proves_what_was_written_before_it_and_nothing_after() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut proof = Proof::default();
        proof.heartbeat_written(now);
        proof.answer_written(id("a"));
        assert_eq!(
            proof.heartbeat_acknowledged(later),
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            proof.unproven(),
            1,
            "the first heartbeat went before the answer"
        );
        assert_eq!(proof.heartbeat_acknowledged(later), None);
        assert_eq!(
            proof.unproven(),
            1,
            "a surplus acknowledgement proves nothing"
        );
        proof.heartbeat_written(later);
        proof.answer_written(id("b"));
        proof.heartbeat_acknowledged(later);
        assert_eq!(proof.into_unproven().collect::<Vec<_>>(), [id("b")]);
    }

    #[test]
    fn a_result_ack_proves_its_answer_alone() {
        let mut proof = Proof::default();
        proof.answer_written(id("a"));
        proof.answer_written(id("b"));
        proof.result_acknowledged(&id("b"));
        proof.result_acknowledged(&id("never sent"));
        assert_eq!(proof.into_unproven().collect::<Vec<_>>(), [id("a")]);
    }

    #[test]
    fn a_pong_counts_only_where_the_gateway_acknowledges_nothing() {
        let now = Instant::now();
        let mut proof = Proof::default();
        proof.answer_written(id("a"));
        proof.heartbeat_written(now);
        proof.pong(1, now);
        assert_eq!(proof.unproven(), 0);
        proof.result_acknowledged(&id("a"));
        proof.answer_written(id("b"));
        proof.heartbeat_written(now);
        proof.pong(2, now);
        assert_eq!(proof.unproven(), 1);
    }
}
