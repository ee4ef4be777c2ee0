//! A small agent that says what it is told to say, over a socket or over a wire that is not there.
#![allow(dead_code, reason = "each test file needs another part of it")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_tungstenite::{
    WebSocketStream,
    tokio::{TokioAdapter, client_async},
    tungstenite::{self, Message},
};
use devnet::gateway::{Gateway, Signature};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// The client and the secret that the gateways of these tests let in.
pub(crate) const CLIENT: &str = "op_test";
pub(crate) const SECRET: &str = "s3cret";

/// In a silence of so long nothing more is to be expected.
const SILENCE: Duration = Duration::from_secs(10);

pub(crate) struct Agent<S = TcpStream>(pub(crate) WebSocketStream<TokioAdapter<S>>);

impl Agent {
    pub(crate) async fn connect(gateway: &Gateway) -> Result<Self, tungstenite::Error> {
        let tcp = TcpStream::connect(gateway.addr()).await?;
        Self::upgrade(gateway, tcp).await
    }

    pub(crate) async fn logged_in(gateway: &Gateway) -> Self {
        Self::connect(gateway).await.unwrap().log_in(CLIENT).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Agent<S> {
    pub(crate) async fn upgrade(gateway: &Gateway, stream: S) -> Result<Self, tungstenite::Error> {
        Ok(Self(client_async(gateway.url(), stream).await?.0))
    }

    pub(crate) async fn log_in(mut self, client: &str) -> Self {
        self.send(auth(client, SECRET, now())).await;
        assert_eq!(self.next().await["type"], "AUTH_SUCCESS");
        self
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(crate) async fn message(&mut self) -> Option<Result<Message, tungstenite::Error>> {
        tokio::time::timeout(SILENCE, self.0.next())
            .await
            .expect("the gateway says something")
    }

    pub(crate) async fn next(&mut self) -> Value {
        let message = self.message().await.unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn auth(client_id: &str, secret: &str, timestamp: u64) -> Value {
    let timestamp = timestamp.to_string();
    let signature = Signature::Sha256.sign(client_id, &timestamp, secret);
    json!({"type": "AUTH", "client_id": client_id, "timestamp": timestamp, "signature": signature})
}
