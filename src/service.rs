//! Whether this sidecar serves: it does from the start, may be drained and opened again while the process stays, and ends
//! with it. Anybody may ask for that ([`Service::request_drain`], [`Service::reopen`]); the relay does it. How long a drain
//! may take is decided here and nowhere else, when it is asked for: whoever takes part in it is handed the deadlines
//! ([`Stages`]).
//!
//! Invariant: stages follow each other as [`Stage`] says, nothing follows `Ended`, and whoever has asked for a drain hears
//! of its end, whatever comes after it. Two drains that overlap are one: their times are never added up.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::Notify, time::Instant};

use crate::{admin::Verbs, clock::sleep_until_any, telemetry::Metrics};

/// What a drain may take beyond `PIN_DRAIN_TIMEOUT`: for proof, for the Close, for what is left of it; and for another
/// session, if there is none while answers are not proven. Half a second of the five that it may take is for what comes
/// after the session: connections to the backend, answers to probes, the log (delivery rules, "Drain").
const DELIVERY: Duration = Duration::from_millis(4500);

/// What the sidecar does about work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It takes work. Left when somebody asks for a drain, or when the process is to end (`Draining`).
    #[default]
    Open,
    /// It takes no new work, finishes what runs and delivers what it has. Left when that is done or its time is over:
    /// for `Ended` if it is the process' last one, else for `Drained`.
    Draining(Drain),
    /// It has drained and has no session. Left when somebody asks for one or the backend was restarted (`Open`), or when
    /// the process is to end (`Draining`, since something may be left to deliver).
    Drained,
    /// It has drained for the last time.
    Ended,
}

/// A drain and its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Whether the process ends with it.
    pub is_last: bool,
    /// Jobs that still run then are cut short.
    pub jobs_until: Instant,
    /// Whether every job has ended, so that there is nothing left but to deliver.
    pub jobs_done: bool,
    /// What is not delivered then is left.
    pub until: Instant,
}

impl Drain {
    fn begun_now(is_last: bool, jobs: Duration) -> Self {
        let jobs_until = Instant::now() + jobs;
        Self {
            is_last,
            jobs_until,
            jobs_done: false,
            until: jobs_until + DELIVERY,
        }
    }

    /// The process is to end with it. What has waited for the network so far may have that chance anew, jobs not: with
    /// or without a drain before it, a process has ended `PIN_DRAIN_TIMEOUT` and five seconds after it was told to.
    fn made_last(self) -> Self {
        if self.is_last {
            return self;
        }
        Self {
            is_last: true,
            until: self.until.max(Instant::now() + DELIVERY),
            ..self
        }
    }
}

impl Stage {
    /// The drain that is under way, if one is.
    pub fn drain(self) -> Option<Drain> {
        match self {
            Self::Draining(drain) => Some(drain),
            Self::Open | Self::Drained | Self::Ended => None,
        }
    }

    /// Whether the process is to end, or has.
    pub fn is_last(self) -> bool {
        match self {
            Self::Draining(drain) => drain.is_last,
            Self::Ended => true,
            Self::Open | Self::Drained => false,
        }
    }
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

/// The state, and those who wait for it to change. They are woken in the order in which they began to wait, so that a
/// simulated run is the same each time; a `watch` of tokio's wakes its watchers in any.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Waits until the state gives something.
    async fn until<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Listening begins before looking, so that no change is missed.
            changed.as_mut().enable();
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

/// The stage that a sidecar is in, and what may be asked of it.
pub struct Service {
    shared: Arc<Shared>,
    /// `PIN_DRAIN_TIMEOUT`.
    drain_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Service {
    /// A sidecar that is open, and whose jobs may run on for so long when it drains.
    pub fn new(drain_timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            shared: Arc::default(),
            drain_timeout,
            metrics,
        }
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.shared.lock().stage
    }

    /// The stages as they come, for whoever takes part.
    pub fn stages(&self) -> Stages {
        Stages(Arc::clone(&self.shared))
    }

    /// Has the sidecar drain, unless it does or has already; what is given is done once it has.
    pub fn request_drain(&self) -> impl Future<Output = Rest> + Send + 'static {
        self.step(|stage| match stage {
            Stage::Open => Stage::Draining(Drain::begun_now(false, self.drain_timeout)),
            Stage::Draining(_) | Stage::Drained | Stage::Ended => stage,
        });
        let shared = Arc::clone(&self.shared);
        let drains = {
            let now = shared.lock();
            let is_over = matches!(now.stage, Stage::Drained | Stage::Ended);
            now.drains + u64::from(!is_over)
        };
        async move {
            let over = |state: &State| (state.drains >= drains).then_some(state.rest);
            shared.until(over).await
        }
    }

    /// Has a drained sidecar open its session again. Tells whether it serves now, which it does not while it drains.
    pub fn reopen(&self) -> bool {
        self.step(|stage| match stage {
            Stage::Drained => Stage::Open,
            Stage::Open | Stage::Draining(_) | Stage::Ended => stage,
        });
        self.stage() == Stage::Open
    }

    /// The process is to end.
    pub(crate) fn end(&self) {
        self.step(|stage| match stage {
            Stage::Open => Stage::Draining(Drain::begun_now(true, self.drain_timeout)),
            // Its jobs have ended; something may be left to deliver.
            Stage::Drained => Stage::Draining(Drain::begun_now(true, Duration::ZERO)),
            Stage::Draining(drain) => Stage::Draining(drain.made_last()),
            Stage::Ended => Stage::Ended,
        });
    }

    /// Every job has ended.
    pub(crate) fn jobs_done(&self) {
        self.step(|stage| match stage {
            Stage::Draining(drain) => Stage::Draining(Drain {
                jobs_done: true,
                ..drain
            }),
            Stage::Open | Stage::Drained | Stage::Ended => stage,
        });
    }

    /// The drain is over.
    pub(crate) fn drained(&self, rest: Rest) {
        self.shared.change(|state| {
            state.stage = if state.stage.is_last() {
                Stage::Ended
            } else {
                Stage::Drained
            };
            state.drains += 1;
            state.rest = rest;
        });
    }

    fn step(&self, next: impl Fn(Stage) -> Stage) {
        self.shared.change(|state| {
            state.stage = next(state.stage);
            let drains = state.stage != Stage::Open;
            self.metrics.draining.set(i64::from(drains));
        });
    }
}

/// The stages of a [`Service`], as those see them who do what it says. Cheap to clone.
#[derive(Clone)]
pub struct Stages(Arc<Shared>);

impl Stages {
    /// The stage now.
    pub fn now(&self) -> Stage {
        self.0.lock().stage
    }

    /// Whether the sidecar takes work.
    pub fn is_open(&self) -> bool {
        self.now() == Stage::Open
    }

    /// Waits until the sidecar drains.
    pub async fn draining(&self) {
        self.reaches(|stage| stage.drain().is_some()).await;
    }

    /// Waits until every job has ended in a drain.
    pub async fn jobs_done(&self) {
        self.reaches(|stage| stage.drain().is_some_and(|drain| drain.jobs_done))
            .await;
    }

    /// Waits until a drained sidecar is to do something, be it only to drain once more.
    pub(crate) async fn rested(&self) {
        self.reaches(|stage| stage != Stage::Drained).await;
    }

    /// Waits until a drain may take no longer. Its end may be moved while this waits.
    pub async fn overdue(&self) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let over = sleep_until_any(self.now().drain().map(|drain| drain.until));
            tokio::select! {
                biased;
                () = changed => {}
                () = over => return,
            }
        }
    }

    async fn reaches(&self, is_it: impl Fn(Stage) -> bool) {
        self.0.until(|state| is_it(state.stage).then_some(())).await;
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
    use tokio::time::advance;

    use super::*;

    const CLEAN: Rest = Rest { undelivered: 0 };
    const TWO_LEFT: Rest = Rest { undelivered: 2 };
    const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
    /// A process has ended by then, counted from when it was told to.
    const PROMISED: Duration = Duration::from_secs(30);

    fn service() -> Service {
        Service::new(DRAIN_TIMEOUT, Arc::new(Metrics::new()))
    }

    #[test]
    fn whoever_asks_for_a_drain_hears_when_it_is_over_however_many_ask() {
        let service = service();
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
        let service = service();
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
        let service = service();
        service.drained(CLEAN);
        assert!(service.reopen());
        let drained = service.request_drain();
        // Nobody had looked in between.
        assert_eq!(service.stages().rested().now_or_never(), Some(()));
        assert_eq!(service.stages().draining().now_or_never(), Some(()));
        service.drained(CLEAN);
        assert_eq!(drained.now_or_never(), Some(CLEAN));
    }

    #[test]
    fn a_process_that_ends_is_never_opened_again() {
        let service = service();
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

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_told_to_end_in_the_middle_of_a_drain_has_no_more_time_than_any_other()
     {
        for before in [0, 1, 20, 25, 29].map(Duration::from_secs) {
            let service = service();
            let _asked = service.request_drain();
            advance(before).await;
            let told = Instant::now();
            let cut = service.stage().drain().map(|drain| drain.jobs_until);
            service.end();
            let drain = service.stage().drain();
            assert_eq!(
                drain.map(|drain| drain.jobs_until),
                cut,
                "jobs gain nothing"
            );
            let until = drain.map(|drain| drain.until);
            assert!(until <= Some(told + PROMISED), "{before:?}");
            assert!(until >= Some(told + DELIVERY), "{before:?}: a last chance");
            service.end();
            assert_eq!(service.stage().drain(), drain, "told twice");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_moved_counts_for_whoever_waits_for_it_already() {
        let service = service();
        let _asked = service.request_drain();
        let stages = service.stages();
        let mut overdue = Box::pin(stages.overdue());
        advance(DRAIN_TIMEOUT + DELIVERY / 2).await;
        assert!(overdue.as_mut().now_or_never().is_none());
        service.end();
        advance(DELIVERY / 2).await;
        assert!(overdue.as_mut().now_or_never().is_none(), "it was moved");
        let began = Instant::now();
        overdue.await;
        assert_eq!(began.elapsed(), DELIVERY / 2);
    }

    #[test]
    fn the_gauge_is_1_from_the_beginning_of_a_drain_until_the_node_is_open_again() {
        let service = service();
        let gauge = || service.metrics.draining.get();
        assert_eq!(gauge(), 0);
        let _asked = service.request_drain();
        assert_eq!(gauge(), 1);
        service.drained(CLEAN);
        assert_eq!(gauge(), 1);
        service.reopen();
        assert_eq!(gauge(), 0);
    }
}
