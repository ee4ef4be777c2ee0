//! Accepts connections and serves them.
//!
//! Invariant: no peer can keep another from being answered. At most 64 connections are open; one more closes the
//! oldest, since an answer takes microseconds and what is old is idle or up to no good. Nothing that happens to a
//! connection, nor a machine that is out of file descriptors, ends the server.

use std::{
    collections::VecDeque, convert::Infallible, future::ready, io, pin::pin, time::Duration,
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
use tracing::{info, warn};

use super::routes::Routes;
use crate::telemetry::{Repeats, Told};

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
    let mut accepting = Accepting(Repeats::outage());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                accepting.works();
                connections.open(serve_connection(
                    TokioIo::new(stream),
                    routes.clone(),
                    stop.clone(),
                ));
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
struct Accepting(Repeats<io::ErrorKind>);

impl Accepting {
    fn works(&mut self) {
        if let Some(Told { attempts, since_s }) = self.0.gone() {
            info!(attempts, since_s, "probes and scrapes can connect again");
        }
    }

    fn fails(&mut self, error: &io::Error) {
        if let Some(Told { attempts, since_s }) = self.0.seen(error.kind()) {
            warn!(%error, attempts, since_s, "probes and scrapes cannot connect");
        }
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    ages: VecDeque<AbortHandle>,
}

impl Connections {
    fn open(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        // A connection that panicked has lost itself only.
        while self.tasks.try_join_next().is_some() {}
        self.ages.retain(|connection| !connection.is_finished());
        if self.ages.len() >= MAX_CONNECTIONS {
            self.ages.pop_front().inspect(AbortHandle::abort);
        }
        self.ages.push_back(self.tasks.spawn(connection));
    }

    async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What is left is dropped, and so closed.
        let _ = timeout(LAST_ANSWERS, all).await;
    }
}

/// Serves one connection until it ends, is idle for too long, or all is told to stop.
pub(super) async fn serve_connection<S>(stream: S, routes: Routes, stop: CancellationToken)
where
    S: Read + Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| ready(Ok::<_, Infallible>(routes.answer(&request))));
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
