//! The sidecar as a process: the relay, and the server for probes and metrics beside it. [`App::build`] does all that can
//! fail for reasons an operator has to mend, and gives the bound address; [`App::run`] then runs until it is told to shut
//! down, and drains.
//!
//! Invariant: probes are answered until the relay has ended; when `run` returns, nothing of the sidecar is left running.

use std::{io, net::SocketAddr, sync::Arc};

use crate::{
    admin::{Access, AdminServer, AdminToken, Bound},
    config::{AdminSettings, Config},
    controls::Controls,
    overview::View,
    relay::{Outcome, Relay, World},
    reload::Reload,
    secret::SecretError,
    systemd,
    telemetry::Metrics,
    transport::TlsError,
};

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

/// A sidecar that is ready to run.
pub struct App {
    admin: Bound,
    access: Access,
    reload: Arc<Reload>,
    view: View,
    controls: Controls,
    metrics: Arc<Metrics>,
    relay: Relay,
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
        let AdminSettings {
            listen,
            token,
            hosts,
        } = config.admin.clone();
        let admin = AdminServer::bind(listen).map_err(|source| BuildError::Listen {
            addr: listen,
            source,
        })?;
        let token = token.map(AdminToken::new).transpose()?.map(Arc::new);
        let relay = Relay::new(world, config)?;
        Ok(Self {
            admin,
            access: Access::new(token.clone(), hosts),
            reload: Arc::new(relay.reload(token)),
            view: relay.view(),
            controls: Controls {
                service: relay.service(),
                checks: relay.checks(),
            },
            metrics: relay.metrics(),
            relay,
        })
    }

    /// Where probes and metrics are answered.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// Where it may be asked to read files again.
    pub fn reload(&self) -> Arc<Reload> {
        Arc::clone(&self.reload)
    }

    /// Serves until `shutdown`, then drains; see [`Relay::run`].
    ///
    /// # Errors
    /// The thread for probes and metrics cannot be started.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<Outcome> {
        let view = Arc::new(self.view);
        let (controls, metrics) = (Arc::new(self.controls), self.metrics);
        let admin = self
            .admin
            .serve(view.clone(), controls, metrics, self.access)?;
        systemd::notify(systemd::State::Ready);
        let shutdown = async {
            shutdown.await;
            systemd::notify(systemd::State::Stopping);
        };
        let outcome = tokio::select! {
            outcome = self.relay.run(shutdown) => outcome,
            never = systemd::keep_informed(view) => match never {},
        };
        admin.stop();
        Ok(outcome)
    }
}
