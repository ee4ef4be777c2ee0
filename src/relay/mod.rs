//! Everything between the gateway and the backends, put together and run: the sidecar without its server for probes. It
//! touches the world through [`World`] alone, so that the same code runs on a network and a clock that are not there.
//!
//! Invariant: when `run` returns, nothing of the relay is left running.

mod data_path;

use std::sync::Arc;

use self::data_path::DataPath;
use crate::{
    admin::AdminToken,
    check::{CheckDesk, Checks, Running},
    clock::{SystemClock, WallClock},
    config::Config,
    history::{Observer, ServerOutages},
    inference::Inference,
    link::{Connect, WebSocket},
    overview::View,
    protocol::Generation,
    reload::{Reload, ReloadParts},
    secret::{SecretError, SecretKeeper},
    service::Service,
    session::{StatusBoard, Supervisor, SupervisorParts},
    shared::Shared,
    telemetry::Metrics,
    transport::{Connections, Dial, Probe, ProxyDialer, Resolver, TcpDialer, TlsError, Trust},
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
        Self::real_noting(config, Probe::default())
    }

    /// This machine, noting what is found when somebody is dialled.
    ///
    /// # Errors
    /// As [`World::real`].
    pub fn real_noting(config: &Config, probe: Probe) -> Result<Self, TlsError> {
        let tls = Trust::with_file(config.gateway.ca_file.as_deref())?;
        let limit = config.gateway.connect_timeout;
        let direct = Arc::new(TcpDialer::new(tls, Resolver::default(), limit).noting(probe));
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
    data_path: DataPath,
    supervisor: Supervisor,
    generation: Generation,
    transport: &'static str,
    status: Arc<StatusBoard>,
    gateway: Arc<dyn Dial>,
    secrets: Arc<SecretKeeper>,
    checks: CheckDesk,
    to_check: Checks,
}

impl Relay {
    /// Puts a relay together in this world.
    ///
    /// # Errors
    /// The secret cannot be had.
    pub fn new(world: World, config: Config) -> Result<Self, SecretError> {
        let secrets = Arc::new(SecretKeeper::new(config.identity.secret.clone())?);
        let connections = Connections::default();
        let generation = config.identity.generation;
        let shared = Shared::new(&config, world.backend, world.clock, connections.clone())?;
        let job = config.job;
        let service = Arc::new(Service::new(
            config.drain_timeout,
            Arc::clone(&shared.clock),
            Arc::clone(&shared.metrics),
        ));
        let inference = Inference::new(
            shared.clone(),
            generation,
            service.stages(),
            config.admission,
            job.clone(),
        );
        let status = Arc::<StatusBoard>::default();
        let gateway = Arc::clone(&world.gateway);
        let (checks, to_check) = Checks::new(Running {
            shared: shared.clone(),
            inference: Arc::clone(&inference),
            service: Arc::clone(&service),
            status: Arc::clone(&status),
            job,
        });
        let connect: Arc<dyn Connect> = Arc::new(WebSocket::new(
            &config.identity,
            &config.gateway,
            world.gateway,
            &shared,
        ));
        let transport = connect.transport();
        let parts = SupervisorParts {
            connect,
            inference: Arc::clone(&inference),
            secrets: Arc::clone(&secrets),
            random: world.random.clone(),
            status: Arc::clone(&status),
        };
        let observer = Observer {
            shared: shared.clone(),
            status: Arc::clone(&status),
            stages: service.stages(),
            admission: inference.admission(),
            server_outages: ServerOutages::default(),
        };
        Ok(Self {
            supervisor: Supervisor::new(config.identity, config.gateway, parts, shared.clone()),
            data_path: DataPath {
                observer: Arc::new(observer),
                shared,
                inference,
                service,
                pulse: Arc::default(),
                connections,
                random: world.random,
            },
            generation,
            transport,
            status,
            gateway,
            secrets,
            checks,
            to_check,
        })
    }

    /// Where it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.data_path.shared.metrics)
    }

    /// Where it may be asked to drain and to serve again.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.data_path.service)
    }

    /// Where it may be asked to read files again, the admin server's token among them.
    pub fn reload(&self, token: Option<Arc<AdminToken>>) -> Reload {
        Reload::new(ReloadParts {
            secrets: Arc::clone(&self.secrets),
            token,
            gateway: Arc::clone(&self.gateway),
            status: Arc::clone(&self.status),
            shared: self.data_path.shared.clone(),
        })
    }

    /// Where it may be asked to check itself.
    pub(crate) fn checks(&self) -> CheckDesk {
        self.checks.clone()
    }

    /// What probes and people may see of it.
    pub(crate) fn view(&self) -> View {
        View {
            generation: self.generation,
            transport: self.transport,
            status: Arc::clone(&self.status),
            gateway: Arc::clone(&self.gateway),
            shared: self.data_path.shared.clone(),
            admission: self.data_path.inference.admission(),
            requests: self.data_path.inference.requests(),
            service: self.service(),
            pulse: Arc::clone(&self.data_path.pulse),
        }
    }

    /// Serves until `shutdown`, then drains: waiting work is refused, running work finishes or is cut short after
    /// `PIN_DRAIN_TIMEOUT`, its answers are delivered, the session closes. Before that it may be drained and opened again
    /// any number of times, through its [`Service`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Outcome {
        let Self {
            data_path,
            supervisor,
            to_check,
            ..
        } = self;
        data_path.run(supervisor, to_check, shutdown).await
    }
}
