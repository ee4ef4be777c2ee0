//! A whole sidecar in front of a server with OpenAI's interface, over real sockets: what goes up to it, what becomes of its
//! answers, and what the operator is told of it.

#![allow(clippy::unwrap_used, missing_docs)]

mod answers;
mod calls;
mod failures;
mod interviews;
mod operator;
mod requests;
#[path = "../support/mod.rs"]
mod support;

use devnet::{
    gateway::{Chat, Gateway, Outcome},
    openai::{Fault, OpenAi, Style},
};
use serde_json::{Value, json};
use support::{CLIENT, Sidecar, gateway};

const STYLES: [Style; 5] = [
    Style::LlamaServer,
    Style::Vllm,
    Style::Mlx,
    Style::Transformers,
    Style::Ollama,
];

/// The server is looked at so often that nobody waits for it.
const OFTEN: (&str, &str) = ("PIN_MODEL_REFRESH_INTERVAL", "50ms");

struct Net {
    gateway: Gateway,
    server: OpenAi,
    sidecar: Sidecar,
}

impl Net {
    /// A sidecar that offers the model `tiny` of a llama-server.
    async fn start() -> Self {
        Self::with(CLIENT, server(Style::LlamaServer).await, &[]).await
    }

    /// A sidecar that is ready, with these settings beside the necessary ones.
    async fn with(client: &str, server: OpenAi, settings: &[(&str, &str)]) -> Self {
        let net = Self::begin(client, server, settings).await;
        net.sidecar.wait_until_pending("").await;
        net
    }

    /// The same where it may have nothing to offer.
    async fn begin(client: &str, server: OpenAi, settings: &[(&str, &str)]) -> Self {
        let gateway = gateway().await;
        let settings = [&[("PIN_API_MODE", "openai")], settings].concat();
        let sidecar = Sidecar::start(client, &gateway.url(), &server.url(), &settings);
        gateway.wait_for_session(1).await;
        Self {
            gateway,
            server,
            sidecar,
        }
    }

    fn chat(&self, more: &Value) -> Chat {
        self.gateway.chat(chat(more))
    }

    /// The outcome of a chat with this beside model and message.
    async fn ask(&self, more: &Value) -> Outcome {
        self.chat(more).outcome().await
    }

    /// The outcome of a streamed chat that is answered so.
    async fn answered(&self, answer: impl Into<Fault>) -> Outcome {
        self.server.answer_next(answer);
        self.ask(&json!({"stream": true})).await
    }

    /// The body of the last chat that the server was asked for.
    fn asked(&self) -> Value {
        self.server.chat_requests().last().unwrap().json()
    }
}

async fn server(style: Style) -> OpenAi {
    let server = OpenAi::builder().style(style).model("tiny");
    server.start().await.unwrap()
}

fn chat(more: &Value) -> Value {
    let mut chat =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "alpha beta"}]});
    let more = more.as_object().unwrap().clone();
    chat.as_object_mut().unwrap().extend(more);
    chat
}
