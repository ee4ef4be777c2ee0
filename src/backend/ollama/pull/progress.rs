//! Reads the body of `/api/pull`: lines of JSON that say how far each layer of the model is. Pure, without a clock.
//!
//! Seen of Ollama 0.17: layers are told one after the other, so how much there is to fetch is known only as far as it
//! has come; while a layer is fetched its line comes every 60 ms, also when nothing arrives any more.
//!
//! Invariant: where a read ends makes no difference, and memory is bounded whatever comes. How far the pull is, is told for
//! people alone, so a line or a field that says it oddly is left out, and the pull goes on.

use std::{collections::HashMap, sync::Arc};

use serde_json::value::RawValue;

use super::error::PullError;
use crate::{
    backend::{error_text::words_of_error, fields::fields, halves::text, object::count},
    transport::{Credentials, http::HttpError},
};

/// The longest line that is read, in bytes. An error may quote what a registry said.
const MAX_LINE: usize = 64 * 1024;

/// How many layers are told apart. Models have a handful; one of many small tensors is told as a single layer.
const MAX_LAYERS: usize = 1024;

/// Bytes that Ollama has of a model, and has to have as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    pub(super) completed: u64,
    pub(super) expected: u64,
}

impl Bytes {
    /// All of a model's bytes.
    pub(super) fn all(size: u64) -> Self {
        Self {
            completed: size,
            expected: size,
        }
    }

    /// How much of it is there, in whole percent; `None` while nothing is known.
    pub(super) fn percent(self) -> Option<u64> {
        let hundredfold = u128::from(self.completed) * 100;
        let percent = hundredfold.checked_div(u128::from(self.expected))?;
        u64::try_from(percent).ok()
    }
}

/// How far a pull is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What Ollama was asked with, and what is before it may repeat in an error.
    credentials: Arc<Credentials>,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    last_line: Vec<u8>,
    layers: HashMap<String, Bytes>,
    succeeded: bool,
}

impl Progress {
    /// Of an Ollama that was asked with these.
    pub(super) fn new(credentials: Arc<Credentials>) -> Self {
        Self {
            credentials,
            ..Self::default()
        }
    }

    /// Takes the next bytes of the body. Gives whether they say anything new: a line that repeats the one before says
    /// only that Ollama lives, not that the pull does.
    ///
    /// # Errors
    /// Ollama reports a failure, or what it sends cannot be read; the body must then be dropped.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, PullError> {
        let mut news = false;
        while let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..newline])?;
            bytes = &bytes[newline + 1..];
            news |= self.read_line()?;
        }
        self.keep(bytes)?;
        Ok(news)
    }

    /// Whether Ollama has said that the model is there.
    pub(super) fn has_succeeded(&self) -> bool {
        self.succeeded
    }

    /// The sum over the layers that were told of.
    pub(super) fn bytes(&self) -> Bytes {
        let add = |sum: Bytes, layer: &Bytes| Bytes {
            completed: sum.completed.saturating_add(layer.completed),
            expected: sum.expected.saturating_add(layer.expected),
        };
        self.layers.values().fold(Bytes::default(), add)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        if self.partial.len() + bytes.len() > MAX_LINE {
            return Err(HttpError::TooLarge.into());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn read_line(&mut self) -> Result<bool, PullError> {
        let line = std::mem::take(&mut self.partial);
        if line.trim_ascii().is_empty() || line == self.last_line {
            return Ok(false);
        }
        let news = self.take(&String::from_utf8_lossy(&line))?;
        self.last_line = line;
        Ok(news)
    }

    fn take(&mut self, line: &str) -> Result<bool, PullError> {
        let names = ["status", "digest", "total", "completed", "error"];
        let Some([status, digest, total, completed, error]) = fields(line, names) else {
            let json = serde_json::from_str::<&RawValue>(line);
            return json
                .map(|_| false)
                .map_err(|_| HttpError::Unexpected.into());
        };
        if let Some(error) = error {
            return Err(PullError::said(words_of_error(error, &self.credentials)));
        }
        self.succeeded = status.and_then(text).is_some_and(|said| said == "success");
        let digest = digest.and_then(text).unwrap_or_default();
        if digest.is_empty() {
            return Ok(true);
        }
        if self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(&*digest) {
            return Err(HttpError::TooLarge.into());
        }
        // Ollama leaves out what is 0.
        let [expected, completed] = [total, completed].map(|n| n.and_then(count).unwrap_or(0));
        let layer = Bytes {
            completed: completed.min(expected),
            expected,
        };
        self.layers.insert(digest.into_owned(), layer);
        Ok(true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a real Ollama 0.17.4 sends, shortened.
    const STREAM: &str = concat!(
        r#"{"status":"pulling manifest"}"#,
        "\n",
        r#"{"status":"pulling dde5aa3fc5ff","digest":"sha256:dde5aa3fc5ff","total":2000}"#,
        "\n",
        r#"{"status":"pulling dde5aa3fc5ff","digest":"sha256:dde5aa3fc5ff","total":2000,"completed":500}"#,
        "\n",
        r#"{"status":"pulling dde5aa3fc5ff","digest":"sha256:dde5aa3fc5ff","total":2000,"completed":2000}"#,
        "\n",
        r#"{"status":"pulling 966de95ca8a6","digest":"sha256:966de95ca8a6","total":30,"completed":30}"#,
        "\n",
        r#"{"status":"verifying sha256 digest"}"#,
        "\n",
        r#"{"status":"writing manifest"}"#,
        "\n",
        r#"{"status":"success"}"#,
        "\n",
    );

    fn read(text: &str) -> Result<Progress, PullError> {
        let mut progress = Progress::default();
        progress.feed(text.as_bytes())?;
        Ok(progress)
    }

    #[test]
    fn the_bytes_of_all_layers_told_of_are_added_up() {
        let lines: Vec<_> = STREAM.lines().collect();
        let mut progress = Progress::default();
        let mut seen = Vec::new();
        for line in &lines {
            assert!(!progress.has_succeeded());
            assert!(progress.feed(format!("{line}\n").as_bytes()).unwrap());
            let bytes = progress.bytes();
            seen.push((bytes.completed, bytes.expected));
        }
        assert_eq!(
            seen[..5],
            [(0, 0), (0, 2000), (500, 2000), (2000, 2000), (2030, 2030)]
        );
        assert!(progress.has_succeeded());
    }

    #[test]
    fn a_line_that_says_the_same_again_is_no_news() {
        let line = b"{\"status\":\"x\",\"digest\":\"d\",\"total\":9,\"completed\":3}\n";
        let mut progress = Progress::default();
        assert!(progress.feed(line).unwrap());
        assert!(!progress.feed(line).unwrap());
        assert!(!progress.feed(b"\r\n\n").unwrap());
        assert!(progress.feed(b"{\"status\":\"y\"}\n").unwrap());
    }

    #[test]
    fn an_error_is_told_in_ollamas_words_cleaned() {
        let error = |line: &str| read(line).unwrap_err().to_string();
        assert_eq!(
            error("{\"error\":\"pull model manifest: file does not exist\"}\n"),
            "Ollama says: pull model manifest: file does not exist"
        );
        assert_eq!(
            error(
                "{\"error\":\"Get \\\"https://10.0.0.1/v2/x\\\": dial tcp 10.0.0.1:443: connect: refused\"}\n"
            ),
            "Ollama says: Get \"…\": dial tcp …: connect: refused"
        );
        assert_eq!(
            error("{\"error\":7}\n"),
            "Ollama says: an error without words"
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_never_fills_the_memory() {
        for line in ["<html>\n", "{\"total\":\n"] {
            let error = read(line).unwrap_err();
            assert!(matches!(error, PullError::Http(HttpError::Unexpected)));
        }
        let endless = "x".repeat(MAX_LINE + 1);
        let error = read(&endless).unwrap_err();
        assert!(matches!(error, PullError::Http(HttpError::TooLarge)));
        let layers: String = (0..=MAX_LAYERS)
            .map(|n| format!("{{\"digest\":\"{n}\",\"total\":1}}\n"))
            .collect();
        let error = read(&layers).unwrap_err();
        assert!(matches!(error, PullError::Http(HttpError::TooLarge)));
    }

    #[test]
    fn a_line_or_a_field_that_says_it_oddly_holds_no_pull_up() {
        let success = r#"{"status":"success"}"#;
        for (odd, bytes) in [
            (
                r#"{"digest":"d","total":100.0,"completed":50.0}"#,
                (50, 100),
            ),
            (r#"{"digest":"d","total":100,"completed":null}"#, (0, 100)),
            (r#"{"digest":"d","total":100,"completed":-1}"#, (0, 100)),
            (r#"{"digest":"d","total":"100","completed":50}"#, (0, 0)),
            (r#"{"digest":null,"total":100}"#, (0, 0)),
            (r#"{"status":null}"#, (0, 0)),
            (r#"{"status":7}"#, (0, 0)),
            (r#"{"status":"p\ud83d","x\ud83d":1}"#, (0, 0)),
            ("null", (0, 0)),
            ("[]", (0, 0)),
        ] {
            let progress = read(&format!("{odd}\n{success}\n")).unwrap();
            assert!(progress.has_succeeded(), "{odd}");
            let read = progress.bytes();
            assert_eq!((read.completed, read.expected), bytes, "{odd}");
        }
        let mut progress = Progress::default();
        let news = progress.feed(b"{\"status\":\"\xff\"}\nnull\n");
        assert!(news.is_ok());
    }

    #[test]
    fn sizes_that_nobody_has_on_disk_are_left_out() {
        let max = u64::MAX;
        let line = format!("{{\"digest\":\"a\",\"total\":{max},\"completed\":{max}}}\n");
        let bytes = read(&line).unwrap().bytes();
        assert_eq!((bytes, bytes.percent()), (Bytes::default(), None));
        assert_eq!(Bytes::all(max).percent(), Some(100));
    }

    proptest! {
        #[test]
        fn where_a_read_ends_makes_no_difference(mut cuts in prop::collection::vec(0..STREAM.len(), 0..24)) {
            cuts.sort_unstable();
            cuts.push(STREAM.len());
            let mut progress = Progress::default();
            let mut from = 0;
            for cut in cuts {
                progress.feed(&STREAM.as_bytes()[from..cut]).unwrap();
                from = cut;
            }
            prop_assert!(progress.has_succeeded());
            prop_assert_eq!(progress.bytes(), Bytes::all(2030));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..STREAM.len()) {
            let mut progress = Progress::default();
            for piece in [&STREAM.as_bytes()[..cut], &bytes, &STREAM.as_bytes()[cut..]] {
                let _ = progress.feed(piece);
            }
        }

        #[test]
        fn no_pull_that_breaks_off_has_succeeded(cut in 0..STREAM.len()) {
            let progress = read(&STREAM[..cut]);
            prop_assert!(!progress.unwrap().has_succeeded());
        }
    }
}
