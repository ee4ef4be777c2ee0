//! Puts the parts together. [`App::build`] does all that can fail for reasons an operator has to mend, and gives the
//! bound address; [`App::run`] then runs until it is told to shut down, and drains.
//!
//! Invariant: when `run` returns, nothing of the sidecar is left running.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::{
    admin::{AdminServer, Bound},
    backend::{
        Backend,
        ollama::{Ollama, Policy},
    },
    clock::{SystemClock, WallClock},
    config::Config,
    inference::{self, Inference},
    outbox::Outbox,
    overview::{Pulse, View},
    secret::{SecretError, SecretKeeper},
    session::{self, Registration, StatusBoard, Supervisor, Timing},
    telemetry::{Metrics, RecentTroubles},
    transport::{self, Dial, TcpDialer, TlsError},
};

/// What a drain may take beyond `PIN_DRAIN_TIMEOUT`: for proof, for the Close, for what is left of it.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// How long connections to the backend may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);

/// What the sidecar has of the world outside. Tests hand in another.
pub struct World {
    /// Opens connections.
    pub dial: Arc<dyn Dial>,
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
        Ok(Self {
            dial: Arc::new(TcpDialer::new(tls, config.gateway.connect_timeout)),
            clock: Arc::new(SystemClock),
            random: fastrand::Rng::new(),
        })
    }
}

/// The sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The extra root certificates are unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The address for probes and metrics cannot be bound.
    #[error(
        "cannot listen on {addr} for probes and metrics: {source}; free it, or set PIN_LISTEN_ADDR to another"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl BuildError {
    /// Whether a setting is to blame rather than the machine's state.
    pub fn is_setting(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Secret(_) => true,
            Self::Listen { .. } => false,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every answer was proven delivered or refused in order.
    Drained,
    /// Something that was worked on was not delivered, or is not known to have been.
    Dropped,
}

/// A sidecar that is ready to run.
pub struct App {
    admin: Bound,
    drain_timeout: Duration,
    ollama: Arc<Ollama>,
    inference: Arc<Inference>,
    outbox: Arc<Outbox>,
    supervisor: Supervisor,
    timing: Timing,
    pulse: Arc<Pulse>,
    view: View,
    metrics: Arc<Metrics>,
    connections: TaskTracker,
}

impl App {
    /// Builds on this machine.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(config: Config) -> Result<Self, BuildError> {
        let world = World::real(&config)?;
        Self::build_in(world, config)
    }

    /// Builds in a world of the caller's.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build_in(world: World, config: Config) -> Result<Self, BuildError> {
        let admin = AdminServer::bind(config.listen).map_err(|source| BuildError::Listen {
            addr: config.listen,
            source,
        })?;
        let secrets = SecretKeeper::new(config.identity.secret.clone())?;
        let metrics = Arc::new(Metrics::new());
        let troubles = Arc::<RecentTroubles>::default();
        let connections = TaskTracker::new();
        let registration = Registration::new(&config);
        let policy = Policy {
            max_context: config.policy.max_context,
            max_output_tokens: config.policy.max_output_tokens,
            allow_hardware_options: config.policy.allow_hardware_options,
        };
        let ollama = Arc::new(Ollama::new(
            config.backend,
            policy,
            Arc::clone(&world.dial),
            Arc::clone(&metrics),
            connections.clone(),
        ));
        let outbox = Arc::new(Outbox::new(config.outbox_bytes, Arc::clone(&metrics)));
        let parts = inference::Parts {
            backend: Arc::clone(&ollama) as Arc<dyn Backend>,
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
            troubles: Arc::clone(&troubles),
            clock: Arc::clone(&world.clock),
            generation: config.identity.generation,
        };
        let inference = Inference::new(parts, config.admission, config.job);
        let timing = Timing::default();
        let status = Arc::<StatusBoard>::default();
        let pulse = Arc::<Pulse>::default();
        let view = View {
            generation: config.identity.generation,
            registration: registration.clone(),
            status: Arc::clone(&status),
            offer: ollama.offer(),
            inference: Arc::clone(&inference),
            metrics: Arc::clone(&metrics),
            troubles: Arc::clone(&troubles),
            draining: timing.draining.clone(),
            pulse: Arc::clone(&pulse),
            clock: Arc::clone(&world.clock),
        };
        let parts = session::Parts {
            dial: world.dial,
            inference: Arc::clone(&inference),
            outbox: Arc::clone(&outbox),
            offer: ollama.offer(),
            secrets,
            clock: world.clock,
            random: world.random,
            metrics: Arc::clone(&metrics),
            status,
            troubles,
        };
        let supervisor = Supervisor::new(
            config.identity,
            config.gateway,
            registration,
            parts,
            timing.clone(),
        );
        Ok(Self {
            admin,
            drain_timeout: config.drain_timeout,
            ollama,
            inference,
            outbox,
            supervisor,
            timing,
            pulse,
            view,
            metrics,
            connections,
        })
    }

    /// Where probes and metrics are answered.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Serves until `shutdown`, then drains: waiting work is refused, running work finishes or is cut short after
    /// `PIN_DRAIN_TIMEOUT`, its answers are delivered, the session closes.
    ///
    /// # Errors
    /// The thread for probes and metrics cannot be started.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<Outcome> {
        let admin = self
            .admin
            .serve(Arc::new(self.view), Arc::clone(&self.metrics))?;
        let mut background = JoinSet::new();
        let (ollama, pulse) = (self.ollama, self.pulse);
        background.spawn(async move { ollama.keep_looking().await });
        background.spawn(async move { pulse.beat().await });
        let mut session = JoinSet::new();
        session.spawn(self.supervisor.run());

        shutdown.await;
        info!("draining");
        let dropped_before = self.outbox.dropped();
        self.metrics.draining.set(1);
        self.timing.draining.cancel();
        finish_jobs(&self.inference, self.drain_timeout).await;
        self.timing.finish.cancel();
        let closed = timeout(DRAIN_SLACK, session.join_next()).await.is_ok();

        session.shutdown().await;
        background.shutdown().await;
        admin.stop();
        // Connections to the backend end when nobody is left who could use them.
        drop(self.inference);
        self.connections.close();
        let _ = timeout(GOODBYE, self.connections.wait()).await;
        if closed && self.outbox.dropped() == dropped_before {
            info!("drained");
            Ok(Outcome::Drained)
        } else {
            warn!("drained, but not every answer is known to have been delivered");
            Ok(Outcome::Dropped)
        }
    }
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
