//! What is done about each frame of the gateway.
//!
//! Invariant: nothing here waits for work. A frame that cannot be used is counted and left; if it would have been a
//! request, it is refused.

use std::{sync::Arc, time::Duration};

use tokio::{task::yield_now, time::Instant};
use tracing::{debug, info, warn};

use super::{
    Registration, StatusBoard,
    live::Farewell,
    login::printable,
    remarks::{Remarks, Topic},
    status::Node,
};
use crate::{
    clock::WallClock,
    inference::Inference,
    label::Label,
    outbox::{Control, Outbox, SessionNumber},
    protocol::{Code, Failure, FromGateway, GatewayMessage, RetryAfter, ToGateway, Unreadable},
    telemetry::{Metrics, Tier, Told},
};

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
    pub(super) remarks: &'a Remarks,
}

/// What the gateway has said that matters once it has gone.
#[derive(Default)]
pub(super) struct LastWords {
    /// It said what is wrong.
    pub(super) complained: bool,
    /// How long it wants us to stay away after the close that follows, and when it said so.
    retry_after: Option<(RetryAfter, Instant)>,
    /// Its Close.
    pub(super) farewell: Option<Farewell>,
}

impl LastWords {
    /// How long it wants us to stay away, if the session's end now is the one that it announced.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        let (wait, said) = self.retry_after?;
        (said.elapsed() <= FOLLOWS_WITHIN).then_some(wait)
    }
}

impl Dispatch<'_> {
    /// Handles one frame. Waits only while too many refusals wait to be sent. `closing`: we are saying Close, so that
    /// whoever asks for something now asks a session that is over, and has to ask elsewhere.
    pub(super) async fn handle(&self, text: &str, closing: bool, last_words: &mut LastWords) {
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
            FromGateway::Ping => self.outbox.control(Control::new(&ToGateway::Pong)),
            FromGateway::HeartbeatAck => self.outbox.heartbeat_acknowledged(),
            FromGateway::ResultAck {
                request_id: Some(request_id),
            } => self.outbox.result_acknowledged(&request_id),
            FromGateway::ModelListAck => self.outbox.models_acknowledged(),
            // Whichever it means: it is a sign of life, as any frame is.
            FromGateway::ResultAck { request_id: None } => {}
            FromGateway::InferenceRequest { .. } | FromGateway::TtsRequest { .. } if closing => {
                self.metrics.ignored_requests_total.inc();
            }
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
            FromGateway::UpdateWalletAck { success, message } => {
                self.wallet(success, &printable(&message));
            }
            FromGateway::InterviewRequest => self.interview_requested(),
            FromGateway::InterviewComplete {
                tier,
                accuracy,
                tokens_per_second,
            } => self.interview_complete(&tier, accuracy, tokens_per_second),
            FromGateway::InterviewFailed {
                reason,
                retry_after,
            } => {
                self.interview_failed(&printable(&reason), retry_after);
                last_words.complained = true;
                last_words.retry_after = retry_after.map(|wait| (wait, Instant::now()));
            }
            FromGateway::Error { message } => {
                self.complaint(&printable(&message));
                last_words.complained = true;
            }
            FromGateway::AuthSuccess { .. } => {
                debug!("the gateway accepted the login a second time");
            }
            FromGateway::Unknown { kind } => self.remarks.unknown_type(&kind),
        }
    }

    /// Counts a frame that cannot be used, and refuses what it was about to ask for.
    pub(super) async fn unreadable(&self, unreadable: &Unreadable) {
        debug!(frame = %unreadable.message, reason = unreadable.reason, "ignored a frame");
        self.metrics
            .messages_received_total
            .of(unreadable.message)
            .inc();
        match (unreadable.message, &unreadable.request_id) {
            (GatewayMessage::InferenceRequest, Some(request_id)) => {
                let sentence = format!("the frame cannot be read: {}", unreadable.reason);
                let failure = Failure::new(Code::Invalid, sentence);
                self.inference.refuse_unreadable(request_id, &failure).await;
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
        if alias != self.registration.alias
            && let Some(Told { attempts, since_s }) = self.remarks.heard(Topic::Alias, &alias)
        {
            warn!(
                alias,
                node = self.registration.alias,
                attempts,
                since_s,
                "the gateway registered this node under another alias: the one asked for is taken"
            );
        }
        let Registration {
            alias: asked_for,
            region,
            ..
        } = self.registration;
        self.metrics.set_node(asked_for, &alias, &node_id, region);
        self.status
            .update(|status| status.node = Some(Node { alias, node_id }));
    }

    fn complaint(&self, said: &str) {
        if let Some(Told { attempts, since_s }) = self.remarks.heard(Topic::Error, said) {
            warn!(said, attempts, since_s, "the gateway reports an error");
        }
    }

    fn wallet(&self, success: bool, said: &str) {
        let what = if success { "" } else { said };
        let Some(Told { attempts, since_s }) = self.remarks.heard(Topic::Wallet, what) else {
            return;
        };
        if success {
            info!(attempts, since_s, "the gateway took the payout address");
        } else {
            warn!(
                said,
                attempts, since_s, "the gateway did not take PIN_PAYOUT_ADDRESS"
            );
        }
    }

    fn interview_requested(&self) {
        if let Some(Told { attempts, since_s }) = self.remarks.heard(Topic::InterviewRequest, "") {
            warn!(
                attempts,
                since_s, "interviews are not served by this version"
            );
        }
    }

    fn interview_complete(
        &self,
        tier: &str,
        accuracy: Option<f64>,
        tokens_per_second: Option<f64>,
    ) {
        let metrics = self.metrics;
        let tier = Tier::of(tier);
        metrics.interviews_total.inc();
        if tier == Tier::Failed {
            metrics.interview_failures_total.inc();
        }
        metrics.quality_tier.set(tier);
        if let Some(ratio) = accuracy.and_then(ratio) {
            metrics.interview_accuracy_ratio.set(ratio);
        }
        if let Some(speed) = tokens_per_second {
            metrics.interview_tokens_per_second.set(speed);
        }
        let heard = self.remarks.heard(Topic::InterviewEnd, tier.as_str());
        if let Some(Told { attempts, since_s }) = heard {
            info!(
                %tier,
                accuracy,
                tokens_per_second,
                attempts,
                since_s,
                "an interview has ended"
            );
        }
    }

    fn interview_failed(&self, said: &str, retry_after: Option<RetryAfter>) {
        self.metrics.interviews_total.inc();
        self.metrics.interview_failures_total.inc();
        if let Some(Told { attempts, since_s }) = self.remarks.heard(Topic::InterviewEnd, said) {
            warn!(
                said,
                retry_after_s = retry_after.map(|wait| wait.get().as_secs()),
                attempts,
                since_s,
                "an interview failed"
            );
        }
    }
}

/// The protocol does not say whether `accuracy` is a ratio or a percentage. What is above 1 can only be the latter.
fn ratio(accuracy: f64) -> Option<f64> {
    match accuracy {
        0.0..=1.0 => Some(accuracy),
        1.0..=100.0 => Some(accuracy / 100.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::ratio;

    #[test]
    fn accuracy_is_a_ratio_however_the_gateway_writes_it() {
        for (written, shown) in [
            (0.0, Some(0.0)),
            (0.93, Some(0.93)),
            (1.0, Some(1.0)),
            (93.0, Some(0.93)),
            (100.0, Some(1.0)),
            (101.0, None),
        ] {
            assert_eq!(ratio(written), shown, "{written}");
        }
    }
}
