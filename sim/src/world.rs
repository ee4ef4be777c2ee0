//! The world as the product sees it: a network to dial, a clock on the wall, settings.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use devnet::sim::{gateway::EPOCH, wire::Link};
use futures_util::{FutureExt, future::BoxFuture};
use pin_sidecar::{
    clock::WallClock,
    config::{Config, Surroundings},
    transport::{Dial, DialError, Endpoint, Step, Stream},
};
use tokio::time::{Instant, timeout};

/// Where the gateway is, on a machine that is not there.
pub(crate) const GATEWAY_PORT: u16 = 1;
/// Where the model server is.
pub(crate) const OLLAMA_PORT: u16 = 2;
/// Where the speech server is: on the machine of the other.
pub(crate) const SPEECH_PORT: u16 = 3;
/// The secret of the one agent.
pub(crate) const SECRET: &str = "s3cret";

/// Dials over the wire.
pub(crate) struct WireDialer {
    pub(crate) gateway: Link,
    pub(crate) ollama: Link,
    pub(crate) limit: Duration,
}

impl Dial for WireDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        let link = if endpoint.port == GATEWAY_PORT {
            &self.gateway
        } else {
            &self.ollama
        };
        async move {
            let step = Step::Tcp;
            match timeout(self.limit, link.dial()).await {
                Ok(Ok(end)) => Ok(Box::new(end) as Stream),
                Ok(Err(_)) => Err(DialError::Refused),
                Err(_) => Err(DialError::Timeout {
                    step,
                    limit: self.limit,
                }),
            }
        }
        .boxed()
    }
}

/// A clock on the wall that goes with tokio's, and that somebody may set wrong.
pub(crate) struct WrongClock {
    began: Instant,
    off: AtomicI64,
}

impl WrongClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            off: AtomicI64::new(0),
        })
    }

    /// From now on it is so many seconds fast.
    pub(crate) fn set_off(&self, seconds: i64) {
        self.off.store(seconds, Ordering::Relaxed);
    }
}

impl WallClock for WrongClock {
    fn unix_seconds(&self) -> u64 {
        (EPOCH + self.began.elapsed().as_secs())
            .saturating_add_signed(self.off.load(Ordering::Relaxed))
    }
}

/// The settings as the product reads them from its environment.
///
/// # Panics
/// They are wrong: a mistake of the scenario.
#[expect(
    clippy::panic,
    reason = "a scenario with wrong settings has nothing to tell"
)]
pub(crate) fn config(client_id: &str, settings: &[(&str, String)]) -> Config {
    let necessary = [
        ("PIN_CLIENT_ID", client_id.to_owned()),
        ("PIN_API_SECRET", SECRET.to_owned()),
        ("PIN_SERVER_URL", format!("ws://127.0.0.1:{GATEWAY_PORT}")),
        ("PIN_OLLAMA_URL", format!("http://127.0.0.1:{OLLAMA_PORT}")),
        ("PIN_NODE_ALIAS", "node-1".to_owned()),
    ];
    let vars = necessary
        .iter()
        .chain(settings)
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let surroundings = Surroundings {
        secret_files: vec!["/nonexistent/pin_api_secret".into()],
        ..Surroundings::default()
    };
    Config::from_env_in(&surroundings, vars)
        .unwrap_or_else(|errors| panic!("a scenario's settings are wrong: {errors}"))
}
