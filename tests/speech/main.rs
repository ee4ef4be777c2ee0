//! Speech, from the request that comes down the session to the clip that goes up, with a speech server of devnet's beside
//! Ollama.

#![allow(clippy::unwrap_used, missing_docs)]

mod answers;
mod asking;
mod delivery;
mod limits;
mod observed;
mod offers;
#[path = "../support/mod.rs"]
mod support;

use devnet::{
    gateway::{Chat, Frame, Gateway},
    speech::{Fault, MODELS as LIST, SPEECH, SpeechServer},
};
use serde_json::{Value, json};
use support::{CLIENT, Net, Sidecar, gateway, ollama};

/// A speech server that is away is looked for again soon.
const QUICK: (&str, &str) = ("PIN_MODEL_REFRESH_INTERVAL", "50ms");

/// Two speech models, of which the server knows one by another name.
const MODELS: [(&str, &str); 2] = [
    ("PIN_TTS_MODELS", "Kokoro,tts-1"),
    ("PIN_TTS_MODEL_MAP", "kokoro=hexgrad/Kokoro-82M"),
];

/// A sidecar that is logged in and has listed its speech models.
struct Speaking {
    net: Net,
    speech: SpeechServer,
}

impl Speaking {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_as(CLIENT, settings).await
    }

    async fn start_as(client_id: &str, settings: &[(&str, &str)]) -> Self {
        let speech = SpeechServer::start().await.unwrap();
        let url = speech.url();
        let settings = [&[("PIN_TTS_URL", url.as_str())], &MODELS[..], settings].concat();
        let net = Net::with(client_id, gateway().await, ollama().await, &settings).await;
        let speaking = Self { net, speech };
        speaking.wait_for_list("tts:tts-1").await;
        speaking
    }

    /// One whose speech server answers looks with this.
    async fn answering_looks_with(status: u16, body: &str) -> Self {
        let speech = SpeechServer::start().await.unwrap();
        speech.fail_always(LIST, Fault::answer(status, "text/plain", body));
        let url = speech.url();
        let settings = [&[("PIN_TTS_URL", url.as_str()), QUICK], &MODELS[..]].concat();
        let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
        Self { net, speech }
    }

    /// Waits until this model was listed.
    async fn wait_for_list(&self, model: &str) {
        wait_for_list(&self.net.gateway, model).await;
    }

    fn say(&self, text: &str) -> Chat {
        self.net.gateway.speech(speech(text))
    }

    /// What comes of a request with these fields beside model and text.
    async fn ask(&self, more: Value) -> Result<Value, String> {
        let mut payload = speech("hello");
        let fields = more.as_object().unwrap().clone();
        payload.as_object_mut().unwrap().extend(fields);
        let mut asked = self.net.gateway.speech(payload);
        asked.outcome().await.answer
    }

    /// The bodies of all that the speech server was asked, as text.
    fn asked(&self) -> Vec<String> {
        let bodies = self.speech.asked().into_iter();
        bodies
            .map(|body| String::from_utf8(body.to_vec()).unwrap())
            .collect()
    }
}

async fn wait_for_list(gateway: &Gateway, model: &str) {
    let lists_it = |frame: &Frame| {
        let models = frame.value["models"].as_array();
        frame.is_from_agent("MODEL_LIST") && models.unwrap().contains(&json!(model))
    };
    gateway.wait_for(lists_it).await;
}

/// A request to say this.
fn speech(text: &str) -> Value {
    json!({"model": "kokoro", "input": text})
}
