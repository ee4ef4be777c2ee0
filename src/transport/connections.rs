//! The connections of HTTP clients, as tasks.
//!
//! Invariant: none outlives [`Connections::end`].

use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks that keep connections. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    tasks: TaskTracker,
    ended: CancellationToken,
}

impl Connections {
    /// Ends them all: those that have not ended by themselves `within` that time are dropped.
    pub async fn end(&self, within: Duration) {
        self.tasks.close();
        let _ = timeout(within, self.tasks.wait()).await;
        self.ended.cancel();
        self.tasks.wait().await;
    }
}

/// What hyper does in the background. It may hold on to a client's idle connections for as long as it dials another, so
/// dropping the client is not enough to close them.
impl<F> Executor<F> for Connections
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let ended = self.ended.clone();
        self.tasks
            .spawn(async move { ended.run_until_cancelled_owned(task).await });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_end_by_itself_is_dropped() {
        let connections = Connections::default();
        let (held, mut all_dropped) = mpsc::channel::<()>(1);
        connections.execute(async move {
            let _held = held;
            pending::<()>().await;
        });
        let begun = Instant::now();
        connections.end(Duration::from_secs(1)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        assert_eq!(
            all_dropped.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        );
    }
}
