//! Everything between the gateway and the backend, put together and run: the sidecar without its server for probes. It
//! touches the world through [`World`] alone, so that the same code runs on a network and a clock that are not there.
//!
//! Invariant: when `run` returns, nothing of the relay is left running.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::{
    backend::{
        Backend,
        ollama::{Ollama, Policy},
    },
    clock::{SystemClock, WallClock},
    config::Config,
    inference::{self, Inference},
    outbox::Outbox,
    overview::{Pulse, View},
    protocol::Generation,
    secret::{SecretError, SecretKeeper},
    session::{self, Registration, StatusBoard, Supervisor, Timing},
    telemetry::{Metrics, RecentTroubles},
    transport::{self, Dial, ProxyDialer, Resolver, TcpDialer, TlsError},
};

/// What a drain may take beyond `PIN_DRAIN_TIMEOUT`: for proof, for the Close, for what is left of it; and for another
/// session, if there is none while answers are not proven. Half a second of the five that it may take is for what comes
/// after the session.
const DRAIN_SLACK: Duration = Duration::from_millis(4500);

/// How long connections to the backend may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);

/// What the sidecar has of the world outside. Tests hand in another.
pub struct World {
    /// Opens connections to the gateway.
    pub gateway: Arc<dyn Dial>,
    /// Opens connections to the backend; never through a proxy.
    pub backend: Arc<dyn Dial>,
    /// Tells the time of day.
    pub clock: Arc<dyn WallClock>,
    /// Spreads waits.
    pub random: fastrand::Rng,
}

impl World {
    /// This machine.
    ///
    /// # Errors
    /// `PIN_TLS_CA_FILE` cannot be used.
    pub fn real(config: &Config) -> Result<Self, TlsError> {
        let tls = transport::client_config(config.gateway.ca_file.as_deref())?;
        let direct = Arc::new(TcpDialer::new(
            tls,
            Resolver::default(),
            config.gateway.connect_timeout,
        ));
        let gateway: Arc<dyn Dial> = match &config.gateway.proxy {
            Some(url) => Arc::new(ProxyDialer::new(Arc::clone(&direct), url.clone())),
            None => Arc::clone(&direct) as Arc<_>,
        };
        Ok(Self {
            gateway,
            backend: direct,
            clock: Arc::new(SystemClock),
            random: fastrand::Rng::new(),
        })
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every answer was proven delivered or refused in order.
    Drained,
    /// Something that was worked on was not delivered, or is not known to have been.
    Dropped,
    /// A part of the relay came to an end by itself, which only a defect makes it do. It drained as far as it could;
    /// whoever runs it is to start it again.
    Failed,
}

/// A relay that is ready to run.
pub struct Relay {
    drain_timeout: Duration,
    generation: Generation,
    registration: Registration,
    ollama: Arc<Ollama>,
    inference: Arc<Inference>,
    outbox: Arc<Outbox>,
    supervisor: Supervisor,
    timing: Timing,
    pulse: Arc<Pulse>,
    status: Arc<StatusBoard>,
    troubles: Arc<RecentTroubles>,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
    connections: TaskTracker,
    /// Spreads the waits of pulls. A copy, so that what is pulled changes nothing for the session.
    random: fastrand::Rng,
}

impl Relay {
    /// Puts a relay together in this world.
    ///
    /// # Errors
    /// The secret cannot be had.
    pub fn new(world: World, config: Config) -> Result<Self, SecretError> {
        let secrets = SecretKeeper::new(config.identity.secret.clone())?;
        let metrics = Arc::new(Metrics::new());
        let troubles = Arc::<RecentTroubles>::default();
        let connections = TaskTracker::new();
        let registration = Registration::new(&config);
        let alias = &registration.alias;
        metrics.set_node(alias, alias, "", registration.region);
        let generation = config.identity.generation;
        let policy = Policy {
            max_context: config.policy.max_context,
            max_output_tokens: config.policy.max_output_tokens,
            allow_hardware_options: config.policy.allow_hardware_options,
        };
        let ollama = Arc::new(Ollama::new(
            config.backend,
            policy,
            world.backend,
            &metrics,
            connections.clone(),
        ));
        let outbox = Arc::new(Outbox::new(config.outbox, Arc::clone(&metrics)));
        let parts = inference::Parts {
            backend: Arc::clone(&ollama) as Arc<dyn Backend>,
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
            troubles: Arc::clone(&troubles),
            clock: Arc::clone(&world.clock),
            generation,
            node: registration.alias.as_str().into(),
            price_per_thousand_tokens: registration.price_per_thousand_tokens.as_f64(),
        };
        let inference = Inference::new(parts, config.admission, config.job);
        let timing = Timing::default();
        let random = world.random.clone();
        let status = Arc::<StatusBoard>::default();
        let parts = session::Parts {
            dial: world.gateway,
            inference: Arc::clone(&inference),
            outbox: Arc::clone(&outbox),
            offer: ollama.offer(),
            secrets,
            clock: Arc::clone(&world.clock),
            random: world.random,
            metrics: Arc::clone(&metrics),
            status: Arc::clone(&status),
            troubles: Arc::clone(&troubles),
        };
        let supervisor = Supervisor::new(
            config.identity,
            config.gateway,
            registration.clone(),
            parts,
            timing.clone(),
        );
        Ok(Self {
            drain_timeout: config.drain_timeout,
            generation,
            registration,
            ollama,
            inference,
            outbox,
            supervisor,
            timing,
            pulse: Arc::default(),
            status,
            troubles,
            clock: world.clock,
            metrics,
            connections,
            random,
        })
    }

    /// Where it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// What probes and people may see of it.
    pub(crate) fn view(&self) -> View {
        View {
            generation: self.generation,
            registration: self.registration.clone(),
            status: Arc::clone(&self.status),
            offer: self.ollama.offer(),
            pulls: self.ollama.pulls(),
            admission: self.inference.admission(),
            metrics: Arc::clone(&self.metrics),
            troubles: Arc::clone(&self.troubles),
            draining: self.timing.draining.clone(),
            pulse: Arc::clone(&self.pulse),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Serves until `shutdown`, then drains: waiting work is refused, running work finishes or is cut short after
    /// `PIN_DRAIN_TIMEOUT`, its answers are delivered, the session closes.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Outcome {
        let (ollama, pulse) = (self.ollama, self.pulse);
        let (puller, stop) = (Arc::clone(&ollama), self.timing.draining.clone());
        let mut pulls = JoinSet::new();
        pulls.spawn(async move { puller.keep_pulling(self.random, stop).await });
        let mut background = JoinSet::new();
        background.spawn(async move { ollama.keep_looking().await });
        background.spawn(async move { pulse.beat().await });
        let (inference, outbox) = (Arc::clone(&self.inference), Arc::clone(&self.outbox));
        background.spawn(async move { inference.watch_orphans().await });
        let inference = Arc::clone(&self.inference);
        background.spawn(async move { match inference.sum_up_refusals().await {} });
        background.spawn(async move { match outbox.keep_fresh().await {} });
        let mut session = JoinSet::new();
        session.spawn(self.supervisor.run());

        let failed = tokio::select! {
            biased;
            () = shutdown => false,
            () = end_of_any(&mut session, &mut background) => true,
        };
        info!("draining");
        let lost_before = self.outbox.lost();
        let deadline = Instant::now() + self.drain_timeout + DRAIN_SLACK;
        self.metrics.draining.set(1);
        self.timing.draining.cancel();
        finish_jobs(&self.inference, self.drain_timeout).await;
        self.timing.finish.cancel();
        let closed = timeout_at(deadline, session.join_next()).await.is_ok();

        session.shutdown().await;
        self.outbox.abandon();
        background.shutdown().await;
        pulls.shutdown().await;
        self.inference.tell_last_refusals();
        // Connections to the backend end when nobody is left who could use them.
        drop(self.inference);
        self.connections.close();
        let _ = timeout(GOODBYE, self.connections.wait()).await;
        if failed {
            Outcome::Failed
        } else if closed && self.outbox.lost() == lost_before {
            info!("drained");
            Outcome::Drained
        } else {
            warn!("drained, but not every answer is known to have been delivered");
            Outcome::Dropped
        }
    }
}

/// Waits for what never comes to an end by itself. Without the session nothing is earned, without the others nothing is
/// kept up to date: a process that starts anew is better than one that looks alive.
async fn end_of_any(session: &mut JoinSet<()>, background: &mut JoinSet<()>) {
    tokio::select! {
        Some(_) = session.join_next() => {}
        Some(_) = background.join_next() => {}
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
