//! The HTTP server for probes, Prometheus and people, and for those who may tell the sidecar what to do.
//!
//! Invariant: it runs on a thread and a runtime of its own, so that no load on the data path can starve a probe, and it
//! answers until it is stopped at the very end. It knows the rest of the sidecar only as an [`Overview`] and its
//! [`Verbs`].

mod caller;
mod client;
mod command;
mod healthcheck;
mod history;
mod host;
mod listen;
mod page;
mod routes;
mod server;
mod status;
#[cfg(test)]
mod tests;
mod token;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use client::{ClientError, Target};
pub use command::{Command, CommandError, command};
pub use healthcheck::{HealthcheckError, healthcheck};
pub use history::{Day, History, Outage, Point, Series, Verdict};
pub use status::{
    BackendStatus, Counts, EndedRequest, HiddenModel, InterviewStatus, Load, ModelStatus,
    NodeStatus, PauseStatus, PreloadStatus, PullStatus, RequestsStatus, RunningRequest,
    SessionStatus, SpeechStatus, Status, Versions,
};
pub use token::AdminToken;

use crate::{check::Report, telemetry::Metrics};
use routes::Routes;

pub use caller::Access;

/// How long [`AdminServer::stop`] waits at most: a part of what a drain may take after its session.
const STOP_TIMEOUT: Duration = Duration::from_millis(150);

/// What the server must know of the rest of the sidecar. It is asked on the server's thread and must not wait.
pub trait Overview: Send + Sync + 'static {
    /// The age of the data path's last one-second tick; `/healthz` fails from 30 s on.
    fn tick_age(&self) -> Duration;

    /// Why the sidecar is not ready, each reason a sentence that an operator can act on; empty when it is ready.
    fn pending(&self) -> Vec<String>;

    /// What an operator should mend though it does not keep the sidecar from being ready, likewise in sentences.
    fn warnings(&self) -> Vec<String>;

    /// What `/status` shows.
    fn status(&self) -> Status;

    /// What `/history` shows: plots and outages since a moment in Unix seconds, sums of all days.
    fn history(&self, since: u64) -> History;
}

/// What became of the wish for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// It serves, or begins to.
    Now,
    /// It drains, and serves again as soon as that is done.
    OnceDrained,
    /// The process ends.
    Never,
}

/// What the sidecar may be told to do. It is asked on the server's thread.
pub trait Verbs: Send + Sync + 'static {
    /// Has it drain; gives how many answers are not known to have been delivered, once it has.
    fn drain(&self) -> BoxFuture<'static, usize>;

    /// Has it open its session again after a drain or a pause.
    fn connect(&self) -> Connecting;

    /// Has it drain and stay away, for so long or until it is told to connect. `None`: the process ends anyway.
    fn pause(&self, length: Option<Duration>) -> Option<PauseStatus>;

    /// Tries everything but the login once, with a slot for the answer.
    fn check(&self) -> BoxFuture<'static, Report>;
}

/// An address that was bound and that nothing answers at yet.
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Bound {
    /// The address, with the port that the system chose where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Starts to answer.
    ///
    /// # Errors
    /// The system has no room for a thread or for a runtime.
    pub fn serve(
        self,
        overview: Arc<dyn Overview>,
        verbs: Arc<dyn Verbs>,
        metrics: Arc<Metrics>,
        access: Access,
    ) -> io::Result<AdminServer> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let routes = Routes {
            overview,
            verbs,
            metrics,
            access,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (ending, ended) = sync_channel::<()>(0);
        thread::Builder::new().name("admin".into()).spawn(move || {
            // Dropped when the thread ends, however it does, which is what `ended` waits for.
            let _ending = ending;
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(self.listener) {
                    Ok(listener) => server::serve(listener, routes, stopped).await,
                    Err(error) => {
                        tracing::error!(%error, "probes and scrapes will not be answered");
                    }
                }
            });
        })?;
        Ok(AdminServer {
            stop: stop.drop_guard(),
            ended,
        })
    }
}

/// The running server. Dropping it stops it too, without waiting.
pub struct AdminServer {
    stop: DropGuard,
    ended: Receiver<()>,
}

impl AdminServer {
    /// Binds `addr`; `[::]` takes IPv4 as well, and is `0.0.0.0` on a machine without IPv6.
    ///
    /// # Errors
    /// The address cannot be bound, for one because the port is taken.
    pub fn bind(addr: SocketAddr) -> io::Result<Bound> {
        let listener = listen::listen(addr)?;
        let addr = listener.local_addr()?;
        Ok(Bound { listener, addr })
    }

    /// Stops answering and waits until the last answers are written, for a moment at most. It blocks, so it belongs to
    /// the very end, after the data path.
    pub fn stop(self) {
        drop(self.stop);
        // Either outcome is an end: the thread is gone, or the time is up.
        let _ = self.ended.recv_timeout(STOP_TIMEOUT);
    }
}
