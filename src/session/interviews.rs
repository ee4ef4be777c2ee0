//! What the gateway says of interviews.

use super::{dispatch::Dispatch, notices::Topic};
use crate::{
    label::Label,
    protocol::RetryAfter,
    telemetry::{Tier, throttled},
};

impl Dispatch<'_> {
    pub(super) fn interview_requested(&self) {
        let told = self.notices.heard(Topic::InterviewRequest, "");
        throttled!(warn, told, [] "interviews are not served by this version");
    }

    pub(super) fn interview_complete(
        &self,
        tier: &str,
        accuracy: Option<f64>,
        tokens_per_second: Option<f64>,
    ) {
        let metrics = &self.shared.metrics;
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
        let told = self.notices.heard(Topic::InterviewEnd, tier.as_str());
        throttled!(info, told, [%tier, accuracy, tokens_per_second,] "an interview has ended");
    }

    pub(super) fn interview_failed(&self, said: &str, retry_after: Option<RetryAfter>) {
        self.shared.metrics.interviews_total.inc();
        self.shared.metrics.interview_failures_total.inc();
        let told = self.notices.heard(Topic::InterviewEnd, said);
        let retry_after_s = retry_after.map(|wait| wait.get().as_secs());
        throttled!(warn, told, [said, retry_after_s,] "an interview failed");
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
