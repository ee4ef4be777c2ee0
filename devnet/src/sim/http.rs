//! As much of HTTP/1.1 and HTTP/1.0 as a model server speaks, byte by byte, so that a fault can strike between any two of them.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wire::End;

/// A request that was read.
pub(super) struct Request {
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// Reads a request; `None` where the client has hung up instead.
pub(super) async fn read(end: &mut End) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break head;
        }
        if end.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let length: usize = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or_default();
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        if end.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some(Request { path, body }))
}

/// How a body says where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length or its chunks, as HTTP/1.1 has it.
    #[default]
    Told,
    /// The same, and yet the connection is closed behind each chat, as llama-server does.
    ToldAndClosed,
    /// It does not: it is over when the connection is, as in HTTP/1.0.
    UntilClose,
}

impl Framing {
    /// Answers with a whole body.
    pub(super) async fn whole(
        self,
        end: &mut End,
        status: u16,
        content_type: &str,
        body: &str,
    ) -> io::Result<()> {
        let length = match self {
            Self::Told | Self::ToldAndClosed => format!("Content-Length: {}\r\n", body.len()),
            Self::UntilClose => String::new(),
        };
        let version = self.version();
        let answer = format!(
            "HTTP/{version} {status} Whatever\r\nContent-Type: {content_type}\r\n{length}\r\n{body}"
        );
        end.write_all(answer.as_bytes()).await?;
        self.close(end).await
    }

    /// Begins an answer of unknown length.
    pub(super) async fn begin(self, end: &mut End, content_type: &str) -> io::Result<()> {
        let chunked = match self {
            Self::Told | Self::ToldAndClosed => "Transfer-Encoding: chunked\r\n",
            Self::UntilClose => "",
        };
        let version = self.version();
        let head =
            format!("HTTP/{version} 200 OK\r\nContent-Type: {content_type}\r\n{chunked}\r\n");
        end.write_all(head.as_bytes()).await
    }

    /// Goes on with it. What is empty would end it, and is left out.
    pub(super) async fn part(self, end: &mut End, part: &str) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let chunk = match self {
            Self::Told | Self::ToldAndClosed => format!("{:x}\r\n{part}\r\n", part.len()),
            Self::UntilClose => part.to_owned(),
        };
        end.write_all(chunk.as_bytes()).await
    }

    /// Ends it.
    pub(super) async fn finish(self, end: &mut End) -> io::Result<()> {
        if self != Self::UntilClose {
            end.write_all(b"0\r\n\r\n").await?;
        }
        self.close(end).await
    }

    /// Writes no more, where that is what ends an answer.
    async fn close(self, end: &mut End) -> io::Result<()> {
        match self {
            Self::Told | Self::ToldAndClosed => Ok(()),
            Self::UntilClose => end.shutdown().await,
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::Told | Self::ToldAndClosed => "1.1",
            Self::UntilClose => "1.0",
        }
    }
}

/// Waits until the client hangs up.
pub(super) async fn hung_up(end: &mut End) {
    let mut byte = [0];
    // Whatever a client sends over an answer that has not ended is no request.
    while end.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}
