//! What goes wrong with one answer.

use std::time::Duration;

use bytes::Bytes;

/// What goes wrong with one answer. Those after [`Fault::HangBeforeHeaders`] need a request for speech.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer with this instead: an HTML page, an error with status 200, nothing…
    Answer {
        /// The HTTP status.
        status: u16,
        /// The content type; empty: none is sent.
        content_type: &'static str,
        /// The body.
        body: Bytes,
    },
    /// Never answer.
    HangBeforeHeaders,
    /// The clip with another content type; empty: without one.
    ContentType(&'static str),
    /// After so many bytes of the clip nothing more; with 0 the headers and nothing else.
    Hang {
        /// Bytes before it.
        after: usize,
    },
    /// After so many bytes the connection ends in the middle of the chunked body.
    Cut {
        /// Bytes before it.
        after: usize,
    },
    /// The clip in chunks of so many bytes, with a pause before each.
    Slow {
        /// Bytes of each.
        piece: usize,
        /// The time before each.
        pause: Duration,
    },
    /// So many bytes that are no clip, in chunks.
    Garbage {
        /// `u64::MAX` for no end.
        bytes: u64,
    },
}

impl Fault {
    /// An answer with a status, a content type and a body.
    pub fn answer(status: u16, content_type: &'static str, body: &str) -> Self {
        Self::Answer {
            status,
            content_type,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }
}
