//! A stream that keeps Pongs and Closes to itself where the policy wants that: the WebSocket library answers Pings and
//! Closes on its own and cannot be told not to.
//!
//! Invariant: a frame leaves whole or not at all, whatever the policy turns into while it is being written.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{hub::Hub, upgrade::Stream};

const CLOSE: u8 = 0x8;
const PONG: u8 = 0xA;

/// A stream whose writer speaks WebSocket, once it is [open](Muffled::gate), as a server: frames without masks.
pub(super) struct Muffled {
    inner: Box<dyn Stream>,
    hub: Arc<Hub>,
    open: Arc<AtomicBool>,
    /// Bytes of the frame that has been begun and not been finished.
    left: usize,
    /// Whether that frame is thrown away.
    kept: bool,
}

impl Muffled {
    pub(super) fn new(inner: Box<dyn Stream>, hub: Arc<Hub>) -> Self {
        Self {
            inner,
            hub,
            open: Arc::default(),
            left: 0,
            kept: false,
        }
    }

    /// Is to be set when the HTTP of the upgrade is over and frames begin.
    pub(super) fn gate(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.open)
    }

    /// `written` begins with a whole head: the library writes out of a buffer of whole frames.
    fn begin(&mut self, written: &[u8]) {
        let opcode = written[0] & 0x0F;
        let policy = self.hub.policy.borrow();
        self.kept =
            opcode == PONG && !policy.answer_pings || opcode == CLOSE && !policy.answer_closes;
        self.left = frame_length(written);
    }
}

/// Of a frame without a mask, its head included.
fn frame_length(frame: &[u8]) -> usize {
    let wide = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    match frame[1] & 0x7F {
        126 => 4 + wide(&frame[2..4]),
        127 => 10 + wide(&frame[2..10]),
        short => 2 + usize::from(short),
    }
}

impl AsyncWrite for Muffled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        written: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.open.load(Ordering::Relaxed) || written.is_empty() {
            return Pin::new(&mut self.inner).poll_write(cx, written);
        }
        if self.left == 0 {
            self.begin(written);
        }
        let part = &written[..self.left.min(written.len())];
        let taken = if self.kept {
            part.len()
        } else {
            ready!(Pin::new(&mut self.inner).poll_write(cx, part))?
        };
        self.left -= taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl AsyncRead for Muffled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_frame_is_read_in_each_of_its_three_ways() {
        assert_eq!(frame_length(&[0x8A, 0]), 2);
        assert_eq!(frame_length(&[0x81, 125]), 127);
        assert_eq!(frame_length(&[0x81, 126, 1, 0]), 260);
        assert_eq!(frame_length(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]), 65_546);
    }
}
