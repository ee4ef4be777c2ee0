//! What chats show of a model server, beside what looks at it show.
//!
//! Invariant: a look is believed unless a chat shows more: that a server is there which is too busy to be looked at, or that one
//! which lists its models serves none of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Model, Seen, Suitability};
use crate::transport::http::HttpError;

/// How long a server that has been tried is not tried again, whatever becomes of its chats: some refuse a chat for what it says.
const TRIAL_LASTS: Duration = Duration::from_secs(15);

/// What is known of a server by the chats that it was asked for.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Chats that have been sent and have not ended.
    running: usize,
    /// When part of an answer came last.
    heard: Option<Instant>,
    last: LastChat,
    /// When a trial has last shown that chats are served.
    tried: Option<Instant>,
}

/// What became of the last chat.
#[derive(Debug, Default)]
enum LastChat {
    /// There was none, or it says nothing any more.
    #[default]
    None,
    Served,
    /// Something answered that serves no chats, or none to this sidecar. The chat was for this model.
    Unserved(Arc<str>),
}

impl Standing {
    /// A chat is sent.
    pub(super) fn begin(self: &Arc<Self>) -> RunningChat {
        self.lock().running += 1;
        RunningChat(Arc::clone(self))
    }

    /// The server has begun to answer a chat, or has loaded a model.
    pub(super) fn served(&self) {
        self.lock().last = LastChat::Served;
    }

    /// What answered a chat for this model serves none. Gives whether that should be looked into.
    pub(super) fn unserved(&self, model: &Arc<str>) -> bool {
        let mut state = self.lock();
        if state
            .tried
            .is_some_and(|tried| tried.elapsed() < TRIAL_LASTS)
        {
            return false;
        }
        state.last = LastChat::Unserved(Arc::clone(model));
        true
    }

    /// A look has failed, and tells as much by itself from now on.
    pub(super) fn forget(&self) {
        self.lock().last = LastChat::None;
    }

    /// The model by which it should be tried whether chats are served, if it should. `is_offered`: whether one may be.
    pub(super) fn to_try(
        &self,
        seen: &Seen,
        is_offered: impl Fn(&Model, Suitability) -> bool,
    ) -> Option<Model> {
        let state = self.lock();
        let doubted = match &state.last {
            LastChat::Unserved(model) => Some(model),
            LastChat::None if seen.is_list_missing => None,
            LastChat::None | LastChat::Served => return None,
        };
        let offered = || {
            let models = seen.models.iter();
            models.filter(|(model, suits)| is_offered(model, *suits))
        };
        // Preferably one that need not be loaded for this.
        let is_cheap = |model: &Model| seen.is_memory_unknown || model.loaded.is_some();
        let (model, _) = offered()
            .find(|(model, _)| is_cheap(model))
            .or_else(|| offered().find(|(model, _)| Some(&model.name) == doubted))
            .or_else(|| offered().next())?;
        Some(model.clone())
    }

    /// A trial has shown that chats are served, or nothing.
    pub(super) fn tried(&self) {
        let mut state = self.lock();
        state.last = LastChat::Served;
        state.tried = Some(Instant::now());
    }

    /// Whether chats show that the server is there, although a look that began then failed so.
    pub(super) fn outweighs(&self, error: &HttpError, began: Instant) -> bool {
        let state = self.lock();
        match error {
            // So servers, and proxies that count connections, say that they are busy.
            HttpError::Status(429 | 503) => state.running > 0,
            // One that does one thing after another does not list its models in the middle of an answer.
            HttpError::Silent(_) => state.heard.is_some_and(|heard| heard >= began),
            HttpError::Dial(_)
            | HttpError::Broken
            | HttpError::NotHttp(_)
            | HttpError::Encoded(_)
            | HttpError::Status(_)
            | HttpError::Unexpected
            | HttpError::TooLarge => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chat that has been sent. Ends when it is dropped.
pub struct RunningChat(Arc<Standing>);

impl RunningChat {
    /// Part of the answer has come.
    pub fn heard(&self, now: Instant) {
        self.0.lock().heard = Some(now);
    }
}

impl Drop for RunningChat {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::Loaded;

    fn seen(models: &[(&str, bool)]) -> Seen {
        let model = |(name, is_loaded): &(&str, bool)| Model {
            loaded: is_loaded.then_some(Loaded {
                bytes: 1,
                gpu_bytes: 1,
            }),
            ..Model::named(name)
        };
        let suits = |model| (model, Suitability::Suits);
        Seen {
            models: models.iter().map(model).map(suits).collect(),
            ..Seen::default()
        }
    }

    /// The model that is tried where all but `hidden` are offered.
    fn tried(standing: &Standing, seen: &Seen) -> Option<String> {
        let model = standing.to_try(seen, |model, _| &*model.name != "hidden");
        model.map(|model| model.name.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn what_serves_no_chats_is_tried_and_at_most_every_15_seconds_where_it_does() {
        let standing = Standing::default();
        let seen = seen(&[("hidden", true), ("a", false), ("b", false)]);
        assert_eq!(tried(&standing, &seen), None);
        assert!(standing.unserved(&"b".into()));
        assert_eq!(tried(&standing, &seen).as_deref(), Some("b"));
        standing.tried();
        assert_eq!(tried(&standing, &seen), None);
        assert!(!standing.unserved(&"b".into()));
        assert_eq!(tried(&standing, &seen), None);
        tokio::time::advance(TRIAL_LASTS).await;
        assert!(standing.unserved(&"b".into()));
        assert_eq!(tried(&standing, &seen).as_deref(), Some("b"));
        standing.served();
        assert_eq!(tried(&standing, &seen), None);
    }

    #[test]
    fn a_trial_loads_no_model_where_one_is_in_memory() {
        let standing = Standing::default();
        assert!(standing.unserved(&"a".into()));
        let mut seen = seen(&[("hidden", true), ("a", false), ("b", true)]);
        assert_eq!(tried(&standing, &seen).as_deref(), Some("b"));
        seen.models.truncate(1);
        assert_eq!(tried(&standing, &seen), None);
    }

    #[test]
    fn models_that_only_the_operator_names_are_tried_until_one_was_served() {
        let standing = Standing::default();
        let mut seen = seen(&[("a", false)]);
        seen.is_list_missing = true;
        assert_eq!(tried(&standing, &seen).as_deref(), Some("a"));
        standing.served();
        assert_eq!(tried(&standing, &seen), None);
        standing.forget();
        assert_eq!(tried(&standing, &seen).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_a_chat_is_there_although_it_lists_nothing_meanwhile() {
        let standing = Arc::<Standing>::default();
        let began = Instant::now();
        let silent = HttpError::Silent(Duration::from_secs(10));
        let busy = [429, 503].map(HttpError::Status);
        assert!(!standing.outweighs(&silent, began));
        let running = standing.begin();
        assert!(!standing.outweighs(&silent, began), "nothing has come yet");
        running.heard(began);
        assert!(standing.outweighs(&silent, began));
        let later = began + Duration::from_millis(1);
        assert!(
            !standing.outweighs(&silent, later),
            "nothing has come since"
        );
        for error in [HttpError::Status(502), HttpError::Broken] {
            assert!(!standing.outweighs(&error, began), "{error}");
        }
        assert!(busy.iter().all(|error| standing.outweighs(error, later)));
        drop(running);
        assert!(!busy.iter().any(|error| standing.outweighs(error, later)));
    }
}
