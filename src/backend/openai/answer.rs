//! Reads the body of `/v1/chat/completions`: a stream of events, each a chunk of the answer; or one whole answer, from a server
//! that does not stream; or an error, whatever its status was.
//!
//! Invariants: where a read ends makes no difference. An error anywhere wins over what follows it. An answer is whole with a
//! `finish_reason` or `[DONE]`, and never without. Counts are the server's last ones, and never added up.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    backend::{
        Arrival, Completion, Decoder, Deltas, ResultContext,
        completion::{Answer, LINE_BEYOND, text_of, too_large, unreadable, unreadable_piece},
        error_text::{words_in, words_of_error},
        fields::fields,
        halves::text,
        object::{count, elements},
    },
    event_stream::{EventStream, Piece},
    protocol::{ChunkKind, Code, Failure},
    transport::Credentials,
};

use super::{
    calls::Calls,
    chunk::{Choice, Chunk, Counts, Delta},
    numbers::without_odd_numbers,
    result::complete,
};

/// What a call takes beside its id, its name and its arguments, in bytes.
const CALL_BYTES: usize = 96;

/// Decodes one answer of an OpenAI-compatible server.
#[derive(Default)]
pub(super) struct ChatDecoder {
    /// What the server was asked with, and may repeat in an error.
    credentials: Arc<Credentials>,
    form: Form,
    answer: Answer,
    calls: Calls,
    finish_reason: Option<String>,
    counts: Counts,
    /// Whether they are from `usage`, over which nothing else goes.
    has_usage: bool,
    /// Whether they came with the `finish_reason` or after it, and so are the last.
    are_counts_final: bool,
    /// Nothing follows that matters.
    is_done: bool,
}

/// What the body is.
#[derive(Default)]
enum Form {
    /// Nothing has come that tells.
    #[default]
    Unknown,
    Events(EventStream),
    /// Something that is no stream of events, as far as it has come.
    Whole(Vec<u8>),
}

impl Decoder for ChatDecoder {
    fn feed(&mut self, bytes: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        if let Form::Unknown = self.form {
            // A byte order mark tells nothing, nor does white space.
            let is_telling =
                |byte: &u8| !byte.is_ascii_whitespace() && !matches!(byte, 0xef | 0xbb | 0xbf);
            let Some(start) = bytes.iter().position(is_telling) else {
                return Ok(false);
            };
            self.form = Form::of(bytes[start], self.answer.limit);
            return self.feed(&bytes[start..], deltas);
        }
        match std::mem::take(&mut self.form) {
            Form::Unknown => Ok(false),
            Form::Events(events) => self.read_events(events, bytes, deltas),
            Form::Whole(mut whole) => {
                self.answer.check_line(whole.len() + bytes.len())?;
                whole.extend_from_slice(bytes);
                self.form = Form::Whole(whole);
                Ok(false)
            }
        }
    }

    fn so_far(&self) -> Deltas {
        self.answer.deltas()
    }

    fn limit(&mut self, max: usize) {
        self.answer.limit = Some(max);
    }

    fn arrival(&self) -> Arrival {
        match &self.finish_reason {
            _ if self.is_done => Arrival::Whole,
            Some(_) if self.are_counts_final => Arrival::Whole,
            Some(_) => Arrival::AllButCounts,
            None => Arrival::Partial,
        }
    }

    fn finish(
        mut self: Box<Self>,
        deltas: &mut Deltas,
        context: &ResultContext,
    ) -> Result<Completion, Failure> {
        match std::mem::take(&mut self.form) {
            Form::Unknown => {}
            Form::Events(mut events) => {
                if let Some(last) = events.unfinished()
                    && !self.is_done
                {
                    self.read_event(last, deltas)?;
                }
            }
            Form::Whole(whole) => self.read_whole(&whole, deltas)?,
        }
        if !self.is_done && self.finish_reason.is_none() {
            let sentence = "the answer ended before it was complete";
            return Err(Failure::new(Code::Backend, sentence));
        }
        self.answer.end_texts(deltas)?;
        self.answer.set_calls(&self.calls.to_json());
        let reason = self.finish_reason.as_deref();
        complete(&self.answer, reason, self.counts, context).ok_or_else(unreadable)
    }
}

impl Form {
    /// By the first byte that tells: no line of a stream of events begins like JSON or HTML.
    fn of(first: u8, limit: Option<usize>) -> Self {
        if matches!(first, b'{' | b'[' | b'<') {
            return Self::Whole(Vec::new());
        }
        let mut events = EventStream::default();
        if let Some(max) = limit {
            events.limit(max.saturating_add(LINE_BEYOND));
        }
        Self::Events(events)
    }
}

impl ChatDecoder {
    /// Of a server that was asked with these.
    pub(super) fn new(credentials: Arc<Credentials>) -> Self {
        Self {
            credentials,
            ..Self::default()
        }
    }

    fn read_events(
        &mut self,
        mut events: EventStream,
        mut bytes: &[u8],
        deltas: &mut Deltas,
    ) -> Result<bool, Failure> {
        let mut brought = false;
        while !self.is_done {
            match events.next(&mut bytes).map_err(|_| too_large())? {
                Some(Piece::Event(data)) => brought |= self.read_event(data, deltas)?,
                Some(Piece::Comment) => {}
                None => break,
            }
        }
        self.form = Form::Events(events);
        Ok(brought)
    }

    /// Reads one event; gives whether it has part of the answer.
    fn read_event(&mut self, data: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        match data.trim_ascii() {
            b"" => Ok(false),
            b"[DONE]" => {
                self.is_done = true;
                Ok(false)
            }
            data => {
                let chunk = text_of(data);
                // Behind an answer's end, what is cut off or cannot be read takes nothing from it.
                if self.finish_reason.is_some() && fields::<0>(&chunk, []).is_none() {
                    return Ok(false);
                }
                self.read_chunk(&chunk, deltas)
            }
        }
    }

    fn read_whole(&mut self, whole: &[u8], deltas: &mut Deltas) -> Result<(), Failure> {
        let text = text_of(whole);
        let choices = fields(&text, ["choices"]).and_then(|[choices]| choices);
        self.read_chunk(&text, deltas)?;
        if choices.is_none() {
            return Err(unreadable_piece(whole));
        }
        self.is_done = true;
        Ok(())
    }

    fn read_chunk(&mut self, json: &str, deltas: &mut Deltas) -> Result<bool, Failure> {
        let Some(chunk) = Chunk::read(json) else {
            return match without_odd_numbers(json) {
                Some(mended) => self.read_chunk(&mended, deltas),
                None => Err(unreadable_piece(json.as_bytes())),
            };
        };
        if let Some(error) = chunk.error.filter(|error| *error != r#""""#) {
            return Err(Failure::new(
                Code::Backend,
                words_of_error(error, &self.credentials),
            ));
        }
        if !chunk.has_choices()
            && let Some(words) = words_in(json, &self.credentials)
        {
            return Err(Failure::new(Code::Backend, words));
        }
        let mut brought = false;
        for choice in chunk.choices() {
            brought |= self.read_choice(&choice, deltas)?;
        }
        if let Some(counts) = chunk.usage.and_then(Counts::of_usage) {
            self.counts = counts;
            self.has_usage = true;
            self.are_counts_final |= self.finish_reason.is_some();
        } else if let Some(counts) = chunk.timings.and_then(Counts::of_timings)
            && !self.has_usage
        {
            self.counts = counts;
        }
        Ok(brought)
    }

    fn read_choice(&mut self, choice: &Choice<'_>, deltas: &mut Deltas) -> Result<bool, Failure> {
        if choice.index.is_some_and(is_of_another) {
            return Ok(false);
        }
        let logprobs = choice.logprobs.filter(is_list);
        let mut brought = self.answer.add_logprobs(logprobs)?;
        brought |= self.read_delta(&choice.delta, deltas)?;
        let reason = choice.finish_reason.and_then(text);
        if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
            if matches!(&*reason, "error" | "abort") {
                let sentence = format!("the model server gave the answer up ({reason})");
                return Err(Failure::new(Code::Backend, sentence));
            }
            self.finish_reason = Some(reason.into_owned());
        }
        Ok(brought)
    }

    fn read_delta(&mut self, delta: &Delta<'_>, deltas: &mut Deltas) -> Result<bool, Failure> {
        let says_something = |piece: &&str| piece.starts_with('"') && *piece != r#""""#;
        // Some servers write the same under both names.
        let thinking = delta.reasoning_content.filter(says_something);
        let thinking = thinking.or_else(|| delta.reasoning.filter(says_something));
        let mut brought = false;
        if let Some(piece) = thinking {
            brought |= self.answer.say(ChunkKind::Thinking, piece, deltas)?;
        }
        if let Some(piece) = delta.content.filter(is_text) {
            brought |= self.answer.say(ChunkKind::Content, piece, deltas)?;
        }
        for part in delta.content.and_then(elements).into_iter().flatten() {
            let text = fields(part, ["text"]).and_then(|[text]| text);
            if let Some(piece) = text.filter(is_text) {
                brought |= self.answer.say(ChunkKind::Content, piece, deltas)?;
            }
        }
        if let Some(calls) = delta.tool_calls.filter(is_list) {
            let before = self.calls.len();
            let bytes = self.calls.add(calls);
            let begun = self.calls.len() - before;
            self.answer.reserve(bytes + begun * CALL_BYTES)?;
            brought |= bytes > 0;
        }
        Ok(brought)
    }
}

/// Whether this is the index of an answer that was not asked for.
fn is_of_another(index: &str) -> bool {
    index.starts_with(|c: char| c.is_ascii_digit()) && count(index) != Some(0)
}

fn is_list(json: &&str) -> bool {
    json.starts_with('[')
}

fn is_text(json: &&str) -> bool {
    json.starts_with('"')
}
