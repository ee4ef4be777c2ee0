//! Notices that a model server was restarted, to which the sidecar has no other witness than that it was away.
//!
//! Invariant: one that comes and goes does not count as restarted before it has stayed.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Backend;

/// How often it is asked. A container that is restarted is mostly away for half a second, for its runtime's sake alone.
const LOOK: Duration = Duration::from_millis(250);

/// How often at first. A hook that has had the node drain is followed by the restart, which was missed once on a machine that
/// had other work.
const FIRST_LOOKS: Duration = Duration::from_millis(50);

/// How long that is.
const AT_FIRST: Duration = Duration::from_secs(60);

/// How long it has to answer without a break (delivery rules, "Drain").
const STAYS: Duration = Duration::from_secs(10);

impl Backend {
    /// Waits until the server has gone away and has been answering again for ten seconds.
    pub async fn restarted(&self) {
        let begun = Instant::now();
        while self.server.answers().await {
            let is_new = begun.elapsed() < AT_FIRST;
            sleep(if is_new { FIRST_LOOKS } else { LOOK }).await;
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
