//! What chats show of a model server, beside what looks at it show.
//!
//! Invariant: a look is believed unless a chat shows more: that a server is there which is too busy to be looked at, or that it
//! does not serve one of the models that it lists. One model's chats say nothing of another's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Model, Seen};
use crate::transport::http::HttpError;

/// How long a model that a trial has found served is not tried again, whatever becomes of its chats: some are refused for what
/// they say.
const TRIAL_LASTS: Duration = Duration::from_secs(15);

/// A model that has served a chat so lately is tried once as many have been refused in a row as [`IN_A_ROW`]; any other at once.
const SERVED_LATELY: Duration = Duration::from_secs(60);

/// See [`SERVED_LATELY`].
const IN_A_ROW: u32 = 3;

/// How long ago part of an answer may have come from a server that is too busy to be looked at: the time between two tokens of a
/// slow one.
const HEARD_LATELY: Duration = Duration::from_secs(15);

/// How long a server is taken for busy that gives no part of any answer: a prompt may take as long.
const BUSY_AT_MOST: Duration = Duration::from_secs(30);

/// What is known of a server by the chats that it was asked for.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Chats that have been sent and have not ended.
    running: usize,
    /// When part of an answer came last.
    heard: Option<Instant>,
    /// Since when looks have failed, if the last one has.
    failing: Option<Instant>,
    /// Whether any model has served a chat.
    has_served: bool,
    models: HashMap<Arc<str>, Chats>,
}

/// What is known of a model's chats.
#[derive(Debug, Default)]
struct Chats {
    served: Option<Instant>,
    /// As many were refused since one was served.
    refused: u32,
    verdict: Verdict,
}

/// What is to be thought of a model.
#[derive(Debug, Default)]
enum Verdict {
    /// It is offered.
    #[default]
    Trusted,
    /// It is offered, and not tried before then.
    Tried(Instant),
    /// It is offered until a trial shows that it is not served.
    Doubted,
    /// It is not offered. Ends with a trial that finds it served.
    Unserved {
        /// Why, as a sentence for the operator.
        why: String,
        next_trial: Instant,
    },
}

impl Standing {
    /// A chat is sent.
    pub(super) fn begin(self: &Arc<Self>) -> RunningChat {
        self.lock().running += 1;
        RunningChat(Arc::clone(self))
    }

    /// The server has begun to answer a chat with this model, or has loaded it.
    pub(super) fn served(&self, model: &Arc<str>) {
        let mut state = self.lock();
        state.has_served = true;
        let chats = state.of(model);
        chats.served = Some(Instant::now());
        chats.refused = 0;
        if !matches!(chats.verdict, Verdict::Tried(_)) {
            chats.verdict = Verdict::Trusted;
        }
    }

    /// A chat with this model was refused as if it were not served. Gives whether that should be looked into.
    pub(super) fn refused(&self, model: &Arc<str>) -> bool {
        let mut state = self.lock();
        let chats = state.of(model);
        chats.refused = chats.refused.saturating_add(1);
        let is_known = match chats.verdict {
            Verdict::Trusted => false,
            Verdict::Tried(until) => Instant::now() < until,
            Verdict::Doubted | Verdict::Unserved { .. } => true,
        };
        let lately = |served: Instant| served.elapsed() < SERVED_LATELY;
        if is_known || (chats.refused < IN_A_ROW && chats.served.is_some_and(lately)) {
            return false;
        }
        chats.verdict = Verdict::Doubted;
        true
    }

    /// A look that began then has failed so. Gives whether chats show that the server is there all the same; where they do
    /// not, what they have shown is forgotten.
    pub(super) fn is_there_although(&self, error: &HttpError, began: Instant) -> bool {
        let mut state = self.lock();
        let failing = *state.failing.get_or_insert(began);
        let is_there = match error {
            // So servers, and proxies that count connections, say that they are busy.
            HttpError::Status(429 | 503) => {
                let lately = |heard: Instant| heard.elapsed() < HEARD_LATELY;
                let is_new = failing.elapsed() < BUSY_AT_MOST;
                state.running > 0 && (is_new || state.heard.is_some_and(lately))
            }
            // One that does one thing after another does not list its models in the middle of an answer.
            HttpError::Silent(_) => state.heard >= Some(began),
            HttpError::Dial(_)
            | HttpError::Broken
            | HttpError::NotHttp(_)
            | HttpError::Encoded(_)
            | HttpError::Status(_)
            | HttpError::Unexpected
            | HttpError::TooLarge => false,
        };
        if !is_there {
            state.models.clear();
            state.has_served = false;
        }
        is_there
    }

    /// A look has shown these models.
    pub(super) fn looked(&self, seen: &Seen) {
        let mut state = self.lock();
        state.failing = None;
        let has = |name: &Arc<str>| seen.models.iter().any(|(model, _)| model.name == *name);
        state.models.retain(|name, _| has(name));
    }

    /// Whether a model of those that a look has shown is to be tried now.
    pub(super) fn is_to_be_tried(&self, model: &Model, is_list_missing: bool) -> bool {
        let state = self.lock();
        let verdict = state.models.get(&model.name).map(|chats| &chats.verdict);
        match verdict {
            Some(Verdict::Doubted) => true,
            Some(Verdict::Unserved { next_trial, .. }) => *next_trial <= Instant::now(),
            // Nothing but the operator says that there is such a model.
            Some(Verdict::Trusted) | None => is_list_missing && !state.has_served,
            Some(Verdict::Tried(_)) => false,
        }
    }

    /// A trial has shown why a model is not served, and is to be made again after `pause`; or that it is, or nothing.
    pub(super) fn tried(&self, model: &Arc<str>, why_unserved: Option<String>, pause: Duration) {
        let mut state = self.lock();
        state.has_served |= why_unserved.is_none();
        let chats = state.of(model);
        chats.refused = 0;
        chats.verdict = match why_unserved {
            None => Verdict::Tried(Instant::now() + TRIAL_LASTS),
            Some(why) => Verdict::Unserved {
                why,
                next_trial: Instant::now() + pause,
            },
        };
    }

    /// Why a model is not offered that its server lists, as a sentence for the operator, if it is not.
    pub(super) fn why_unserved(&self, model: &Arc<str>) -> Option<String> {
        match &self.lock().models.get(model)?.verdict {
            Verdict::Unserved { why, .. } => Some(why.clone()),
            Verdict::Trusted | Verdict::Tried(_) | Verdict::Doubted => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of(&mut self, model: &Arc<str>) -> &mut Chats {
        self.models.entry(Arc::clone(model)).or_default()
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
    use crate::backend::Suitability;

    const PAUSE: Duration = Duration::from_secs(60);

    fn named(name: &str) -> Model {
        Model::named(name)
    }

    fn is_tried(standing: &Standing, name: &str) -> bool {
        standing.is_to_be_tried(&named(name), false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_whose_chats_are_refused_is_tried_and_no_other() {
        let (standing, a) = (Standing::default(), "a".into());
        assert!(!is_tried(&standing, "a"));
        assert!(standing.refused(&a));
        assert!(is_tried(&standing, "a") && !is_tried(&standing, "b"));
        standing.tried(&a, Some("why".to_owned()), PAUSE);
        assert_eq!(standing.why_unserved(&a).as_deref(), Some("why"));
        assert_eq!(standing.why_unserved(&"b".into()), None);
        assert!(!is_tried(&standing, "a"), "before its time");
        tokio::time::advance(PAUSE).await;
        assert!(is_tried(&standing, "a"));
        standing.tried(&a, None, PAUSE);
        assert_eq!(standing.why_unserved(&a), None);
    }

    #[tokio::test(start_paused = true)]
    async fn chats_that_are_refused_for_what_they_say_bring_a_trial_every_15_seconds_at_most() {
        let (standing, a) = (Standing::default(), "a".into());
        assert!(standing.refused(&a));
        standing.tried(&a, None, PAUSE);
        assert!(!standing.refused(&a));
        assert!(!is_tried(&standing, "a"));
        tokio::time::advance(TRIAL_LASTS).await;
        assert!(standing.refused(&a));
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_serves_others_is_doubted_once_three_chats_in_a_row_were_refused() {
        let (standing, a) = (Standing::default(), "a".into());
        for _ in 0..10 {
            standing.served(&a);
            assert!(!standing.refused(&a));
            assert!(!standing.refused(&a));
        }
        assert!(standing.refused(&a));
        standing.served(&a);
        assert!(!is_tried(&standing, "a"));
        tokio::time::advance(SERVED_LATELY).await;
        assert!(standing.refused(&a), "that it served was long ago");
    }

    #[test]
    fn models_that_only_the_operator_names_are_tried_until_one_was_served() {
        let (standing, a) = (Standing::default(), "a".into());
        let is_tried = |name| standing.is_to_be_tried(&named(name), true);
        assert!(is_tried("a") && is_tried("b"));
        standing.tried(&a, Some("why".to_owned()), PAUSE);
        assert!(!is_tried("a") && is_tried("b"));
        standing.served(&"b".into());
        assert!(!is_tried("a") && !is_tried("c"));
        assert!(!standing.is_there_although(&HttpError::Broken, Instant::now()));
        assert!(is_tried("a") && is_tried("b"), "it may be another server");
    }

    #[test]
    fn what_is_known_of_a_model_goes_with_it() {
        let (standing, a) = (Standing::default(), "a".into());
        standing.tried(&a, Some("why".to_owned()), PAUSE);
        let mut seen = Seen {
            models: vec![(named("a"), Suitability::Suits)],
            ..Seen::default()
        };
        standing.looked(&seen);
        assert!(standing.why_unserved(&a).is_some());
        seen.models.clear();
        standing.looked(&seen);
        assert_eq!(standing.why_unserved(&a), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_tokens_come_is_there_although_it_lists_nothing_meanwhile() {
        let standing = Arc::<Standing>::default();
        let silent = HttpError::Silent(Duration::from_secs(10));
        let began = Instant::now();
        assert!(!standing.is_there_although(&silent, began));
        let running = standing.begin();
        assert!(
            !standing.is_there_although(&silent, began),
            "nothing has come yet"
        );
        running.heard(began);
        assert!(standing.is_there_although(&silent, began));
        let later = began + Duration::from_millis(1);
        assert!(
            !standing.is_there_although(&silent, later),
            "nothing has come since"
        );
        for error in [HttpError::Status(502), HttpError::Broken] {
            assert!(!standing.is_there_although(&error, began), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_it_is_busy_is_believed_while_it_answers_and_half_a_minute_otherwise()
     {
        let standing = Arc::<Standing>::default();
        let outweighed =
            |status| standing.is_there_although(&HttpError::Status(status), Instant::now());
        assert!(!outweighed(503), "no chat runs");
        let running = standing.begin();
        standing.looked(&Seen::default());
        assert!(outweighed(503) && outweighed(429));
        tokio::time::advance(BUSY_AT_MOST).await;
        running.heard(Instant::now());
        assert!(outweighed(503), "tokens come");
        tokio::time::advance(HEARD_LATELY).await;
        let _hangs = standing.begin();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!outweighed(503), "nothing comes, whatever is asked");
        standing.looked(&Seen::default());
        assert!(outweighed(503), "that was another time");
    }
}
