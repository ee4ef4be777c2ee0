//! What is done about each frame of the gateway.
//!
//! Invariant: nothing here waits for work. A frame that cannot be used is counted and left; if it would have been a
//! request, it is refused.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::yield_now, time::Instant};
use tracing::{debug, info, warn};

use super::{Registration, StatusBoard, login::printable, status::Node};
use crate::{
    clock::WallClock,
    inference::Inference,
    outbox::{Frame, Outbox, SessionNumber},
    protocol::{Code, Failure, FromGateway, GatewayMessage, ToGateway, Unreadable},
    telemetry::Metrics,
};

/// Types of frames that are remembered as told; beyond these, unknown types are ignored in silence.
const MAX_UNKNOWN_TYPES: usize = 64;

/// A close that comes later than this after it was announced is another one.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(60);

/// Handles the frames of one session.
pub(super) struct Dispatch<'a> {
    pub(super) session: SessionNumber,
    pub(super) outbox: &'a Outbox,
    pub(super) inference: &'a Arc<Inference>,
    pub(super) registration: &'a Registration,
    pub(super) status: &'a StatusBoard,
    pub(super) metrics: &'a Metrics,
    pub(super) clock: &'a dyn WallClock,
    pub(super) told: &'a UnknownTypes,
}

/// Types that nobody here has heard of, each told once.
#[derive(Default)]
pub(super) struct UnknownTypes(Mutex<HashSet<String>>);

/// What the gateway has said that matters once it has gone.
#[derive(Default)]
pub(super) struct LastWords {
    /// It said what is wrong.
    pub(super) complained: bool,
    /// How long it wants us to stay away after the close that follows, and when it said so.
    retry_after: Option<(Duration, Instant)>,
}

impl LastWords {
    /// How long it wants us to stay away, if the session's end now is the one that it announced.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let (wait, said) = self.retry_after?;
        (said.elapsed() <= FOLLOWS_WITHIN).then_some(wait)
    }
}

impl Dispatch<'_> {
    /// Handles one frame. Waits only while too many refusals wait to be sent.
    pub(super) async fn handle(&self, text: &str, last_words: &mut LastWords) {
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
            FromGateway::ModelListAck => self.outbox.models_acknowledged(),
            // Whichever it means: it is a sign of life, as any frame is.
            FromGateway::ResultAck { request_id: None } => {}
            FromGateway::InferenceRequest {
                request_id,
                payload,
            } => {
                self.inference
                    .receive(self.session, request_id, payload)
                    .await;
            }
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
                last_words.retry_after = retry_after.map(|wait| (wait, Instant::now()));
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

    /// Counts a frame that cannot be used, and refuses what it was about to ask for.
    pub(super) async fn unreadable(&self, unreadable: &Unreadable) {
        debug!(message = %unreadable.message, reason = unreadable.reason, "ignored a frame");
        self.metrics
            .messages_received_total
            .of(unreadable.message)
            .inc();
        match (unreadable.message, &unreadable.request_id) {
            (GatewayMessage::InferenceRequest, Some(request_id)) => {
                let sentence = format!("the frame cannot be read: {}", unreadable.reason);
                let failure = Failure::new(Code::Invalid, sentence);
                self.inference.refuse(request_id, &failure).await;
            }
            (GatewayMessage::TtsRequest, Some(request_id)) => {
                self.inference.refuse_speech(request_id).await;
            }
            (GatewayMessage::InferenceRequest | GatewayMessage::TtsRequest, None) => {
                self.metrics.ignored_requests_total.inc();
            }
            _ => {}
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
