//! Counts what a connection carries and remembers when it last heard something, which is how a dead link is told from
//! a quiet one: any received byte is a sign of life, also one in the middle of a long frame.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use prometheus::IntCounter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::Stream;
use crate::clock::millis;

/// What a connection has carried.
#[derive(Debug)]
pub struct Meter {
    since: Instant,
    last_received_ms: AtomicU64,
    received: IntCounter,
    sent: IntCounter,
}

impl Meter {
    /// A meter that adds bytes to these counters; its clock starts now.
    pub fn new(received: IntCounter, sent: IntCounter) -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            last_received_ms: AtomicU64::new(0),
            received,
            sent,
        })
    }

    /// When the last byte came, to the millisecond; the meter's start if none did.
    pub fn last_received(&self) -> Instant {
        self.since + Duration::from_millis(self.last_received_ms.load(Ordering::Relaxed))
    }

    fn note_received(&self, bytes: usize) {
        let now = millis(self.since.elapsed());
        self.last_received_ms.store(now, Ordering::Relaxed);
        self.received.inc_by(bytes as u64);
    }
}

/// A connection under a meter.
pub struct Metered {
    /// The connection.
    pub stream: Stream,
    /// What counts.
    pub meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            self.meter.note_received(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.meter.sent.inc_by(bytes as u64);
        Poll::Ready(Ok(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
