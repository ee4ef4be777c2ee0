//! What a node makes of any model server, shown with one that says and does what it is told to.

#![allow(clippy::unwrap_used)]

use std::{
    future::ready,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};

use super::*;
use crate::{config::tests::config, telemetry::Metrics};

const REFRESH: Duration = Duration::from_secs(600);

/// The rules of an operator with this `PIN_ALLOW_MODELS`, who denies nothing.
pub(crate) fn allowing(models: &str) -> Rules {
    let config = config(&[("PIN_ALLOW_MODELS", models), ("PIN_PRELOAD_MODELS", "none")]);
    Rules {
        allow: config.backend.allow,
        deny: config.backend.deny,
        preload: config.backend.preload,
    }
}

/// What is told of servers that are none.
pub(crate) const GUIDE: Guide = Guide {
    name: "The server",
    if_broken: "",
    if_slow: "",
    floor: 10.0,
    best: 20.0,
};

/// Where what becomes of a server is counted, for nobody to see.
pub(crate) fn counted() -> BackendMetrics {
    BackendMetrics::new(&Arc::new(Metrics::new()), "gpu", "told")
}

/// Has these models, or is away; never answers a chat.
#[derive(Default)]
pub(crate) struct Listing {
    models: Option<Vec<(&'static str, Suitability)>>,
    looks: AtomicUsize,
}

impl Listing {
    pub(crate) fn has(models: &[(&'static str, Suitability)]) -> Arc<Self> {
        Arc::new(Self {
            models: Some(models.to_vec()),
            ..Self::default()
        })
    }
}

impl ModelServer for Listing {
    fn mode(&self) -> &'static str {
        "told"
    }

    fn guide(&self) -> &'static Guide {
        &GUIDE
    }

    fn look(&self) -> BoxFuture<'_, Result<Seen, HttpError>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let model = |(name, suitability): &(&str, Suitability)| (Model::named(name), *suitability);
        let seen = self.models.as_ref().map(|models| Seen {
            models: models.iter().map(model).collect(),
            ..Seen::default()
        });
        ready(seen.ok_or(HttpError::Broken)).boxed()
    }

    fn answers(&self) -> BoxFuture<'_, bool> {
        ready(self.models.is_some()).boxed()
    }

    fn why_silent(&self, error: &HttpError) -> String {
        format!("it is away: {error}")
    }

    fn why_nothing(&self, models: usize, _: Option<&str>) -> String {
        format!("none of {models}")
    }

    fn prepare(&self, payload: &[u8], model: &Model) -> Result<Prepared, Failure> {
        Ok(Prepared::new(model, Bytes::copy_from_slice(payload)))
    }

    fn chat(&self, _: Prepared) -> BoxFuture<'_, Result<ChatStream, AskError>> {
        ready(Err(HttpError::Broken.into())).boxed()
    }

    fn load<'a>(&'a self, _: &'a Model) -> BoxFuture<'a, Result<(), AskError>> {
        ready(Ok(())).boxed()
    }
}

fn backend(server: &Arc<Listing>, allow: &str) -> Backend {
    let server = Arc::clone(server) as Arc<dyn ModelServer>;
    Backend::new(server, allowing(allow), REFRESH, counted())
}

#[tokio::test(start_paused = true)]
async fn what_does_not_suit_is_offered_by_its_full_name_and_what_is_not_known_by_none() {
    use Suitability::{CannotChat, RunsElsewhere, Suits, Unknown};
    let server = Listing::has(&[
        ("a:latest", Suits),
        ("b:latest", CannotChat),
        ("c:latest", RunsElsewhere),
        ("d:latest", Unknown),
        ("e:latest", Unknown),
    ]);
    let backend = backend(&server, "a*,b*,c,d*,e");
    backend.look_now().await;
    assert!(backend.find("A").is_some());
    let offer = backend.offer();
    let names: Vec<_> = offer.borrow().names().map(ToString::to_string).collect();
    assert_eq!(names, ["a:latest", "c:latest"]);
}

fn hidden(backend: &Backend) -> Vec<(String, &'static str)> {
    let hidden = backend.hidden().into_iter();
    hidden
        .map(|model| (model.name.to_string(), model.why))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_misses_a_model_is_told_which_setting_hides_it() {
    use Suitability::{CannotChat, RunsElsewhere, Suits, Unknown};
    let server = Listing::has(&[
        ("offered:latest", Suits),
        ("named:latest", CannotChat),
        ("x-denied:latest", Suits),
        ("y-denied:latest", CannotChat),
        ("not-allowed:latest", Suits),
        ("x-embeds:latest", CannotChat),
        ("x-far:cloud", RunsElsewhere),
        ("x-new:latest", Unknown),
        ("TTS:x", Suits),
    ]);
    let config = config(&[
        ("PIN_ALLOW_MODELS", "offered,x*,named,y-denied,TTS:x"),
        ("PIN_DENY_MODELS", "*-denied"),
    ]);
    let rules = Rules {
        allow: config.backend.allow,
        deny: config.backend.deny,
        preload: allowing("*").preload,
    };
    let server: Arc<dyn ModelServer> = server;
    let backend = Backend::new(server, rules, REFRESH, counted());
    backend.look_now().await;
    let told = hidden(&backend);
    let begins = [
        ("x-denied:latest", "PIN_DENY_MODELS names it."),
        ("y-denied:latest", "PIN_DENY_MODELS names it."),
        ("not-allowed:latest", "PIN_ALLOW_MODELS does not name it."),
        (
            "x-embeds:latest",
            "It is not made for chats; named in full in PIN_ALLOW_MODELS",
        ),
        (
            "x-far:cloud",
            "It runs in somebody's cloud; named in full in PIN_ALLOW_MODELS",
        ),
        ("x-new:latest", "It is not known yet"),
        ("TTS:x", "The network would take it for speech"),
    ];
    assert_eq!(told.len(), begins.len(), "{told:?}");
    for ((name, why), (expected, begin)) in told.iter().zip(begins) {
        assert!(name == expected && why.starts_with(begin), "{name}: {why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_hidden_models_are_told_of_and_none_of_a_server_that_is_away() {
    let many = backend(&Listing::has(&[("a", Suitability::Suits); 150]), "b");
    many.look_now().await;
    assert_eq!(hidden(&many).len(), Hidden::MAX);
    let away = backend(&Arc::default(), "b");
    away.look_now().await;
    assert_eq!(hidden(&away), []);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_tell_its_version_is_there_all_the_same() {
    let server = Listing::has(&[("a", Suitability::Unknown)]);
    let there = backend(&server, "*");
    there.look_now().await;
    let expected = Offer {
        is_up: true,
        is_warm: true,
        why_empty: Some("none of 1".to_owned()),
        ..Offer::default()
    };
    assert_eq!(*there.offer().borrow(), expected);
    let away = backend(&Arc::default(), "*");
    away.look_now().await;
    let expected = Offer {
        why_empty: Some("it is away: the connection broke".to_owned()),
        ..Offer::default()
    };
    assert_eq!(*away.offer().borrow(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_off_a_chat_is_looked_at_again_at_once() {
    let server = Listing::has(&[("a", Suitability::Suits)]);
    let backend = Arc::new(backend(&server, "*"));
    let followed = Arc::clone(&backend);
    let following = tokio::spawn(async move { followed.follow().await });
    tokio::time::sleep(REFRESH / 2).await;
    assert_eq!(server.looks.load(Ordering::Relaxed), 1);
    let chat = backend.prepare(b"", &Model::named("a")).unwrap();
    let failure = backend.chat(chat).await.err().unwrap();
    assert_eq!(
        failure.text(),
        "backend: the connection to the model server broke before it answered"
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(server.looks.load(Ordering::Relaxed), 2);
    following.abort();
}

#[tokio::test(start_paused = true)]
async fn a_server_with_nothing_to_pull_is_done_with_it_at_once() {
    let backend = backend(&Listing::has(&[]), "*");
    let stop = CancellationToken::new();
    backend
        .keep_pulling(fastrand::Rng::with_seed(7), stop)
        .await;
    assert!(backend.pulls().list().is_empty());
    assert_eq!(backend.mode(), "told");
}
