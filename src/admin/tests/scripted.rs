//! A sidecar of which the server is told whatever a test wants.

use super::*;

/// A sidecar in whatever state a test needs.
#[derive(Default)]
pub(super) struct Scripted {
    pub(super) tick_age_seconds: AtomicU64,
    pub(super) pending: Mutex<Vec<String>>,
    /// Answers that a drain leaves; a drain is over once there is a number.
    pub(super) undelivered: watch::Sender<Option<usize>>,
    pub(super) serves: AtomicBool,
}

impl Verbs for Scripted {
    fn drain(&self) -> BoxFuture<'static, usize> {
        let mut undelivered = self.undelivered.subscribe();
        async move {
            let left = undelivered.wait_for(Option::is_some).await.unwrap();
            left.unwrap()
        }
        .boxed()
    }

    fn connect(&self) -> Connecting {
        if self.serves.load(Ordering::Relaxed) {
            Connecting::Now
        } else {
            Connecting::OnceDrained
        }
    }

    fn pause(&self, length: Option<Duration>) -> Option<PauseStatus> {
        let since = 1_704_499_200;
        let until = length.map(|length| since + length.as_secs());
        Some(PauseStatus { since, until })
    }

    fn check(&self) -> BoxFuture<'static, Report> {
        async { Report::default() }.boxed()
    }
}

impl Overview for Scripted {
    fn history(&self, since: u64) -> History {
        History {
            now: 1_704_499_300,
            known_since: since,
            ..History::default()
        }
    }

    fn tick_age(&self) -> Duration {
        Duration::from_secs(self.tick_age_seconds.load(Ordering::Relaxed))
    }

    fn pending(&self) -> Vec<String> {
        self.pending.lock().unwrap().clone()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn status(&self) -> Status {
        let session = SessionStatus {
            state: "up",
            since: 1_704_499_200,
            generation: Generation::Operator,
            transport: "ws",
            logged_in_since: Some(1_704_499_200),
            attempts: 2,
            last_disconnect: Some(DisconnectReason::Silent),
            last_connect_failure: None,
            backoff_until: None,
        };
        Status {
            now: 1_704_499_300,
            ready: true,
            pause: None,
            requests: RequestsStatus::default(),
            hidden: Vec::new(),
            session,
            nodes: Vec::new(),
            models: vec![ModelStatus {
                name: "tiny:latest".into(),
                context_length: Some(2_048),
                loaded: Some(true),
            }],
            preloads: vec![PreloadStatus {
                model: "big:latest".to_owned(),
                state: "waiting",
            }],
            pulls: vec![PullStatus {
                model: "big:latest".into(),
                state: "pulling",
                completed_bytes: 34,
                total_bytes: 100,
            }],
            load: Load {
                running: 1,
                waiting: 0,
                capacity: 4,
                queue: 4,
            },
            counts: Counts::of(&Metrics::new()),
            backend: BackendStatus {
                up: true,
                version: Some("0.17.4".into()),
            },
            speech: None,
            last_errors: vec![RecentError {
                what: ErrorSource::Request(Code::Timeout),
                at: 1_704_499_300,
            }],
            versions: Versions::with_ollama(Some("0.17.4".into())),
            draining: false,
            uptime_seconds: 61,
        }
    }
}
