//! One end of a connection, as whoever reads and writes it sees it.
//!
//! Invariant: it knows no more of the connection than a socket does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    fate::Fate,
    pipe::{BUFFER, Read},
    wire::{Connection, Link, Side, Weather},
};
use crate::journal::lock;

/// How many reads of a hundred are cut short, where reads are.
const CUT_READS: u64 = 10;

/// One end of a connection. Dropping it closes the connection, as closing a socket does.
pub struct End {
    link: Link,
    number: u64,
    side: Side,
    alarm: Pin<Box<Sleep>>,
}

impl End {
    pub(super) fn new(link: &Link, number: u64, side: Side) -> Self {
        Self {
            link: link.clone(),
            number,
            side,
            alarm: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// Which connection of its link it is an end of: 1, 2, 3…
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The link that it is an end of.
    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Connection, &Weather, &mut Fate) -> T) -> T {
        let mut state = lock(&self.link.0);
        let state = &mut *state;
        let connection = state
            .connections
            .entry(self.number)
            .or_insert_with(Connection::new);
        act(connection, &state.weather, &mut state.fate)
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let now = Instant::now();
            let side = self.side;
            let (read, marks) = self.with(|connection, weather, fate| {
                let pieces = match weather.pieces {
                    Some(most) if fate.percent(CUT_READS) => {
                        usize::try_from(fate.within(1..=most as u64)).ok()
                    }
                    _ => None,
                };
                let pipe = connection.read_by(side);
                let read = pipe.read(now, weather.held, pieces, buf, cx);
                (read, pipe.reached())
            });
            marks.into_iter().for_each(|mark| mark(now));
            match read {
                Read::Done(done) => return Poll::Ready(done),
                Read::Wait(None) => return Poll::Pending,
                Read::Wait(Some(due)) => {
                    self.alarm.as_mut().reset(due);
                    if self.alarm.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let now = Instant::now();
        self.with(|connection, weather, fate| {
            let jitter = u64::try_from(weather.jitter.as_millis()).unwrap_or(u64::MAX);
            let is_stuck = weather.stuck && self.side == Side::Client;
            let buffer = if is_stuck { 0 } else { BUFFER };
            let due = now + weather.latency + fate.millis(0..=jitter);
            connection
                .written_by(self.side)
                .write(now, due, weather.rate, buffer, bytes, cx)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = Instant::now();
        self.with(|connection, weather, _| {
            connection
                .written_by(self.side)
                .finish(now + weather.latency);
        });
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let now = Instant::now();
        let side = self.side;
        self.with(|connection, weather, _| {
            let unread = connection.read_by(side).abandon(now + weather.latency);
            connection
                .written_by(side)
                .hang_up(now + weather.latency, unread);
            if side == Side::Client {
                connection.client_closed.get_or_insert(now);
            }
        });
        if side == Side::Client {
            let state = lock(&self.link.0);
            state.trace.say(format_args!(
                "{}: connection {} closed by the client",
                state.name, self.number
            ));
        }
    }
}
