//! Reads again, when it is asked to, what may change under a running process: the secret, the token for commands, the root
//! certificates, the model server's key, and the models. Logins, connections and looks at the backend read them anyway; this does it now, and tells.
//!
//! Invariant: nothing is dropped for it, and a file that cannot be read takes nothing away.

use std::{convert::Infallible, sync::Arc};

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::{
    admin::AdminToken, secret::SecretKeeper, session::StatusBoard, shared::Shared, systemd,
    transport::Dial,
};

/// Where it may be asked to read files again.
pub struct Reload {
    parts: ReloadParts,
    asked: Notify,
}

/// What is read again, and who is told.
pub(crate) struct ReloadParts {
    pub(crate) secrets: Arc<SecretKeeper>,
    pub(crate) token: Option<Arc<AdminToken>>,
    pub(crate) gateway: Arc<dyn Dial>,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) shared: Shared,
}

impl Reload {
    pub(crate) fn new(parts: ReloadParts) -> Self {
        Self {
            parts,
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
            systemd::notify(systemd::State::Reloading);
            self.read_again().await;
            systemd::notify(systemd::State::Ready);
        }
    }

    async fn read_again(&self) {
        let parts = &self.parts;
        let secret = parts.secrets.read_again().await.err();
        let secret = secret.map(|error| error.to_string());
        parts.status.secret_was_read(secret.clone());
        let token = match &parts.token {
            Some(token) => token.read_again().await.err(),
            None => None,
        };
        parts.gateway.read_again().await;
        parts.shared.nodes.look_now().await;
        let mut nodes = parts.shared.nodes.iter();
        let troubles = [
            ("the secret", secret),
            ("the admin token", token.map(|error| error.to_string())),
            ("the root certificates", parts.gateway.trouble()),
            (
                "the model server's key",
                nodes.find_map(|node| node.backend.trouble()),
            ),
        ];
        let mut is_good = true;
        for (what, trouble) in troubles {
            if let Some(error) = trouble {
                is_good = false;
                warn!(
                    error,
                    "SIGHUP: {what} cannot be read: the last good state of it is used"
                );
            }
        }
        let metric = &parts.shared.metrics.config_last_reload_successful;
        metric.set(is_good.into());
        if is_good {
            info!("SIGHUP: the secret was read again, and certificates, keys, token and models");
        }
    }
}
