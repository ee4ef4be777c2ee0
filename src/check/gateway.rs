//! Goes the way to the gateway once, with the parts by which sessions go it, and closes what it has opened.
//!
//! Invariant: one connection is asked for, whatever becomes of it.

use std::{sync::Arc, time::SystemTime};

use secrecy::SecretString;
use tokio::time::{Instant, timeout};

use super::{
    Step,
    way::{Login, Way},
};
use crate::{
    config::Config,
    link::{Connect as _, ConnectBudget, Link, OpenError, WebSocket},
    shared::Shared,
    transport::{Dial, Probe},
};

/// What it takes to go there.
pub(super) struct Gateway<'a> {
    pub(super) config: &'a Config,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) shared: &'a Shared,
    /// Where `dial` notes what it finds.
    pub(super) probe: Probe,
}

impl Gateway<'_> {
    /// Tries it, and logs in with this secret; or does not, for the reason given.
    pub(super) async fn check(self, login: Result<SecretString, String>) -> Vec<Step> {
        let began = Instant::now();
        let login = self.go(login).await;
        let way = Way {
            gateway: &self.config.gateway,
            began,
            ended: Instant::now(),
            findings: self.probe.findings(),
            login,
            now: SystemTime::now(),
        };
        way.steps()
    }

    async fn go(&self, login: Result<SecretString, String>) -> Result<Login, OpenError> {
        let Config {
            identity, gateway, ..
        } = self.config;
        let socket = WebSocket::new(identity, gateway, Arc::clone(&self.dial), self.shared);
        let socket = socket.noting(self.probe.clone());
        // This process does it once; what others of this machine do is not known.
        let budget = ConnectBudget::new(0);
        match login {
            Err(reason) => {
                socket.knock(&budget).await?;
                Ok(Login::LeftOut(reason))
            }
            Ok(secret) => {
                let opened = socket.open(&secret, &budget).await?;
                // A login that was accepted has passed, however the gateway takes the Close.
                let _ = timeout(gateway.connect_timeout, close(opened.link.as_ref())).await;
                Ok(Login::Accepted)
            }
        }
    }
}

/// Says Close, and waits for the gateway's.
async fn close(link: &dyn Link) {
    if link.close().await.is_ok() {
        while link.next().await.is_ok() {}
    }
}
