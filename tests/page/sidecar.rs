//! An admin server with a sidecar behind it that is in whatever state a test wants.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt, future::BoxFuture};
use pin_sidecar::{
    admin::{
        Access, AdminServer, AdminToken, Connecting, History, Overview, PauseStatus, Status, Verbs,
    },
    check::{Outcome, Report, Step},
    secret::SecretSource,
    telemetry::Metrics,
};

use crate::{
    browser::FOREIGN_NAME,
    history::history,
    scenes::{Scene, Shown},
};

pub const TOKEN: &str = "right-token";

/// What a test sees and changes while the server runs.
pub struct Stage {
    pub scene: Mutex<Scene>,
    pub change: Mutex<fn(&mut Shown)>,
    /// The verbs that came, as words.
    verbs: Mutex<Vec<String>>,
}

/// A sidecar that seems to run.
pub struct Sidecar {
    pub stage: Arc<Stage>,
    pub addr: SocketAddr,
    server: Option<AdminServer>,
}

impl Sidecar {
    pub fn start(scene: Scene) -> Self {
        Self::start_with(scene, Access::default())
    }

    /// One that has a token, and may be asked for by a foreign name.
    pub fn with_token(scene: Scene) -> Self {
        let token = AdminToken::new(SecretSource::Value(TOKEN.into())).unwrap();
        let hosts = [FOREIGN_NAME.to_owned()];
        Self::start_with(scene, Access::new(Some(Arc::new(token)), hosts))
    }

    fn start_with(scene: Scene, access: Access) -> Self {
        let stage = Arc::new(Stage {
            scene: Mutex::new(scene),
            change: Mutex::new(|_| {}),
            verbs: Mutex::default(),
        });
        let (addr, server) = serve((Ipv4Addr::LOCALHOST, 0).into(), &stage, access);
        Self {
            stage,
            addr,
            server: Some(server),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// Its address under a name that is not ours.
    pub fn foreign_url(&self) -> String {
        format!("http://{FOREIGN_NAME}:{}/", self.addr.port())
    }

    pub fn set(&self, scene: Scene) {
        *self.stage.scene.lock().unwrap() = scene;
    }

    pub fn verbs(&self) -> Vec<String> {
        self.stage.verbs.lock().unwrap().clone()
    }

    /// Ends, as a process does.
    pub fn stop(&mut self) {
        self.server.take().unwrap().stop();
    }

    /// Begins again at the same address.
    pub fn start_again(&mut self) {
        self.server = Some(serve(self.addr, &self.stage, Access::default()).1);
    }
}

fn serve(addr: SocketAddr, stage: &Arc<Stage>, access: Access) -> (SocketAddr, AdminServer) {
    let bound = AdminServer::bind(addr).unwrap();
    let addr = bound.addr();
    let server = bound.serve(
        stage.clone(),
        stage.clone(),
        Arc::new(Metrics::new()),
        access,
    );
    (addr, server.unwrap())
}

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Stage {
    fn heard(&self, verb: impl Into<String>) {
        self.verbs.lock().unwrap().push(verb.into());
    }

    fn shown(&self) -> Shown {
        let mut shown = self.scene().shown(now());
        let change = *self.change.lock().unwrap();
        change(&mut shown);
        shown
    }

    fn scene(&self) -> Scene {
        *self.scene.lock().unwrap()
    }
}

impl Overview for Stage {
    fn tick_age(&self) -> Duration {
        Duration::ZERO
    }

    fn pending(&self) -> Vec<String> {
        self.shown().pending
    }

    fn warnings(&self) -> Vec<String> {
        self.shown().warnings
    }

    fn status(&self) -> Status {
        self.shown().status
    }

    fn history(&self, since: u64) -> History {
        history(self.scene(), now(), since)
    }
}

impl Verbs for Stage {
    fn drain(&self) -> BoxFuture<'static, usize> {
        self.heard("drain");
        async { 0 }.boxed()
    }

    fn connect(&self) -> Connecting {
        self.heard("connect");
        *self.scene.lock().unwrap() = Scene::Online;
        Connecting::Now
    }

    fn pause(&self, length: Option<Duration>) -> Option<PauseStatus> {
        let seconds = length.map(|length| length.as_secs());
        self.heard(seconds.map_or("pause".to_owned(), |seconds| format!("pause {seconds}")));
        *self.scene.lock().unwrap() = Scene::Paused;
        let since = now();
        let until = seconds.map(|seconds| since + seconds);
        Some(PauseStatus { since, until })
    }

    fn check(&self) -> BoxFuture<'static, Report> {
        self.heard("check");
        let step = |name, outcome, found: &str, advice: Option<&str>| Step {
            name,
            outcome,
            found: found.to_owned(),
            advice: advice.map(str::to_owned),
            duration_ms: 41,
        };
        let steps = vec![
            step("settings", Outcome::Passed, "All settings are right.", None),
            step(
                "backend",
                Outcome::Failed,
                "Ollama answered HTTP 500.",
                Some("Look into its log."),
            ),
        ];
        async {
            Report {
                passed: false,
                steps,
            }
        }
        .boxed()
    }
}
