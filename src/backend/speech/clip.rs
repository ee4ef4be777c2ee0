//! The answer to a request for speech: a clip that is bounded while it is read, and what makes its result. Pure and
//! without a clock.
//!
//! Invariant: the audio is held once, in the base64 in which it leaves, and never more of it than the limit allows.

use std::sync::Arc;

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    format::{LOOKED_AT, content_type_of, is_page, named_by, of_bytes, of_content_type, what_else},
    request::SpeechRequest,
};
use crate::{
    backend::{error_text::words_in, fields::fields, server::MAX_ERROR_BODY},
    protocol::{Code, Failure},
    transport::Credentials,
};

/// The longest content type that is told to anybody, in bytes.
const LONGEST_CONTENT_TYPE: usize = 128;

/// What becomes of so many bytes is as many characters of base64 and a third more.
const GROUP: usize = 3;

/// A clip that is being read.
pub struct Clip {
    /// What the server was asked with, and may repeat in an error.
    credentials: Arc<Credentials>,
    /// As the answer says it, where it does.
    content_type: Option<String>,
    /// What it is instead, where its content type says that it is no clip.
    what_else: Option<&'static str>,
    /// How many characters of base64 there may be.
    max: usize,
    bytes: usize,
    beginning: Vec<u8>,
    base64: String,
    /// What does not fill a group of base64 yet.
    rest: Vec<u8>,
}

/// A `result`, its audio apart.
#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    voice: &'a str,
    format: &'a str,
    content_type: &'a str,
    bytes: usize,
}

impl Clip {
    /// An answer with this content type, of which nothing has been read. `announced`: its length in bytes, where that is
    /// known; `max`: the largest base64 to be kept, in bytes; `credentials`: what was asked with.
    ///
    /// # Errors
    /// `too_large`: it is announced as larger.
    pub(super) fn new(
        content_type: Option<&str>,
        announced: Option<usize>,
        max: usize,
        credentials: Arc<Credentials>,
    ) -> Result<Self, Failure> {
        let what_else = content_type.and_then(what_else);
        let mut base64 = String::new();
        if let Some(bytes) = announced.filter(|_| what_else.is_none()) {
            let needed = encoded_len(bytes);
            if needed > max {
                return Err(too_large());
            }
            base64.reserve_exact(needed.saturating_add(Self::HEAD));
        }
        let is_short = |content_type: &&str| content_type.len() <= LONGEST_CONTENT_TYPE;
        Ok(Self {
            credentials,
            content_type: content_type.filter(is_short).map(str::to_owned),
            what_else,
            max,
            bytes: 0,
            beginning: Vec::new(),
            base64,
            rest: Vec::new(),
        })
    }

    /// Room for what stands before and behind the audio, in bytes, so that it is rarely moved.
    const HEAD: usize = 512;

    /// Takes the next bytes of the answer.
    ///
    /// # Errors
    /// `too_large`: it is more than may be kept. `backend`: it is no clip, and more than an error text is worth.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len();
        if let Some(what) = self.what_else.filter(|_| self.bytes > MAX_ERROR_BODY) {
            return Err(no_audio(what));
        }
        if self.what_else.is_none() && encoded_len(self.bytes) > self.max {
            return Err(too_large());
        }
        self.make_room();
        let looked_at = bytes.len().min(LOOKED_AT - self.beginning.len());
        self.beginning.extend_from_slice(&bytes[..looked_at]);
        if !self.rest.is_empty() {
            let missing = bytes.len().min(GROUP - self.rest.len());
            self.rest.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.rest.len() < GROUP {
                return Ok(());
            }
            BASE64.encode_append(&self.rest, &mut self.base64);
            self.rest.clear();
        }
        let whole = bytes.len() - bytes.len() % GROUP;
        BASE64.encode_append(&bytes[..whole], &mut self.base64);
        self.rest.extend_from_slice(&bytes[whole..]);
        Ok(())
    }

    /// Room for what has come by now, which at most doubles: the audio is the largest thing that a job holds.
    fn make_room(&mut self) {
        let needed = encoded_len(self.bytes).saturating_add(Self::HEAD);
        let room = self.base64.capacity();
        if needed > room {
            let most = self.max.saturating_add(Self::HEAD);
            let wanted = room.saturating_mul(2).min(most).max(needed);
            self.base64.reserve_exact(wanted - self.base64.len());
        }
    }

    /// The result for this request, once the answer has been read to its end.
    ///
    /// # Errors
    /// `backend`: it is empty, or no clip.
    pub fn finish(mut self, request: &SpeechRequest) -> Result<Box<RawValue>, Failure> {
        BASE64.encode_append(&self.rest, &mut self.base64);
        self.check()?;
        let shown = self.content_type.as_deref().and_then(of_content_type);
        let format = shown.or_else(|| of_bytes(&self.beginning));
        let named = || self.content_type.as_deref().and_then(named_by);
        let format = format.or_else(named).unwrap_or(request.format());
        let head = Head {
            model: request.model(),
            voice: request.voice(),
            format,
            content_type: self
                .content_type
                .as_deref()
                .unwrap_or(content_type_of(format)),
            bytes: self.bytes,
        };
        // Texts and a number cannot fail to be written.
        let mut head = serde_json::to_string(&head).unwrap_or_default();
        head.pop();
        head.push_str(r#","audio_b64":""#);
        let mut result = self.base64;
        result.insert_str(0, &head);
        result.push_str("\"}");
        RawValue::from_string(result)
            .map_err(|_| Failure::new(Code::Internal, "the result cannot be written"))
    }

    /// Refuses what is no clip, with the server's own words where it has any.
    fn check(&self) -> Result<(), Failure> {
        if self.bytes == 0 {
            return Err(Failure::new(Code::Backend, "the answer is empty"));
        }
        let is_page = is_page(&self.beginning);
        let what_else = self.what_else.or(is_page.then_some("HTML"));
        let may_be_json = self.beginning.trim_ascii_start().first() == Some(&b'{');
        if (what_else.is_none() && !may_be_json) || self.bytes > MAX_ERROR_BODY {
            return what_else.map_or(Ok(()), |what| Err(no_audio(what)));
        }
        // It is short, and was encoded just now.
        let body = BASE64.decode(self.base64.as_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let is_json = fields::<0>(&body, []).is_some();
        match what_else.or(is_json.then_some("JSON")) {
            Some(what) => Err(words_in(&body, &self.credentials).map_or_else(
                || no_audio(what),
                |words| Failure::new(Code::Backend, words),
            )),
            None => Ok(()),
        }
    }
}

/// How long so many bytes are in base64; more than any limit where that is beyond counting.
fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(GROUP).saturating_mul(4)
}

fn too_large() -> Failure {
    let sentence = "the audio is larger than PIN_MAX_RESULT_BYTES in base64";
    Failure::new(Code::TooLarge, sentence)
}

fn no_audio(what: &str) -> Failure {
    let sentence = format!("the speech server answered with {what} and no audio");
    Failure::new(Code::Backend, sentence)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const MAX: usize = 1 << 20;

    fn request(payload: &str) -> SpeechRequest {
        SpeechRequest::read(payload).unwrap()
    }

    fn read(content_type: Option<&str>, pieces: &[&[u8]]) -> Result<Value, String> {
        let request = request(r#"{"model":"tts:Kokoro","input":"x","response_format":"flac"}"#);
        let read = || {
            let mut clip = Clip::new(content_type, None, MAX, Arc::default())?;
            pieces.iter().try_for_each(|piece| clip.feed(piece))?;
            clip.finish(&request)
        };
        let result = read().map_err(|failure| failure.text())?;
        Ok(serde_json::from_str(result.get()).unwrap())
    }

    #[test]
    fn a_result_says_what_was_asked_for_what_came_and_how_much() {
        let request = request(r#"{"model":"tts:Kokoro","input":"x","voice":"a\"f"}"#);
        let mut clip =
            Clip::new(Some("audio/pcm;rate=24000"), Some(4), MAX, Arc::default()).unwrap();
        clip.feed(b"\x01\x02\x03\x04").unwrap();
        assert_eq!(
            clip.finish(&request).unwrap().get(),
            r#"{"model":"tts:Kokoro","voice":"a\"f","format":"pcm","content_type":"audio/pcm;rate=24000","bytes":4,"audio_b64":"AQIDBA=="}"#
        );
    }

    #[test]
    fn the_format_is_the_content_types_else_the_first_bytes_else_the_one_asked_for() {
        let long = format!("audio/wav; x={}", "y".repeat(LONGEST_CONTENT_TYPE));
        for (content_type, bytes, format, shown) in [
            (Some("audio/mpeg"), "RIFF", "mp3", "audio/mpeg"),
            (
                Some("application/octet-stream"),
                "RIFF",
                "wav",
                "application/octet-stream",
            ),
            (None, "OggS", "opus", "audio/ogg"),
            (None, "\u{1}\u{2}", "flac", "audio/flac"),
            (Some(&*long), "\u{1}\u{2}", "flac", "audio/flac"),
        ] {
            let result = read(content_type, &[bytes.as_bytes()]).unwrap();
            assert_eq!(
                (&result["format"], &result["content_type"]),
                (&format.into(), &shown.into())
            );
            assert_eq!(result["voice"], "default");
        }
    }

    #[test]
    fn what_is_no_audio_is_a_failure_in_the_servers_own_words_where_it_has_any() {
        let none = |what| format!("backend: the speech server answered with {what} and no audio");
        for (content_type, body, told) in [
            (
                Some("audio/wav"),
                "",
                "backend: the answer is empty".to_owned(),
            ),
            (
                Some("application/json"),
                "",
                "backend: the answer is empty".to_owned(),
            ),
            (Some("text/html"), "<html>", none("HTML")),
            (Some("audio/mpeg"), "\n<!DOCTYPE html>", none("HTML")),
            (None, "<html>", none("HTML")),
            (Some("text/plain"), "no", none("text")),
            (
                Some("text/event-stream"),
                "data: {}\n\n",
                none("an event stream"),
            ),
            (Some("application/json"), r#"{"ok":true}"#, none("JSON")),
            (
                Some("application/json"),
                r#"{"error":{"message":"no voice"}}"#,
                "backend: no voice".to_owned(),
            ),
            (
                Some("audio/wav"),
                r#" {"error":"Unexpected endpoint"}"#,
                "backend: Unexpected endpoint".to_owned(),
            ),
            (
                None,
                r#"{"detail":{"error":{"message":"busy"}}}"#,
                "backend: busy".to_owned(),
            ),
        ] {
            assert_eq!(
                read(content_type, &[body.as_bytes()]).unwrap_err(),
                told,
                "{body}"
            );
        }
        let page = [&b"<html>"[..], &[b'x'; MAX_ERROR_BODY]].concat();
        assert_eq!(read(Some("text/html"), &[&page]).unwrap_err(), none("HTML"));
        assert_eq!(read(None, &[&page]).unwrap_err(), none("HTML"));
    }

    #[test]
    fn samples_that_begin_like_json_are_audio() {
        let result = read(Some("audio/pcm"), &[b"{\"\x01\x80"]).unwrap();
        assert_eq!(result["audio_b64"], "eyIBgA==");
    }

    #[test]
    fn more_than_fits_in_base64_is_given_up_while_it_is_read_or_before() {
        let told = "too_large: the audio is larger than PIN_MAX_RESULT_BYTES in base64";
        let clip = |announced, max| Clip::new(Some("audio/wav"), announced, max, Arc::default());
        assert_eq!(clip(Some(7), 8).err().unwrap().text(), told);
        assert_eq!(clip(Some(usize::MAX), 8).err().unwrap().text(), told);
        assert!(clip(Some(6), 8).is_ok());
        let mut clip = clip(None, 8).unwrap();
        clip.feed(b"123456").unwrap();
        assert_eq!(clip.feed(b"7").unwrap_err().text(), told);
    }

    proptest! {
        #[test]
        fn audio_is_the_same_however_it_is_cut(
            audio in prop::collection::vec(any::<u8>(), 1..200), cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(audio.len())).collect();
            cuts.extend([0, audio.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &audio[cut[0]..cut[1]]).collect();
            let result = read(Some("audio/ogg"), &pieces);
            // Text of a page or an error is none, and random bytes are neither.
            let result = result.unwrap();
            let base64 = result["audio_b64"].as_str().unwrap();
            prop_assert_eq!(BASE64.decode(base64.as_bytes()).unwrap(), &audio[..]);
            prop_assert_eq!(&result["bytes"], audio.len());
        }
    }
}
