//! All that serves chats, run through the stages of its [`Service`]: it serves, drains, rests and serves again until the
//! process is to end.
//!
//! Invariant: nothing is given up before a drain's time is over; what is lost then is counted.

use std::{convert::Infallible, future::pending, pin::pin, sync::Arc, time::Duration};

use futures_util::future::join;
use tokio::{task::JoinSet, time::timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Outcome;
use crate::{
    check::Checks,
    history::Observer,
    inference::Inference,
    overview::Pulse,
    service::{Drain, Rest, Service, Stage, Stages},
    session::Supervisor,
    shared::Shared,
    transport::Connections,
};

/// How long connections to the backends may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(100);

pub(super) struct DataPath {
    pub(super) shared: Shared,
    pub(super) inference: Arc<Inference>,
    pub(super) service: Arc<Service>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) observer: Arc<Observer>,
    /// To the backends.
    pub(super) connections: Connections,
    /// Spreads the waits of pulls. A copy, so that what is pulled changes nothing for the session.
    pub(super) random: fastrand::Rng,
}

impl DataPath {
    /// Serves until it is told to shut down and has drained.
    pub(super) async fn run(
        self,
        supervisor: Supervisor,
        to_check: Checks,
        shutdown: impl Future<Output = ()>,
    ) -> Outcome {
        let mut background = self.start_background(to_check);
        let (mut pulls, stop_pulls) = self.start_pulls();
        let mut has_failed = false;
        let mut session = Session::new(supervisor, self.service.stages());
        let lost_before = {
            let mut life = pin!(self.live(&mut session));
            let ended = tokio::select! {
                biased;
                () = shutdown => None,
                () = failure_of(&mut background) => {
                    has_failed = true;
                    None
                }
                lost_before = &mut life => Some(lost_before),
            };
            self.service.end();
            stop_pulls.cancel();
            match ended {
                Some(lost_before) => lost_before,
                None => life.await,
            }
        };
        pulls.shutdown().await;
        has_failed |= session.has_failed();
        drop(session);
        let lost = self.end(background).await - lost_before;
        if has_failed {
            return Outcome::Failed;
        }
        if lost > 0 {
            warn!(
                lost,
                "drained, but not every answer is known to have been delivered"
            );
            return Outcome::Dropped;
        }
        info!("drained");
        Outcome::Drained
    }

    /// Starts what goes on for as long as the process does.
    fn start_background(&self, to_check: Checks) -> JoinSet<()> {
        let (nodes, pulse) = (self.shared.nodes.clone(), Arc::clone(&self.pulse));
        let (inference, outbox) = (Arc::clone(&self.inference), Arc::clone(&self.shared.outbox));
        let refusing = Arc::clone(&self.inference);
        let observer = Arc::clone(&self.observer);
        let mut background = JoinSet::new();
        background.spawn(async move { nodes.follow().await });
        background.spawn(async move { pulse.beat(|| observer.look()).await });
        background.spawn(async move { inference.watch_orphans().await });
        background.spawn(async move { match refusing.sum_up_refusals().await {} });
        background.spawn(async move { match outbox.keep_fresh().await {} });
        background.spawn(async move { match to_check.serve().await {} });
        background
    }

    /// Starts what brings models to disk and into memory, and gives what stops it.
    fn start_pulls(&self) -> (JoinSet<()>, CancellationToken) {
        let stop = CancellationToken::new();
        let mut pulls = JoinSet::new();
        for node in self.shared.nodes.iter().cloned() {
            let (random, stopped) = (self.random.clone(), stop.clone());
            pulls.spawn(async move {
                let backend = &node.backend;
                let pulling = backend.keep_pulling(random.clone(), stopped.clone());
                join(pulling, backend.keep_preloaded(random, stopped)).await;
            });
        }
        (pulls, stop)
    }

    /// Goes through the stages until the last. Gives how many answers had been lost when the last drain began.
    async fn live(&self, session: &mut Session) -> usize {
        let mut lost_before = 0;
        let mut restart = JoinSet::new();
        loop {
            match self.service.stage() {
                Stage::Open => {
                    self.serve(session).await;
                    lost_before = self.shared.outbox.lost();
                    restart = self.watch_for_restart();
                }
                Stage::Draining(drain) => {
                    self.drain(drain, session).await;
                    if session.has_failed() || self.service.stage().is_last() {
                        return lost_before;
                    }
                    self.service.drained(Rest {
                        undelivered: self.shared.outbox.undelivered(),
                    });
                }
                Stage::Drained => self.rest(&mut restart).await,
                Stage::Ended => return lost_before,
            }
        }
    }

    /// Keeps a session up until a drain is asked for.
    async fn serve(&self, session: &mut Session) {
        session.start();
        let stages = self.service.stages();
        tokio::select! {
            biased;
            () = stages.draining() => {}
            () = failure_of(&mut session.running) => self.service.end(),
        }
    }

    /// Looks for a restart of a model server, from the beginning of a drain that is not the process' last.
    fn watch_for_restart(&self) -> JoinSet<()> {
        let mut restart = JoinSet::new();
        if !self.service.stage().is_last() {
            let nodes = self.shared.nodes.clone();
            restart.spawn(async move { nodes.restarted().await });
        }
        restart
    }

    /// Lets jobs run on for as long as they may and their answers be delivered; the session closes. What an earlier drain
    /// could not deliver has another session for it.
    async fn drain(&self, drain: Drain, session: &mut Session) {
        if session.is_idle() {
            if self.shared.outbox.undelivered() == 0 {
                return;
            }
            session.start();
        }
        info!("draining");
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
        self.service.jobs_done();
        session.ended().await;
    }

    /// Stays drained until it is to serve again or to end.
    async fn rest(&self, restart: &mut JoinSet<()>) {
        let undelivered = self.shared.outbox.undelivered();
        match self.service.paused() {
            Some(_) => info!(undelivered, "paused"),
            None => info!(
                undelivered,
                "drained: the session opens again when it is asked to, or when the model server has been restarted"
            ),
        }
        let stages = self.service.stages();
        let mut unloading = pin!(self.unload_in_a_pause(&stages));
        while self.service.stage() == Stage::Drained {
            tokio::select! {
                biased;
                () = stages.rested() => {}
                () = stages.pause_over() => {
                    info!("the pause is over");
                    self.service.reopen();
                }
                never = &mut unloading => match never {},
                Some(_) = restart.join_next() => {
                    info!("the model server has been restarted");
                    self.service.backend_restarted();
                }
            }
        }
        self.shared.nodes.keep_preloaded_again();
        if !self.service.stage().is_last() {
            info!("the session opens again");
        }
    }

    /// Frees the GPU for its owner once a pause is wanted.
    async fn unload_in_a_pause(&self, stages: &Stages) -> Infallible {
        stages.paused().await;
        self.shared.nodes.unload().await;
        pending().await
    }

    /// Ends all that still runs. Gives how many answers were lost since the start.
    async fn end(self, mut background: JoinSet<()>) -> usize {
        let undelivered = self.shared.outbox.undelivered();
        self.shared.outbox.abandon();
        background.shutdown().await;
        self.inference.tell_last_refusals();
        self.service.end();
        self.service.drained(Rest { undelivered });
        let lost = self.shared.outbox.lost();
        // Most connections end when nobody is left who could use them.
        drop((self.inference, self.observer, self.shared));
        self.connections.end(GOODBYE).await;
        lost
    }
}

/// The session's supervisor, while it runs and in between.
struct Session {
    stages: Stages,
    /// `None` while it runs, and once it has failed.
    idle: Option<Supervisor>,
    running: JoinSet<Supervisor>,
}

impl Session {
    fn new(supervisor: Supervisor, stages: Stages) -> Self {
        Self {
            stages,
            idle: Some(supervisor),
            running: JoinSet::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Whether it has come to an end by itself.
    fn has_failed(&self) -> bool {
        self.idle.is_none() && self.running.is_empty()
    }

    /// Keeps a session up until a drain ends it.
    fn start(&mut self) {
        if let Some(mut supervisor) = self.idle.take() {
            let stages = self.stages.clone();
            self.running.spawn(async move {
                supervisor.run(&stages).await;
                supervisor
            });
        }
    }

    /// Waits until a drain has ended it.
    async fn ended(&mut self) {
        if let Some(Ok(supervisor)) = self.running.join_next().await {
            self.idle = Some(supervisor);
        }
    }
}

/// Waits for the end of what never comes to an end by itself. Without the session nothing is earned, without the others
/// nothing is kept up to date: a process that starts anew is better than one that looks alive.
async fn failure_of<T: 'static>(tasks: &mut JoinSet<T>) {
    if tasks.join_next().await.is_none() {
        return pending().await;
    }
    error!("a part of the sidecar has failed: ending, to be started again");
}
