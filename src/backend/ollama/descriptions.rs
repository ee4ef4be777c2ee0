//! What Ollama says of its models one by one: asked for once, since it never changes for a digest.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, stream};

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

/// What is known.
pub(super) struct Descriptions {
    by_model: HashMap<String, Facts>,
    failing: LogThrottle<String>,
}

impl Descriptions {
    pub(super) fn new() -> Self {
        Self {
            by_model: HashMap::new(),
            failing: LogThrottle::outage(),
        }
    }

    /// What is known of each of `tags`, by [`Tag::key`]; what is not is asked for. One that has come is kept at once: whoever looks
    /// may be cancelled in the middle of it.
    pub(super) async fn of_all(&mut self, api: &Api, tags: &[Tag]) -> &HashMap<String, Facts> {
        let is_there: HashSet<_> = tags.iter().map(Tag::key).collect();
        self.by_model.retain(|key, _| is_there.contains(&**key));
        let is_new = |tag: &&Tag| !self.by_model.contains_key(tag.key());
        let new: Vec<_> = tags.iter().filter(is_new).cloned().collect();
        let mut descriptions = stream::iter(new)
            .map(|tag| async move { (api.describe(&tag.name).await, tag) })
            .buffer_unordered(DESCRIBED_AT_ONCE);
        while let Some((description, tag)) = descriptions.next().await {
            match description {
                Ok(facts) => drop(self.by_model.insert(tag.key().to_owned(), facts)),
                Err(error) => self.tell_failing(&tag.name, &error),
            }
        }
        &self.by_model
    }

    fn tell_failing(&mut self, model: &str, error: &HttpError) {
        let told = self.failing.seen(model.to_owned());
        throttled!(warn, told, [model, %error,] "a model is not offered: Ollama does not describe it");
    }
}
