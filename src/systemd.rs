//! What systemd is told where it has started the process (`Type=notify`), so that `systemctl status` says what `/readyz`
//! says, and a process whose data path hangs is started anew.
//!
//! Invariant: without `NOTIFY_SOCKET` nothing of this is done, and nothing here can fail the sidecar.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::Overview;

/// How often the sentence is told anew.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// From what age of the data path's tick on the watchdog gets no sign of life: it beats once a second.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Where the process stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// The port for probes is bound, and the session is being opened; or files were read again.
    Ready,
    /// Files are being read again.
    Reloading,
    /// It drains and ends.
    Stopping,
}

/// Tells it.
pub(crate) fn notify(state: State) {
    let told = match state {
        State::Ready => sd_notify::notify(&[NotifyState::Ready]),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        State::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
    };
    // Whoever does not listen need not know.
    drop(told);
}

/// Keeps systemd informed for as long as it is polled.
pub(crate) async fn keep_informed(overview: Arc<dyn Overview>) -> Infallible {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return pending().await;
    }
    let has_watchdog = sd_notify::watchdog_enabled().is_some();
    let mut clock = interval(STATUS_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    loop {
        clock.tick().await;
        if has_watchdog && overview.tick_age() < STUCK_AFTER {
            drop(sd_notify::notify(&[NotifyState::Watchdog]));
        }
        let sentence = overview.pending().into_iter().next();
        let sentence =
            sentence.unwrap_or_else(|| "Online: logged in, with models to offer.".to_owned());
        if sentence != told {
            drop(sd_notify::notify(&[NotifyState::Status(&sentence)]));
            told = sentence;
        }
    }
}
