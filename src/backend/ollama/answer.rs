//! Reads the body of `/api/chat`: one JSON object per line, the last one with `"done":true`.
//!
//! Invariant: where a read ends makes no difference, and work is linear in the body: a line that lies within one read
//! is parsed where it lies, and of the others every byte is looked at for a newline once. How large a body may be is
//! for the one who reads it to say.

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    backend::{
        Completion, Decoder, Deltas, ResultContext,
        completion::{Answer, unreadable},
        error_text::words_of_error,
        halves::{Half, without_halves},
        object::{Object, string},
    },
    protocol::{ChunkKind, Code, Failure},
};

use super::result::complete;

/// Decodes one answer of Ollama.
#[derive(Default)]
pub(super) struct ChatDecoder {
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    answer: Answer,
    /// How large its lines and texts were, in bytes.
    read: usize,
    half_of_thinking: Half,
    half_of_content: Half,
    /// The line with `"done":true`. What comes after it is ignored.
    last: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    done: Option<bool>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

impl Decoder for ChatDecoder {
    fn feed(&mut self, mut bytes: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        let mut brought = false;
        while self.last.is_none() {
            let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') else {
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

    fn size(&self) -> usize {
        let last = self.last.as_ref().map_or(0, String::len);
        let lists = self.answer.tool_calls.len() + self.answer.logprobs.len();
        self.partial.len() + self.read + lists + last
    }

    fn shed(&mut self) {
        self.answer.shed();
    }

    fn is_complete(&self) -> bool {
        self.last.is_some()
    }

    fn finish(
        mut self: Box<Self>,
        deltas: &mut Deltas,
        context: &ResultContext,
    ) -> Result<Completion, Failure> {
        if self.last.is_none() {
            self.read_line_end(&[], deltas)?;
        }
        let (thinking, content) = (self.half_of_thinking.end(), self.half_of_content.end());
        self.answer.say(ChunkKind::Thinking, thinking, deltas);
        self.answer.say(ChunkKind::Content, content, deltas);
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
    /// Takes the end of a line, of which earlier reads may have brought the beginning; gives whether it has part of the answer.
    fn read_line_end(&mut self, end: &[u8], deltas: &mut Deltas) -> Result<bool, Failure> {
        self.read += 1;
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
        let text = std::str::from_utf8(line).map_err(|_| unreadable())?;
        if text.trim_ascii().is_empty() {
            return Ok(false);
        }
        let line: Line<'_> = serde_json::from_str(text).map_err(|_| unreadable())?;
        if let Some(error) = line.error.filter(|error| error.get() != r#""""#) {
            return Err(Failure::new(Code::Backend, words_of_error(error)));
        }
        let brought = self.add(&line, deltas)?;
        if line.done == Some(true) {
            self.last = Some(without_halves(text).into_owned());
        }
        Ok(brought)
    }

    fn add(&mut self, line: &Line<'_>, deltas: &mut Deltas) -> Result<bool, Failure> {
        let answer = &mut self.answer;
        let mut brought = answer.add_logprobs(line.logprobs)?;
        let Some(message) = &line.message else {
            return Ok(brought);
        };
        for (kind, half, piece) in [
            (
                ChunkKind::Thinking,
                &mut self.half_of_thinking,
                message.thinking,
            ),
            (
                ChunkKind::Content,
                &mut self.half_of_content,
                message.content,
            ),
        ] {
            if let Some(piece) = piece {
                let text = half.join(piece.get()).ok_or_else(unreadable)?;
                answer.say(kind, &text, deltas);
                self.read += piece.get().len();
                brought |= piece.get() != r#""""#;
            }
        }
        Ok(answer.tool_calls.push(message.tool_calls)? | brought)
    }
}

/// Whether this is how Ollama ends a request that has no messages for it.
fn only_loads(last: &str) -> bool {
    let last = Object::parse(last.trim()).unwrap_or_default();
    let reason = last.given("done_reason").and_then(string);
    matches!(reason.as_deref(), Some("load" | "unload"))
}
