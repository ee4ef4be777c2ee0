//! Keeps one session up: connects, logs in, lives through the session, and decides how long to stay away after it.
//!
//! Invariant: at most one link is open; the old one is dropped before the next is dialled. Whatever cuts a wait short (a
//! changed secret, a drain and its end), no attempt begins before the gateway's own time is over and the budget of
//! attempts has one left.

use std::{pin::pin, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::info;

use super::{
    Phase, StatusBoard,
    active::{Active, End},
    announcer::Announcer,
    backoff::Backoff,
    dispatch::Dispatch,
    log::SessionLog,
    no_session::NoSession,
    notices::Notices,
};
use crate::{
    config::{GatewaySettings, Identity},
    inference::Inference,
    link::{Connect, ConnectBudget, OpenError, Opened},
    node::Offers,
    outbox::SessionNumber,
    protocol::RetryAfter,
    secret::SecretKeeper,
    service::Stages,
    shared::Shared,
    telemetry::{DisconnectReason, ErrorSource, SETTLED},
    transport::Endpoint,
};

/// How often a refused login looks whether the secret has changed.
const SECRET_LOOK: Duration = Duration::from_secs(1);

/// How long the first login waits for the first look at the backend, so that a node does not register without models
/// only because it was quicker than its backend.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// The longest wait of ours while somebody waits for answers (delivery rules, "Session lost").
const PRESSING: Duration = Duration::from_secs(5);

/// What the supervisor alone works with.
pub struct SupervisorParts {
    /// Opens links with the gateway.
    pub connect: Arc<dyn Connect>,
    /// Takes the work that comes down.
    pub inference: Arc<Inference>,
    /// Knows the secret.
    pub secrets: Arc<SecretKeeper>,
    /// Spreads the waits.
    pub random: fastrand::Rng,
    /// Tells others.
    pub status: Arc<StatusBoard>,
}

/// Keeps a session up.
pub struct Supervisor {
    gateway: GatewaySettings,
    announcer: Announcer,
    /// What there is to offer, as far as the first look was waited for.
    offers: Offers,
    parts: SupervisorParts,
    shared: Shared,
    backoff: Backoff,
    budget: ConnectBudget,
    /// Before when the gateway does not want to see us, if it has ever said so.
    not_before: Option<Instant>,
    log: SessionLog,
    notices: Notices,
}

impl Supervisor {
    /// A supervisor of the sessions of this identity with this gateway.
    pub fn new(
        identity: Identity,
        gateway: GatewaySettings,
        mut parts: SupervisorParts,
        shared: Shared,
    ) -> Self {
        let backoff = Backoff::new(
            gateway.reconnect_min,
            gateway.reconnect_max,
            parts.random.fork(),
        );
        Self {
            budget: ConnectBudget::new(gateway.connects_per_minute),
            gateway,
            announcer: Announcer::new(identity, shared.nodes.clone(), Arc::clone(&shared.outbox)),
            offers: shared.nodes.offers(),
            parts,
            shared,
            backoff,
            not_before: None,
            log: SessionLog::new(),
            notices: Notices::default(),
        }
    }

    /// Keeps a session up until all jobs have ended in a drain and nothing is left to deliver, or the drain may
    /// take no longer; then closes it and returns. It may be run again.
    pub async fn run(&mut self, stages: &Stages) {
        self.parts.status.update(|status| status.why_lost = None);
        let outbox = Arc::clone(&self.shared.outbox);
        let nothing_left = async {
            let delivered = async {
                stages.jobs_done().await;
                outbox.emptied().await;
            };
            tokio::select! {
                biased;
                () = delivered => {}
                () = stages.overdue() => {}
            }
        };
        // A session that is up ends by itself when nothing is left, since it has to close; all else may be cut short.
        let mut nothing_left = std::pin::pin!(nothing_left);
        tokio::select! {
            biased;
            () = &mut nothing_left => return self.enter(Phase::Ended),
            () = self.wait_for_first_look() => {}
        }
        loop {
            tokio::select! {
                biased;
                () = &mut nothing_left => break,
                () = self.wait_for_turn() => {}
            }
            self.enter(Phase::Connecting);
            self.parts.status.update(|status| status.attempts += 1);
            self.shared.metrics.connect_attempts_total.inc();
            let connected = tokio::select! {
                biased;
                () = &mut nothing_left => break,
                connected = self.connect() => connected,
            };
            let why = match connected {
                Ok(opened) => NoSession::Ended(self.live(opened, stages).await),
                Err(error) => NoSession::NotOpened(error),
            };
            if why.is_shutdown() {
                if let Some(time) = why.retry_after() {
                    self.leave_alone(time, None);
                }
                break;
            }
            let wait = self.wait_after(&why);
            tokio::select! {
                biased;
                () = &mut nothing_left => break,
                () = self.stay_away(wait, why.is_refused()) => {}
            }
        }
        self.enter(Phase::Ended);
    }

    fn enter(&self, phase: Phase) {
        let now = self.shared.clock.unix_seconds();
        self.parts.status.update(|status| {
            status.phase = phase;
            status.phase_since = now;
        });
    }

    fn enter_waiting(&self, wait: Duration, is_paced: bool) {
        self.shared
            .metrics
            .reconnect_backoff_seconds
            .set(wait.as_secs_f64());
        self.enter(Phase::Waiting {
            until: Instant::now() + wait,
            is_paced,
        });
    }

    /// Waits for as long as the gateway wants to be left alone, or the budget has nothing left; both may have come about in
    /// an earlier run.
    async fn wait_for_turn(&self) {
        let now = Instant::now();
        let asked = self
            .not_before
            .unwrap_or(now)
            .saturating_duration_since(now);
        let held = self.budget.held(now);
        let wait = asked.max(held);
        if !wait.is_zero() {
            self.enter_waiting(wait, held > asked);
            sleep(wait).await;
        }
    }

    async fn wait_for_first_look(&mut self) {
        // Without a look in time the node registers without models, and again once there are some.
        let _ = timeout(FIRST_LOOK, self.offers.all_changed()).await;
    }

    async fn connect(&mut self) -> Result<Opened, OpenError> {
        let (secret, is_good) = self.secret().await;
        let opened = self.parts.connect.open(&secret, &self.budget).await;
        let is_good = is_good && self.parts.connect.trouble().is_none();
        let metric = &self.shared.metrics.config_last_reload_successful;
        metric.set(is_good.into());
        opened
    }

    /// The secret as it is now, before the gateway's time for a login runs, and whether it could be read.
    async fn secret(&mut self) -> (SecretString, bool) {
        let (secret, trouble) = self.parts.secrets.current().await;
        self.log.secret(trouble.as_ref());
        let is_good = trouble.is_none();
        self.parts.status.update(|status| {
            status.secret_error = trouble.map(|trouble| trouble.to_string());
        });
        (secret, is_good)
    }

    async fn live(&mut self, opened: Opened, stages: &Stages) -> End {
        let Opened { link, node_id } = opened;
        let session = self.came_up(node_id.as_deref());
        let dispatch = Dispatch {
            session,
            shared: &self.shared,
            inference: &self.parts.inference,
            notices: &self.notices,
        };
        let active = Active {
            dispatch,
            announcer: &self.announcer,
            offers: self.offers.clone(),
            gateway: &self.gateway,
            stages,
        };
        let end = {
            let mut life = pin!(active.run(link));
            tokio::select! {
                biased;
                end = &mut life => end,
                () = sleep(SETTLED) => {
                    self.log.settled(session);
                    life.await
                }
            }
        };
        self.went_down(&end);
        end
    }

    fn came_up(&mut self, node_id: Option<&str>) -> SessionNumber {
        let now = self.shared.clock.unix_seconds();
        self.backoff.logged_in();
        self.parts.inference.session_up();
        let session = self.shared.outbox.open();
        self.log.up(session, node_id);
        self.shared.metrics.session_up.set(1);
        self.shared
            .metrics
            .session_start_timestamp_seconds
            .set(now as f64);
        self.shared.metrics.reconnect_backoff_seconds.set(0.0);
        self.enter(Phase::Up);
        self.parts.status.update(|status| {
            status.up_since = Some(now);
            (status.why_down, status.why_lost) = (None, None);
        });
        session
    }

    fn went_down(&mut self, end: &End) {
        let now = self.shared.clock.unix_seconds();
        self.parts.inference.session_lost();
        let may_be_an_answers_fault = self.shared.outbox.close(end.by_gateway);
        self.shared.metrics.session_up.set(0);
        self.shared.metrics.disconnects_total.of(end.reason).inc();
        if end.reason == DisconnectReason::Shutdown {
            SessionLog::closed(end);
        } else {
            self.shared
                .recent_errors
                .push(ErrorSource::Disconnect(end.reason), now);
        }
        // A gateway that does not like an answer is no other agent: the answer is dealt with, and we come back.
        let unexplained = end.unexplained && !may_be_an_answers_fault;
        self.backoff.session_ended(end.lasted, unexplained);
        self.parts.status.update(|status| {
            status.up_since = None;
            status.last_disconnect = Some(end.reason);
        });
    }

    /// Decides how long to stay away, and says so.
    fn wait_after(&mut self, why: &NoSession) -> Duration {
        let backoff = self.backoff_after(why);
        let held = self.budget.held(Instant::now());
        let is_paced = held > backoff;
        // Nodes whose budget ran out together must not come back together either: what is random goes on top, as far as
        // somebody who waits can bear it.
        let wait = if is_paced {
            held + backoff.min(PRESSING)
        } else {
            backoff
        };
        let gateway = Endpoint::from(self.gateway.url.origin());
        let sentence = why.sentence(&gateway, self.backoff.is_pushed_out());
        self.log.no_session(why, &sentence, wait);
        if let Some(failure) = why.failure() {
            let now = self.shared.clock.unix_seconds();
            self.shared.metrics.connect_failures_total.of(failure).inc();
            self.shared
                .recent_errors
                .push(ErrorSource::Connect(failure), now);
            self.parts
                .status
                .update(|status| status.last_connect_failure = Some(failure));
        }
        self.parts.status.update(|status| {
            status.why_lost.get_or_insert_with(|| sentence.clone());
            status.why_down = Some(sentence);
        });
        self.enter_waiting(wait, is_paced);
        wait
    }

    fn backoff_after(&mut self, why: &NoSession) -> Duration {
        let is_pressing = self.parts.inference.has_work() || self.shared.outbox.undelivered() > 0;
        let limit = is_pressing.then_some(PRESSING);
        let asked = why.retry_after().map(|time| self.leave_alone(time, limit));
        match (why, asked) {
            (NoSession::NotOpened(OpenError::Refused { .. }), asked) => {
                self.backoff.refused().max(asked.unwrap_or_default())
            }
            (_, Some(asked)) => asked,
            (NoSession::NotOpened(_), None) => self.backoff.failed(limit),
            (NoSession::Ended(end), None) if end.unreadable => self.backoff.unreadable(limit),
            (NoSession::Ended(_), None) if self.backoff.is_pushed_out() => {
                self.backoff.longest(limit)
            }
            (NoSession::Ended(_), None) => self.backoff.failed(limit),
        }
    }

    /// The gateway has asked for this time: it is obeyed by this run and by those that follow.
    fn leave_alone(&mut self, time: RetryAfter, limit: Option<Duration>) -> Duration {
        let wait = self.backoff.asked_to(time, limit);
        self.not_before = Some(Instant::now() + wait);
        wait
    }

    async fn stay_away(&self, wait: Duration, until_secret_changes: bool) {
        let over = sleep_until(Instant::now() + wait);
        if until_secret_changes {
            tokio::select! {
                biased;
                () = over => {}
                () = self.secret_changed() => info!("the secret has changed: trying again"),
            }
        } else {
            over.await;
        }
    }

    async fn secret_changed(&self) {
        while !self.parts.secrets.changed().await {
            sleep(SECRET_LOOK).await;
        }
    }
}
