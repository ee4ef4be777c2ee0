//! What goes wrong, and when.

use bytes::Bytes;

/// What goes wrong with one answer. Those after [`Fault::HangBeforeHeaders`] need a chat or, except for the splits and
/// the single object, a pull, where lines take the place of tokens.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer with this instead: an HTML page with 502, a redirect, 503 with `Retry-After`…
    Answer {
        /// The HTTP status.
        status: u16,
        /// Headers by name and value.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Bytes,
    },
    /// Never answer.
    HangBeforeHeaders,
    /// After so many tokens a line `{"error": …}` and a proper end.
    ErrorLine {
        /// Tokens before it.
        after: usize,
        /// Ollama's words.
        error: String,
    },
    /// After so many tokens the connection ends in the middle of the chunked body.
    Cut {
        /// Tokens before it.
        after: usize,
    },
    /// After so many tokens a proper end, without a line that says `done`.
    EndWithoutDone {
        /// Tokens before it.
        after: usize,
    },
    /// After so many tokens nothing more; with 0 the headers and nothing else.
    Hang {
        /// Tokens before it.
        after: usize,
    },
    /// After so many tokens half a line and a proper end.
    HalfLine {
        /// Tokens before it.
        after: usize,
    },
    /// The whole body cut into writes at these byte positions, rising, which may be inside a character.
    Split(Vec<usize>),
    /// The whole body cut into writes of this many bytes.
    SplitEvery(usize),
    /// So many bytes of one letter, without a newline, then a proper end.
    Garbage {
        /// `u64::MAX` for no end.
        bytes: u64,
    },
    /// One object, as if `stream` were false.
    SingleObject,
    /// These writes, byte for byte, as a body of NDJSON; between two of them as long as between two tokens.
    Script(Vec<Bytes>),
}

impl Fault {
    /// An answer with nothing but a status, a content type and a body.
    pub fn answer(status: u16, content_type: &str, body: &str) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self::Answer {
            status,
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// Lines, each written alone, with their newlines added.
    pub fn script<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Script(
            lines
                .into_iter()
                .map(|line| Bytes::from(format!("{line}\n")))
                .collect(),
        )
    }
}

impl Fault {
    /// After how many tokens of a chat, or lines of a pull, it strikes, if that is what it depends on.
    pub(super) fn after(&self) -> Option<usize> {
        match self {
            Self::ErrorLine { after, .. }
            | Self::Cut { after }
            | Self::EndWithoutDone { after }
            | Self::Hang { after }
            | Self::HalfLine { after } => Some(*after),
            Self::Answer { .. }
            | Self::HangBeforeHeaders
            | Self::Split(_)
            | Self::SplitEvery(_)
            | Self::Garbage { .. }
            | Self::SingleObject
            | Self::Script(_) => None,
        }
    }
}
