//! What the gateway says of interviews.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{dispatch::Dispatch, notices::Topic};
use crate::{
    admin,
    label::Label,
    node::{Node, Verdict},
    protocol::RetryAfter,
    telemetry::{Tier, throttled},
};

/// An interview has ended.
pub(super) struct Ended<'a> {
    /// Whose, by the gateway's id or its alias, where it says so.
    pub(super) node: Option<&'a str>,
    pub(super) tier: Tier,
    /// As the gateway wrote it: a ratio or a percentage.
    pub(super) accuracy: Option<f64>,
    pub(super) tokens_per_second: Option<f64>,
    /// In the gateway's words, cleaned.
    pub(super) reason: String,
    /// How long the gateway wants the node to stay away.
    pub(super) retry_after: Option<RetryAfter>,
}

impl Dispatch<'_> {
    /// Notes how an interview has ended. Tells whether it is one node among several that is to stay away: the session need
    /// not, then.
    pub(super) fn interview_ended(&self, ended: Ended<'_>) -> bool {
        let accuracy = ended.accuracy.and_then(ratio);
        self.count_interview(&ended, accuracy);
        self.tell_interview(&ended, accuracy);
        let nodes = &self.shared.nodes;
        let named = ended.node.and_then(|name| nodes.named(name));
        let node: Option<&Arc<Node>> = named.or_else(|| nodes.sole());
        if let Some(node) = node {
            let at = self.shared.clock.unix_seconds();
            let until = |wait: Duration| (Instant::now() + wait, at.saturating_add(wait.as_secs()));
            self.shared.history.judged(admin::Verdict {
                at,
                node: node.alias.to_string(),
                tier: ended.tier.as_str(),
                accuracy,
                tokens_per_second: ended.tokens_per_second,
            });
            node.standing.judge(Verdict {
                tier: ended.tier,
                accuracy,
                tokens_per_second: ended.tokens_per_second,
                reason: ended.reason,
                at,
                barred_until: ended.retry_after.map(|wait| until(wait.get())),
            });
        }
        node.is_some() && nodes.sole().is_none()
    }

    fn count_interview(&self, ended: &Ended<'_>, accuracy: Option<f64>) {
        let metrics = &self.shared.metrics;
        metrics.interviews_total.inc();
        if ended.tier == Tier::Failed {
            metrics.interview_failures_total.inc();
        }
        metrics.quality_tier.set(ended.tier);
        if let Some(ratio) = accuracy {
            metrics.interview_accuracy_ratio.set(ratio);
        }
        if let Some(speed) = ended.tokens_per_second {
            metrics.interview_tokens_per_second.set(speed);
        }
    }

    fn tell_interview(&self, ended: &Ended<'_>, accuracy: Option<f64>) {
        let Ended {
            tier,
            reason,
            tokens_per_second,
            ..
        } = ended;
        if *tier == Tier::Failed {
            let told = self.notices.heard(Topic::InterviewEnd, reason);
            let retry_after_s = ended.retry_after.map(|wait| wait.get().as_secs());
            throttled!(warn, told, [reason, accuracy, tokens_per_second, retry_after_s,] "an interview failed");
        } else {
            let told = self.notices.heard(Topic::InterviewEnd, tier.as_str());
            throttled!(info, told, [%tier, accuracy, tokens_per_second, reason,] "an interview was passed");
        }
    }
}

/// Why an interview failed, with what the network would like better.
pub(super) fn why_failed(reason: &str, required_models: &[String]) -> String {
    if required_models.is_empty() {
        return reason.to_owned();
    }
    format!(
        "{reason}; the network wants one of these models: {}",
        required_models.join(", ")
    )
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
