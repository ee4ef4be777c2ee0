//! The network's name for a request.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// The network's id of a request: 1 to 256 bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The longest id that is accepted, in bytes (delivery rules, "Receipt").
    pub const MAX_BYTES: usize = 256;

    /// Takes an id; `None` if it is empty or too long to be one.
    pub fn new(id: &str) -> Option<Self> {
        (1..=Self::MAX_BYTES)
            .contains(&id.len())
            .then(|| Self(id.into()))
    }

    /// The id as it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
