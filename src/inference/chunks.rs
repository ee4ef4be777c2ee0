//! One job's chunks: which session they go over, and from where.
//!
//! Invariant: over a session go either no chunks of a job, or all of its text from the first on, in order; over none but
//! the last one that its request came by.

use std::future::pending;

use super::jobs::Handle;
use crate::{
    backend::{Decoder, Deltas},
    outbox::{Outbox, SessionNumber},
    protocol::{Chunk, RequestId},
};

/// Where the text of an answer goes while it is read; nowhere, if nobody wants that.
pub(super) struct Chunks<'a>(Option<Wanted<'a>>);

struct Wanted<'a> {
    outbox: &'a Outbox,
    request_id: RequestId,
    handle: &'a Handle,
    /// The session that has had all so far, and how many chunks that was.
    session: SessionNumber,
    index: u64,
}

impl<'a> Chunks<'a> {
    /// Chunks for the session by which this job's request came.
    pub(super) fn new(outbox: &'a Outbox, request_id: RequestId, handle: &'a Handle) -> Self {
        Self(Some(Wanted {
            outbox,
            request_id,
            handle,
            session: handle.session(),
            index: 0,
        }))
    }

    /// Nobody asked for chunks.
    pub(super) fn unwanted() -> Self {
        Self(None)
    }

    /// Waits until the request has come again by another session, perhaps in vain.
    pub(super) async fn moved(&self) {
        match &self.0 {
            Some(wanted) => wanted.handle.attached().await,
            None => pending().await,
        }
    }

    /// Turns to the session that the request has come by last: one that it has come by anew gets all the text that
    /// `decoder` has had so far instead of what has arrived since the last time.
    pub(super) fn follow(&mut self, deltas: &mut Deltas, decoder: &dyn Decoder) {
        let Some(wanted) = &mut self.0 else { return };
        let session = wanted.handle.session();
        if session != wanted.session {
            wanted.session = session;
            wanted.index = 0;
            *deltas = decoder.so_far();
        }
    }

    /// Sends what has arrived, and waits while there is no room. What arrived together leaves together: a chunk for each
    /// kind in turn, not for each token.
    pub(super) async fn send(&mut self, deltas: &mut Deltas) {
        for (kind, delta) in deltas.drain() {
            let Some(wanted) = &mut self.0 else { continue };
            let chunk = Chunk {
                request_id: wanted.request_id.clone(),
                index: wanted.index,
                delta,
                kind,
            };
            wanted.outbox.chunk(wanted.session, chunk).await;
            wanted.index += 1;
        }
    }

    /// Sends none any more. The answer has it all.
    pub(super) fn give_up(&mut self) {
        self.0 = None;
    }
}
