//! The login: a fresh signature, and the gateway's yes or no.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    config::Identity,
    label::Label,
    protocol::{AgentMessage, FromGateway, ToGateway, sign},
    telemetry::Metrics,
    transport::{Item, LinkEnd, Received, Receiver, Sender},
};

/// No session, though the link was there.
#[derive(Debug)]
pub(super) enum LoginError {
    /// The gateway said no: a human must act.
    Refused(String),
    /// The link ended first.
    Ended(LinkEnd),
    /// The gateway closed the link without a word.
    Closed(u16),
    /// It did not answer in time.
    TimedOut,
}

pub(super) struct Login<'a> {
    pub(super) identity: &'a Identity,
    pub(super) secret: &'a SecretString,
    pub(super) unix_seconds: u64,
    pub(super) limit: Duration,
    pub(super) metrics: &'a Metrics,
}

impl Login<'_> {
    /// Logs in. Gives the node's id where the gateway tells it.
    pub(super) async fn run(
        self,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Option<String>, LoginError> {
        timeout(self.limit, async {
            sender
                .send([Item::Frame(self.auth().into())])
                .await
                .map_err(LoginError::Ended)?;
            self.metrics
                .messages_sent_total
                .of(AgentMessage::Auth)
                .inc();
            self.verdict(sender, receiver).await
        })
        .await
        .unwrap_or(Err(LoginError::TimedOut))
    }

    fn auth(&self) -> String {
        let client_id = &self.identity.client_id;
        let timestamp = self.unix_seconds.to_string();
        let signature = sign(
            self.identity.signature,
            client_id,
            &timestamp,
            self.secret.expose_secret(),
        );
        ToGateway::Auth {
            client_id,
            timestamp: &timestamp,
            signature: &signature,
        }
        .encode()
    }

    async fn verdict(
        &self,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Option<String>, LoginError> {
        loop {
            let text = match receiver.next().await.map_err(LoginError::Ended)? {
                Received::Frame(text) => text,
                Received::Close { code, .. } => return Err(LoginError::Closed(code)),
                Received::Binary | Received::Pong(_) | Received::Control => continue,
            };
            let Ok(frame) = FromGateway::read(&text) else {
                continue;
            };
            self.metrics
                .messages_received_total
                .of(frame.message())
                .inc();
            match frame {
                FromGateway::AuthSuccess { node_id } => return Ok(node_id.map(Into::into)),
                FromGateway::Error { message } => {
                    return Err(LoginError::Refused(printable(&message)));
                }
                FromGateway::Ping => {
                    sender
                        .send([Item::Frame(ToGateway::Pong.encode().into())])
                        .await
                        .map_err(LoginError::Ended)?;
                    self.metrics
                        .messages_sent_total
                        .of(AgentMessage::Pong)
                        .inc();
                }
                early => debug!(
                    frame = early.message().as_str(),
                    "ignored a frame that came before the login's answer"
                ),
            }
        }
    }
}

/// Text of the gateway as it may stand in a log line or a sentence: one line, and not a long one.
pub(super) fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_CHARS)
        .collect()
}
