//! Reads the body of `/api/chat`: one JSON object per line, the last one with `"done":true`.
//!
//! Invariant: where a read ends makes no difference, and work is linear in the body: a line that lies within one read
//! is parsed where it lies, and of the others every byte is looked at for a newline once. What is kept, and what counts as
//! the answer's size, is what the lines add up to, and not the lines.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    backend::{
        Arrival, Completion, Decoder, Deltas, ResultContext,
        completion::{Answer, text_of, unreadable, unreadable_piece},
        error_text::words_of_error,
        fields::deep_fields,
        halves::without_halves,
        object::{Object, Value, string},
    },
    protocol::{ChunkKind, Code, Failure},
    transport::Credentials,
};

use super::result::complete;

/// Decodes one answer of Ollama.
#[derive(Default)]
pub(super) struct ChatDecoder {
    /// What the server was asked with, and may repeat in an error.
    credentials: Arc<Credentials>,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    answer: Answer,
    /// What the line with `"done":true` has beside that. What comes after it is ignored.
    last: Option<String>,
}

impl Decoder for ChatDecoder {
    fn feed(&mut self, mut bytes: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        let mut brought = false;
        while self.last.is_none() {
            let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.answer.check_line(self.partial.len() + bytes.len())?;
                self.partial.extend_from_slice(bytes);
                break;
            };
            brought |= self.read_line_end(&bytes[..newline], deltas)?;
            bytes = &bytes[newline + 1..];
        }
        Ok(brought)
    }

    fn so_far(&self) -> Deltas {
        self.answer.deltas()
    }

    fn limit(&mut self, max: usize) {
        self.answer.limit = Some(max);
    }

    fn arrival(&self) -> Arrival {
        match self.last {
            Some(_) => Arrival::Whole,
            None => Arrival::Partial,
        }
    }

    fn finish(
        mut self: Box<Self>,
        deltas: &mut Deltas,
        context: &ResultContext,
    ) -> Result<Completion, Failure> {
        if self.last.is_none() {
            self.read_line_end(&[], deltas)?;
        }
        self.answer.end_texts(deltas)?;
        let Some(last) = self.last else {
            return Err(Failure::new(
                Code::Backend,
                "the answer ended before it was complete",
            ));
        };
        if self.answer.says_nothing() && only_loads(&last) {
            let sentence = "the model was only loaded or unloaded: nothing was generated";
            return Err(Failure::new(Code::Backend, sentence));
        }
        complete(&self.answer, &last, context).ok_or_else(unreadable)
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

    /// Takes the end of a line, of which earlier reads may have brought the beginning; gives whether it has part of the answer.
    fn read_line_end(&mut self, end: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        if self.partial.is_empty() {
            return self.read_line(end, deltas);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.extend_from_slice(end);
        let brought = self.read_line(&line, deltas)?;
        line.clear();
        self.partial = line;
        Ok(brought)
    }

    fn read_line(&mut self, line: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        let text = text_of(line);
        if text.trim_ascii().is_empty() {
            return Ok(false);
        }
        let paths: [&[&str]; 6] = [
            &["error"],
            &["done"],
            &["logprobs"],
            &["message", "thinking"],
            &["message", "content"],
            &["message", "tool_calls"],
        ];
        let [error, done, logprobs, thinking, content, calls] =
            deep_fields(&text, paths).ok_or_else(|| unreadable_piece(line))?;
        if let Some(error) = error.filter(|error| *error != r#""""#) {
            return Err(Failure::new(
                Code::Backend,
                words_of_error(error, &self.credentials),
            ));
        }
        let mut brought = self.answer.add_logprobs(logprobs)?;
        brought |= self.answer.add_calls(calls)?;
        for (kind, piece) in [
            (ChunkKind::Thinking, thinking),
            (ChunkKind::Content, content),
        ] {
            if let Some(piece) = piece {
                brought |= self.answer.say(kind, piece, deltas)?;
            }
        }
        if done == Some("true") {
            let text = without_halves(&text);
            let last = if brought {
                beside_the_answer(&text).ok_or_else(unreadable)?
            } else {
                text.into_owned()
            };
            self.answer.make_room(last.len())?;
            self.last = Some(last);
        }
        Ok(brought)
    }
}

/// The last line less what was taken from it as from every other: its place is kept.
fn beside_the_answer(last: &str) -> Option<String> {
    let mut last = Object::parse(last.trim()).ok()?;
    empty(&mut last, &[("logprobs", "[]")]);
    if let Some(message) = last.given("message") {
        let mut message = Object::parse(message).ok()?;
        let text = r#""""#;
        empty(
            &mut message,
            &[("content", text), ("thinking", text), ("tool_calls", "[]")],
        );
        last.set("message", Value::Object(message));
    }
    let mut json = String::new();
    last.write(&mut json);
    Some(json)
}

/// Empties those of the fields that are there.
fn empty(object: &mut Object<'_>, fields: &[(&'static str, &'static str)]) {
    for (name, nothing) in fields {
        if object.has(name) {
            object.set(name, Value::Raw(nothing));
        }
    }
}

/// Whether this is how Ollama ends a request that has no messages for it.
fn only_loads(last: &str) -> bool {
    let last = Object::parse(last.trim()).unwrap_or_default();
    let reason = last.given("done_reason").and_then(string);
    matches!(reason.as_deref(), Some("load" | "unload"))
}
