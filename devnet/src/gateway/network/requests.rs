//! The requests that are under way, and how long each is still waited for.
//!
//! Invariant: a request is here from its sending until it is answered, cancelled or given up, and ends once.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// What the ids of probes begin with, and no other's.
const PROBE: &str = "probe-";

#[derive(Debug, Default)]
pub(super) struct Requests {
    under_way: HashMap<String, Request>,
    probes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    /// The alias of the node that it is thought to go to; `None` if the session has none.
    pub(super) node: Option<String>,
    /// How long nothing may come of it; `None`: it is waited for however long.
    pub(super) limit: Option<Duration>,
    /// When something last came of it, at first its sending.
    heard: Instant,
}

/// Whether a request of this id is a probe.
pub(crate) fn is_probe(id: &str) -> bool {
    id.starts_with(PROBE)
}

impl Request {
    pub(super) fn new(node: Option<String>, limit: Option<Duration>, now: Instant) -> Self {
        Self {
            node,
            limit,
            heard: now,
        }
    }

    /// From when on it is given up. A limit beyond what a clock can say is none.
    fn due(&self) -> Option<Instant> {
        self.heard.checked_add(self.limit?)
    }
}

impl Requests {
    pub(super) fn fresh_probe_id(&mut self) -> String {
        self.probes += 1;
        format!("{PROBE}{}", self.probes)
    }

    /// One that is sent again begins anew.
    pub(super) fn sent(&mut self, id: &str, request: Request) {
        self.under_way.insert(id.to_owned(), request);
    }

    /// A chunk came. A probe is to be answered in time, whatever comes before.
    pub(super) fn heard(&mut self, id: &str, now: Instant) {
        if let Some(request) = self.under_way.get_mut(id)
            && !is_probe(id)
        {
            request.heard = now;
        }
    }

    /// It is answered or cancelled; `None` if it was not under way.
    pub(super) fn end(&mut self, id: &str) -> Option<Request> {
        self.under_way.remove(id)
    }

    /// Forgets the probes of this node.
    pub(super) fn forget_probes(&mut self, alias: &str) {
        self.under_way
            .retain(|id, request| !is_probe(id) || request.node.as_deref() != Some(alias));
    }

    /// When the next one is to be given up, if any.
    pub(super) fn due(&self) -> Option<Instant> {
        self.under_way.values().filter_map(Request::due).min()
    }

    /// Ends those that are to be given up by now, in the order of their ids.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<(String, Request)> {
        let is_due = |request: &Request| request.due().is_some_and(|due| due <= now);
        let mut over: Vec<_> = self
            .under_way
            .extract_if(|_, request| is_due(request))
            .collect();
        over.sort_by(|(one, _), (other, _)| one.cmp(other));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(90);

    fn under_way(id: &str, begun: Instant) -> Requests {
        let mut requests = Requests::default();
        requests.sent(id, Request::new(None, Some(LIMIT), begun));
        requests
    }

    #[test]
    fn a_chunk_gives_a_request_all_of_its_time_again_and_a_probe_nothing() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(60);
        for (id, due) in [("req-1", later + LIMIT), ("probe-1", begun + LIMIT)] {
            let mut requests = under_way(id, begun);
            requests.heard(id, later);
            assert_eq!(requests.due(), Some(due));
            assert_eq!(requests.give_up(due - Duration::from_millis(1)), []);
            assert_eq!(requests.give_up(due).len(), 1);
            assert_eq!(requests.due(), None);
        }
    }

    #[test]
    fn what_is_answered_or_has_no_limit_is_not_given_up() {
        let begun = Instant::now();
        let mut requests = under_way("answered", begun);
        requests.sent("patient", Request::new(None, None, begun));
        assert!(requests.end("answered").is_some());
        assert!(requests.end("answered").is_none());
        assert_eq!(requests.due(), None);
        assert_eq!(requests.give_up(begun + 100 * LIMIT), []);
    }
}
