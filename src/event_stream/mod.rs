//! Reads event streams (`text/event-stream`, WHATWG HTML, "Server-sent events"), as model servers and the gateway send
//! them: bytes in, the data of events out. Pure, without I/O or a clock.
//!
//! Invariant: where a read ends makes no difference, no byte is searched twice, and memory is bounded by the limit
//! whatever comes. Nothing is kept but data: a line's name is recognized while it is read, and what is not data is
//! skipped at once.

#[cfg(test)]
mod tests;

use std::mem;

use memchr::memchr2;
use thiserror::Error;

/// What may stand once at a stream's beginning.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The name of the only lines that are kept, with the colon that ends it.
const DATA: &[u8; 5] = b"data:";

/// Bytes that stay allocated for the next event. Most events are smaller; a stream may live for weeks after a large one.
const KEPT: usize = 64 * 1024;

/// An event is larger than the limit. The rest of the stream cannot be read: drop it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("an event that is larger than its limit")]
pub(crate) struct TooLarge;

/// What a read has brought.
pub(crate) enum Piece<'a> {
    /// The data of an event, its lines joined with LF. As bytes: whether they are UTF-8 is the reader's affair.
    Event(&'a [u8]),
    /// A comment: the other end is alive.
    Comment,
}

/// How far a line is.
#[derive(Clone, Copy)]
enum Line {
    /// The stream's first. As many bytes of the byte order mark have come, and nothing else.
    First(usize),
    /// As many bytes of `data:` have come, and nothing else.
    Name(usize),
    /// All of `data:` has come. One space that follows is not data.
    Colon,
    /// What follows is data.
    Data,
    /// It begins with a colon.
    Comment,
    /// Any other field. As many bytes of it are not counted yet.
    Other(usize),
}

/// What a part of a line adds.
enum Part<'b> {
    Data(&'b [u8]),
    Comment,
    /// Bytes of another field.
    Other(usize),
    /// A line without anything, which ends an event.
    Blank,
    /// The beginning of a line that may yet become any of these.
    Nothing,
}

/// Reads one stream. Without a limit until [`EventStream::limit`] sets one.
pub(crate) struct EventStream {
    max: usize,
    line: Line,
    /// The last byte was CR: an LF belongs to it.
    after_cr: bool,
    /// The data of the event so far, each whole line with an LF.
    data: Vec<u8>,
    /// The event was given to the reader; its data has no further use.
    given: bool,
    /// What counts towards the limit.
    size: usize,
    #[cfg(test)]
    searched: usize,
}

impl Default for EventStream {
    fn default() -> Self {
        Self {
            max: usize::MAX,
            line: Line::First(0),
            after_cr: false,
            data: Vec::new(),
            given: false,
            size: 0,
            #[cfg(test)]
            searched: 0,
        }
    }
}

impl EventStream {
    /// Sets how many bytes one event may have, also one whose end has not come: of a line of data what follows its
    /// name, of any other field all of it, and one for each line's end. Comments do not count. They are no part of an
    /// event, cost no memory, and may be all that comes for minutes.
    pub(crate) fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// The next piece that `bytes` bring; takes from their front what it has read. `None`: all of them are read.
    ///
    /// # Errors
    /// The event is too large; so is each call from then on.
    pub(crate) fn next<'a, 'b: 'a>(
        &'a mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Piece<'a>>, TooLarge> {
        self.forget_given();
        self.count(0)?;
        // The event's only line of data, while all of it lies within this read.
        let mut whole = None;
        while let Some((part, ended)) = self.cut(bytes) {
            match self.line.read(part, ended) {
                Part::Data(value) => {
                    self.count(value.len().saturating_add(usize::from(ended)))?;
                    if ended && whole.is_none() && self.data.is_empty() {
                        whole = Some(value);
                    } else {
                        self.keep_line(whole.take());
                        self.keep(value, ended);
                    }
                }
                Part::Blank => {
                    self.size = 0;
                    if let Some(value) = whole {
                        return Ok(Some(Piece::Event(value)));
                    }
                    if self.give() {
                        return Ok(Some(Piece::Event(&self.data)));
                    }
                }
                Part::Comment => {
                    self.keep_line(whole);
                    return Ok(Some(Piece::Comment));
                }
                Part::Other(len) => self.count(len.saturating_add(usize::from(ended)))?,
                Part::Nothing => {}
            }
        }
        self.keep_line(whole);
        Ok(None)
    }

    /// What is left of an event when the stream has ended without a blank line, if anything, its last line as far as it
    /// came: servers that end by closing leave one. A reader that follows the standard does not ask.
    pub(crate) fn unfinished(&mut self) -> Option<&[u8]> {
        self.forget_given();
        let in_data = matches!(self.line.read(&[], true), Part::Data(_));
        if in_data {
            self.keep(&[], true);
        }
        self.give().then_some(&self.data)
    }

    /// The next line, or what has come of it, and whether it ends there; `None` if there are no bytes.
    fn cut<'b>(&mut self, bytes: &mut &'b [u8]) -> Option<(&'b [u8], bool)> {
        let first = *bytes.first()?;
        if mem::take(&mut self.after_cr) && first == b'\n' {
            *bytes = &bytes[1..];
            if bytes.is_empty() {
                return None;
            }
        }
        let end = memchr2(b'\n', b'\r', bytes);
        #[cfg(test)]
        {
            self.searched += end.map_or(bytes.len(), |end| end + 1);
        }
        let Some(end) = end else {
            return Some((mem::take(bytes), false));
        };
        let line = &bytes[..end];
        self.after_cr = bytes[end] == b'\r';
        *bytes = &bytes[end + 1..];
        Some((line, true))
    }

    fn count(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.size = self.size.saturating_add(bytes);
        if self.size > self.max {
            return Err(TooLarge);
        }
        Ok(())
    }

    /// Copies data that the bytes of this read cannot be asked for later.
    fn keep(&mut self, value: &[u8], ended: bool) {
        self.data.extend_from_slice(value);
        if ended {
            self.data.push(b'\n');
        }
    }

    fn keep_line(&mut self, line: Option<&[u8]>) {
        if let Some(value) = line {
            self.keep(value, true);
        }
    }

    /// Makes what was kept an event, without the LF of its last line. Gives whether there was any data: an event without
    /// is none.
    fn give(&mut self) -> bool {
        self.given = self.data.pop().is_some();
        self.given
    }

    fn forget_given(&mut self) {
        if mem::take(&mut self.given) {
            self.data.clear();
            self.data.shrink_to(KEPT);
        }
    }
}

impl Line {
    /// Reads the next bytes of the line, up to its end if it ends with them.
    fn read<'b>(&mut self, bytes: &'b [u8], ended: bool) -> Part<'b> {
        let value = self.skip_name(bytes);
        let line = *self;
        if ended {
            *self = Self::Name(0);
        } else if let Self::Other(uncounted) = self {
            *uncounted = 0;
        }
        match line {
            Self::First(0) | Self::Name(0) if ended => Part::Blank,
            // Without a colon, a line is a name with an empty value.
            Self::Name(4) if ended => Part::Data(&[]),
            Self::First(n) | Self::Name(n) if ended => Part::Other(n),
            Self::First(_) | Self::Name(_) => Part::Nothing,
            Self::Colon | Self::Data => Part::Data(value),
            Self::Comment if ended => Part::Comment,
            Self::Comment => Part::Nothing,
            Self::Other(n) => Part::Other(value.len().saturating_add(n)),
        }
    }

    /// Reads as much of the name as there is. Gives what follows it.
    fn skip_name<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let Some((byte, rest)) = bytes.split_first() {
            *self = match *self {
                Self::First(n) if *byte == BYTE_ORDER_MARK[n] => match n {
                    2 => Self::Name(0),
                    _ => Self::First(n + 1),
                },
                Self::First(0) => {
                    *self = Self::Name(0);
                    continue;
                }
                Self::Name(0) if *byte == b':' => Self::Comment,
                Self::Name(4) if *byte == DATA[4] => Self::Colon,
                Self::Name(n) if *byte == DATA[n] => Self::Name(n + 1),
                Self::First(n) | Self::Name(n) => {
                    *self = Self::Other(n);
                    return bytes;
                }
                Self::Colon if *byte == b' ' => Self::Data,
                Self::Colon => {
                    *self = Self::Data;
                    return bytes;
                }
                Self::Data | Self::Comment | Self::Other(_) => return bytes,
            };
            bytes = rest;
        }
        bytes
    }
}
