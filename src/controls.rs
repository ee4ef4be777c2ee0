//! What the admin server may have the rest do.
//!
//! Invariant: nothing here waits on the server's thread; what takes time is given back as a future.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    admin::{Connecting, PauseStatus, Verbs},
    check::{CheckDesk, Report},
    service::{Pause, Service},
};

/// The verbs of a running sidecar.
pub(crate) struct Controls {
    pub(crate) service: Arc<Service>,
    pub(crate) checks: CheckDesk,
}

impl Verbs for Controls {
    fn drain(&self) -> BoxFuture<'static, usize> {
        let drained = self.service.request_drain();
        drained.map(|rest| rest.undelivered).boxed()
    }

    fn connect(&self) -> Connecting {
        self.service.reopen()
    }

    fn pause(&self, length: Option<Duration>) -> Option<PauseStatus> {
        self.service.pause(length).map(PauseStatus::from)
    }

    fn check(&self) -> BoxFuture<'static, Report> {
        self.checks.ask()
    }
}

impl From<Pause> for PauseStatus {
    fn from(pause: Pause) -> Self {
        Self {
            since: pause.since,
            until: pause.until.map(|(at, _)| at),
        }
    }
}
