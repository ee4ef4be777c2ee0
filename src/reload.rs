//! Reads again, when it is asked to, the files that may be replaced under a running process: the secret and the root
//! certificates. The next login and the next connection read them anyway; this tells now whether they can.
//!
//! Invariant: nothing is dropped for it, and a file that cannot be read takes nothing away.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use crate::{
    secret::{SecretError, SecretSource},
    session::StatusBoard,
    transport::Dial,
};

/// How long the secret is waited for. A keyring may ask a person to unlock it.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Where it may be asked to read files again.
pub struct Reload {
    secret: SecretSource,
    gateway: Arc<dyn Dial>,
    status: Arc<StatusBoard>,
    asked: Notify,
}

impl Reload {
    pub(crate) fn new(
        secret: SecretSource,
        gateway: Arc<dyn Dial>,
        status: Arc<StatusBoard>,
    ) -> Self {
        Self {
            secret,
            gateway,
            status,
            asked: Notify::new(),
        }
    }

    /// Asks for it. However often it is asked for while it is being done, it is done once more.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Does it whenever it is asked to, for as long as it is polled.
    pub async fn run(&self) -> Infallible {
        loop {
            self.asked.notified().await;
            self.read_again().await;
        }
    }

    async fn read_again(&self) {
        let source = self.secret.clone();
        let read = spawn_blocking(move || source.read().map(drop));
        let trouble = match timeout(READ_LIMIT, read).await {
            Ok(Ok(read)) => read.err(),
            Ok(Err(_)) | Err(_) => Some(SecretError::Slow(READ_LIMIT)),
        };
        self.gateway.read_again().await;
        self.status
            .secret_was_read(trouble.as_ref().map(ToString::to_string));
        match trouble {
            None => info!(
                "SIGHUP: the secret was read again, and the root certificates if there are any"
            ),
            Some(error) => {
                warn!(%error, "SIGHUP: the secret cannot be read: the last good one is used");
            }
        }
    }
}
