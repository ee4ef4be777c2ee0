//! The sidecar that runs beside a check, where one does: its session and its model server's time are not the check's to take.
//!
//! Invariant: it is asked, and nothing else; where it does not tell, the check goes on as if none ran.

use std::net::SocketAddr;

use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::answer::ALL_SLOTS_TAKEN;
use crate::admin::{Command, HealthcheckError, Target, command, healthcheck};

/// A sidecar that runs here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside(SocketAddr);

/// What counts of its `/status` and `/readyz`.
#[derive(Deserialize)]
struct Status {
    draining: bool,
    pending: Vec<String>,
    load: Load,
}

#[derive(Deserialize)]
struct Load {
    running: usize,
    waiting: usize,
    capacity: usize,
}

impl Beside {
    /// The one that listens there, if one does. Blocks.
    pub(super) fn at(addr: SocketAddr) -> Option<Self> {
        match healthcheck(&Target::Own(addr), false) {
            Ok(()) | Err(HealthcheckError::Refused { status: 503, .. }) => Some(Self(addr)),
            Err(_) => None,
        }
    }

    /// Why not to log in.
    pub(super) fn keeps_the_session(self) -> String {
        let addr = self.0;
        format!(
            "Left out, since a sidecar runs at {addr} and a second login may push its session out; --login tries it all the \
             same. `pin-sidecar healthcheck --ready` asks that sidecar."
        )
    }

    /// Why not to give its model server work just now, if there is a reason.
    pub(super) async fn wants_no_work(self) -> Option<String> {
        let ask = move || command(&Target::Own(self.0), None, &Command::Status, true);
        let told = spawn_blocking(ask).await.ok()?.ok()?;
        serde_json::from_str::<Status>(&told).ok()?.wants_no_work()
    }
}

impl Status {
    fn wants_no_work(self) -> Option<String> {
        let Load {
            running,
            waiting,
            capacity,
        } = self.load;
        if self.draining {
            // The first says so.
            return self.pending.into_iter().next();
        }
        (running >= capacity || waiting > 0).then(|| ALL_SLOTS_TAKEN.to_owned())
    }
}
