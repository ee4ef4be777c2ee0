//! The context (`num_ctx`) that the requests for each model carry: the one that was last sent for it.
//!
//! Ollama compares what a request asks for with what the loaded model was asked for, not with what it got, and loads the
//! model anew where they differ (`needsReload` in its `server/sched.go`). So requests of different wishes carry one number,
//! the largest so far, which cuts none of them short; and `/api/ps` cannot tell it, since what it shows was lowered to
//! what the model was made for.
//!
//! Invariants: the number changes when a body is prepared, so that two which are prepared at once carry the same. One that
//! Ollama has not taken is forgotten again (refused, broken off, never sent): a context that does not fit into memory
//! would else fail every later request, too. A model that is missing from a look may be loaded all the same, so its number
//! outlives that. There are at most [`MAX_ABSENT`] numbers more than Ollama has models.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::wire::Tag;

/// A smaller context than this is no wish but a mistake: it would cut short what is asked for next.
const LEAST: u64 = 512;

/// How many models that Ollama had are remembered.
const MAX_ABSENT: usize = 256;

/// The numbers of all models. Cheap to clone: a body that is on its way holds one.
#[derive(Clone, Default)]
pub(super) struct Contexts(Arc<Mutex<HashMap<String, Context>>>);

/// A model's.
#[derive(Default)]
struct Context {
    /// Which model of that name it is.
    digest: String,
    /// What was last prepared to be sent.
    sent: Option<u64>,
    /// What Ollama has last taken.
    taken: Option<u64>,
}

/// A number that is on its way to Ollama. Dropped before it is [taken](SentContext::taken), it is forgotten.
pub(in crate::backend) struct SentContext {
    contexts: Contexts,
    model: Arc<str>,
    tokens: u64,
    is_taken: bool,
}

impl Contexts {
    /// These are the models that there are. One that is another than before begins anew.
    pub(super) fn keep_those_of(&self, tags: &[Tag]) {
        let mut contexts = self.lock();
        let mut absent = mem::take(&mut *contexts);
        for tag in tags {
            let known = absent.remove(&tag.name);
            let known = known.filter(|context| context.digest == tag.digest);
            let new = || Context {
                digest: tag.digest.clone(),
                ..Context::default()
            };
            let context = contexts.entry(tag.name.clone());
            context.or_insert_with(|| known.unwrap_or_else(new));
        }
        let has_number = |(_, context): &(String, Context)| context.sent.is_some();
        contexts.extend(absent.into_iter().filter(has_number).take(MAX_ABSENT));
    }

    /// What a request is to carry that asks for so many tokens: that, if it is more than was last sent, else what was last
    /// sent; `None`: nothing, as ever for this model.
    pub(super) fn at_least(&self, model: &Arc<str>, asked: Option<u64>) -> Option<SentContext> {
        let asked = asked.filter(|tokens| *tokens >= LEAST);
        self.send(model, |sent| asked.max(sent))
    }

    /// The same for a request that is given just what it asks for.
    pub(super) fn exactly(&self, model: &Arc<str>, asked: Option<u64>) -> Option<SentContext> {
        self.send(model, |sent| asked.or(sent))
    }

    fn send(
        &self,
        model: &Arc<str>,
        choose: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Option<SentContext> {
        let mut contexts = self.lock();
        let tokens = match contexts.get_mut(&**model) {
            Some(context) => {
                context.sent = choose(context.sent);
                context.sent
            }
            None => choose(None),
        };
        Some(SentContext {
            contexts: self.clone(),
            model: Arc::clone(model),
            tokens: tokens?,
            is_taken: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Context>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SentContext {
    /// How many tokens that is.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Ollama has begun to answer: the model is loaded with it.
    pub(super) fn taken(mut self) {
        self.is_taken = true;
    }
}

impl Drop for SentContext {
    fn drop(&mut self) {
        let mut contexts = self.contexts.lock();
        let Some(context) = contexts.get_mut(&*self.model) else {
            return;
        };
        if self.is_taken {
            context.taken = Some(self.tokens);
            // Another request that carried it may have failed meanwhile.
            context.sent = context.sent.max(context.taken);
        } else if context.sent == Some(self.tokens) {
            context.sent = context.taken;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::ollama::wire;

    fn tags(digests: &[(&str, &str)]) -> Vec<Tag> {
        let tag = |(name, digest)| serde_json::json!({"name": name, "digest": digest});
        let tags: Vec<_> = digests.iter().copied().map(tag).collect();
        wire::tags(&serde_json::json!({"models": tags}).to_string()).unwrap()
    }

    fn contexts() -> (Contexts, Arc<str>) {
        let contexts = Contexts::default();
        contexts.keep_those_of(&tags(&[("m", "1"), ("other", "2")]));
        (contexts, "m".into())
    }

    /// A request that Ollama answers: what it carries.
    fn carried(contexts: &Contexts, asked: Option<u64>) -> Option<u64> {
        let sent = contexts.at_least(&"m".into(), asked)?;
        let tokens = sent.tokens();
        sent.taken();
        Some(tokens)
    }

    #[test]
    fn a_request_carries_what_was_last_sent_or_a_larger_wish_of_its_own() {
        let (contexts, _) = contexts();
        for (asked, carries) in [
            (None, None),
            (Some(511), None),
            (Some(512), Some(512)),
            (None, Some(512)),
            (Some(4096), Some(4096)),
            (Some(2048), Some(4096)),
            (Some(1), Some(4096)),
            (None, Some(4096)),
            (Some(8192), Some(8192)),
        ] {
            assert_eq!(carried(&contexts, asked), carries, "{asked:?}");
        }
        assert!(contexts.at_least(&"other".into(), None).is_none());
    }

    #[test]
    fn what_ollama_has_not_taken_is_not_what_later_requests_carry() {
        let (contexts, model) = contexts();
        drop(contexts.at_least(&model, Some(100_000)));
        assert_eq!(carried(&contexts, None), None);
        carried(&contexts, Some(2048));
        drop(contexts.at_least(&model, Some(100_000)));
        assert_eq!(carried(&contexts, None), Some(2048));
        // A failure of a request that asks for nothing new changes nothing.
        drop(contexts.at_least(&model, None));
        assert_eq!(carried(&contexts, None), Some(2048));
    }

    #[test]
    fn two_that_are_prepared_at_once_carry_the_same_whichever_of_them_fails() {
        let (contexts, model) = contexts();
        let larger = contexts.at_least(&model, Some(8192)).unwrap();
        let beside = contexts.at_least(&model, None).unwrap();
        assert_eq!(beside.tokens(), 8192);
        drop(larger);
        beside.taken();
        assert_eq!(carried(&contexts, None), Some(8192));
    }

    #[test]
    fn a_model_that_is_replaced_takes_its_number_with_it() {
        let (contexts, _) = contexts();
        carried(&contexts, Some(2048));
        contexts.keep_those_of(&tags(&[("m", "1"), ("m", "1")]));
        assert_eq!(carried(&contexts, None), Some(2048));
        contexts.keep_those_of(&tags(&[]));
        contexts.keep_those_of(&tags(&[("m", "3")]));
        assert_eq!(carried(&contexts, None), None);
    }

    #[test]
    fn a_model_that_is_missing_from_a_look_comes_back_with_its_number() {
        let (contexts, _) = contexts();
        carried(&contexts, Some(2048));
        contexts.keep_those_of(&tags(&[("other", "2")]));
        contexts.keep_those_of(&tags(&[("m", "1")]));
        assert_eq!(carried(&contexts, None), Some(2048));
    }

    #[test]
    fn of_models_that_come_and_go_without_end_few_are_remembered() {
        let contexts = Contexts::default();
        for number in 0..2 * MAX_ABSENT {
            let name = number.to_string();
            contexts.keep_those_of(&tags(&[(&name, "1")]));
            let model: Arc<str> = name.into();
            contexts.at_least(&model, Some(2048)).unwrap().taken();
        }
        contexts.keep_those_of(&[]);
        assert_eq!(contexts.lock().len(), MAX_ABSENT);
    }

    #[test]
    fn an_owner_who_lets_consumers_choose_lets_them_choose_less() {
        let (contexts, model) = contexts();
        for (asked, carries) in [
            (Some(4096), Some(4096)),
            (Some(100), Some(100)),
            (None, Some(100)),
        ] {
            let sent = contexts.exactly(&model, asked);
            assert_eq!(sent.as_ref().map(SentContext::tokens), carries);
            sent.unwrap().taken();
        }
    }
}
