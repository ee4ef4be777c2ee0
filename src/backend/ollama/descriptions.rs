//! What Ollama says of its models one by one: asked for when a model is new, when Ollama's version changes, since what it says
//! then may be another thing, and from time to time.
//!
//! Invariant: what was known stays known until there is something newer.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    api::Api,
    wire::{Facts, Tag},
};
use crate::{
    telemetry::{LogThrottle, throttled},
    transport::http::HttpError,
};

/// How many models are described at once. They are read from disk, and Ollama has other things to do.
const DESCRIBED_AT_ONCE: usize = 4;

/// A description this old is asked for again.
const OLD: Duration = Duration::from_secs(3600);

/// What is known.
pub(super) struct Descriptions {
    /// By [`Tag::key`].
    by_model: HashMap<String, Description>,
    /// Why one is not known of which nothing was known before, by the last look.
    why_unknown: Option<String>,
    failing: LogThrottle<String>,
}

struct Description {
    facts: Facts,
    /// Of the Ollama that gave it.
    version: Option<String>,
    asked: Instant,
}

impl Descriptions {
    pub(super) fn new() -> Self {
        Self {
            by_model: HashMap::new(),
            why_unknown: None,
            failing: LogThrottle::outage(),
        }
    }

    /// What is known of a model; nothing where Ollama has not described it.
    pub(super) fn of(&self, tag: &Tag) -> Option<&Facts> {
        self.by_model.get(tag.key()).map(|known| &known.facts)
    }

    /// Why there is a model of which nothing is known, if there is one.
    pub(super) fn why_unknown(&self) -> Option<&str> {
        self.why_unknown.as_deref()
    }

    /// Asks for what is not known of `tags`, or known of another version of Ollama, or for long. One that has come is kept at
    /// once: whoever looks may be cancelled in the middle of it.
    pub(super) async fn refresh(&mut self, api: &Api, tags: &[Tag], version: Option<&str>) {
        self.why_unknown = None;
        let is_there: HashSet<_> = tags.iter().map(Tag::key).collect();
        self.by_model.retain(|key, _| is_there.contains(&**key));
        let is_current = |known: &Description| {
            known.version.as_deref() == version && known.asked.elapsed() < OLD
        };
        let is_due = |tag: &&Tag| !self.by_model.get(tag.key()).is_some_and(is_current);
        let due: Vec<_> = tags.iter().filter(is_due).cloned().collect();
        let mut descriptions = stream::iter(due)
            .map(|tag| async move { (api.describe(&tag.name).await, tag) })
            .buffer_unordered(DESCRIBED_AT_ONCE);
        while let Some((description, tag)) = descriptions.next().await {
            match description {
                Ok(facts) => self.keep(&tag, facts, version),
                Err(error) if self.of(&tag).is_none() => {
                    self.tell_failing(&tag.name, &error);
                    self.why_unknown = Some(error.to_string());
                }
                Err(_) => {}
            }
        }
    }

    fn keep(&mut self, tag: &Tag, facts: Facts, version: Option<&str>) {
        let description = Description {
            facts,
            version: version.map(str::to_owned),
            asked: Instant::now(),
        };
        self.by_model.insert(tag.key().to_owned(), description);
    }

    fn tell_failing(&mut self, model: &str, error: &HttpError) {
        let told = self.failing.seen(model.to_owned());
        throttled!(warn, told, [model, %error,] "a model is not offered: Ollama does not describe it");
    }
}
