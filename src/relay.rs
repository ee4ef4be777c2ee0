//! Everything between the gateway and the backend, put together and run: the sidecar without its server for probes. It
//! touches the world through [`World`] alone, so that the same code runs on a network and a clock that are not there.
//!
//! Invariant: when `run` returns, nothing of the relay is left running.

use std::{pin::pin, sync::Arc};

use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::{
    backend::{Backend, ollama::Policy},
    clock::{SystemClock, WallClock},
    config::Config,
    inference::{self, Inference},
    node::{Node, failure_of},
    outbox::Outbox,
    overview::View,
    protocol::Generation,
    secret::{SecretError, SecretKeeper},
    service::Service,
    session::{self, Registration, StatusBoard, Supervisor},
    telemetry::{Metrics, RecentTroubles},
    transport::{self, Dial, ProxyDialer, Resolver, TcpDialer, TlsError},
};

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
    node: Node,
    supervisor: Supervisor,
    generation: Generation,
    registration: Registration,
    status: Arc<StatusBoard>,
    troubles: Arc<RecentTroubles>,
    clock: Arc<dyn WallClock>,
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
        let generation = config.identity.generation;
        let policy = Policy {
            max_context: config.policy.max_context,
            max_output_tokens: config.policy.max_output_tokens,
            allow_hardware_options: config.policy.allow_hardware_options,
        };
        let backend = Arc::new(Backend::ollama(
            config.backend.clone(),
            policy,
            world.backend,
            &metrics,
            connections.clone(),
        ));
        let registration = Registration::new(&config, backend.mode());
        let alias = &registration.alias;
        metrics.set_node(alias, alias, "", registration.region);
        let outbox = Arc::new(Outbox::new(config.outbox, Arc::clone(&metrics)));
        let parts = inference::Parts {
            backend: Arc::clone(&backend),
            outbox: Arc::clone(&outbox),
            metrics: Arc::clone(&metrics),
            troubles: Arc::clone(&troubles),
            clock: Arc::clone(&world.clock),
            generation,
            node: registration.alias.as_str().into(),
            price_per_thousand_tokens: registration.price_per_thousand_tokens.as_f64(),
        };
        let service = Arc::new(Service::new(config.drain_timeout, Arc::clone(&metrics)));
        let inference = Inference::new(parts, service.stages(), config.admission, config.job);
        let random = world.random.clone();
        let status = Arc::<StatusBoard>::default();
        let parts = session::Parts {
            dial: world.gateway,
            inference: Arc::clone(&inference),
            outbox: Arc::clone(&outbox),
            offer: backend.offer(),
            secrets,
            clock: Arc::clone(&world.clock),
            random: world.random,
            metrics: Arc::clone(&metrics),
            status: Arc::clone(&status),
            troubles: Arc::clone(&troubles),
        };
        let supervisor =
            Supervisor::new(config.identity, config.gateway, registration.clone(), parts);
        let node = Node {
            backend,
            inference,
            outbox,
            service,
            pulse: Arc::default(),
            metrics,
            connections,
            random,
        };
        Ok(Self {
            node,
            supervisor,
            generation,
            registration,
            status,
            troubles,
            clock: world.clock,
        })
    }

    /// Where it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.node.metrics)
    }

    /// Where it may be asked to drain and to serve again.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.node.service)
    }

    /// What probes and people may see of it.
    pub(crate) fn view(&self) -> View {
        View {
            generation: self.generation,
            registration: self.registration.clone(),
            status: Arc::clone(&self.status),
            offer: self.node.backend.offer(),
            pulls: self.node.backend.pulls(),
            admission: self.node.inference.admission(),
            metrics: self.metrics(),
            troubles: Arc::clone(&self.troubles),
            service: self.service(),
            pulse: Arc::clone(&self.node.pulse),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Serves until `shutdown`, then drains: waiting work is refused, running work finishes or is cut short after
    /// `PIN_DRAIN_TIMEOUT`, its answers are delivered, the session closes. Before that it may be drained and opened again
    /// any number of times, through its [`Service`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Outcome {
        let Self {
            node, supervisor, ..
        } = self;
        let mut background = node.start_background();
        let (mut pulls, stop_pulls) = node.start_pulls();
        let mut failed = false;
        let life = {
            let mut life = pin!(node.live(supervisor));
            let ended = tokio::select! {
                biased;
                () = shutdown => None,
                () = failure_of(&mut background) => {
                    failed = true;
                    None
                }
                ended = &mut life => Some(ended),
            };
            node.service.end();
            stop_pulls.cancel();
            match ended {
                Some(life) => life,
                None => life.await,
            }
        };
        pulls.shutdown().await;
        let lost = node.end(background, life.lost_before).await;
        if failed || life.has_failed {
            Outcome::Failed
        } else if lost == 0 {
            info!("drained");
            Outcome::Drained
        } else {
            warn!(
                lost,
                "drained, but not every answer is known to have been delivered"
            );
            Outcome::Dropped
        }
    }
}
