//! When models are loaded and what registration waits for, on a paused clock, with a server that does what it is told.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{HashMap, HashSet},
    future::{pending, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{task::JoinSet, time::advance};

use super::*;
use crate::{
    backend::{
        ChatStream, Guide, Loaded, ModelServer, Prepared, Rules, Seen, Suitability,
        tests::{GUIDE, allowing, counted},
    },
    protocol::Failure,
    transport::http::HttpError,
};

const REFRESH: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);

/// What becomes of a load.
#[derive(Clone, Copy)]
enum Manner {
    Takes(Duration),
    Refused,
    Hangs,
}

/// A server of which everything can be changed.
#[derive(Default)]
struct Server {
    models: Mutex<Vec<&'static str>>,
    is_away: Mutex<bool>,
    loaded: Mutex<HashSet<String>>,
    manners: Mutex<HashMap<&'static str, Manner>>,
    loads: Mutex<Vec<(String, Instant)>>,
    closed: Notify,
    /// How long it leaves a connection open that says nothing.
    idle_limit: Mutex<Option<Duration>>,
}

impl Server {
    fn has(models: &[&'static str]) -> Arc<Self> {
        Arc::new(Self {
            models: Mutex::new(models.to_vec()),
            ..Self::default()
        })
    }

    fn manner(&self, model: &'static str, manner: Manner) {
        self.manners.lock().unwrap().insert(model, manner);
    }

    fn unload(&self, model: &str) {
        self.loaded.lock().unwrap().remove(model);
    }

    fn set_away(&self, is_away: bool) {
        *self.is_away.lock().unwrap() = is_away;
        if is_away {
            self.loaded.lock().unwrap().clear();
        }
    }

    /// The models that it was asked to load, in order.
    fn loads(&self) -> Vec<String> {
        let loads = self.loads.lock().unwrap();
        loads.iter().map(|(model, _)| model.clone()).collect()
    }
}

impl ModelServer for Server {
    fn mode(&self) -> &'static str {
        "told"
    }

    fn guide(&self) -> &'static Guide {
        &GUIDE
    }

    fn look(&self) -> BoxFuture<'_, Result<Seen, HttpError>> {
        if *self.is_away.lock().unwrap() {
            return ready(Err(HttpError::Broken)).boxed();
        }
        let loaded = self.loaded.lock().unwrap();
        let model = |name: &&'static str| {
            let place = Loaded {
                bytes: 2,
                gpu_bytes: 1,
            };
            let model = Model {
                loaded: loaded.contains(*name).then_some(place),
                ..Model::named(name)
            };
            (model, Suitability::Suits)
        };
        let models = self.models.lock().unwrap().iter().map(model).collect();
        ready(Ok(Seen {
            models,
            ..Seen::default()
        }))
        .boxed()
    }

    fn answers(&self) -> BoxFuture<'_, bool> {
        ready(!*self.is_away.lock().unwrap()).boxed()
    }

    fn why_silent(&self, _: &HttpError) -> String {
        "away".to_owned()
    }

    fn why_nothing(&self, _: usize, _: Option<&str>) -> String {
        "nothing".to_owned()
    }

    fn prepare(&self, payload: &[u8], model: &Model) -> Result<Prepared, Failure> {
        Ok(Prepared::new(model, Bytes::copy_from_slice(payload)))
    }

    fn chat(&self, _: Prepared) -> BoxFuture<'_, Result<ChatStream, AskError>> {
        ready(Err(HttpError::Broken.into())).boxed()
    }

    fn load<'a>(&'a self, model: &'a Model) -> BoxFuture<'a, Result<(), AskError>> {
        let name = model.name.to_string();
        let manner = self.manners.lock().unwrap().get(&*name).copied();
        self.loads
            .lock()
            .unwrap()
            .push((name.clone(), Instant::now()));
        async move {
            match manner.unwrap_or(Manner::Takes(Duration::ZERO)) {
                Manner::Takes(time) => sleep(time).await,
                Manner::Refused => {
                    return Err(AskError::Refused {
                        status: 500,
                        words: "no room".to_owned(),
                        is_its_own: true,
                    });
                }
                Manner::Hangs => pending().await,
            }
            self.loaded.lock().unwrap().insert(name);
            Ok(())
        }
        .boxed()
    }

    fn until_closed(&self) -> BoxFuture<'_, ()> {
        let limit = *self.idle_limit.lock().unwrap();
        async move {
            tokio::select! {
                () = self.closed.notified() => {}
                () = sleep(limit.unwrap_or(Duration::MAX)) => {}
            }
        }
        .boxed()
    }
}

/// A node's backend that is followed and kept warm.
struct Kept {
    backend: Arc<Backend>,
    _tasks: JoinSet<()>,
}

impl Kept {
    fn start(server: &Arc<Server>, models: PreloadModels, interview: Option<&str>) -> Self {
        let rules = Rules {
            preload: PreloadSettings {
                models,
                interview_model: interview.map(str::to_owned),
                patience: PATIENCE,
            },
            ..allowing("*")
        };
        let server = Arc::clone(server) as Arc<dyn ModelServer>;
        let backend = Arc::new(Backend::new(server, rules, REFRESH, counted()));
        let mut tasks = JoinSet::new();
        let (followed, kept) = (Arc::clone(&backend), Arc::clone(&backend));
        tasks.spawn(async move { followed.follow().await });
        let random = fastrand::Rng::with_seed(7);
        tasks.spawn(async move { kept.keep_preloaded(random, CancellationToken::new()).await });
        Self {
            backend,
            _tasks: tasks,
        }
    }

    fn named(server: &Arc<Server>, names: &[&str]) -> Self {
        let names = names.iter().map(|name| Arc::from(*name)).collect();
        Self::start(server, PreloadModels::Named(names), None)
    }

    /// Waits until the node may be registered; gives how long that took.
    async fn warm(&self) -> Duration {
        let begun = Instant::now();
        let mut offer = self.backend.offer();
        offer.wait_for(|offer| offer.is_warm).await.unwrap();
        begun.elapsed()
    }

    /// A request from elsewhere that the server takes.
    async fn load_for_somebody(&self, model: &str) {
        let model = self.backend.find(model).unwrap();
        self.backend.load(&model).await.unwrap();
    }

    async fn wait_for(&self, model: &str, state: PreloadState) {
        let is_it = |one: PreloadStatus| *one.model == *model && one.state == state;
        let begun = Instant::now();
        while !self.backend.preloads().into_iter().any(is_it) {
            assert!(
                begun.elapsed() < 100 * MINUTE,
                "{:?}",
                self.backend.preloads()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn offered(&self) -> Vec<String> {
        let offer = self.backend.offer();
        let offer = offer.borrow();
        offer.names().map(ToString::to_string).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn models_are_loaded_one_after_the_other_before_the_node_is_registered() {
    let server = Server::has(&["a:latest", "b:latest", "c:latest"]);
    let takes = Manner::Takes(MINUTE);
    server.manner("c:latest", takes);
    server.manner("b:latest", takes);
    let kept = Kept::named(&server, &["C:latest", "b:latest"]);
    sleep(MINUTE / 2).await;
    assert_eq!(server.loads(), ["c:latest"]);
    let sentence = "Loading c:latest before the node is registered.";
    assert_eq!(kept.backend.preload_sentence().unwrap(), sentence);
    assert_eq!(kept.warm().await.as_secs(), 90);
    assert_eq!(server.loads(), ["c:latest", "b:latest"]);
    assert_eq!(kept.backend.preload_sentence(), None);
    let states: Vec<_> = kept
        .backend
        .preloads()
        .iter()
        .map(|one| one.state)
        .collect();
    assert_eq!(states, [PreloadState::Loaded; 2]);
}

#[tokio::test(start_paused = true)]
async fn the_list_begins_with_the_interview_model_then_what_is_kept_loaded_then_the_rest_by_name() {
    let server = Server::has(&["z:latest", "b:1", "d:latest", "a:latest", "c:latest"]);
    let names = ["d:latest", "b:1"].map(Arc::from).to_vec();
    let kept = Kept::start(&server, PreloadModels::Named(names), Some("Z"));
    kept.warm().await;
    assert_eq!(
        kept.offered(),
        ["z:latest", "d:latest", "b:1", "a:latest", "c:latest"]
    );
    let find = |name| kept.backend.find(name).unwrap().is_preloaded;
    assert!(find("d") && find("b:1") && !find("z"));
}

#[tokio::test(start_paused = true)]
async fn auto_is_the_interview_model_else_what_is_loaded_already_else_nothing() {
    for (interview, loaded, chosen) in [
        (Some("b"), Some("c:latest"), &["b:latest"][..]),
        (None, Some("c:latest"), &["c:latest"]),
        (None, None, &[]),
        (Some("missing"), None, &[]),
    ] {
        let server = Server::has(&["a:latest", "b:latest", "c:latest"]);
        server
            .loaded
            .lock()
            .unwrap()
            .extend(loaded.map(str::to_owned));
        let kept = Kept::start(&server, PreloadModels::Auto, interview);
        assert_eq!(kept.warm().await, Duration::ZERO);
        assert_eq!(server.loads(), chosen, "{interview:?}, {loaded:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_loaded_delays_registration_for_so_long_and_no_longer() {
    for manner in [Manner::Refused, Manner::Hangs] {
        let server = Server::has(&["a:latest", "b:latest"]);
        server.manner("a:latest", manner);
        let kept = Kept::named(&server, &["a:latest", "b:latest"]);
        let took = kept.warm().await;
        assert!(
            took >= PATIENCE && took < PATIENCE + MINUTE / 60,
            "{took:?}"
        );
        // It is tried again, ever more seldom, and has what it takes once that is there.
        let attempts = server.loads().len();
        advance(60 * MINUTE).await;
        sleep(60 * MINUTE).await;
        let again = server.loads().len() - attempts;
        assert!((5..200).contains(&again), "{again} attempts in two hours");
        assert!(kept.backend.offer().borrow().is_warm);
        server.manner("a:latest", Manner::Takes(MINUTE));
        kept.wait_for("a:latest", PreloadState::Loaded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_not_there_yet_is_not_waited_for_and_loaded_when_it_is() {
    let server = Server::has(&["a:latest"]);
    let kept = Kept::named(&server, &["new:latest"]);
    assert_eq!(kept.warm().await, Duration::ZERO);
    server.models.lock().unwrap().push("new:latest");
    kept.wait_for("new:latest", PreloadState::Loaded).await;
    assert_eq!(server.loads(), ["new:latest"]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_asks_for_is_asked_for_at_half_the_time_that_it_is_kept() {
    let server = Server::has(&["a:latest"]);
    let kept = Kept::named(&server, &["a:latest"]);
    kept.warm().await;
    sleep(61 * MINUTE).await;
    let begun = server.loads.lock().unwrap()[0].1;
    let after = |at: Instant| (at - begun).as_secs() / 60;
    let loads: Vec<_> = server
        .loads
        .lock()
        .unwrap()
        .iter()
        .map(|(_, at)| after(*at))
        .collect();
    assert_eq!(loads, [0, 15, 30, 45, 60]);
    // A request that the server took is as good.
    for _ in 0..12 {
        sleep(10 * MINUTE).await;
        kept.load_for_somebody("a").await;
    }
    assert_eq!(server.loads().len(), 5 + 12);
}

#[tokio::test(start_paused = true)]
async fn what_was_thrown_out_is_left_out_until_a_request_loads_it() {
    let server = Server::has(&["a:latest"]);
    let kept = Kept::named(&server, &["a:latest"]);
    kept.warm().await;
    // Just before it would be asked for again.
    sleep(15 * MINUTE - Duration::from_millis(10)).await;
    server.unload("a:latest");
    kept.wait_for("a:latest", PreloadState::Evicted).await;
    sleep(100 * MINUTE).await;
    assert_eq!(server.loads().len(), 1);
    assert!(kept.backend.offer().borrow().is_warm);
    kept.load_for_somebody("a").await;
    sleep(16 * MINUTE).await;
    assert_eq!(server.loads().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_out_of_memory_for_one_look_was_not_thrown_out() {
    let server = Server::has(&["a:latest"]);
    let kept = Kept::named(&server, &["a:latest"]);
    kept.warm().await;
    sleep(REFRESH / 2).await;
    server.unload("a:latest");
    sleep(REFRESH).await;
    server.loaded.lock().unwrap().insert("a:latest".to_owned());
    sleep(20 * MINUTE).await;
    assert_eq!(server.loads().len(), 2, "it was renewed");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_has_its_models_loaded_again_and_the_node_waits_for_them() {
    let server = Server::has(&["a:latest"]);
    let kept = Kept::named(&server, &["a:latest"]);
    kept.warm().await;
    server.manner("a:latest", Manner::Takes(MINUTE));
    server.set_away(true);
    sleep(MINUTE).await;
    assert!(!kept.backend.offer().borrow().is_warm);
    server.set_away(false);
    sleep(MINUTE / 2).await;
    assert!(!kept.backend.offer().borrow().is_warm);
    kept.warm().await;
    assert_eq!(server.loads().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_is_over_before_anybody_looks_is_known_by_its_connections() {
    let server = Server::has(&["a:latest"]);
    let kept = Kept::named(&server, &["a:latest"]);
    kept.warm().await;
    sleep(MINUTE).await;
    // Something in between closes connections that say nothing.
    server.closed.notify_one();
    sleep(MINUTE).await;
    assert_eq!(server.loads().len(), 1);
    server.unload("a:latest");
    server.closed.notify_one();
    sleep(MINUTE).await;
    assert_eq!(server.loads().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_idle_connections_is_not_taken_for_one_that_was_restarted() {
    let server = Server::has(&["a:latest"]);
    *server.idle_limit.lock().unwrap() = Some(Duration::from_secs(5));
    let kept = Kept::named(&server, &["a:latest"]);
    kept.warm().await;
    sleep(MINUTE).await;
    server.unload("a:latest");
    kept.wait_for("a:latest", PreloadState::Evicted).await;
    sleep(5 * MINUTE).await;
    assert_eq!(server.loads().len(), 1, "somebody wants its room");

    kept.load_for_somebody("a").await;
    sleep(MINUTE).await;
    server.unload("a:latest");
    server.closed.notify_one();
    sleep(MINUTE).await;
    assert_eq!(server.loads().len(), 3, "it was restarted");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_takes_the_server_down_with_it_is_not_waited_for_each_time() {
    let server = Server::has(&["a:latest"]);
    server.manner("a:latest", Manner::Hangs);
    let kept = Kept::named(&server, &["a:latest"]);
    let mut took = Duration::ZERO;
    while !kept.backend.offer().borrow().is_warm {
        server.set_away(true);
        sleep(MINUTE / 6).await;
        server.set_away(false);
        sleep(MINUTE / 3).await;
        took += MINUTE / 2;
        assert!(
            took < PATIENCE + 2 * MINUTE,
            "{:?}",
            kept.backend.preloads()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_stop_stops_in_the_middle_of_a_load() {
    let server = Server::has(&["a:latest"]);
    server.manner("a:latest", Manner::Hangs);
    let dynamic = Arc::clone(&server) as Arc<dyn ModelServer>;
    let rules = Rules {
        preload: PreloadSettings {
            models: PreloadModels::Named(vec!["a:latest".into()]),
            interview_model: None,
            patience: PATIENCE,
        },
        ..allowing("*")
    };
    let backend = Backend::new(dynamic, rules, REFRESH, counted());
    backend.look_now().await;
    let stop = CancellationToken::new();
    let mut keeping = Box::pin(backend.keep_preloaded(fastrand::Rng::with_seed(7), stop.clone()));
    while server.loads().is_empty() {
        assert!((&mut keeping).now_or_never().is_none());
    }
    stop.cancel();
    assert!(keeping.now_or_never().is_some());
}
