//! Why a request got no result. The code is from a closed set and is what metrics and logs may carry; the sentence
//! goes to the gateway only, since it may quote the backend.

use std::fmt;

use crate::label::{Label, labels};

labels! {
    /// The codes that `error` texts begin with, and the `reason` of `request_failures_total`.
    pub enum Code {
        /// No room: capacity and waiting room are taken, or the outbox is full.
        Busy = "busy",
        /// The sidecar is draining and takes no new work.
        Draining = "draining",
        /// It waited for a slot longer than `PIN_QUEUE_TIMEOUT`.
        QueueTimeout = "queue_timeout",
        /// The request is not a chat that may be served.
        Invalid = "invalid",
        /// The model is not offered by this node.
        ModelNotFound = "model_not_found",
        /// The backend was silent for too long, or the whole took too long.
        Timeout = "timeout",
        /// The backend says that the request is at fault; the sentence has its own words, cleaned.
        Rejected = "rejected",
        /// The backend failed; the sentence has its own words, cleaned.
        Backend = "backend",
        /// The backend's answer is larger than `PIN_MAX_RESULT_BYTES`.
        TooLarge = "too_large",
        /// A defect of the sidecar.
        Internal = "internal",
        /// The id was answered before and the answer is no longer held.
        Duplicate = "duplicate",
        /// The session stayed away for too long while the request was worked on.
        Orphaned = "orphaned",
    }
}

impl Code {
    /// Whether it is for the operator to mend: a defect, a slow or failing backend, too little room. The others are the
    /// doing of whoever asked, or what the operator wanted.
    pub fn is_operators_concern(self) -> bool {
        match self {
            Self::Busy
            | Self::QueueTimeout
            | Self::Timeout
            | Self::Backend
            | Self::TooLarge
            | Self::Internal
            | Self::Orphaned => true,
            Self::Draining
            | Self::Invalid
            | Self::ModelNotFound
            | Self::Rejected
            | Self::Duplicate => false,
        }
    }
}

/// A refusal or a failed job, as the gateway is told: `<code>: <sentence>`.
///
/// `Debug` shows the code only, so that a sentence never reaches a log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub code: Code,
    sentence: String,
}

impl Failure {
    /// A failure with a sentence for people. The sentence must not contain the backend's address.
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
        }
    }

    /// The sentence alone, for whoever says the rest himself.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// The text of the frame's `error` field.
    pub fn text(&self) -> String {
        format!("{}: {}", self.code.as_str(), self.sentence)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({})", self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_reads_code_and_sentence_and_a_log_reads_the_code_only() {
        let failure = Failure::new(Code::QueueTimeout, "waited 30s for a free slot");
        assert_eq!(failure.text(), "queue_timeout: waited 30s for a free slot");
        assert_eq!(format!("{failure:?}"), "Failure(queue_timeout)");
    }
}
