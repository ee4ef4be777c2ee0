//! What goes wrong, and answers whose bytes a test gives.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

/// What goes wrong with one answer. Those with `after` need a chat that streams.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer with this instead.
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
    /// Reset the connection instead of answering.
    ResetBeforeHeaders,
    /// After so many tokens an event `{"error": …}`, then a proper end.
    ErrorEvent {
        /// Tokens before it.
        after: usize,
        /// The value of `error`.
        error: Value,
        /// Whether `[DONE]` follows it.
        done: bool,
    },
    /// After so many tokens the connection ends in the middle of the chunked body.
    Cut {
        /// Tokens before it.
        after: usize,
    },
    /// After so many tokens the connection is reset.
    Reset {
        /// Tokens before it.
        after: usize,
    },
    /// After so many tokens a proper end, without a `finish_reason` or `[DONE]`.
    End {
        /// Tokens before it.
        after: usize,
    },
    /// After so many tokens nothing more; with 0 the headers and nothing else.
    Hang {
        /// Tokens before it.
        after: usize,
    },
    /// The whole body cut into writes of this many bytes.
    SplitEvery(usize),
    /// So many bytes of one letter, without a newline, then a proper end.
    Garbage {
        /// `u64::MAX` for no end.
        bytes: u64,
    },
    /// This answer, byte for byte.
    Fixture(Fixture),
}

impl Fault {
    /// An answer with nothing but a status, a content type and a body.
    pub fn answer(status: u16, content_type: &str, body: &str) -> Self {
        Self::Answer {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// The same with `Retry-After`, in seconds.
    pub fn retry_after(status: u16, seconds: u64, body: &str) -> Self {
        Self::Answer {
            status,
            headers: vec![
                ("content-type", "application/json".to_owned()),
                ("retry-after", seconds.to_string()),
            ],
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// After how many tokens it strikes, if that is what it depends on.
    pub(super) fn after(&self) -> Option<usize> {
        match self {
            Self::ErrorEvent { after, .. }
            | Self::Cut { after }
            | Self::Reset { after }
            | Self::End { after }
            | Self::Hang { after } => Some(*after),
            Self::Answer { .. }
            | Self::HangBeforeHeaders
            | Self::ResetBeforeHeaders
            | Self::SplitEvery(_)
            | Self::Garbage { .. }
            | Self::Fixture(_) => None,
        }
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As HTTP wants it.
    Proper,
    /// The connection is closed in the middle of the chunked body.
    Cut,
    /// The connection is reset.
    Reset,
    /// Not at all: nothing more comes until the client goes.
    StayOpen,
}

/// A part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One write.
    Bytes(Bytes),
    /// Nothing for so long. As the first step it keeps back the status too.
    Wait(Duration),
    /// This write so often, with this pause before each.
    Repeat(Bytes, usize, Duration),
}

/// An answer, byte for byte; by itself one of status 200 and type `text/event-stream` with an end as HTTP wants it.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) http_1_0: bool,
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
}

impl Fixture {
    /// These writes.
    pub fn raw<B: Into<Bytes>>(writes: impl IntoIterator<Item = B>) -> Self {
        Self {
            status: 200,
            content_type: "text/event-stream",
            http_1_0: false,
            steps: writes
                .into_iter()
                .map(|write| Step::Bytes(write.into()))
                .collect(),
            end: End::Proper,
        }
    }

    /// These events, a write each: `data: EVENT` and an empty line.
    pub fn events<E: AsRef<str>>(events: impl IntoIterator<Item = E>) -> Self {
        Self::raw(
            events
                .into_iter()
                .map(|event| format!("data: {}\n\n", event.as_ref())),
        )
    }

    /// With this status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With this content type.
    #[must_use]
    pub fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Over HTTP/1.0 without a length: the close is the end.
    #[must_use]
    pub fn http_1_0(mut self) -> Self {
        self.http_1_0 = true;
        self
    }

    /// With this end.
    #[must_use]
    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// With a step before all others.
    #[must_use]
    pub fn first(mut self, step: Step) -> Self {
        self.steps.insert(0, step);
        self
    }

    /// With one more step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The same with each line feed written like this.
    #[must_use]
    pub fn lines_end_with(mut self, line_end: &str) -> Self {
        for step in &mut self.steps {
            if let Step::Bytes(bytes) | Step::Repeat(bytes, ..) = step {
                *bytes = String::from_utf8_lossy(bytes)
                    .replace('\n', line_end)
                    .into();
            }
        }
        self
    }

    /// The same cut into writes of so many bytes, where there are no pauses.
    #[must_use]
    pub fn in_writes_of(mut self, bytes: usize) -> Self {
        let cut = |step: Step| match step {
            Step::Bytes(whole) => whole
                .chunks(bytes.max(1))
                .map(|part| Step::Bytes(Bytes::copy_from_slice(part)))
                .collect(),
            pause => vec![pause],
        };
        self.steps = self.steps.into_iter().flat_map(cut).collect();
        self
    }
}

impl From<Fixture> for Fault {
    fn from(fixture: Fixture) -> Self {
        Self::Fixture(fixture)
    }
}
