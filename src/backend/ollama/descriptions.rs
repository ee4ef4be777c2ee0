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
    by_digest: HashMap<String, Facts>,
    failing: LogThrottle<String>,
}

impl Descriptions {
    pub(super) fn new() -> Self {
        Self {
            by_digest: HashMap::new(),
            failing: LogThrottle::outage(),
        }
    }

    /// What is known of each digest of `tags`; what is not is asked for. One that has come is kept at once: whoever looks
    /// may be cancelled in the middle of it.
    pub(super) async fn of_all(&mut self, api: &Api, tags: &[Tag]) -> &HashMap<String, Facts> {
        let is_there: HashSet<_> = tags.iter().map(|tag| &tag.digest).collect();
        self.by_digest.retain(|digest, _| is_there.contains(digest));
        let is_new = |tag: &&Tag| !self.by_digest.contains_key(&tag.digest);
        let new: Vec<_> = tags.iter().filter(is_new).cloned().collect();
        let mut descriptions = stream::iter(new)
            .map(|tag| async move { (api.describe(&tag.name).await, tag) })
            .buffer_unordered(DESCRIBED_AT_ONCE);
        while let Some((description, tag)) = descriptions.next().await {
            match description {
                Ok(facts) => drop(self.by_digest.insert(tag.digest, facts)),
                Err(error) => self.tell_failing(&tag.name, &error),
            }
        }
        &self.by_digest
    }

    fn tell_failing(&mut self, model: &str, error: &HttpError) {
        let told = self.failing.seen(model.to_owned());
        throttled!(warn, told, [model, %error,] "a model is not offered: Ollama does not describe it");
    }
}
