//! Why a model is not there yet, and who can do something about it.

use std::time::Duration;

use crate::{backend::AskError, transport::http::HttpError};

/// Why an attempt to pull a model ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    /// Ollama cannot be asked, or its answer broke off.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer ended properly, but without success or an error.
    #[error("its answer ended before the model was there")]
    Ended,
    /// Nothing new was said for so long.
    #[error("nothing has moved for {}", humantime::format_duration(*.0))]
    Stalled(Duration),
    /// Ollama says why, in its words, cleaned; it may go better the next time.
    #[error("Ollama says: {0}")]
    Failed(String),
    /// Likewise, and it will go no better until somebody does something.
    #[error("Ollama says: {0}")]
    Refused(String),
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask again, with growing patience.
    AskAgain,
    /// Wait for the operator, and ask now and then whether it has become right.
    Operator,
}

impl PullError {
    /// What Ollama says in its stream, where every error looks alike: it carries no code, so this is the one place that
    /// looks at words. To be wrong about them only means to ask too seldom or too often.
    pub(super) fn said(words: String) -> Self {
        if is_refusal(&words) {
            Self::Refused(words)
        } else {
            Self::Failed(words)
        }
    }

    /// What Ollama answered instead of a stream.
    fn answered(status: u16, words: String) -> Self {
        if is_refusing(status) {
            Self::Refused(words)
        } else {
            Self::Failed(words)
        }
    }

    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Http(_) | Self::Ended | Self::Stalled(_) | Self::Failed(_) => Remedy::AskAgain,
            Self::Refused(_) => Remedy::Operator,
        }
    }
}

impl From<AskError> for PullError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Http(error) => Self::Http(error),
            AskError::Refused { status, words, .. } => Self::answered(status, words),
        }
    }
}

/// Whether the registry itself refuses: there is no such model, or its HTTP status says that asking was wrong. Words as
/// in Ollama's `server/images.go`: `pull model manifest: file does not exist` for 404, `pull model manifest: 412: …` for
/// other statuses.
fn is_refusal(words: &str) -> bool {
    let Some(reason) = words.strip_prefix("pull model manifest: ") else {
        return false;
    };
    let status = reason
        .split_once(':')
        .and_then(|(status, _)| status.parse::<u16>().ok());
    status.map_or_else(
        || reason == "file does not exist" || reason.starts_with("unauthorized"),
        is_refusing,
    )
}

/// Whether an HTTP status says that asking was wrong. Too slow (408) and too often (429) pass.
fn is_refusing(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_refuses_is_the_operators_and_all_else_may_pass() {
        for words in [
            "pull model manifest: file does not exist",
            "pull model manifest: 412: a newer version of Ollama is needed",
            "pull model manifest: unauthorized: access denied",
        ] {
            assert_eq!(PullError::said(words.into()).remedy(), Remedy::Operator);
        }
        for words in [
            "pull model manifest: 503: upstream",
            "pull model manifest: 429: slow down",
            "pull model manifest: Get \"…\": dial tcp: lookup registry.ollama.ai: no such host",
            "max retries exceeded: unexpected EOF",
            "digest mismatch, file must be downloaded again",
            "write …: no space left on device",
            "",
        ] {
            assert_eq!(PullError::said(words.into()).remedy(), Remedy::AskAgain);
        }
        for (status, remedy) in [
            (400, Remedy::Operator),
            (404, Remedy::Operator),
            (429, Remedy::AskAgain),
            (500, Remedy::AskAgain),
            (503, Remedy::AskAgain),
        ] {
            let answered = PullError::answered(status, "no".into());
            assert_eq!(answered.remedy(), remedy, "{status}");
        }
    }
}
