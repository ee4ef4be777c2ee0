//! Accepts connections and serves them.
//!
//! Invariant: no peer can keep another from being answered. At most 64 connections are open; one more closes the
//! oldest, since an answer takes microseconds and what is old is idle or up to no good, unless it waits for a drain.
//! Nothing that happens to a connection, nor a machine that is out of file descriptors, ends the server.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    rt::{Read, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::routes::Routes;
use crate::telemetry::{LogThrottle, throttled};

/// Connections that are open at once: some probes and scrapes, with a lot to spare.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// How long a peer may take for a request's head, and how long a connection may be idle.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// How long to wait after a failed accept, so that a machine out of file descriptors is not also out of CPU.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long answers that are being written have at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// Serves until told to stop, and then until the answers that were begun are written.
pub(super) async fn serve(listener: TcpListener, routes: Routes, stop: CancellationToken) {
    let mut connections = Connections::default();
    let mut accepting = Accepting(LogThrottle::outage());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                accepting.works();
                let connection = Connection {
                    caller: peer.ip(),
                    routes: routes.clone(),
                    is_answering: Arc::default(),
                };
                let is_answering = Arc::clone(&connection.is_answering);
                let served = connection.serve(TokioIo::new(stream), stop.clone());
                connections.open(served, is_answering);
            }
            Err(error) => {
                accepting.fails(&error);
                stop.run_until_cancelled(sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    connections.finish().await;
}

/// Whether accepting fails just now.
struct Accepting(LogThrottle<io::ErrorKind>);

impl Accepting {
    fn works(&mut self) {
        throttled!(info, self.0.gone(), [] "probes and scrapes can connect again");
    }

    fn fails(&mut self, error: &io::Error) {
        let told = self.0.seen(error.kind());
        throttled!(warn, told, [%error,] "probes and scrapes cannot connect");
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    ages: VecDeque<Open>,
}

struct Open {
    task: AbortHandle,
    is_answering: Arc<AtomicBool>,
}

impl Connections {
    fn open(
        &mut self,
        connection: impl Future<Output = ()> + Send + 'static,
        is_answering: Arc<AtomicBool>,
    ) {
        // A connection that panicked has lost itself only.
        while self.tasks.try_join_next().is_some() {}
        self.ages
            .retain(|connection| !connection.task.is_finished());
        if self.ages.len() >= MAX_CONNECTIONS {
            self.close_one();
        }
        let task = self.tasks.spawn(connection);
        self.ages.push_back(Open { task, is_answering });
    }

    fn close_one(&mut self) {
        let is_idle = |connection: &Open| !connection.is_answering.load(Ordering::Relaxed);
        let oldest = self.ages.iter().position(is_idle).unwrap_or(0);
        if let Some(connection) = self.ages.remove(oldest) {
            connection.task.abort();
        }
    }

    async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What is left is dropped, and so closed.
        let _ = timeout(LAST_ANSWERS, all).await;
    }
}

/// What a connection is served with.
pub(super) struct Connection {
    /// Who has opened it.
    pub(super) caller: IpAddr,
    pub(super) routes: Routes,
    /// Set while an answer is being made.
    pub(super) is_answering: Arc<AtomicBool>,
}

impl Connection {
    /// Serves it until it ends, is idle for too long, or all is told to stop.
    pub(super) async fn serve<S>(self, stream: S, stop: CancellationToken)
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let service = service_fn(|request| async {
            self.is_answering.store(true, Ordering::Relaxed);
            let answer = self.routes.answer(self.caller, request).await;
            self.is_answering.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(stream, service);
        let mut connection = pin!(connection);
        // A connection that breaks is the peer's affair.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}
