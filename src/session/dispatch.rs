//! What is done about each frame of the gateway.
//!
//! Invariant: nothing here waits for work. A frame that cannot be used is counted and left; if it would have been a
//! request, it is refused.

use std::{sync::Arc, time::Duration};

use tokio::{task::yield_now, time::Instant};
use tracing::debug;

use super::{
    interviews::{Ended, why_failed},
    notices::{Notices, Topic},
};
use crate::{
    inference::Inference,
    node::Registered,
    outbox::SessionNumber,
    protocol::{Control, FromGateway, RetryAfter, Unreadable},
    shared::Shared,
    telemetry::{Tier, printable, throttled},
};

/// A close that comes later than this after it was announced is another one.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(60);

/// Handles the frames of one session.
pub(super) struct Dispatch<'a> {
    pub(super) session: SessionNumber,
    pub(super) shared: &'a Shared,
    pub(super) inference: &'a Arc<Inference>,
    pub(super) notices: &'a Notices,
}

/// What the gateway has announced that matters once the session has ended.
#[derive(Default)]
pub(super) struct Announced {
    /// It said what is wrong.
    pub(super) complained: bool,
    /// How long it wants us to stay away after the close that follows, and when it said so.
    retry_after: Option<(RetryAfter, Instant)>,
}

impl Announced {
    /// How long it wants us to stay away, if the session's end now is the one that it announced.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        let (wait, said) = self.retry_after?;
        (said.elapsed() <= FOLLOWS_WITHIN).then_some(wait)
    }
}

impl Dispatch<'_> {
    /// Handles one frame. Waits only while too many refusals wait to be sent. `closing`: we are saying Close, so that
    /// whoever asks for something now asks a session that is over, and has to ask elsewhere.
    pub(super) async fn handle(
        &self,
        frame: FromGateway,
        closing: bool,
        announced: &mut Announced,
    ) {
        match frame {
            FromGateway::Ping => self.shared.outbox.control(Control::Pong),
            FromGateway::Request { .. } if closing => {
                self.shared.metrics.ignored_requests_total.inc();
            }
            FromGateway::Request {
                operation,
                request_id,
                payload,
            } => {
                let inference = self.inference;
                inference
                    .receive(self.session, operation, request_id, payload)
                    .await;
            }
            FromGateway::CancelRequest { request_id } => {
                self.inference.cancel(&request_id);
                // The job's task lets go of its slot before the next frame asks for one.
                yield_now().await;
            }
            FromGateway::RegisterNodeAck { node_id, alias } => {
                self.registered(alias.as_deref(), node_id.as_deref());
            }
            FromGateway::UpdateWalletAck { success, message } => {
                self.wallet(success, &printable(&message));
            }
            FromGateway::InterviewComplete {
                node,
                tier,
                accuracy,
                tokens_per_second,
                reason,
            } => {
                let tier = Tier::of(&tier);
                announced.complained |= tier == Tier::Failed;
                self.interview_ended(Ended {
                    node: node.as_deref(),
                    tier,
                    accuracy,
                    tokens_per_second,
                    reason: printable(&reason),
                    retry_after: None,
                });
            }
            FromGateway::InterviewFailed {
                node,
                reason,
                retry_after,
                required_models,
            } => {
                announced.complained = true;
                let ended = Ended {
                    node: node.as_deref(),
                    tier: Tier::Failed,
                    accuracy: None,
                    tokens_per_second: None,
                    reason: printable(&why_failed(&reason, &required_models)),
                    retry_after,
                };
                if !self.interview_ended(ended) {
                    announced.retry_after = retry_after.map(|wait| (wait, Instant::now()));
                }
            }
            FromGateway::Error { message } => {
                self.complaint(&printable(&message));
                announced.complained = true;
            }
            FromGateway::AuthSuccess { .. } => {
                debug!("the gateway accepted the login a second time");
            }
            // The link has made proof of them.
            FromGateway::HeartbeatAck
            | FromGateway::ModelListAck
            | FromGateway::ResultAck { .. } => {}
            FromGateway::Unknown { kind } => self.notices.unknown_type(&kind),
        }
    }

    /// Refuses what a frame that cannot be used was about to ask for.
    pub(super) async fn unreadable(&self, unreadable: &Unreadable) {
        debug!(frame = %unreadable.message, reason = unreadable.reason, "ignored a frame");
        match (unreadable.operation, &unreadable.request_id) {
            (Some(operation), Some(request_id)) => {
                let inference = self.inference;
                inference
                    .refuse_unreadable(operation, request_id, unreadable.reason)
                    .await;
            }
            (Some(_), None) => self.shared.metrics.ignored_requests_total.inc(),
            (None, _) => {}
        }
    }

    fn registered(&self, alias: Option<&str>, node_id: Option<&str>) {
        let node = match alias {
            Some(alias) => self.shared.nodes.registered_as(alias),
            None => self.shared.nodes.sole(),
        };
        let Some(node) = node else {
            return debug!("the gateway registered a node that is none of ours");
        };
        let alias = printable(alias.unwrap_or(&node.alias));
        let node_id = printable(node_id.unwrap_or_default());
        if *alias != *node.alias {
            let told = self.notices.heard(Topic::Alias, &alias);
            throttled!(
                warn, told, [alias, node = &*node.alias,]
                "the gateway registered this node under another alias: the one asked for is taken"
            );
        }
        let region = node.settings.region.as_str();
        self.shared
            .metrics
            .set_node(&node.alias, &alias, &node_id, region);
        node.standing.register(Registered { alias, node_id });
    }

    fn complaint(&self, said: &str) {
        let told = self.notices.heard(Topic::Error, said);
        throttled!(warn, told, [said,] "the gateway reports an error");
    }

    fn wallet(&self, success: bool, said: &str) {
        let what = if success { "" } else { said };
        let told = self.notices.heard(Topic::Wallet, what);
        if success {
            throttled!(info, told, [] "the gateway took the payout address");
        } else {
            throttled!(warn, told, [said,] "the gateway did not take PIN_PAYOUT_ADDRESS");
        }
    }
}
