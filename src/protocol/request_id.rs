//! The network's name for a request.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The network's id of a request: 1 to 256 bytes. Cheap to clone. An interview and a chat of the same text are two requests.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    text: Arc<str>,
    is_interview: bool,
}

impl RequestId {
    /// The longest id that is accepted, in bytes (delivery rules, "Receipt").
    pub const MAX_BYTES: usize = 256;

    /// Takes a `request_id`; `None` if it is empty or too long to be one.
    pub fn new(id: &str) -> Option<Self> {
        (1..=Self::MAX_BYTES).contains(&id.len()).then(|| Self {
            text: id.into(),
            is_interview: false,
        })
    }

    /// What an `interview_id` of this text names.
    #[must_use]
    pub fn of_interview(self) -> Self {
        Self {
            is_interview: true,
            ..self
        }
    }

    /// What a `request_id` of this text names. Acknowledgements have no other name for an interview.
    #[must_use]
    pub fn of_request(self) -> Self {
        Self {
            is_interview: false,
            ..self
        }
    }

    /// The id as it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
