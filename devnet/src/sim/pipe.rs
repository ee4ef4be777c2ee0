//! One direction of a connection: bytes under way, each with the moment at which it arrives.
//!
//! Invariant: what is read is what was written, in order, up to the end, the reset or the moment from which all is lost.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{io::ReadBuf, time::Instant};

/// How much may be under way in one direction: what the buffers of both sockets hold.
pub const BUFFER: u64 = 256 * 1024;

/// Longer reads are not cut into pieces, so that a large answer costs a few reads and not a million.
const SHORT: usize = 1024;

/// More than a handshake has, in bytes.
const HANDSHAKE: u64 = 512;

/// Called when a place has been read.
pub(super) type Mark = Box<dyn FnOnce(Instant) + Send>;

enum Segment {
    Data(Bytes),
    End,
    Reset,
}

/// What came of reading.
pub(super) enum Read {
    Done(io::Result<()>),
    /// Nothing is there before this moment, as far as is known now.
    Wait(Option<Instant>),
}

#[derive(Default)]
pub(super) struct Pipe {
    under_way: VecDeque<(Instant, Segment)>,
    written: u64,
    read: u64,
    last_due: Option<Instant>,
    /// When the bytes up to a place were written; kept until somebody asks.
    written_log: VecDeque<(u64, Instant)>,
    marks: VecDeque<(u64, Mark)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    blocked: Option<Instant>,
    began: Option<Instant>,
    finished: bool,
    lost: bool,
    reset: bool,
    /// The reader has let go; writing fails from this moment.
    abandoned: Option<Instant>,
}

impl Pipe {
    pub(super) fn read(
        &mut self,
        now: Instant,
        held: bool,
        pieces: Option<usize>,
        buf: &mut ReadBuf<'_>,
        cx: &Context<'_>,
    ) -> Read {
        if self.reset {
            return Read::Done(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut room = buf.remaining();
        let mut taken = 0;
        while room > 0 && !held {
            match self.under_way.front_mut() {
                Some((due, Segment::Data(bytes))) if *due <= now => {
                    // WebSocket libraries take a handshake that comes in crumbs for an attack.
                    let least = if self.read < HANDSHAKE { 32 } else { 1 };
                    let most = match pieces {
                        Some(most) if bytes.len() <= SHORT => most.max(least),
                        _ => bytes.len(),
                    };
                    let part = bytes.len().min(room).min(most);
                    buf.put_slice(&bytes[..part]);
                    bytes.advance(part);
                    let is_empty = bytes.is_empty();
                    taken += part;
                    room -= part;
                    if is_empty {
                        self.under_way.pop_front();
                    }
                    if pieces.is_some() {
                        break;
                    }
                }
                _ => break,
            }
        }
        if taken > 0 {
            self.read += taken as u64;
            wake(&mut self.writer);
            return Read::Done(Ok(()));
        }
        self.reader = Some(cx.waker().clone());
        match self.under_way.front() {
            Some((due, _)) if !held && *due > now => return Read::Wait(Some(*due)),
            Some((_, Segment::End)) if !held => return Read::Done(Ok(())),
            Some((_, Segment::Reset)) if !held => {
                self.reset();
                return Read::Done(Err(io::ErrorKind::ConnectionReset.into()));
            }
            _ => {}
        }
        Read::Wait(None)
    }

    pub(super) fn write(
        &mut self,
        now: Instant,
        due: Instant,
        rate: Option<u64>,
        buffer: u64,
        bytes: &[u8],
        cx: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.finished || self.abandoned.is_some_and(|from| from <= now) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = buffer.saturating_sub(self.under_way());
        let taken = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        if taken == 0 && self.abandoned.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if taken == 0 {
            self.blocked = Some(now);
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if taken < bytes.len() {
            self.blocked = Some(now);
        }
        let travel = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_micros(1_000_000 * taken as u64 / rate.max(1))
        });
        let bytes = Bytes::copy_from_slice(&bytes[..taken]);
        self.began.get_or_insert(now);
        self.written += taken as u64;
        self.written_log.push_back((self.written, now));
        self.push(due, travel, Segment::Data(bytes));
        Poll::Ready(Ok(taken))
    }

    /// Writes without asking whether there is room.
    pub(super) fn slip(&mut self, due: Instant, bytes: &[u8]) {
        if !self.finished {
            self.written += bytes.len() as u64;
            let bytes = Bytes::copy_from_slice(bytes);
            self.push(due, Duration::ZERO, Segment::Data(bytes));
        }
    }

    fn push(&mut self, due: Instant, travel: Duration, segment: Segment) {
        if self.lost || self.reset || self.abandoned.is_some() {
            return;
        }
        let due = self.last_due.map_or(due, |last| last.max(due)) + travel;
        self.last_due = Some(due);
        self.under_way.push_back((due, segment));
        wake(&mut self.reader);
    }

    /// There is room again for whoever waits for it.
    pub(super) fn make_room(&mut self) {
        wake(&mut self.writer);
    }

    /// The writer writes no more.
    pub(super) fn finish(&mut self, due: Instant) {
        if !std::mem::replace(&mut self.finished, true) {
            self.push(due, Duration::ZERO, Segment::End);
        }
    }

    /// The writer is gone. A socket that is closed over unread input resets its connection.
    pub(super) fn hang_up(&mut self, due: Instant, unread: bool) {
        if unread {
            self.push(due, Duration::ZERO, Segment::Reset);
            self.finished = true;
        } else {
            self.finish(due);
        }
    }

    /// The reader is gone. Tells whether it left something unread.
    pub(super) fn abandon(&mut self, from: Instant) -> bool {
        let unread = self
            .under_way
            .iter()
            .any(|(_, segment)| matches!(segment, Segment::Data(_)));
        self.abandoned.get_or_insert(from);
        self.under_way.clear();
        self.marks.clear();
        wake(&mut self.writer);
        unread
    }

    pub(super) fn reset(&mut self) {
        self.reset = true;
        self.under_way.clear();
        self.marks.clear();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// From now on nothing arrives. What was under way takes its room for ever, since nobody acknowledges it.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.under_way.clear();
        self.marks.clear();
    }

    /// What is slow arrives at `due` at the latest.
    pub(super) fn hasten(&mut self, due: Instant) {
        for (at, _) in &mut self.under_way {
            *at = (*at).min(due);
        }
        self.last_due = self.last_due.map(|last| last.min(due));
        wake(&mut self.reader);
    }

    /// What was held back arrives at `due` or later.
    pub(super) fn release(&mut self, due: Instant) {
        for (at, _) in &mut self.under_way {
            *at = (*at).max(due);
        }
        self.last_due = self.last_due.map(|last| last.max(due));
        wake(&mut self.reader);
    }

    /// Keeps `mark` until all that is written so far has been read; gives it back if that has happened.
    pub(super) fn mark(&mut self, mark: Mark) -> Option<Mark> {
        if self.read >= self.written {
            return Some(mark);
        }
        if !self.lost && !self.reset && self.abandoned.is_none() {
            self.marks.push_back((self.written, mark));
        }
        None
    }

    /// The marks whose places have been read.
    pub(super) fn reached(&mut self) -> Vec<Mark> {
        let mut reached = Vec::new();
        while self.marks.front().is_some_and(|(at, _)| *at <= self.read) {
            reached.extend(self.marks.pop_front().map(|(_, mark)| mark));
        }
        reached
    }

    pub(super) fn written_at(&mut self, place: u64) -> Option<Instant> {
        while self.written_log.len() > 1
            && self
                .written_log
                .front()
                .is_some_and(|(end, _)| *end < place)
        {
            self.written_log.pop_front();
        }
        self.written_log.front().map(|(_, at)| *at)
    }

    pub(super) fn blocked(&self) -> Option<Instant> {
        self.blocked
    }

    /// When the first byte was written.
    pub(super) fn began(&self) -> Option<Instant> {
        self.began
    }

    pub(super) fn read_so_far(&self) -> u64 {
        self.read
    }

    pub(super) fn written_so_far(&self) -> u64 {
        self.written
    }

    pub(super) fn under_way(&self) -> u64 {
        self.written - self.read
    }

    pub(super) fn is_over(&self) -> bool {
        self.reset || (self.finished && self.abandoned.is_some())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
