//! A server with OpenAI's interface: llama-server, vLLM, mlx_lm, LM Studio, and whatever else has `/v1/chat/completions`.
//!
//! Invariant: it is asked for nothing but chats with models that it has listed or the operator has named, and those always
//! stream: closing a stream is what frees every such server, and several go on with what does not stream.

mod answer;
mod calls;
mod chunk;
mod list;
mod messages;
mod numbers;
mod prepare;
mod result;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};

use self::answer::ChatDecoder;
use super::{
    Arrival, AskError, Backend, ChatStream, Deltas, Guide, Model, ModelServer, Prepared,
    ResultContext, Rules, Seen, Suitability, away::Way, key::ApiKey, server::accepted,
};
use crate::{
    config::{BackendSettings, ModelGlobs, PolicySettings},
    protocol::{Failure, Generation},
    secret::SecretError,
    telemetry::{BackendMetrics, Metrics},
    transport::{
        Connections, Dial,
        http::{HttpClient, HttpError, KeepAlive, read_answer},
    },
};

const CHAT: &str = "/v1/chat/completions";
const MODELS: &str = "/v1/models";

/// The largest list that is read, in bytes: some servers list thousands of models.
const MAX_LIST: usize = 16 * 1024 * 1024;

/// What the answer to a load may have, in bytes: one token.
const MAX_LOAD: usize = 1024 * 1024;

const GUIDE: Guide = Guide {
    name: "the model server",
    if_broken: "The model server's own log says more, and so does a chat that you send to it by hand (`/v1/chat/completions`).",
    if_slow: "Have a smaller model interviewed (PIN_INTERVIEW_MODEL), or see in the model server's log that this one is on the \
              GPU.",
    floor: 15.0,
    best: 30.0,
};

/// A server with OpenAI's interface.
struct OpenAi {
    client: HttpClient,
    key: ApiKey,
    /// How long it may take to list its models.
    limit: Duration,
    /// What the operator allows, which may name models that the server does not list.
    allow: ModelGlobs,
    policy: PolicySettings,
}

impl Backend {
    /// The OpenAI-compatible server that the settings name.
    ///
    /// # Errors
    /// Its key cannot be had.
    pub fn openai(
        settings: BackendSettings,
        policy: PolicySettings,
        dial: Arc<dyn Dial>,
        metrics: &Arc<Metrics>,
        connections: Connections,
    ) -> Result<Self, SecretError> {
        let url = settings.url.without_version();
        let server = OpenAi {
            client: HttpClient::new(dial, url, connections, KeepAlive::Never),
            key: ApiKey::new(settings.key)?,
            limit: settings.connect_timeout,
            allow: settings.allow.clone(),
            policy,
        };
        let rules = Rules {
            allow: settings.allow,
            deny: settings.deny,
            preload: settings.preload,
        };
        let refresh = settings.refresh_interval;
        let metrics = BackendMetrics::new(metrics, &settings.node, server.mode());
        Ok(Self::new(Arc::new(server), rules, refresh, metrics))
    }
}

impl OpenAi {
    async fn seen(&self) -> Result<Seen, HttpError> {
        self.key.hand_to(&self.client).await;
        let listed = match self.list().await {
            Ok(models) => models,
            // Some servers list none of what they serve, or fail to.
            Err(error) if is_only_its_list(&error) && self.allow.full_names().next().is_some() => {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let is_list_missing = listed.is_empty();
        Ok(Seen {
            is_memory_unknown: true,
            is_list_missing,
            why_unknown: Some("it says that it cannot run them just now".to_owned()),
            models: if is_list_missing {
                self.named()
            } else {
                listed
            },
            ..Seen::default()
        })
    }

    fn way(&self) -> Way {
        Way::of("PIN_OLLAMA_URL", &self.client)
    }

    async fn list(&self) -> Result<Vec<(Model, Suitability)>, HttpError> {
        let list = self.unread_list().await?;
        let json = String::from_utf8_lossy(&list);
        list::models(&json).ok_or(HttpError::Unexpected)
    }

    async fn unread_list(&self) -> Result<Bytes, HttpError> {
        read_answer(self.client.get(MODELS), MAX_LIST, self.limit).await
    }

    /// The models that the operator names in full.
    fn named(&self) -> Vec<(Model, Suitability)> {
        self.allow.full_names().map(list::named).collect()
    }

    async fn ask(&self, body: Bytes) -> Result<ChatStream, AskError> {
        let credentials = self.client.credentials();
        let body = accepted(&self.client, CHAT, body).await?;
        Ok(ChatStream {
            body,
            decoder: Box::new(ChatDecoder::new(credentials)),
        })
    }

    async fn load_by_a_token(&self, model: &Model) -> Result<(), AskError> {
        let ChatStream {
            mut body,
            mut decoder,
        } = self.ask(prepare::load(model).body).await?;
        decoder.limit(MAX_LOAD);
        let mut deltas = Deltas::default();
        while decoder.arrival() == Arrival::Partial {
            let Some(bytes) = body.next().await else {
                break;
            };
            let fed = decoder.feed(&bytes?, &mut deltas);
            fed.map_err(|failure| failed(&failure))?;
        }
        let nobodys = ResultContext {
            generation: Generation::Operator,
            request_id: String::new(),
            created: 0,
            model: String::new(),
        };
        let finished = decoder.finish(&mut deltas, &nobodys);
        finished.map(drop).map_err(|failure| failed(&failure))
    }
}

/// A server that answers 200 and then says that it fails.
fn failed(failure: &Failure) -> AskError {
    AskError::Refused {
        status: 200,
        words: failure.sentence().to_owned(),
        is_its_own: true,
    }
}

/// Whether the server is there and may serve chats, though it does not list its models.
fn is_only_its_list(error: &HttpError) -> bool {
    match error {
        HttpError::Status(status) => !matches!(status, 401 | 403 | 502 | 503 | 504),
        HttpError::Unexpected | HttpError::TooLarge => true,
        HttpError::Dial(_)
        | HttpError::Broken
        | HttpError::NotHttp(_)
        | HttpError::Encoded(_)
        | HttpError::Silent(_) => false,
    }
}

impl ModelServer for OpenAi {
    fn mode(&self) -> &'static str {
        "openai"
    }

    fn guide(&self) -> &'static Guide {
        &GUIDE
    }

    fn look(&self) -> BoxFuture<'_, Result<Seen, HttpError>> {
        self.seen().boxed()
    }

    fn answers(&self) -> BoxFuture<'_, bool> {
        async {
            match self.unread_list().await {
                Ok(_) => true,
                Err(error) => is_only_its_list(&error),
            }
        }
        .boxed()
    }

    fn why_silent(&self, error: &HttpError) -> String {
        let way = self.way();
        match error {
            HttpError::Status(status @ (401 | 403)) => way.refused(
                "The model server refuses the sidecar",
                *status,
                "the key that it was started with",
            ),
            HttpError::Status(503) => {
                "The model server is not ready (HTTP 503): it may be loading its model. Its log says more.".to_owned()
            }
            HttpError::Status(404) | HttpError::Unexpected => format!(
                "The model server does not list its models at {MODELS}: {error}. Correct PIN_OLLAMA_URL, set \
                 PIN_API_MODE=ollama if it is an old Ollama, or name its models in PIN_ALLOW_MODELS if it lists none."
            ),
            HttpError::Status(status) => way.odd_status("The model server", *status),
            HttpError::Encoded(_) | HttpError::TooLarge => {
                way.silent("The model server does not list its models", error)
            }
            HttpError::Dial(_)
            | HttpError::Broken
            | HttpError::NotHttp(_)
            | HttpError::Silent(_) => way.silent("The model server does not answer", error),
        }
    }

    fn why_odd(&self, error: &AskError) -> Option<String> {
        self.way().odd_answer(CHAT, error)
    }

    fn why_nothing(&self, models: usize, why_unknown: Option<&str>) -> String {
        match (models, why_unknown) {
            (0, _) => "The model server lists no model. If it has one all the same, name it in PIN_ALLOW_MODELS.".to_owned(),
            (n, Some(why)) => format!(
                "The model server has models ({n}) but {why}. They may be loading, have failed, or not fit into its memory: \
                 its log says more. One that has failed may need the server restarted."
            ),
            (n, None) => format!(
                "The model server has models ({n}) but none that may be offered. Check PIN_ALLOW_MODELS and \
                 PIN_DENY_MODELS; models that only embed are offered only if PIN_ALLOW_MODELS names them in full, and none whose name begins with tts: is."
            ),
        }
    }

    fn trouble(&self) -> Option<String> {
        self.key.trouble()
    }

    fn prepare(&self, payload: &[u8], model: &Model) -> Result<Prepared, Failure> {
        prepare::chat(payload, model, &self.policy)
    }

    fn chat(&self, chat: Prepared) -> BoxFuture<'_, Result<ChatStream, AskError>> {
        self.ask(chat.body).boxed()
    }

    fn load<'a>(&'a self, model: &'a Model) -> BoxFuture<'a, Result<(), AskError>> {
        self.load_by_a_token(model).boxed()
    }
}
