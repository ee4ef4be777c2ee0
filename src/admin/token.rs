//! The token that stands for being on this machine (`PIN_ADMIN_TOKEN`).
//!
//! Invariant: how long a wrong token is looked at tells nothing about the right one, and wrong ones are looked at so slowly that
//! guessing is hopeless. No token is in a log, an error or `Debug`.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;
use tokio::{
    sync::{Mutex, Semaphore},
    time::sleep,
};

use crate::{
    secret::{SecretError, SecretKeeper, SecretSource},
    telemetry::{LogThrottle, throttled},
};

/// How long whoever brings a wrong token holds the next one up.
const HOLD_UP: Duration = Duration::from_millis(200);

/// How many may wait to have their token looked at: fewer than there are connections, so that guesses keep nobody out.
const MAX_WAITING: usize = 8;

/// What is compared in place of the tokens, which may differ in length.
type Fingerprint = Hmac<Sha256>;

/// What a token that was brought is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    Right,
    Wrong,
    /// Too many are being looked at.
    NotLookedAt,
}

/// The token, where one is set.
pub struct AdminToken {
    kept: SecretKeeper,
    /// One at a time is looked at.
    turn: Mutex<LogThrottle<()>>,
    waiting: Semaphore,
}

impl AdminToken {
    /// The token of this source. Blocks as [`SecretSource::read`] does.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn new(source: SecretSource) -> Result<Self, SecretError> {
        Ok(Self {
            kept: SecretKeeper::new(source)?,
            turn: Mutex::new(LogThrottle::flood()),
            waiting: Semaphore::new(MAX_WAITING),
        })
    }

    /// Reads its file again, if it is in one; what cannot be read leaves the last good one in force.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read_again(&self) -> Result<(), SecretError> {
        self.kept.read_again().await
    }

    /// Looks at a token that somebody brings.
    pub(super) async fn look_at(&self, brought: &[u8]) -> Worth {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Worth::NotLookedAt;
        };
        let mut troubles = self.turn.lock().await;
        // A file that was replaced counts from its first use on.
        let (right, _) = self.kept.current().await;
        if is_same(brought, right.expose_secret().as_bytes()) {
            return Worth::Right;
        }
        let told = troubles.seen(());
        throttled!(warn, told, [] "a wrong admin token was brought: see who asks, and check PIN_ADMIN_TOKEN there");
        sleep(HOLD_UP).await;
        Worth::Wrong
    }
}

fn is_same(brought: &[u8], right: &[u8]) -> bool {
    let right = fingerprint(right).finalize().into_bytes();
    fingerprint(brought).verify(&right).is_ok()
}

fn fingerprint(token: &[u8]) -> Fingerprint {
    let Ok(mac) = Fingerprint::new_from_slice(token) else {
        unreachable!("HMAC takes keys of any length");
    };
    mac
}
