//! Ollama, through its own interface (`/api/…`).

mod answer;
mod api;
mod contexts;
mod descriptions;
mod messages;
mod policy;
mod prepare;
mod pull;
mod result;
mod translate;
mod wire;

pub(super) use contexts::SentContext;
pub use pull::{PullBoard, PullState, PullStatus};

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Mutex;

use self::{
    answer::ChatDecoder,
    api::{Api, CHAT},
    contexts::Contexts,
    descriptions::Descriptions,
    wire::{Facts, Running, Tag},
};
use super::{
    AskError, Backend, Catalogue, ChatStream, Guide, Model, ModelServer, Prepared, Rules, Seen,
    Suitability, away::Way, key::ApiKey,
};
use crate::{
    config::{BackendSettings, PolicySettings},
    protocol::Failure,
    secret::SecretError,
    telemetry::{BackendMetrics, Metrics},
    transport::{
        Connections, Dial,
        http::{HttpClient, HttpError, KeepAlive},
    },
};

const GUIDE: Guide = Guide {
    name: "Ollama",
    if_broken: "Ollama's own log says more (`journalctl -u ollama`, `docker compose logs ollama`), and `ollama run` with that \
                model shows whether it runs at all.",
    if_slow: "Have a smaller model interviewed (PIN_INTERVIEW_MODEL), or see with `ollama ps` that this one is on the GPU.",
    floor: 10.0,
    best: 20.0,
};

/// An Ollama server.
struct Ollama {
    api: Api,
    /// Held while a look is under way, of which there is one at a time.
    descriptions: Mutex<Descriptions>,
    pulls: Arc<PullBoard>,
    policy: PolicySettings,
    contexts: Contexts,
}

impl Backend {
    /// The Ollama that the settings name.
    ///
    /// # Errors
    /// The key of what stands before it cannot be had.
    pub fn ollama(
        settings: BackendSettings,
        policy: PolicySettings,
        dial: Arc<dyn Dial>,
        metrics: &Arc<Metrics>,
        connections: Connections,
    ) -> Result<Self, SecretError> {
        let rules = Rules {
            allow: settings.allow,
            deny: settings.deny,
            preload: settings.preload,
        };
        let client = HttpClient::new(dial, settings.url, connections, KeepAlive::Reused);
        let server = Ollama {
            pulls: Arc::new(PullBoard::new(settings.pull, &rules, metrics)),
            api: Api::new(client, ApiKey::new(settings.key)?, settings.connect_timeout),
            descriptions: Mutex::new(Descriptions::new()),
            policy,
            contexts: Contexts::default(),
        };
        let refresh = settings.refresh_interval;
        let metrics = BackendMetrics::new(metrics, &settings.node, server.mode());
        Ok(Self::new(Arc::new(server), rules, refresh, metrics))
    }
}

impl Ollama {
    fn way(&self) -> Way {
        Way::of("PIN_OLLAMA_URL", &self.api.client)
    }

    async fn seen(&self) -> Result<Seen, HttpError> {
        self.api.key.hand_to(&self.api.client).await;
        let version = self.api.version().await?;
        let tags = self.api.tags().await?;
        let running = self.api.running().await;
        let is_memory_unknown = running.is_none();
        let running = running.unwrap_or_default();
        self.contexts.keep_those_of(&tags);
        let mut descriptions = self.descriptions.lock().await;
        let refreshed = descriptions.refresh(&self.api, &tags, version.as_deref());
        refreshed.await;
        let model = |tag: &Tag| seen_model(tag, descriptions.of(tag), &running);
        Ok(Seen {
            version,
            is_memory_unknown,
            is_list_missing: false,
            vram_bytes: running.vram_bytes(),
            why_unknown: descriptions.why_unknown().map(str::to_owned),
            models: tags.iter().map(model).collect(),
        })
    }
}

fn seen_model(tag: &Tag, facts: Option<&Facts>, running: &Running) -> (Model, Suitability) {
    let model = Model {
        context_length: facts.and_then(|facts| facts.context_length),
        thinking: facts.map(|facts| facts.thinking).unwrap_or_default(),
        loaded: running.loaded(&tag.name),
        ..Model::named(&tag.name)
    };
    let suitability = match facts {
        None => Suitability::Unknown,
        Some(_) if tag.is_remote() => Suitability::RunsElsewhere,
        Some(facts) if facts.chats => Suitability::Suits,
        Some(_) => Suitability::CannotChat,
    };
    (model, suitability)
}

impl ModelServer for Ollama {
    fn mode(&self) -> &'static str {
        "ollama"
    }

    fn guide(&self) -> &'static Guide {
        &GUIDE
    }

    fn look(&self) -> BoxFuture<'_, Result<Seen, HttpError>> {
        self.seen().boxed()
    }

    fn answers(&self) -> BoxFuture<'_, bool> {
        self.api.answers().boxed()
    }

    fn why_silent(&self, error: &HttpError) -> String {
        let way = self.way();
        match error {
            HttpError::Status(status @ (401 | 403)) => way.refused(
                "What stands before Ollama refuses the sidecar",
                *status,
                "the key that it wants",
            ),
            HttpError::Status(404) | HttpError::Unexpected => format!(
                "Ollama does not list its models: {error}. Correct PIN_OLLAMA_URL; if it leads to vLLM, llama-server, LM Studio or the like, \
                 set PIN_API_MODE=openai."
            ),
            HttpError::Status(status) => way.odd_status(GUIDE.name, *status),
            HttpError::Encoded(_) | HttpError::TooLarge => {
                way.silent("Ollama does not list its models", error)
            }
            HttpError::Dial(_)
            | HttpError::Broken
            | HttpError::NotHttp(_)
            | HttpError::Silent(_) => way.silent("Ollama does not answer", error),
        }
    }

    fn why_odd(&self, error: &AskError) -> Option<String> {
        self.way().odd_answer(CHAT, error)
    }

    fn why_nothing(&self, models: usize, why_unknown: Option<&str>) -> String {
        match (models, why_unknown) {
            (0, _) => {
                "Ollama has no model. Pull one, for example with: ollama pull llama3.2".to_owned()
            }
            (n, Some(why)) => format!(
                "Ollama has models ({n}) but does not say what they can do: {why}. Ask it with: ollama show MODEL. \
                 What is between it and the sidecar may be at fault, too; and if it is no Ollama, set PIN_API_MODE=openai."
            ),
            (n, None) => format!(
                "Ollama has models ({n}) but none that may be offered. Check PIN_ALLOW_MODELS and PIN_DENY_MODELS; \
                 embedding-only and cloud models are offered only if PIN_ALLOW_MODELS names them in full, and none whose name begins \
                 with tts: is."
            ),
        }
    }

    fn trouble(&self) -> Option<String> {
        self.api.key.trouble()
    }

    fn prepare(&self, payload: &[u8], model: &Model) -> Result<Prepared, Failure> {
        prepare::chat(payload, model, &self.policy, &self.contexts)
    }

    fn chat(&self, chat: Prepared) -> BoxFuture<'_, Result<ChatStream, AskError>> {
        async {
            let Prepared { body, context, .. } = chat;
            let credentials = self.api.client.credentials();
            let body = self.api.chat(body).await?;
            if let Some(context) = context {
                context.taken();
            }
            Ok(ChatStream {
                body,
                decoder: Box::new(ChatDecoder::new(credentials)),
            })
        }
        .boxed()
    }

    fn load<'a>(&'a self, model: &'a Model) -> BoxFuture<'a, Result<(), AskError>> {
        async {
            let Prepared { body, context, .. } = prepare::load(model, &self.policy, &self.contexts);
            self.api.load(body).await?;
            if let Some(context) = context {
                context.taken();
            }
            Ok(())
        }
        .boxed()
    }

    fn unload<'a>(&'a self, model: &'a str) -> BoxFuture<'a, Result<bool, AskError>> {
        async { self.api.unload(model).await.map(|()| true) }.boxed()
    }

    fn until_closed(&self) -> BoxFuture<'_, ()> {
        self.api.until_closed().boxed()
    }

    fn keep_pulling<'a>(
        &'a self,
        catalogue: &'a Catalogue,
        random: fastrand::Rng,
    ) -> BoxFuture<'a, ()> {
        self.pull_wanted(catalogue, random).boxed()
    }

    fn pulls(&self) -> Arc<PullBoard> {
        Arc::clone(&self.pulls)
    }
}
