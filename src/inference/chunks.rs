//! One job's chunks: which session they go over, and from where.
//!
//! Invariant: over a session go either no chunks of a job, or all of its text from the first on, in order; over none but
//! the last one that its request came by.

use super::jobs::Handle;
use crate::{
    backend::{Decoder, Deltas},
    outbox::{Outbox, SessionNumber},
    protocol::{Chunk, RequestId},
};

pub(super) struct Chunks<'a> {
    outbox: &'a Outbox,
    request_id: RequestId,
    handle: &'a Handle,
    /// Whether anybody asked for chunks.
    wanted: bool,
    /// The session that has had all so far, and how many chunks that was.
    session: SessionNumber,
    index: u64,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(
        outbox: &'a Outbox,
        request_id: RequestId,
        handle: &'a Handle,
        wanted: bool,
    ) -> Self {
        Self {
            outbox,
            request_id,
            handle,
            wanted,
            session: handle.session(),
            index: 0,
        }
    }

    /// Waits until the request has come again by another session, perhaps in vain.
    pub(super) async fn moved(&self) {
        self.handle.attached().await;
    }

    /// Turns to the session that the request has come by last: one that it has come by anew gets all the text that
    /// `decoder` has had so far instead of what has arrived since the last time.
    pub(super) fn follow(&mut self, deltas: &mut Deltas, decoder: &dyn Decoder) {
        let session = self.handle.session();
        if self.wanted && session != self.session {
            self.session = session;
            self.index = 0;
            *deltas = decoder.so_far();
        }
    }

    /// Sends what has arrived, and waits while there is no room. What arrived together leaves together: a chunk for each
    /// kind in turn, not for each token.
    pub(super) async fn send(&mut self, deltas: &mut Deltas) {
        for (kind, delta) in deltas.drain() {
            if !self.wanted {
                continue;
            }
            let chunk = Chunk {
                request_id: self.request_id.clone(),
                index: self.index,
                delta,
                kind,
            };
            self.outbox.chunk(self.session, chunk).await;
            self.index += 1;
        }
    }

    /// Sends none any more. The answer has it all.
    pub(super) fn give_up(&mut self) {
        self.wanted = false;
    }
}
