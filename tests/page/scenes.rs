//! The states that the page has to show, with the sentences of the sidecar.

use std::ops::{Deref, DerefMut};

use pin_sidecar::{
    admin::{
        BackendStatus, Counts, EndedRequest, HiddenModel, InterviewStatus, Load, ModelStatus,
        NodeStatus, PauseStatus, PreloadStatus, PullStatus, RequestsStatus, RunningRequest,
        SessionStatus, SpeechStatus, Status, Versions,
    },
    protocol::{Code, Generation},
    telemetry::{ConnectFailure, DisconnectReason, ErrorSource, Metrics, RecentError, Tier},
};

pub const DAY: u64 = 86_400;
const MODEL: &str = "llama3.2:latest";
const LARGE: &str = "qwen2.5-coder:32b-instruct-q4_K_M";

/// What a sidecar says of itself.
pub struct Shown {
    pub status: Status,
    pub pending: Vec<String>,
    pub warnings: Vec<String>,
}

impl Deref for Shown {
    type Target = Status;

    fn deref(&self) -> &Status {
        &self.status
    }
}

impl DerefMut for Shown {
    fn deref_mut(&mut self) -> &mut Status {
        &mut self.status
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    Starting,
    Pulling,
    Online,
    Idle,
    Working,
    Paused,
    Draining,
    SpeechAlone,
    ChatsAlone,
    NoOllama,
    NoNetwork,
    Refused,
    InterviewFailed,
}

impl Scene {
    /// Each with its word, and a part of its sentence.
    pub const ALL: [(Self, &str, &str); 13] = [
        (
            Self::Starting,
            "Starting",
            "No session with the gateway yet.",
        ),
        (Self::Pulling, "Getting ready", "Ollama is pulling"),
        (
            Self::Online,
            "Online",
            "Online and earning. The last request came",
        ),
        (
            Self::Idle,
            "Online",
            "Online, no request for 3 hr. Your side is in order.",
        ),
        (
            Self::Working,
            "Working",
            "Online and earning: 2 chats run, 1 more wait.",
        ),
        (Self::Paused, "Paused", "then it serves again by itself."),
        (Self::Draining, "Draining", "Draining: running chats finish"),
        (
            Self::SpeechAlone,
            "Online",
            "Online, but no chat model is offered: what to do stands below.",
        ),
        (
            Self::ChatsAlone,
            "Online",
            "Online, but no speech is offered: what to do stands below.",
        ),
        (Self::NoOllama, "Offline", "Ollama does not answer"),
        (Self::NoNetwork, "Offline", "its name cannot be resolved"),
        (Self::Refused, "Offline", "Invalid signature"),
        (
            Self::InterviewFailed,
            "Not earning",
            "failed the last interview of gpu-attic",
        ),
    ];

    pub fn shown(self, now: u64) -> Shown {
        let mut status = online(now);
        match self {
            Self::Starting => starting(&mut status, now),
            Self::Pulling => pulling(&mut status),
            Self::Online => {}
            Self::Idle => status.requests.last_at = Some(now - 3 * 3_600),
            Self::Working => working(&mut status, now),
            Self::Paused => {
                status.pause = Some(PauseStatus {
                    since: now - 600,
                    until: Some(now + 6_600),
                });
                status.draining = true;
                without_session(&mut status, now, "ended", "Paused, as it was asked to.");
            }
            Self::Draining => {
                status.draining = true;
                not_ready(
                    &mut status,
                    "Draining: running chats finish, new ones are refused.",
                );
            }
            Self::SpeechAlone => {
                status.models = vec![model("tts:kokoro", None, false)];
                status.speech = Some(SpeechStatus { up: true });
                status.warnings =
                    vec!["Ollama has no model. Pull one: `ollama pull llama3.2`.".to_owned()];
            }
            Self::ChatsAlone => {
                status.speech = Some(SpeechStatus { up: false });
                let why = "The speech server does not answer: nothing listens there. Start it, or correct PIN_TTS_URL.";
                status.warnings = vec![why.to_owned()];
            }
            Self::NoOllama => {
                status.backend.up = false;
                status.models.clear();
                not_ready(
                    &mut status,
                    "Ollama does not answer: nothing listens there. Start it, or correct PIN_OLLAMA_URL.",
                );
            }
            Self::NoNetwork => {
                let why = "The gateway cannot be reached: its name cannot be resolved. Check PIN_SERVER_URL. Next attempt in 23 s.";
                without_session(&mut status, now, "waiting", why);
                status.session.last_connect_failure = Some(ConnectFailure::Dns);
                status.session.backoff_until = Some(now + 23);
            }
            Self::Refused => {
                let why = "The gateway refuses the login: Invalid signature. Check PIN_CLIENT_ID and the API secret. Next attempt in 300 s.";
                without_session(&mut status, now, "waiting", why);
                status.session.last_connect_failure = Some(ConnectFailure::Auth);
                status.session.backoff_until = Some(now + 300);
            }
            Self::InterviewFailed => interview_failed(&mut status, now),
        }
        status
    }
}

fn not_ready(status: &mut Shown, why: &str) {
    status.ready = false;
    status.pending = vec![why.to_owned()];
}

fn without_session(status: &mut Shown, now: u64, state: &'static str, why: &str) {
    not_ready(status, why);
    status.session.state = state;
    status.session.since = now - 754;
    status.session.logged_in_since = None;
}

fn starting(status: &mut Shown, now: u64) {
    without_session(
        status,
        now,
        "connecting",
        "No session with the gateway yet. Connecting now.",
    );
    status
        .pending
        .push("The model server has not told its models yet.".to_owned());
    status.uptime_seconds = 2;
    status.session.since = now - 2;
    status.session.attempts = 1;
    status.session.last_disconnect = None;
    status.requests = RequestsStatus::default();
    status.nodes[0].node_id = None;
    status.nodes[0].quality_tier = None;
    status.nodes[0].interview = None;
    status.models.clear();
    status.hidden.clear();
    status.preloads.clear();
    status.counts.earnings_estimate_usd.clear();
}

fn pulling(status: &mut Shown) {
    not_ready(status, "Ollama is pulling llama3.2:latest (43 %).");
    status.models.clear();
    let pull = |model: &str, state, completed_bytes, total_bytes| PullStatus {
        model: model.to_owned(),
        state,
        completed_bytes,
        total_bytes,
    };
    status.pulls = vec![
        pull(MODEL, "pulling", 868_000_000, 2_019_000_000),
        pull(LARGE, "waiting", 0, 0),
    ];
    status.preloads[0].state = "waiting";
}

fn working(status: &mut Shown, now: u64) {
    let running = |id: &str, model: &str, age_ms, wait_ms, first_token_ms| RunningRequest {
        id: id.to_owned(),
        model: Some(model.to_owned()),
        operation: "chat",
        received: now,
        age_ms,
        wait_ms,
        first_token_ms,
    };
    status.requests.running = vec![
        running("req_aa01", MODEL, 5_210, Some(2), Some(240)),
        running("req_aa02", LARGE, 900, Some(3), None),
        running("req_aa03", MODEL, 200, None, None),
    ];
    status.load.running = 2;
    status.load.waiting = 1;
}

fn interview_failed(status: &mut Shown, now: u64) {
    status.nodes[0].quality_tier = Some(Tier::Failed);
    status.nodes[0].interview = Some(InterviewStatus {
        at: now - 100,
        passed: false,
        accuracy: Some(0.61),
        tokens_per_second: Some(7.2),
        retry_at: Some(now + 159),
    });
    status.warnings =
        vec!["The network failed the interview of node gpu-attic (too slow).".to_owned()];
}

fn online(now: u64) -> Shown {
    let up = 3 * DAY + 4_000;
    let status = Status {
        now,
        ready: true,
        pause: None,
        requests: RequestsStatus {
            last_at: Some(now - 4),
            running: Vec::new(),
            recent: (0..50).map(|i| ended(i, now)).collect(),
        },
        session: SessionStatus {
            state: "up",
            since: now - 2 * DAY,
            generation: Generation::Operator,
            transport: "ws",
            logged_in_since: Some(now - 2 * DAY - 7_200),
            attempts: 3,
            last_disconnect: Some(DisconnectReason::Reset),
            last_connect_failure: None,
            backoff_until: None,
        },
        nodes: vec![node(now)],
        models: vec![
            model(MODEL, Some(131_072), true),
            model(LARGE, Some(32_768), false),
        ],
        hidden: vec![HiddenModel {
            name: "nomic-embed-text:latest".to_owned(),
            why: "It can only embed. Name it in full in PIN_ALLOW_MODELS to offer it.",
        }],
        pulls: Vec::new(),
        preloads: vec![PreloadStatus {
            model: MODEL.to_owned(),
            state: "loaded",
        }],
        load: Load {
            running: 0,
            waiting: 0,
            capacity: 4,
            queue: 4,
        },
        counts: Counts {
            earnings_estimate_usd: [(MODEL.to_owned(), 3.2218), (LARGE.to_owned(), 1.0031)].into(),
            ..Counts::of(&Metrics::new())
        },
        backend: BackendStatus {
            up: true,
            version: Some("0.12.3".to_owned()),
        },
        speech: None,
        last_errors: vec![RecentError {
            what: ErrorSource::Request(Code::Timeout),
            at: now - 9_000,
        }],
        versions: Versions::with_ollama(Some("0.12.3".to_owned())),
        draining: false,
        uptime_seconds: up,
    };
    Shown {
        status,
        pending: Vec::new(),
        warnings: Vec::new(),
    }
}

fn node(now: u64) -> NodeStatus {
    NodeStatus {
        alias: "gpu-attic".to_owned(),
        node_id: Some("node_7f3a91c2".to_owned()),
        region: "eu-central".to_owned(),
        api_mode: "ollama",
        capacity: 4,
        quality_tier: Some(Tier::Elite),
        interview: Some(InterviewStatus {
            at: now - 2 * DAY,
            passed: true,
            accuracy: Some(0.956),
            tokens_per_second: Some(41.7),
            retry_at: None,
        }),
    }
}

fn model(name: &str, context_length: Option<u64>, loaded: bool) -> ModelStatus {
    ModelStatus {
        name: name.to_owned(),
        context_length,
        loaded: Some(loaded),
    }
}

fn ended(i: u64, now: u64) -> EndedRequest {
    let is_failed = i % 7 == 4;
    EndedRequest {
        id: format!("req_{:08x}", 77_777 * (i + 1)),
        model: [Some(MODEL), Some(LARGE), None][usize::try_from(i % 3).unwrap()].map(str::to_owned),
        operation: if i == 9 { "interview" } else { "chat" },
        outcome: if is_failed { "timeout" } else { "ok" },
        received: now - 40 * i * i - 4,
        wait_ms: Some(i * 3 % 50),
        first_token_ms: Some(180 + 7 * i),
        duration_ms: 2_400 + 311 * i,
        prompt_tokens: (!is_failed).then_some(220 + 13 * i),
        generation_tokens: (!is_failed).then_some(64 + 5 * i),
    }
}
