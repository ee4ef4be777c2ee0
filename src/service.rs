//! Whether this node serves: it does from the start, may be drained and opened again while the process stays, and ends
//! with it. Anybody may ask for that ([`Service::request_drain`], [`Service::reopen`]); the relay does it.
//!
//! Invariant: stages follow each other as [`Stage`] says, nothing follows `Ended`, and whoever has asked for a drain hears
//! of its end, whatever comes after it.

use std::future::Future;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use crate::admin::Verbs;

/// What this node does about work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It takes work. Left when somebody asks for a drain (`Draining`) or the process is to end (`Ending`).
    #[default]
    Open,
    /// It was asked to drain, and stays. Left when that is done (`Drained`), or when the process is to end (`Ending`).
    Draining,
    /// It has drained and has no session. Left when somebody asks for one or the backend was restarted (`Open`), or when
    /// the process is to end (`Ending`).
    Drained,
    /// The process is to end: it drains, if it has not. Left when that is done (`Ended`).
    Ending,
    /// It has drained for the last time.
    Ended,
}

/// What a drain has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Answers that are not known to have been delivered: they go again in the next session, if there is one.
    pub undelivered: usize,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// Drains that are over, and what the last of them has left.
    drains: u64,
    rest: Rest,
}

/// The stage that a node is in, and what may be asked of it.
#[derive(Debug, Default)]
pub struct Service {
    state: watch::Sender<State>,
}

impl Service {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.state.borrow().stage
    }

    /// Has the node drain, unless it does or has already; what is given is done once it has.
    pub fn request_drain(&self) -> impl Future<Output = Rest> + Send + 'static {
        self.step(Stage::Draining, |stage| stage == Stage::Open);
        let mut state = self.state.subscribe();
        let drains = {
            let now = state.borrow();
            let is_over = matches!(now.stage, Stage::Drained | Stage::Ended);
            now.drains + u64::from(!is_over)
        };
        async move {
            let over = state.wait_for(|state| state.drains >= drains).await;
            // Without a relay that could drain nothing is left to be delivered either.
            over.map_or_else(|_| Rest::default(), |state| state.rest)
        }
    }

    /// Has a drained node open its session again. Tells whether it serves now, which it does not while it drains.
    pub fn reopen(&self) -> bool {
        self.step(Stage::Open, |stage| stage == Stage::Drained);
        self.stage() == Stage::Open
    }

    /// Waits until somebody asks for a drain.
    pub(crate) async fn drain_requested(&self) {
        self.reaches(|stage| stage == Stage::Draining).await;
    }

    /// Waits until somebody opens a drained node again, be it only to have it drain once more.
    pub(crate) async fn reopened(&self) {
        self.reaches(|stage| stage != Stage::Drained).await;
    }

    /// The process is to end.
    pub(crate) fn end(&self) {
        self.step(Stage::Ending, |stage| stage != Stage::Ended);
    }

    /// The drain is over.
    pub(crate) fn drained(&self, rest: Rest) {
        self.state.send_modify(|state| {
            state.stage = match state.stage {
                Stage::Ending | Stage::Ended => Stage::Ended,
                Stage::Open | Stage::Draining | Stage::Drained => Stage::Drained,
            };
            state.drains += 1;
            state.rest = rest;
        });
    }

    async fn reaches(&self, is_it: impl Fn(Stage) -> bool) {
        let mut state = self.state.subscribe();
        // Cannot fail: `self` holds the sender.
        let _ = state.wait_for(|state| is_it(state.stage)).await;
    }

    fn step(&self, to: Stage, may: impl Fn(Stage) -> bool) {
        self.state.send_if_modified(|state| {
            let steps = may(state.stage);
            if steps {
                state.stage = to;
            }
            steps
        });
    }
}

impl Verbs for Service {
    fn drain(&self) -> BoxFuture<'static, usize> {
        self.request_drain().map(|rest| rest.undelivered).boxed()
    }

    fn connect(&self) -> bool {
        self.reopen()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Rest = Rest { undelivered: 0 };
    const TWO_LEFT: Rest = Rest { undelivered: 2 };

    #[test]
    fn whoever_asks_for_a_drain_hears_when_it_is_over_however_many_ask() {
        let service = Service::default();
        let mut first = Box::pin(service.request_drain());
        let second = service.request_drain();
        assert_eq!(first.as_mut().now_or_never(), None);
        service.drained(TWO_LEFT);
        assert_eq!(first.now_or_never(), Some(TWO_LEFT));
        assert_eq!(second.now_or_never(), Some(TWO_LEFT));
        // It has drained already.
        assert_eq!(service.request_drain().now_or_never(), Some(TWO_LEFT));
    }

    #[test]
    fn a_drained_node_opens_again_and_one_that_drains_does_not() {
        let service = Service::default();
        assert!(service.reopen(), "it is open");
        let drained = service.request_drain();
        assert!(!service.reopen(), "it drains");
        service.drained(CLEAN);
        assert!(service.reopen());
        assert_eq!(service.stage(), Stage::Open);
        // Whoever had asked hears of it though it is open again.
        assert_eq!(drained.now_or_never(), Some(CLEAN));
        // The next drain is another one.
        assert_eq!(service.request_drain().now_or_never(), None);
    }

    #[test]
    fn a_node_that_is_opened_and_drained_again_at_once_does_both() {
        let service = Service::default();
        service.drained(CLEAN);
        assert!(service.reopen());
        let drained = service.request_drain();
        // Nobody had looked in between.
        assert_eq!(service.reopened().now_or_never(), Some(()));
        assert_eq!(service.drain_requested().now_or_never(), Some(()));
        service.drained(CLEAN);
        assert_eq!(drained.now_or_never(), Some(CLEAN));
    }

    #[test]
    fn a_process_that_ends_is_never_opened_again() {
        let service = Service::default();
        let drained = service.request_drain();
        service.end();
        assert!(!service.reopen());
        service.drained(CLEAN);
        assert_eq!(service.stage(), Stage::Ended);
        assert_eq!(drained.now_or_never(), Some(CLEAN));
        service.end();
        assert!(!service.reopen());
        assert_eq!(service.stage(), Stage::Ended);
    }
}
