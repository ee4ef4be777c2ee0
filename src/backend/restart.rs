//! Notices that a model server was restarted, to which the sidecar has no other witness than that it was away.
//!
//! Invariant: one that comes and goes does not count as restarted before it has stayed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Backend;

/// How often it is asked. A container that is restarted is mostly away for half a second, for its runtime's sake alone; with
/// a quarter of a second between two looks a restart was missed on a machine that had other work.
const LOOK: Duration = Duration::from_millis(50);

/// How long it has to answer without a break (delivery rules, "Drain").
const STAYS: Duration = Duration::from_secs(10);

impl Backend {
    /// Waits until the server has gone away and has been answering again for ten seconds.
    pub async fn restarted(&self) {
        while self.server.answers().await {
            sleep(LOOK).await;
        }
        let mut back_since = None;
        loop {
            sleep(LOOK).await;
            if self.server.answers().await {
                if back_since.get_or_insert_with(Instant::now).elapsed() >= STAYS {
                    return;
                }
            } else {
                back_since = None;
            }
        }
    }
}
