//! What each path answers.
//!
//! Invariant: every answer to a question is made from memory and at once; nothing here waits for the gateway, a model
//! server or the reader of a body. Only `/drain` waits, for as long as a drain may take, and only for a caller who may.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde::Serialize;

use super::{
    Connecting, Overview, PauseStatus, Status, Verbs,
    caller::{Access, Refusal},
    page,
};
use crate::telemetry::Metrics;

/// From what age of the data path's tick on the process counts as stuck: far beyond what load does to it.
const STUCK_AFTER: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is said to verbs that come too late.
const ENDS: &str = "The process ends.\n";

type Answer = Response<Full<Bytes>>;

/// What the answers are made from.
#[derive(Clone)]
pub(super) struct Routes {
    pub(super) overview: Arc<dyn Overview>,
    pub(super) verbs: Arc<dyn Verbs>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access: Access,
}

/// What the page adds to `/readyz`: browsers tell an answer of 503 as an error, however well it is understood.
const ALWAYS_OK: &str = "always_ok";

#[derive(Clone, Copy)]
enum Endpoint {
    Question(Question),
    Verb(Verb),
}

#[derive(Clone, Copy)]
enum Question {
    Health,
    Readiness,
    Metrics,
    Status,
    History,
    Page(&'static page::File),
}

#[derive(Clone, Copy)]
enum Verb {
    Drain,
    Connect,
    Disconnect,
    Check,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/healthz" | "/livez" => Self::Question(Question::Health),
            "/readyz" => Self::Question(Question::Readiness),
            "/metrics" => Self::Question(Question::Metrics),
            "/status" => Self::Question(Question::Status),
            "/history" => Self::Question(Question::History),
            "/drain" => Self::Verb(Verb::Drain),
            "/session/connect" => Self::Verb(Verb::Connect),
            "/session/disconnect" => Self::Verb(Verb::Disconnect),
            "/check" => Self::Verb(Verb::Check),
            path => Self::Question(Question::Page(page::File::at(path)?)),
        })
    }
}

#[derive(Serialize)]
struct Health {
    healthy: bool,
    tick_age_seconds: u64,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    pending: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What `/status` says to whoever asks.
#[derive(Serialize)]
struct StatusForCaller {
    #[serde(flatten)]
    status: Status,
    may: May,
}

/// What a caller may do.
#[derive(Serialize)]
struct May {
    /// Whether he may use the verbs as he comes.
    command: bool,
    /// Whether there is a token, so that it helps to bring it.
    token: bool,
    /// Why he may not, with the setting that would allow it.
    why: Option<&'static str>,
}

#[derive(Serialize)]
struct Drained {
    drained: bool,
    undelivered: usize,
}

#[derive(Serialize)]
struct WillConnect {
    connecting: bool,
}

#[derive(Serialize)]
struct Paused {
    paused: bool,
    #[serde(flatten)]
    pause: PauseStatus,
}

impl Routes {
    /// The answer to a request of somebody at this address, whose body is not looked at. For HEAD the server leaves the
    /// answer's body out.
    pub(super) async fn answer<B>(&self, caller: IpAddr, request: Request<B>) -> Answer {
        match Endpoint::of(request.uri().path()) {
            None => text(
                StatusCode::NOT_FOUND,
                "Not found. There are /, /healthz, /livez, /readyz, /metrics, /status and /history, and to POST /drain, \
                 /session/disconnect, /session/connect and /check.\n",
            ),
            Some(Endpoint::Question(question)) => self.tell(question, caller, &request).await,
            Some(Endpoint::Verb(verb)) => self.obey(verb, caller, &request).await,
        }
    }

    async fn tell<B>(&self, question: Question, caller: IpAddr, request: &Request<B>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return method_not_allowed("GET, HEAD", "Only GET and HEAD.\n");
        }
        match question {
            Question::Health => self.health(),
            Question::Readiness => self.readiness(request.uri().query()),
            Question::Metrics => answer(StatusCode::OK, PROMETHEUS, self.metrics.render()),
            Question::Status => self.status(caller, request.headers()).await,
            Question::History => self.history(request).await,
            Question::Page(file) => match self.access.may_open(request.headers()) {
                Ok(()) => file.answer(request.headers()),
                Err(refusal) => refused(refusal),
            },
        }
    }

    async fn obey<B>(&self, verb: Verb, caller: IpAddr, request: &Request<B>) -> Answer {
        if request.method() != Method::POST {
            return method_not_allowed("POST", "Only POST.\n");
        }
        match self.access.may_command(caller, request.headers()).await {
            Ok(()) => {}
            // Whoever commands under a foreign name is not at the wrong place, but must not.
            Err(Refusal::ForeignHost) => {
                return text(StatusCode::FORBIDDEN, Refusal::ForeignHost.sentence());
            }
            Err(refusal) => return refused(refusal),
        }
        match verb {
            Verb::Drain => self.drain().await,
            Verb::Connect => self.connect(),
            Verb::Disconnect => self.pause(request.uri()),
            Verb::Check => self.check().await,
        }
    }

    /// 200 if all that ran was answered and every answer is known to have been delivered.
    async fn drain(&self) -> Answer {
        let undelivered = self.verbs.drain().await;
        let drained = undelivered == 0;
        json(
            ok_or_unavailable(drained),
            &Drained {
                drained,
                undelivered,
            },
        )
    }

    fn connect(&self) -> Answer {
        let status = match self.verbs.connect() {
            Connecting::Now => StatusCode::OK,
            Connecting::OnceDrained => StatusCode::ACCEPTED,
            Connecting::Never => return text(StatusCode::CONFLICT, ENDS),
        };
        json(status, &WillConnect { connecting: true })
    }

    /// Answers at once: what runs may take as long as a drain.
    fn pause(&self, uri: &Uri) -> Answer {
        let length = match parameter(uri, "for").map(pause_length).transpose() {
            Ok(length) => length,
            Err(sentence) => return text(StatusCode::BAD_REQUEST, sentence),
        };
        match self.verbs.pause(length) {
            Some(pause) => json(
                StatusCode::OK,
                &Paused {
                    paused: true,
                    pause,
                },
            ),
            None => text(StatusCode::CONFLICT, ENDS),
        }
    }

    /// 200 if nothing failed.
    async fn check(&self) -> Answer {
        let report = self.verbs.check().await;
        json(ok_or_unavailable(report.passed), &report)
    }

    fn health(&self) -> Answer {
        let age = self.overview.tick_age();
        let healthy = age < STUCK_AFTER;
        json(
            ok_or_unavailable(healthy),
            &Health {
                healthy,
                tick_age_seconds: age.as_secs(),
            },
        )
    }

    fn readiness(&self, query: Option<&str>) -> Answer {
        let pending = self.overview.pending();
        let ready = pending.is_empty();
        let warnings = self.overview.warnings();
        json(
            ok_or_unavailable(ready || query == Some(ALWAYS_OK)),
            &Readiness {
                ready,
                pending,
                warnings,
            },
        )
    }

    async fn status(&self, caller: IpAddr, headers: &HeaderMap) -> Answer {
        if let Err(refusal) = self.access.may_read(headers).await {
            return refused(refusal);
        }
        let refusal = self.access.may_command(caller, headers).await.err();
        json(
            StatusCode::OK,
            &StatusForCaller {
                status: self.overview.status(),
                may: May {
                    command: refusal.is_none(),
                    token: self.access.has_token(),
                    why: refusal.map(|refusal| refusal.sentence().trim_end()),
                },
            },
        )
    }

    async fn history<B>(&self, request: &Request<B>) -> Answer {
        if let Err(refusal) = self.access.may_read(request.headers()).await {
            return refused(refusal);
        }
        match parameter(request.uri(), "since").unwrap_or("0").parse() {
            Ok(since) => json(StatusCode::OK, &self.overview.history(since)),
            Err(_) => text(
                StatusCode::BAD_REQUEST,
                "`since` is a time in Unix seconds, such as /history?since=1704499200.\n",
            ),
        }
    }
}

fn refused(refusal: Refusal) -> Answer {
    let mut answer = text(refusal.status(), refusal.sentence());
    let headers = answer.headers_mut();
    match refusal.status() {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    answer
}

/// The first value of this name in a query, as it stands there.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// How long a pause is wanted, from a second to a year.
fn pause_length(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "`for` is a time with a unit, from 1s to 365d, such as /session/disconnect?for=2h; without it the pause ends when it is \
                         told to.\n";
    let length = humantime::parse_duration(text).map_err(|_| WRONG)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);
    allowed.contains(&length).then_some(length).ok_or(WRONG)
}

fn ok_or_unavailable(ok: bool) -> StatusCode {
    if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn method_not_allowed(allowed: &'static str, sentence: &'static str) -> Answer {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn text(status: StatusCode, sentence: &'static str) -> Answer {
    answer(status, TEXT, sentence)
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(status, JSON, body)
        }
        // Only a map with keys that are not strings could do that.
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The answer could not be written as JSON.\n",
        ),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
