//! Whether this sidecar serves: it does from the start, may be drained or paused and opened again while the process stays,
//! and ends with it. Anybody may ask for that ([`Service::request_drain`], [`Service::pause`], [`Service::reopen`]); the
//! relay does it. How long a drain may take is decided here and nowhere else, when it is asked for: whoever takes part in
//! it is handed the deadlines ([`Stages`]).
//!
//! Invariant: stages follow each other as [`Stage`] says, nothing follows `Ended`, and whoever has asked for a drain hears
//! of its end, whatever comes after it. Two drains that overlap are one: their times are never added up. Of two wishes for
//! what is to follow a drain the last one counts, unless the process is to end.

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    admin::Connecting,
    clock::{WallClock, sleep_until_any},
    telemetry::Metrics,
};

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
    /// It has drained and has no session. Left when somebody asks for one, its pause is over or, without a pause, the
    /// backend was restarted (`Open`), or when the process is to end (`Draining`, since something may be left to deliver).
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

/// A drain that somebody wants to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it was asked for, in Unix seconds.
    pub since: u64,
    /// When it is over by itself, if it is: by this machine's clock, for people, and by the one that counts.
    pub until: Option<(u64, Instant)>,
}

/// What is to follow a drain that is not the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Then {
    /// A rest, until a session is asked for or the backend was restarted.
    #[default]
    Rest,
    /// A rest until the pause is over or a session is asked for.
    Pause(Pause),
    /// Another session at once.
    Reopen,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    then: Then,
    /// Drains that are over, and what the last of them has left.
    drains: u64,
    rest: Rest,
}

impl State {
    fn pause(&self) -> Option<Pause> {
        match self.then {
            Then::Pause(pause) => Some(pause),
            Then::Rest | Then::Reopen => None,
        }
    }
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
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
}

impl Service {
    /// A sidecar that is open, and whose jobs may run on for so long when it drains.
    pub fn new(drain_timeout: Duration, clock: Arc<dyn WallClock>, metrics: Arc<Metrics>) -> Self {
        Self {
            shared: Arc::default(),
            drain_timeout,
            clock,
            metrics,
        }
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        self.shared.lock().stage
    }

    /// That it is to stay away for a while, once it has drained.
    pub fn paused(&self) -> Option<Pause> {
        self.shared.lock().pause()
    }

    /// The stages as they come, for whoever takes part.
    pub fn stages(&self) -> Stages {
        Stages(Arc::clone(&self.shared))
    }

    /// Has the sidecar drain, unless it does or has already; what is given is done once it has.
    pub fn request_drain(&self) -> impl Future<Output = Rest> + Send + 'static {
        self.step(|state| {
            if state.then == Then::Reopen {
                state.then = Then::Rest;
            }
            self.begin_drain(state);
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

    /// Has the sidecar drain and stay away for so long, counted from now, or until a session is asked for. A pause that is
    /// under way is replaced. `None`: the process ends anyway.
    pub fn pause(&self, length: Option<Duration>) -> Option<Pause> {
        let since = self.clock.unix_seconds();
        // What is too long for a clock has no end.
        let end = |length| Instant::now().checked_add(length);
        let until =
            length.and_then(|length| Some((since.checked_add(length.as_secs())?, end(length)?)));
        let pause = Pause { since, until };
        let mut is_taken = false;
        self.step(|state| {
            if !state.stage.is_last() {
                is_taken = true;
                state.then = Then::Pause(pause);
                self.begin_drain(state);
            }
        });
        is_taken.then_some(pause)
    }

    /// Has a drained or paused sidecar open its session again; one that drains does so as soon as it has.
    pub fn reopen(&self) -> Connecting {
        let mut answer = Connecting::Never;
        self.step(|state| {
            answer = match state.stage {
                Stage::Open => Connecting::Now,
                Stage::Drained => {
                    (state.stage, state.then) = (Stage::Open, Then::Rest);
                    Connecting::Now
                }
                Stage::Draining(drain) if !drain.is_last => {
                    state.then = Then::Reopen;
                    Connecting::OnceDrained
                }
                Stage::Draining(_) | Stage::Ended => Connecting::Never,
            };
        });
        answer
    }

    /// The backend was restarted: what has drained serves again, unless it is paused. Tells whether it does.
    pub(crate) fn backend_restarted(&self) -> bool {
        self.paused().is_none() && self.reopen() == Connecting::Now
    }

    fn begin_drain(&self, state: &mut State) {
        if state.stage == Stage::Open {
            state.stage = Stage::Draining(Drain::begun_now(false, self.drain_timeout));
        }
    }

    /// The process is to end.
    pub(crate) fn end(&self) {
        self.step(|state| {
            state.stage = match state.stage {
                Stage::Open => Stage::Draining(Drain::begun_now(true, self.drain_timeout)),
                // Its jobs have ended; something may be left to deliver.
                Stage::Drained => Stage::Draining(Drain::begun_now(true, Duration::ZERO)),
                Stage::Draining(drain) => Stage::Draining(drain.made_last()),
                Stage::Ended => Stage::Ended,
            };
        });
    }

    /// Every job has ended.
    pub(crate) fn jobs_done(&self) {
        self.step(|state| {
            if let Stage::Draining(drain) = &mut state.stage {
                drain.jobs_done = true;
            }
        });
    }

    /// The drain is over.
    pub(crate) fn drained(&self, rest: Rest) {
        self.step(|state| {
            state.stage = match state.then {
                _ if state.stage.is_last() => Stage::Ended,
                Then::Reopen => Stage::Open,
                Then::Rest | Then::Pause(_) => Stage::Drained,
            };
            if state.stage == Stage::Open {
                state.then = Then::Rest;
            }
            state.drains += 1;
            state.rest = rest;
        });
    }

    fn step(&self, step: impl FnOnce(&mut State)) {
        self.shared.change(|state| {
            step(state);
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

    /// Waits until the sidecar takes work.
    pub async fn opened(&self) {
        self.reaches(|stage| stage == Stage::Open).await;
    }

    /// Waits until a drain may take no longer. Its end may be moved while this waits.
    pub async fn overdue(&self) {
        self.passes(|state| state.stage.drain().map(|drain| drain.until))
            .await;
    }

    /// Waits until it is paused.
    pub(crate) async fn paused(&self) {
        self.0.until(|state| state.pause().map(drop)).await;
    }

    /// Waits until a pause is over. Its end may be moved while this waits.
    pub(crate) async fn pause_over(&self) {
        self.passes(|state| state.pause()?.until.map(|(_, until)| until))
            .await;
    }

    /// Waits until a moment that may be moved has passed.
    async fn passes(&self, moment: impl Fn(&State) -> Option<Instant>) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let over = sleep_until_any(moment(&self.0.lock()));
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
