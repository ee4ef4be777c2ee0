//! What a test sees of a stand-in and has go wrong there, the same for every kind of model server.

use std::sync::Arc;

use tokio::sync::watch;

use super::{plan::Faults, record::Chats, record::Request};
use crate::journal::{Journal, wait_until};

/// The record of one stand-in, and the plan of what becomes of its answers. `F`: what can go wrong.
pub struct Controls<F> {
    pub(crate) faults: Faults<F>,
    pub(crate) requests: Journal<Request>,
    pub(crate) chats: watch::Sender<Chats>,
    /// Where answers wait: after so many tokens.
    pub(crate) pause: watch::Sender<Option<usize>>,
}

impl<F> Default for Controls<F> {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            requests: Journal::default(),
            chats: watch::Sender::new(Chats::default()),
            pause: watch::Sender::new(None),
        }
    }
}

impl<F: Clone> Controls<F> {
    /// The next requests to a path go wrong, after those that were told to before.
    pub fn fail_next(&self, path: &str, times: usize, fault: impl Into<F>) {
        self.faults.plan(path, None, Some(times), fault.into());
    }

    /// Every request to a path goes wrong, until [`clear_faults`](Self::clear_faults).
    pub fn fail_always(&self, path: &str, fault: impl Into<F>) {
        self.faults.plan(path, None, None, fault.into());
    }

    /// The same for those alone whose body names this model, in these very letters.
    pub fn fail_always_for(&self, path: &str, model: &str, fault: impl Into<F>) {
        self.faults.plan(path, Some(model), None, fault.into());
    }

    /// Nothing goes wrong any more, except what is going wrong already.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }
}

impl<F> Controls<F> {
    /// Streamed answers, those that are being given too, stop after so many tokens, until [`go_on`](Self::go_on) or
    /// another place to stop at. One that is past it stops where it is.
    pub fn pause_at(&self, tokens: usize) {
        self.pause.send_replace(Some(tokens));
    }

    /// No answer stops any more.
    pub fn go_on(&self) {
        self.pause.send_replace(None);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.requests.all()
    }

    /// Every request to a path so far.
    pub fn requests_to(&self, path: &str) -> Vec<Arc<Request>> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    /// The first request to a path, of the past or the future.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_request(&self, path: &str) -> Arc<Request> {
        self.wait_for(|request| request.path == path).await
    }

    /// The first request, of the past or the future, that matches.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for(&self, what: impl Fn(&Request) -> bool) -> Arc<Request> {
        self.requests.find(0, "a request", what).await.1
    }

    /// How many chats run and ran; of a speech server, how many clips.
    pub fn chats(&self) -> Chats {
        *self.chats.borrow()
    }

    /// Waits until as many have begun since the start.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_chats(&self, ever: usize) -> Chats {
        let what = format!("chat {ever}");
        let changes = self.chats.subscribe();
        wait_until(changes, &what, |chats| chats.ever >= ever).await
    }

    /// Waits until none runs.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_until_idle(&self) -> Chats {
        let changes = self.chats.subscribe();
        wait_until(changes, "the end of all chats", |chats| chats.running == 0).await
    }
}

/// Has what holds the [`Controls`] of a stand-in be used as them.
macro_rules! controlled {
    ($($name:ty, $fault:ty, $($place:ident).+;)+) => {$(
        impl std::ops::Deref for $name {
            type Target = crate::model_server::Controls<$fault>;

            fn deref(&self) -> &Self::Target {
                &self.$($place).+
            }
        }
    )+};
}

pub(crate) use controlled;
