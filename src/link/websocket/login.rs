//! The login: a fresh signature, and the gateway's yes or no.
//!
//! Invariant: only what says so is a refusal, since a refused login comes back slowly: an ERROR, a Close with a code that
//! means it, or twice in a row one that may mean it.

use std::sync::atomic::Ordering;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use tracing::debug;

use super::{
    WebSocket,
    socket::{Message, Receiver, Sender},
};
use crate::{
    label::Label,
    link::{LinkEnd, OpenError},
    protocol::{AgentMessage, Auth, Control, FromGateway, encode, sign},
    telemetry::printable,
};

/// Codes of applications (RFC 6455, section 7.4.2) by which gateways say what HTTP says with 401 and 403.
const CLOSE_UNAUTHORIZED: u16 = 4401;
const CLOSE_FORBIDDEN: u16 = 4403;

/// RFC 6455, section 7.4.1: a violation of policy, which may be a login or anything else.
const CLOSE_POLICY: u16 = 1008;

impl WebSocket {
    /// Logs in. Gives the node's id where the gateway tells it.
    pub(super) async fn log_in(
        &self,
        secret: &SecretString,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Option<String>, OpenError> {
        let limit = self.settings.connect_timeout;
        let answer = async {
            self.say(sender, self.auth(secret), AgentMessage::Auth)
                .await?;
            self.answer(sender, receiver).await
        };
        let answer = timeout(limit, answer).await;
        let closed = match &answer {
            Ok(Err(LinkEnd::Closed(Some(frame)))) => Some(frame),
            _ => None,
        };
        let is_refusal = self.is_refusal(closed.map(|frame| frame.code));
        match answer {
            Ok(Ok(verdict)) => verdict.map_err(refused),
            Ok(Err(LinkEnd::Closed(Some(frame)))) if is_refusal => {
                Err(refused(format!("it closed the link with {frame}")))
            }
            Ok(Err(end)) => Err(OpenError::LoginCutOff(end)),
            Err(_) => Err(OpenError::login_timed_out(limit)),
        }
    }

    /// Whether a login that was answered with a Close of this code, or with none, was refused.
    fn is_refusal(&self, code: Option<u16>) -> bool {
        let by_policy = code == Some(CLOSE_POLICY);
        let was_by_policy = self.was_closed_by_policy.swap(by_policy, Ordering::Relaxed);
        match code {
            Some(CLOSE_UNAUTHORIZED | CLOSE_FORBIDDEN) => true,
            Some(CLOSE_POLICY) => was_by_policy,
            _ => false,
        }
    }

    fn auth(&self, secret: &SecretString) -> String {
        let timestamp = self.clock.unix_seconds().to_string();
        let secret = secret.expose_secret();
        let signature = sign(self.signature, &self.client_id, &timestamp, secret);
        encode(&Auth {
            client_id: &self.client_id,
            timestamp: &timestamp,
            signature: &signature,
        })
    }

    /// Waits for the gateway's answer: its yes with the node's id, or why it says no.
    async fn answer(
        &self,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Result<Option<String>, String>, LinkEnd> {
        loop {
            let text = match receiver.next().await? {
                Message::Text(text) => text,
                Message::Close(frame) => return Err(LinkEnd::Closed(Some(frame))),
                Message::Binary | Message::Pong(_) | Message::Control => continue,
            };
            let Ok((message, frame)) = FromGateway::read(&text) else {
                continue;
            };
            let received = &self.metrics.messages_received_total;
            received.of(message).inc();
            match frame {
                FromGateway::AuthSuccess { node_id } => return Ok(Ok(node_id)),
                FromGateway::Error { message } => return Ok(Err(printable(&message))),
                FromGateway::Ping => {
                    let pong = encode(&Control::Pong);
                    self.say(sender, pong, AgentMessage::Pong).await?;
                }
                _ => debug!(
                    frame = message.as_str(),
                    "ignored a frame that came before the login's answer"
                ),
            }
        }
    }

    async fn say(
        &self,
        sender: &mut Sender,
        text: String,
        message: AgentMessage,
    ) -> Result<(), LinkEnd> {
        sender.feed(text).await?;
        sender.flush().await?;
        self.metrics.messages_sent_total.of(message).inc();
        Ok(())
    }
}

fn refused(said: String) -> OpenError {
    OpenError::Refused {
        said,
        retry_after: None,
    }
}
