//! A node beside its session: what it works with, what goes on for as long as the process does, and how it drains.
//!
//! Invariant: nothing is given up before the drain's time is over; what is lost then is counted.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::{
    backend::Backend,
    inference::Inference,
    outbox::Outbox,
    overview::Pulse,
    service::{Rest, Service, Stages},
    session::Supervisor,
    telemetry::Metrics,
};

/// How long connections to the backend may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(100);

/// How a node has lived.
pub(crate) struct Life {
    /// Whether its session has come to an end by itself, which only a defect makes it do.
    pub(crate) has_failed: bool,
    /// How many answers had been lost when its last drain began.
    pub(crate) lost_before: usize,
}

/// What a node is, its session apart.
pub(crate) struct Node {
    pub(crate) backend: Arc<Backend>,
    pub(crate) inference: Arc<Inference>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) service: Arc<Service>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: TaskTracker,
    /// Spreads the waits of pulls. A copy, so that what is pulled changes nothing for the session.
    pub(crate) random: fastrand::Rng,
}

impl Node {
    /// Starts what goes on for as long as the process does.
    pub(crate) fn start_background(&self) -> JoinSet<()> {
        let (backend, pulse) = (Arc::clone(&self.backend), Arc::clone(&self.pulse));
        let (inference, outbox) = (Arc::clone(&self.inference), Arc::clone(&self.outbox));
        let refusing = Arc::clone(&self.inference);
        let mut background = JoinSet::new();
        background.spawn(async move { backend.follow().await });
        background.spawn(async move { pulse.beat().await });
        background.spawn(async move { inference.watch_orphans().await });
        background.spawn(async move { match refusing.sum_up_refusals().await {} });
        background.spawn(async move { match outbox.keep_fresh().await {} });
        background
    }

    /// Starts what comes to an end by itself, and gives what stops it before.
    pub(crate) fn start_pulls(&self) -> (JoinSet<()>, CancellationToken) {
        let stop = CancellationToken::new();
        let (backend, random, stopped) =
            (Arc::clone(&self.backend), self.random.clone(), stop.clone());
        let mut pulls = JoinSet::new();
        pulls.spawn(async move { backend.keep_pulling(random, stopped).await });
        (pulls, stop)
    }

    /// Serves, drains, rests and serves again, as the stage has it, until the process is to end.
    pub(crate) async fn live(&self, mut supervisor: Supervisor) -> Life {
        let stages = self.service.stages();
        loop {
            // Open
            let mut session = start_session(supervisor, stages.clone());
            tokio::select! {
                biased;
                () = stages.draining() => {}
                () = failure_of(&mut session) => self.service.end(),
            }
            // Draining
            let mut restart = JoinSet::new();
            if !stages.now().is_last() {
                restart.spawn(restarted(Arc::clone(&self.backend)));
            }
            let lost_before = self.outbox.lost();
            let drained = self.drain(&mut session).await;
            let life = Life {
                has_failed: drained.is_none(),
                lost_before,
            };
            let Some(idle) = drained.filter(|_| !stages.now().is_last()) else {
                return life;
            };
            supervisor = idle;
            // Drained
            self.rest(restart).await;
            if stages.now().is_last() {
                self.deliver_rest(supervisor).await;
                return life;
            }
            info!("the session opens again");
        }
    }

    /// Lets jobs run on for as long as they may and their answers be delivered; the session closes. Gives its supervisor
    /// back, unless that has failed.
    async fn drain(&self, session: &mut JoinSet<Supervisor>) -> Option<Supervisor> {
        info!("draining");
        self.finish_jobs().await;
        self.service.jobs_done();
        session.join_next().await?.ok()
    }

    /// Lets running jobs finish, for as long as they may.
    async fn finish_jobs(&self) {
        let Some(drain) = self.service.stage().drain() else {
            return;
        };
        self.inference.refuse_waiting();
        if timeout_at(drain.jobs_until, self.inference.ended())
            .await
            .is_err()
        {
            warn!(
                running = self.inference.load().running,
                "PIN_DRAIN_TIMEOUT is over: what still runs is cut short"
            );
            self.inference.stop();
            self.inference.ended().await;
        }
    }

    /// Stays drained until it is to serve again or to end.
    async fn rest(&self, mut restart: JoinSet<()>) {
        let undelivered = self.outbox.undelivered();
        info!(
            undelivered,
            "drained: the session opens again when it is asked to, or when Ollama has been restarted"
        );
        self.service.drained(Rest { undelivered });
        let stages = self.service.stages();
        tokio::select! {
            biased;
            () = stages.rested() => {}
            Some(_) = restart.join_next() => {
                info!("Ollama has been restarted");
                self.service.reopen();
            }
        }
    }

    /// At the process' end, gives what a drain on request could not deliver another chance.
    async fn deliver_rest(&self, supervisor: Supervisor) {
        if self.outbox.undelivered() > 0 {
            let mut session = start_session(supervisor, self.service.stages());
            self.drain(&mut session).await;
        }
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
        drop((self.inference, self.backend));
        self.connections.close();
        let _ = timeout(GOODBYE, self.connections.wait()).await;
        lost
    }
}

/// Keeps a session up until a drain ends it.
fn start_session(mut supervisor: Supervisor, stages: Stages) -> JoinSet<Supervisor> {
    let mut session = JoinSet::new();
    session.spawn(async move {
        supervisor.run(&stages).await;
        supervisor
    });
    session
}

async fn restarted(backend: Arc<Backend>) {
    backend.restarted().await;
}

/// Waits for the end of what never comes to an end by itself. Without the session nothing is earned, without the others
/// nothing is kept up to date: a process that starts anew is better than one that looks alive.
pub(crate) async fn failure_of<T: 'static>(tasks: &mut JoinSet<T>) {
    if tasks.join_next().await.is_none() {
        return std::future::pending().await;
    }
    error!("a part of the sidecar has failed: ending, to be started again");
}
