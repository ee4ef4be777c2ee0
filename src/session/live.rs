//! One session, from login to its end: a writer, a reader, a watchdog, the heartbeat's clock and the news of models, all
//! in one task, none waiting for another.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Registration, StatusBoard, login::printable, status::Node};
use crate::{
    backend::{Model, Offer},
    clock::WallClock,
    inference::Inference,
    outbox::{Frame, Outbox},
    protocol::{Code, Failure, FromGateway, GatewayMessage, ToGateway, Unreadable},
    telemetry::{DisconnectReason, Metrics},
    transport::{LinkEnd, Meter, Received, Receiver, Sender},
};

/// Every so many heartbeats the models are told again (protocol, "Frames from the agent").
const MODEL_LIST_EVERY: u32 = 4;

/// How long proof of what was sent is waited for before closing (delivery rules, "Drain").
const PROOF_WAIT: Duration = Duration::from_secs(2);

/// How long the peer's Close is waited for: so long that an idle sidecar is gone within a second.
const CLOSE_WAIT: Duration = Duration::from_millis(800);

/// RFC 6455, section 7.4.1: the purpose of the connection has been fulfilled.
const CLOSE_NORMAL: u16 = 1000;

/// Types of frames that are remembered as told; beyond these, unknown types are ignored in silence.
const MAX_UNKNOWN_TYPES: usize = 64;

/// What one session needs of the rest.
pub(super) struct Live<'a> {
    pub(super) outbox: &'a Outbox,
    pub(super) inference: &'a Arc<Inference>,
    pub(super) registration: &'a Registration,
    pub(super) offer: watch::Receiver<Offer>,
    pub(super) status: &'a StatusBoard,
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a dyn WallClock,
    pub(super) meter: &'a Meter,
    pub(super) heartbeat_interval: Duration,
    pub(super) heartbeat_timeout: Duration,
    pub(super) draining: &'a CancellationToken,
    pub(super) finish: &'a CancellationToken,
    pub(super) told: &'a UnknownTypes,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: DisconnectReason,
    /// Whether the other side ended it without saying why.
    pub(super) unexplained: bool,
    /// Whether the gateway only sent what cannot be read, so that coming back at once is right.
    pub(super) unreadable: bool,
    /// How long the gateway wants us to stay away.
    pub(super) retry_after: Option<Duration>,
}

/// Types that nobody here has heard of, each told once.
#[derive(Default)]
pub(super) struct UnknownTypes(Mutex<HashSet<String>>);

/// What the gateway has said that matters once it has gone.
#[derive(Default)]
struct LastWords {
    complained: bool,
    retry_after: Option<Duration>,
}

impl Live<'_> {
    /// Runs the session to its end.
    pub(super) async fn run(self, mut sender: Sender, mut receiver: Receiver) -> End {
        let mut last_words = LastWords::default();
        let offer = self.current_offer();
        self.registration.introduce(self.outbox, &offer);
        let end = {
            let live = &self;
            // The writer comes first: a flood of input must not keep it from the processor.
            tokio::select! {
                biased;
                end = live.write(&mut sender) => end,
                end = live.read(&mut receiver, &mut last_words) => end,
                reason = live.watch_silence() => Err(reason),
                never = live.beat() => match never {},
                never = live.tell_news(offer.models) => match never {},
            }
        };
        match end {
            Ok(link_end) => {
                // Courtesy: the peer learns why, or that its own Close has come, if it reads at all.
                let _ = timeout(CLOSE_WAIT, goodbye(&link_end, sender, receiver)).await;
                ended(&link_end, &last_words)
            }
            Err(reason) => End {
                reason,
                unexplained: false,
                unreadable: false,
                retry_after: last_words.retry_after,
            },
        }
    }

    /// Empties the outbox into the socket; once the last job has ended, closes.
    async fn write(&self, sender: &mut Sender) -> Result<LinkEnd, DisconnectReason> {
        let mut proof_deadline = None;
        loop {
            while let Some(mut batch) = self.outbox.take() {
                let items = std::mem::take(&mut batch.items);
                if let Err(end) = sender.send(items).await {
                    return Ok(end);
                }
                self.outbox.written(&batch);
            }
            if self.finish.is_cancelled() {
                let now = Instant::now();
                if self.outbox.unproven() == 0
                    || proof_deadline.is_some_and(|deadline| deadline <= now)
                {
                    break;
                }
                if proof_deadline.is_none() {
                    proof_deadline = Some(now + PROOF_WAIT);
                    self.beat_once();
                    continue;
                }
            }
            tokio::select! {
                () = self.outbox.filled() => {}
                () = self.finish.cancelled(), if proof_deadline.is_none() => {}
                () = wait_until(proof_deadline) => {}
            }
        }
        // A peer that no longer reads must not keep us; the reader sees its Close, if it comes.
        let _ = timeout(CLOSE_WAIT, async {
            if sender.close(CLOSE_NORMAL).await.is_ok() {
                sleep(CLOSE_WAIT).await;
            }
        })
        .await;
        Err(DisconnectReason::Shutdown)
    }

    async fn read(
        &self,
        receiver: &mut Receiver,
        last_words: &mut LastWords,
    ) -> Result<LinkEnd, DisconnectReason> {
        loop {
            match receiver.next().await {
                Ok(Received::Frame(text)) => self.handle(&text, last_words).await,
                Ok(Received::Binary) => {
                    self.unreadable(&Unreadable {
                        message: GatewayMessage::Unknown,
                        reason: "it is not text",
                        request_id: None,
                    })
                    .await;
                }
                Ok(Received::Pong(heartbeat)) => self.outbox.pong(heartbeat),
                Ok(Received::Control) => {}
                Ok(Received::Close { .. }) if self.finish.is_cancelled() => {
                    self.outbox.close_answered();
                    return Err(DisconnectReason::Shutdown);
                }
                Ok(Received::Close { code }) => {
                    info!(code, "the gateway closed the session");
                    return Ok(LinkEnd::Closed);
                }
                Err(end) => return Ok(end),
            }
        }
    }

    async fn handle(&self, text: &str, last_words: &mut LastWords) {
        self.metrics
            .last_message_received_timestamp_seconds
            .set(self.clock.unix_seconds() as f64);
        let frame = match FromGateway::read(text) {
            Ok(frame) => frame,
            Err(unreadable) => return self.unreadable(&unreadable).await,
        };
        self.metrics
            .messages_received_total
            .of(frame.message())
            .inc();
        match frame {
            FromGateway::Ping => self.outbox.control(Frame::new(&ToGateway::Pong)),
            FromGateway::HeartbeatAck => self.outbox.heartbeat_acknowledged(),
            FromGateway::ResultAck {
                request_id: Some(request_id),
            } => self.outbox.result_acknowledged(&request_id),
            FromGateway::ModelListAck | FromGateway::ResultAck { request_id: None } => {}
            FromGateway::InferenceRequest {
                request_id,
                payload,
            } => self.inference.receive(request_id, payload).await,
            FromGateway::CancelRequest { request_id } => {
                self.inference.cancel(&request_id);
                // The job's task lets go of its slot before the next frame asks for one.
                yield_now().await;
            }
            FromGateway::TtsRequest { request_id } => {
                self.inference.refuse_speech(&request_id).await;
            }
            FromGateway::RegisterNodeAck { node_id, alias } => {
                self.registered(alias.as_deref(), node_id.as_deref());
            }
            FromGateway::UpdateWalletAck { success: true, .. } => {
                info!("the gateway took the payout address");
            }
            FromGateway::UpdateWalletAck {
                success: false,
                message,
            } => {
                warn!(
                    message = printable(&message),
                    "the gateway did not take PIN_PAYOUT_ADDRESS"
                );
            }
            FromGateway::InterviewRequest => warn!("interviews are not served by this version"),
            FromGateway::InterviewComplete { tier } => {
                info!(tier = printable(&tier), "an interview has ended");
            }
            FromGateway::InterviewFailed {
                reason,
                retry_after,
            } => {
                warn!(
                    reason = printable(&reason),
                    ?retry_after,
                    "an interview failed"
                );
                last_words.complained = true;
                last_words.retry_after = retry_after;
            }
            FromGateway::Error { message } => {
                warn!(
                    message = printable(&message),
                    "the gateway reports an error"
                );
                last_words.complained = true;
            }
            FromGateway::AuthSuccess { .. } => {
                debug!("the gateway accepted the login a second time");
            }
            FromGateway::Unknown { kind } => self.told.tell(&kind),
        }
    }

    async fn unreadable(&self, unreadable: &Unreadable) {
        debug!(message = %unreadable.message, reason = unreadable.reason, "ignored a frame");
        self.metrics
            .messages_received_total
            .of(unreadable.message)
            .inc();
        match &unreadable.request_id {
            Some(request_id) => {
                let failure = Failure::new(
                    Code::Invalid,
                    format!("the frame cannot be read: {}", unreadable.reason),
                );
                self.inference.refuse(request_id, &failure).await;
            }
            None => self
                .metrics
                .ignored_requests_total
                .inc_by(u64::from(unreadable.message.is_request())),
        }
    }

    fn registered(&self, alias: Option<&str>, node_id: Option<&str>) {
        let alias = printable(alias.unwrap_or(&self.registration.alias));
        let node_id = printable(node_id.unwrap_or_default());
        if alias != self.registration.alias {
            warn!(
                alias,
                "the gateway registered this node under another alias: the one asked for is taken"
            );
        }
        self.metrics
            .set_node(&alias, &node_id, self.registration.region);
        self.status
            .update(|status| status.node = Some(Node { alias, node_id }));
    }

    /// Notices a link that no longer carries anything, in either direction.
    async fn watch_silence(&self) -> DisconnectReason {
        loop {
            let now = Instant::now();
            let silent_at = self.meter.last_received() + self.heartbeat_timeout;
            if silent_at <= now {
                return DisconnectReason::Silent;
            }
            let stuck_at = self
                .outbox
                .heartbeat_due_since()
                .map(|since| since + self.heartbeat_timeout);
            if stuck_at.is_some_and(|stuck_at| stuck_at <= now) {
                return DisconnectReason::Stuck;
            }
            // A heartbeat that becomes due while this sleeps is stuck only after it has woken.
            sleep_until(stuck_at.map_or(silent_at, |stuck_at| stuck_at.min(silent_at))).await;
        }
    }

    async fn beat(&self) -> Infallible {
        let mut clock = interval_at(
            Instant::now() + self.heartbeat_interval,
            self.heartbeat_interval,
        );
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut until_models = MODEL_LIST_EVERY;
        loop {
            clock.tick().await;
            self.beat_once();
            until_models -= 1;
            if until_models == 0 {
                until_models = MODEL_LIST_EVERY;
                self.registration
                    .repeat_models(self.outbox, &self.current_offer());
            }
        }
    }

    fn beat_once(&self) {
        let load = self.inference.load();
        self.registration.heartbeat(
            self.outbox,
            &self.current_offer(),
            load.running + load.waiting,
        );
    }

    /// Tells the gateway whenever the models are others than it was `told`, and that there are none once we drain.
    async fn tell_news(&self, mut told: Vec<Model>) -> Infallible {
        let mut offer = self.offer.clone();
        loop {
            tokio::select! {
                changed = offer.changed() => if changed.is_err() {
                    // Whoever looks at the backend has ended, so that there will be no news.
                    return std::future::pending().await;
                },
                () = self.draining.cancelled(), if !told.is_empty() => {}
            }
            let now = self.current_offer();
            if !same_names(&told, &now.models) {
                self.registration.offer(self.outbox, &now);
            }
            told = now.models;
        }
    }

    fn current_offer(&self) -> Offer {
        if self.draining.is_cancelled() {
            Offer::default()
        } else {
            self.offer.borrow().clone()
        }
    }
}

impl UnknownTypes {
    fn tell(&self, kind: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MAX_UNKNOWN_TYPES && told.insert(printable(kind)) {
            debug!(
                kind = printable(kind),
                "ignored a frame of a type that this version does not know"
            );
        }
    }
}

async fn goodbye(link_end: &LinkEnd, mut sender: Sender, receiver: Receiver) {
    match link_end.close_code() {
        Some(code) => sender.leave(receiver, code).await,
        // Where there is nobody left to hear it, that is known already.
        None => drop(sender.flush().await),
    }
}

fn ended(link_end: &LinkEnd, last_words: &LastWords) -> End {
    let reason = match (link_end, last_words.retry_after) {
        (_, Some(_)) => DisconnectReason::RetryAfter,
        (LinkEnd::Closed, None) => DisconnectReason::Closed,
        (LinkEnd::Reset, None) => DisconnectReason::Reset,
        (LinkEnd::TooLarge | LinkEnd::NotUtf8 | LinkEnd::Protocol, None) => {
            DisconnectReason::Protocol
        }
    };
    End {
        reason,
        unexplained: matches!(reason, DisconnectReason::Closed | DisconnectReason::Reset)
            && !last_words.complained,
        unreadable: matches!(link_end, LinkEnd::TooLarge | LinkEnd::NotUtf8),
        retry_after: last_words.retry_after,
    }
}

fn same_names(a: &[Model], b: &[Model]) -> bool {
    a.iter()
        .map(|model| &model.name)
        .eq(b.iter().map(|model| &model.name))
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
