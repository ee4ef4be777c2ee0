//! Has Ollama pull the models that the operator named, one after the other, beside everything else: chats go on, the
//! login does not wait, no slot is taken.
//!
//! Ollama keeps what it has of a model when it is no longer asked for it, and goes on there when it is asked again; so
//! to resume is to ask again, and a request that is dropped is a pull that has stopped.
//!
//! Invariants: at most one model is being pulled. One that Ollama has, or had since the start, is never asked for (again):
//! whoever removes a model wants it gone.

mod board;
mod error;
mod progress;
mod wanted;

pub use board::{PullBoard, PullState, PullStatus};

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tracing::{info, warn};

use super::{Ollama, wire::Tag};
use crate::backend::{Catalogue, Offer};
use error::PullError;
use progress::{Bytes, Progress};
use wanted::Wanted;

/// How long a pull may say nothing new. Ollama itself starts anew what has not moved for 30 s, so that this is a stall
/// which it does not get out of by itself; asked again, it has the registry name another source.
const STALL: Duration = Duration::from_secs(120);

/// Once all bytes are there Ollama reads them all again and says nothing while it compares digests. No disk that
/// models are run from reads slower than this, in bytes per second: 40 GB may take twenty minutes.
const SLOWEST_DISK: u64 = 32 * 1024 * 1024;

/// No model takes longer than this to compare, whatever size Ollama names.
const LONGEST_COMPARISON: Duration = Duration::from_secs(12 * 3600);

/// Between two looks at an Ollama that is said to be there and does not give its list.
const PAUSE: Duration = Duration::from_secs(1);

impl Ollama {
    /// Pulls until every model is there.
    pub(super) async fn pull_wanted(&self, catalogue: &Catalogue, mut random: fastrand::Rng) {
        self.warn_of_hidden();
        let models = self.pulls.models().enumerate();
        let mut wanted: Vec<_> = models
            .map(|(place, (model, _))| Wanted::new(Arc::clone(model), place))
            .collect();
        let mut offer = catalogue.subscribe();
        while !wanted.is_empty() {
            answered(&mut offer).await;
            let Ok(tags) = self.api.tags().await else {
                catalogue.doubt();
                sleep(PAUSE).await;
                continue;
            };
            wanted.retain(|wanted| !self.is_there(wanted, &tags));
            if let Some(next) = wanted.iter().position(Wanted::is_due) {
                if self.pull(catalogue, &mut wanted[next], &mut random).await {
                    wanted.remove(next);
                }
            } else if let Some(due) = wanted.iter().map(|wanted| wanted.due).min() {
                rest_until(due, &mut offer).await;
            }
        }
    }

    fn warn_of_hidden(&self) {
        let models = self.pulls.models();
        for (model, _) in models.filter(|(_, may_be_offered)| !may_be_offered) {
            warn!(
                model = &**model,
                "PIN_PULL_MODELS names a model that PIN_ALLOW_MODELS and PIN_DENY_MODELS keep from being offered: it is \
                 pulled, and not served"
            );
        }
    }

    /// Whether Ollama has the model already.
    fn is_there(&self, wanted: &Wanted, tags: &[Tag]) -> bool {
        let is_it = |tag: &&Tag| tag.name.eq_ignore_ascii_case(&wanted.model);
        let Some(tag) = tags.iter().find(is_it) else {
            return false;
        };
        info!(
            model = &*wanted.model,
            "Ollama has the model: nothing to pull"
        );
        self.pulls.set_bytes(wanted.place, Bytes::all(tag.size));
        self.pulls.set_state(wanted.place, PullState::Done);
        true
    }

    /// Tries to pull one model; gives whether it is there now.
    async fn pull(
        &self,
        catalogue: &Catalogue,
        wanted: &mut Wanted,
        random: &mut fastrand::Rng,
    ) -> bool {
        wanted.begin();
        self.pulls.set_state(wanted.place, PullState::Pulling);
        match self.fetch(wanted).await {
            Ok(bytes) => {
                wanted.succeeded(bytes);
                catalogue.look_after(Instant::now()).await;
                self.pulls.set_state(wanted.place, PullState::Done);
                true
            }
            Err(error) => {
                if matches!(error, PullError::Http(_)) {
                    catalogue.doubt();
                }
                wanted.failed(&error, random);
                self.pulls.set_state(wanted.place, PullState::Failed);
                false
            }
        }
    }

    async fn fetch(&self, wanted: &mut Wanted) -> Result<Bytes, PullError> {
        let credentials = self.api.client.credentials();
        let asked = timeout(STALL, self.api.pull(&wanted.model)).await;
        let mut body = asked.map_err(|_| PullError::Stalled(STALL))??;
        let mut progress = Progress::new(credentials);
        let mut last_news = Instant::now();
        while !progress.has_succeeded() {
            let limit = longest_silence(progress.bytes());
            let bytes = timeout_at(last_news + limit, body.next()).await;
            let bytes = bytes
                .map_err(|_| PullError::Stalled(limit))?
                .ok_or(PullError::Ended)??;
            if progress.feed(&bytes)? {
                last_news = Instant::now();
                self.show_pull(wanted, progress.bytes());
            }
        }
        Ok(progress.bytes())
    }

    /// Before the first layer is told, what was known before an attempt still holds.
    fn show_pull(&self, wanted: &mut Wanted, bytes: Bytes) {
        if bytes.expected > 0 {
            self.pulls.set_bytes(wanted.place, bytes);
            wanted.progressed(bytes);
        }
    }
}

/// Waits until Ollama answers.
async fn answered(offer: &mut watch::Receiver<Offer>) {
    // Fails only if the catalogue is gone, and nobody would poll this then.
    let _ = offer.wait_for(|offer| offer.is_up).await;
}

/// Waits until `due`, or until Ollama's models change: somebody may have pulled one by hand.
async fn rest_until(due: Instant, offer: &mut watch::Receiver<Offer>) {
    tokio::select! {
        () = sleep_until(due) => {}
        _ = offer.changed() => {}
    }
}

/// How long a pull may say nothing new: longer where it may be comparing digests.
fn longest_silence(bytes: Bytes) -> Duration {
    if bytes.completed < bytes.expected {
        STALL
    } else {
        let comparing = Duration::from_secs(bytes.expected / SLOWEST_DISK);
        STALL + comparing.min(LONGEST_COMPARISON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_stops_is_noticed_in_minutes_and_a_digest_may_take_as_long_as_a_slow_disk() {
        let gigabytes = |n: u64| n * 1_000_000_000;
        let fetching = Bytes {
            completed: gigabytes(39),
            expected: gigabytes(40),
        };
        assert_eq!(longest_silence(fetching), STALL);
        assert_eq!(longest_silence(Bytes::default()), STALL);
        let verifying = longest_silence(Bytes::all(gigabytes(40))).as_secs() / 60;
        assert!((20..25).contains(&verifying), "{verifying} min");
        assert!(longest_silence(Bytes::all(u64::MAX)) < Duration::from_secs(24 * 3600));
    }
}
