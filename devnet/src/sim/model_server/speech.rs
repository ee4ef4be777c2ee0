//! The speech server: what it says is its tokens one after the other, in place of audio.
//!
//! Invariant: it has one model and neither loads nor forgets it.

use std::io;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{
    super::{
        books::Opened,
        fate::Fate,
        http::{self, Framing},
        said::Kind,
        wire::End,
    },
    Asked, STALL, Shared,
    dialect::Page,
    plan::{Fault, Plan},
    rest, word_of,
};

/// Where it is asked to speak.
pub(super) const PATH: &str = "/v1/audio/speech";

/// The largest token of what is spoken, in bytes: its base64 is a third longer.
const LARGEST: usize = 5_000;

/// What it may say that it sends.
const CONTENT_TYPES: [&str; 4] = [
    "audio/mpeg",
    "audio/wav",
    "audio/ogg",
    "application/octet-stream",
];

impl Shared {
    pub(super) async fn speech(&self, end: &mut End, body: &Value) -> io::Result<()> {
        let id = word_of(&body["input"]);
        let opened = Opened {
            connection: end.number(),
            is_warm: true,
            is_limited: false,
        };
        let (ask, mut plan) = self.opened(&id, opened, None);
        plan.token_bytes = plan.token_bytes.min(LARGEST);
        let asked = Asked { id: &id, ask };
        let spoken = self.speak(end, asked, &plan).await;
        self.ended(asked, &plan, &spoken);
        spoken
    }

    async fn speak(&self, end: &mut End, asked: Asked<'_>, plan: &Plan) -> io::Result<()> {
        let Asked { id, ask } = asked;
        let mut fate = Fate::of(self.seed, id, ask + 1_000);
        rest(end, plan.first).await?;
        if let Fault::Refused | Fault::Error(_) = plan.fault {
            return self.fail(end, asked, &refusal(plan.fault, &mut fate)).await;
        }
        let tokens: Vec<_> = (0..plan.tokens)
            .map(|number| plan.token(id, ask, number))
            .collect();
        let length = tokens.iter().map(String::len).sum();
        let is_chunked = fate.percent(50);
        begin(
            end,
            fate.one_of(&CONTENT_TYPES),
            (!is_chunked).then_some(length),
        )
        .await?;
        for (number, token) in (0..).zip(&tokens) {
            // With its last byte it is whole, where its length was told.
            if number > 0 && plan.between > 0 {
                rest(end, fate.millis(0..=plan.between)).await?;
            }
            self.strike_speech(end, asked, plan.fault, number).await?;
            if is_chunked {
                Framing::Told.part(end, token).await?;
            } else {
                end.write_all(token.as_bytes()).await?;
            }
            self.said(end, asked, number, (Kind::Content, token));
        }
        if is_chunked {
            Framing::Told.finish(end).await?;
        }
        self.written(end, asked);
        Ok(())
    }

    /// Does what the fault does at this token. What lacks its end is cut off, however it ends.
    async fn strike_speech(
        &self,
        end: &mut End,
        Asked { id, ask }: Asked<'_>,
        fault: Fault,
        token: u64,
    ) -> io::Result<()> {
        match fault {
            Fault::Cut(at) | Fault::Unfinished(at) if at == token => {
                self.books.chat_failed(id, ask);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Fault::Hang(at) if at == token => {
                self.books.chat_hangs(id, ask);
                http::hung_up(end).await;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Fault::Stall(at) if at == token => rest(end, STALL).await,
            _ => Ok(()),
        }
    }
}

async fn begin(end: &mut End, content_type: &str, length: Option<usize>) -> io::Result<()> {
    let Some(length) = length else {
        return Framing::Told.begin(end, content_type).await;
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    end.write_all(head.as_bytes()).await
}

/// An error in place of audio: one that says so, or one that does not.
fn refusal(fault: Fault, fate: &mut Fate) -> Page {
    if fault == Fault::Refused {
        let status = fate.one_of(&[500, 502, 503]);
        return Page::json(status, &json!({"detail": "the voice is not loaded"}));
    }
    match fate.within(0..=2) {
        0 => Page::json(
            200,
            &json!({"error": {"message": "the voice is not loaded"}}),
        ),
        1 => Page {
            status: 200,
            content_type: "text/html",
            body: "<html><body>a user interface</body></html>".to_owned(),
        },
        _ => Page {
            status: 200,
            content_type: "audio/mpeg",
            body: String::new(),
        },
    }
}
