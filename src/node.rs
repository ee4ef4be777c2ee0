//! A node beside its session: what it works with, what goes on for as long as the process does, and how it drains.
//!
//! Invariant: nothing is given up before the drain's time is over; what is lost then is counted.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    backend::ollama::Ollama,
    inference::Inference,
    outbox::Outbox,
    overview::Pulse,
    service::{Rest, Service},
    session::{Supervisor, Timing},
    telemetry::Metrics,
};

/// What a drain may take beyond `PIN_DRAIN_TIMEOUT`: for proof, for the Close, for what is left of it; and for another
/// session, if there is none while answers are not proven. Half a second of the five that it may take is for what comes
/// after the session.
const DRAIN_SLACK: Duration = Duration::from_millis(4500);

/// How long connections to the backend may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);

/// What a node is, its session apart.
pub(crate) struct Node {
    pub(crate) drain_timeout: Duration,
    pub(crate) ollama: Arc<Ollama>,
    pub(crate) inference: Arc<Inference>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) service: Arc<Service>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: TaskTracker,
    /// Spreads the waits of pulls. A copy, so that what is pulled changes nothing for the session.
    pub(crate) random: fastrand::Rng,
}

/// What ends a node's service, or its rest after a drain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// The process is to end.
    End,
    /// A part has failed.
    Fail,
    /// Somebody wants it drained.
    Drain,
    /// It is to serve again.
    Serve,
}

impl Node {
    /// Starts what goes on for as long as the process does.
    pub(crate) fn start_background(&self) -> JoinSet<()> {
        let (ollama, pulse) = (Arc::clone(&self.ollama), Arc::clone(&self.pulse));
        let (inference, outbox) = (Arc::clone(&self.inference), Arc::clone(&self.outbox));
        let refusing = Arc::clone(&self.inference);
        let mut background = JoinSet::new();
        background.spawn(async move { ollama.keep_looking().await });
        background.spawn(async move { pulse.beat().await });
        background.spawn(async move { inference.watch_orphans().await });
        background.spawn(async move { match refusing.sum_up_refusals().await {} });
        background.spawn(async move { match outbox.keep_fresh().await {} });
        background
    }

    /// Starts what comes to an end by itself, and gives what stops it before.
    pub(crate) fn start_pulls(&self) -> (JoinSet<()>, CancellationToken) {
        let stop = CancellationToken::new();
        let (ollama, random, stopped) =
            (Arc::clone(&self.ollama), self.random.clone(), stop.clone());
        let mut pulls = JoinSet::new();
        pulls.spawn(async move { ollama.keep_pulling(random, stopped).await });
        (pulls, stop)
    }

    /// Lets jobs run on for so long and their answers be delivered, and closes the session. Gives its supervisor back,
    /// unless that has failed.
    pub(crate) async fn drain(
        &self,
        timing: &Timing,
        session: &mut JoinSet<Supervisor>,
        limit: Duration,
    ) -> Option<Supervisor> {
        info!("draining");
        let deadline = Instant::now() + limit + DRAIN_SLACK;
        self.metrics.draining.set(1);
        timing.draining.cancel();
        finish_jobs(&self.inference, limit).await;
        timing.finish.cancel();
        let closed = match timeout_at(deadline, session.join_next()).await {
            Ok(closed) => closed,
            Err(_) => {
                timing.give_up.cancel();
                session.join_next().await
            }
        };
        closed?.ok()
    }

    /// Stays drained until it is to serve again or to end.
    pub(crate) async fn rest(
        &self,
        mut restart: JoinSet<()>,
        shutdown: Pin<&mut impl Future<Output = ()>>,
        background: &mut JoinSet<()>,
    ) -> Call {
        let undelivered = self.outbox.undelivered();
        info!(
            undelivered,
            "drained: the session opens again when it is asked to, or when Ollama has been restarted"
        );
        self.service.drained(Rest { undelivered });
        tokio::select! {
            biased;
            () = shutdown => Call::End,
            () = failure_of(background) => Call::Fail,
            () = self.service.reopened() => Call::Serve,
            Some(_) = restart.join_next() => {
                info!("Ollama has been restarted");
                self.service.reopen();
                Call::Serve
            }
        }
    }

    /// At the process' end, gives what a drain on request could not deliver another chance.
    pub(crate) async fn deliver_rest(&self, supervisor: Supervisor) {
        self.service.end();
        if self.outbox.undelivered() == 0 {
            return;
        }
        let timing = Timing::default();
        let mut session = start_session(supervisor, timing.clone());
        self.drain(&timing, &mut session, Duration::ZERO).await;
    }

    /// Takes work again.
    pub(crate) fn resume(&self) {
        info!("the session opens again");
        self.metrics.draining.set(0);
        self.inference.resume();
    }

    /// Ends all that still runs. Gives how many answers were lost since `lost_before` were.
    pub(crate) async fn end(self, mut background: JoinSet<()>, lost_before: usize) -> usize {
        let undelivered = self.outbox.undelivered();
        self.outbox.abandon();
        background.shutdown().await;
        self.inference.tell_last_refusals();
        self.service.end();
        self.service.drained(Rest { undelivered });
        let lost = self.outbox.lost() - lost_before;
        // Connections to the backend end when nobody is left who could use them.
        drop((self.inference, self.ollama));
        self.connections.close();
        let _ = timeout(GOODBYE, self.connections.wait()).await;
        lost
    }
}

/// Keeps a session up until `timing` ends it.
pub(crate) fn start_session(mut supervisor: Supervisor, timing: Timing) -> JoinSet<Supervisor> {
    let mut session = JoinSet::new();
    session.spawn(async move {
        supervisor.run(&timing).await;
        supervisor
    });
    session
}

pub(crate) async fn restarted(ollama: Arc<Ollama>) {
    ollama.restarted().await;
}

/// Waits for the end of what never comes to an end by itself. Without the session nothing is earned, without the others
/// nothing is kept up to date: a process that starts anew is better than one that looks alive.
pub(crate) async fn failure_of<T: 'static>(tasks: &mut JoinSet<T>) {
    if tasks.join_next().await.is_none() {
        return std::future::pending().await;
    }
    error!("a part of the sidecar has failed: ending, to be started again");
}

/// Lets running jobs finish, for as long as they may.
async fn finish_jobs(inference: &Inference, limit: Duration) {
    inference.drain();
    if timeout(limit, inference.drained()).await.is_err() {
        warn!(
            running = inference.load().running,
            "PIN_DRAIN_TIMEOUT is over: what still runs is cut short"
        );
        inference.stop();
        inference.drained().await;
    }
}
