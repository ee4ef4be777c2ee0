//! The body of an answer that is written while it is sent, to a client that may stop reading or go.
//!
//! Invariant: what is written before a [`Write::Flush`] has left for the client before what follows it.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::record::Request;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How many writes may wait for the connection, so that a client that stops reading stops the model.
const AHEAD: usize = 16;

/// One write of [`Writer::garbage`].
static GARBAGE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

pub(crate) enum Write {
    Bytes(Bytes),
    /// Send what there is before going on.
    Flush,
    /// Break the connection off.
    Cut,
}

/// The client is gone.
pub(crate) struct Gone;

pub(crate) fn body(request: Arc<Request>, pause: watch::Receiver<Option<usize>>) -> (Writer, Body) {
    let (writes, queue) = mpsc::channel(AHEAD);
    let frames = stream::unfold(queue, |mut queue| async {
        loop {
            match queue.recv().await? {
                Write::Bytes(bytes) => return Some((Ok(Frame::data(bytes)), queue)),
                // Hyper sends what it has whenever the body has nothing ready.
                Write::Flush => tokio::task::yield_now().await,
                Write::Cut => return Some((Err(io::ErrorKind::ConnectionAborted.into()), queue)),
            }
        }
    });
    let writer = Writer {
        writes,
        request,
        pause,
    };
    (writer, StreamBody::new(frames).boxed_unsync())
}

/// The end of a body that is written to.
pub(crate) struct Writer {
    writes: mpsc::Sender<Write>,
    request: Arc<Request>,
    pause: watch::Receiver<Option<usize>>,
}

impl Writer {
    pub(crate) async fn put(&self, write: Write) -> Result<(), Gone> {
        let permit = match self.writes.try_reserve() {
            Ok(permit) => permit,
            Err(_) => {
                let _stalled = self.request.stall();
                self.writes.reserve().await.map_err(|_| Gone)?
            }
        };
        permit.send(write);
        Ok(())
    }

    pub(crate) async fn write(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Ok(())
        } else {
            self.put(Write::Bytes(bytes)).await
        }
    }

    /// Each part leaves on its own.
    pub(crate) async fn write_parts(
        &self,
        parts: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), Gone> {
        for part in parts {
            self.write(part).await?;
            self.put(Write::Flush).await?;
        }
        Ok(())
    }

    pub(crate) async fn sleep_until(&self, when: Instant) -> Result<(), Gone> {
        tokio::select! {
            () = sleep_until(when) => Ok(()),
            () = self.writes.closed() => Err(Gone),
        }
    }

    /// Does nothing for so long.
    pub(crate) async fn rest(&self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        self.sleep_until(Instant::now() + time).await
    }

    /// So many bytes of one letter.
    pub(crate) async fn garbage(&self, bytes: u64) -> Result<(), Gone> {
        let mut left = bytes;
        while left > 0 {
            let size = usize::try_from(left).map_or(GARBAGE.len(), |left| left.min(GARBAGE.len()));
            self.write(Bytes::from_static(&GARBAGE).slice(..size))
                .await?;
            left -= size as u64;
        }
        Ok(())
    }

    /// Waits for the client to go.
    pub(crate) async fn closed(&self) -> Result<(), Gone> {
        self.writes.closed().await;
        Err(Gone)
    }

    /// Waits while an answer of so many tokens is to stop.
    pub(crate) async fn wait_while_paused(&self, tokens: usize) -> Result<(), Gone> {
        let mut pause = self.pause.clone();
        tokio::select! {
            // Fails only if the stand-in is gone.
            _ = pause.wait_for(|at| at.is_none_or(|at| tokens < at)) => Ok(()),
            () = self.writes.closed() => Err(Gone),
        }
    }
}
