//! The gateway's own faults, so that what they lose is not laid at the product's door: Closes that cross, acknowledgements
//! of what was not read, answers that are thrown away.
//!
//! Invariant: an excuse is for one request or one session, and only where the product could not have known better.

use tokio::time::Instant;

use super::{
    books::Books,
    interviews::{key, wire_id},
    ledger::{Ledger, Request},
    manners::Farewell,
};

/// A Close that the gateway has sent of its own accord.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    farewell: Farewell,
    /// How much the product had written when it read it; `None`: it has not.
    read: Option<u64>,
}

/// What was read, and acknowledged, of one id in one session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    terminals: u64,
    acknowledgements: u64,
}

impl Books {
    /// The gateway says Close of its own accord.
    pub(super) fn leaves(&self, session: u64, farewell: Farewell) {
        let mut ledger = self.ledger();
        ledger.count("closes of the gateway");
        if farewell.is_like_an_answer() {
            ledger.count("closes of the gateway with 1000 or without a code");
        }
        if let Some(session) = ledger.sessions.get_mut(&session) {
            let read = None;
            session.leaving = Some(Leaving { farewell, read });
        }
    }

    /// The product has read that Close.
    pub(super) fn leaving_was_read(&self, session: u64) {
        let mut ledger = self.ledger();
        let written = ledger.gateway.facts(session).map(|facts| facts.written_up);
        if let Some(leaving) = ledger
            .sessions
            .get_mut(&session)
            .and_then(|session| session.leaving.as_mut())
        {
            leaving.read = written;
        }
    }

    /// Whether the gateway has said Close of its own accord.
    pub(super) fn has_left(&self, session: u64) -> bool {
        let ledger = self.ledger();
        let session = ledger.sessions.get(&session);
        session.is_some_and(|session| session.leaving.is_some())
    }

    /// Whether the gateway has read a Close of the product.
    pub(super) fn has_closed(&self, session: u64) -> bool {
        let ledger = self.ledger();
        let session = ledger.sessions.get(&session);
        session.is_some_and(|session| session.has_closed)
    }

    /// The gateway has read a Close of the product, which is these bytes of all that the product has written and was begun
    /// at this moment. Tells whether it is the product's own, and no answer to the gateway's.
    pub(super) fn close_seen(
        &self,
        session: u64,
        code: Option<u16>,
        written: Instant,
        (start, end): (u64, u64),
    ) -> bool {
        let mut ledger = self.ledger();
        let Some(state) = ledger.sessions.get_mut(&session) else {
            return false;
        };
        state.has_closed = true;
        let leaving = state.leaving;
        let read = leaving.and_then(|leaving| leaving.read);
        let is_own = read.is_none_or(|read| start < read);
        if is_own && code == Some(1000) {
            state.done = Some(written);
        }
        let Some(leaving) = leaving.filter(|_| is_own) else {
            return is_own;
        };
        // What was not yet written whole cannot have been answered.
        let is_alike = leaving.farewell.is_like_an_answer() && read.is_none_or(|read| end <= read);
        state.crossed = is_alike;
        ledger.count("closes of the gateway that crossed ours");
        if is_alike {
            ledger.count("closes of the gateway that crossed ours and look like its answer");
        }
        is_own
    }

    /// The gateway has read a terminal frame.
    pub(super) fn terminal_read(&self, session: u64, id: &str) {
        if let Some(session) = self.ledger().sessions.get_mut(&session) {
            let entry = session.acknowledged.entry(id.to_owned()).or_default();
            entry.terminals += 1;
        }
    }

    /// The gateway acknowledges an answer, be it one that it has read or not.
    pub(super) fn acknowledges(&self, session: u64, id: &str) {
        let mut ledger = self.ledger();
        let Some(state) = ledger.sessions.get_mut(&session) else {
            return;
        };
        let entry = state.acknowledged.entry(id.to_owned()).or_default();
        entry.acknowledgements += 1;
        if entry.acknowledgements > entry.terminals {
            ledger.count("acknowledgements of what was not read");
            ledger.lies.insert((id.to_owned(), session));
        }
    }

    /// The gateway throws away a frame that it has read, for it has said Close.
    pub(super) fn thrown_away(&self, session: u64, kind: &str, id: &str) {
        let mut ledger = self.ledger();
        let id = match kind {
            "INFERENCE_RESPONSE" | "INFERENCE_ERROR" | "TTS_RESPONSE" | "TTS_ERROR" => {
                id.to_owned()
            }
            "INTERVIEW_RESULT" => key(id),
            _ => return,
        };
        ledger.count("answers thrown away after a Close");
        if let Some(request) = ledger.requests.get_mut(&id) {
            request.thrown_away.insert(session);
        }
    }
}

impl Ledger {
    /// Whether the gateway has acknowledged an answer of this id that it had not read.
    pub(super) fn is_lied_about(&self, id: &str) -> bool {
        let id = wire_id(id);
        let lies = (id.to_owned(), 0)..=(id.to_owned(), u64::MAX);
        self.lies.range(lies).next().is_some()
    }

    /// Whether it is the gateway's fault that it has no answer to a request that was last made on this session: it has
    /// acknowledged one that it had not read, or has thrown it away with a Close that the product had to take for the
    /// answer to its own.
    pub(super) fn is_gateways_fault(
        &self,
        id: &str,
        request: &Request,
        session: u64,
    ) -> Option<&'static str> {
        let id = wire_id(id);
        let lies = (id.to_owned(), session)..=(id.to_owned(), u64::MAX);
        if self.lies.range(lies).next().is_some() {
            return Some("answers that were lost by a lie");
        }
        let crossed = |session| {
            let session = self.sessions.get(session);
            session.is_some_and(|session| session.crossed)
        };
        // Or the gateway never read the product's Close, and with it whether that was the product's own.
        let broke = self.sessions.range(session..).any(|(number, session)| {
            let read_alike = session.leaving.is_some_and(|leaving| {
                leaving.farewell.is_like_an_answer() && leaving.read.is_some()
            });
            let facts = self.gateway.facts(*number);
            let is_lost = facts.is_some_and(|facts| {
                facts.cut.is_some() || facts.mute.is_some() || facts.under_way_up > 0
            });
            read_alike && !session.has_closed && is_lost
        });
        let is_lost = broke || request.thrown_away.iter().any(crossed);
        is_lost.then_some("answers that were lost by a Close that crossed ours")
    }
}
