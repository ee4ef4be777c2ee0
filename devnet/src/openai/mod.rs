//! An OpenAI-compatible chat server without a GPU: the bytes and the habits of five real ones as they were seen
//! ([`Style`]), with faults on demand and the odd answers that were met elsewhere ([`Fixture`], [`lists`]). It speaks the
//! words of the last user message over and over, so that answers can be told apart ([`spoken`]).
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use devnet::openai::{CHAT, Fault, Fixture, OpenAi, Style};
//!
//! let server = OpenAi::builder().style(Style::Vllm).model("tiny").start().await?;
//! println!("PIN_OLLAMA_URL={}", server.url());
//! server.fail_next(CHAT, 2, Fault::Cut { after: 3 });
//! server.answer_next(Fixture::crlf());
//! # Ok(())
//! # }
//! ```

mod answer;
mod asked;
mod events;
mod fault;
mod fixture_calls;
mod fixtures;
pub mod lists;
mod models;
mod refusal;
mod server;
mod speak;
mod state;
mod style;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

pub use crate::model_server::{Chats, Controls, Request, spoken};
pub use fault::{End, Fault, Fixture, Step};
pub use style::{Refuses, Style, UsageManner};

use crate::{
    journal::lock,
    listener::{ANY_LOOPBACK, Listener},
    model_server::controlled,
    sim::wire::End as WireEnd,
};
use models::Models;
use state::State;

/// Where chats go, for [`Controls::fail_next`].
pub const CHAT: &str = "/v1/chat/completions";

/// Where the list is, for [`Controls::fail_next`].
pub const MODELS: &str = "/v1/models";

/// How the stand-in speaks, beyond its style.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// From the request to the first token.
    pub first_token_delay: Duration,
    /// From one token to the next.
    pub token_delay: Duration,
    /// From the last token to the event with the `finish_reason`.
    pub finish_delay: Duration,
    /// From that event to usage and `[DONE]`.
    pub usage_delay: Duration,
    /// How long waking up takes, and the router's loading of a model.
    pub load_delay: Duration,
    /// How many tokens an answer has where nobody says otherwise.
    pub tokens: usize,
    /// These tokens instead of the prompt's words.
    pub script: Option<Vec<String>>,
    /// Think before speaking.
    pub thinks: bool,
    /// The key of what is thought; `None`: the style's.
    pub reasoning: Option<&'static str>,
    /// Where a chat offers tools, call the first one with these arguments instead of speaking.
    pub tool_arguments: Option<Value>,
    /// Tokens of the prompt and of the answer that are told instead of those that were counted.
    pub usage: Option<(u64, u64)>,
    /// When usage is told; `None`: as the style does.
    pub usage_manner: Option<UsageManner>,
    /// A comment so often, wherever a stream has a status and waits for a token.
    pub comment_every: Option<Duration>,
    /// How many tokens prompt and answer may have together.
    pub context: usize,
    /// What `model` is in answers; `None`: as the style does.
    pub model_in_answers: Option<String>,
    /// What is refused beyond what the style refuses.
    pub refuses: Vec<Refuses>,
    /// The key that is wanted.
    pub api_key: Option<String>,
    /// llama-server without a model of its own: it loads those that it is asked for.
    pub router: bool,
    /// What a connection's socket holds of what the client has not taken, in bytes, for connections to come; `None`
    /// leaves that to the system, which takes megabytes.
    pub send_buffer: Option<usize>,
    /// Keep every request for [`Controls::requests`] and the waiting calls.
    pub record: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            first_token_delay: Duration::ZERO,
            token_delay: Duration::ZERO,
            finish_delay: Duration::ZERO,
            usage_delay: Duration::ZERO,
            load_delay: Duration::ZERO,
            tokens: 24,
            script: None,
            thinks: false,
            reasoning: None,
            tool_arguments: None,
            usage: None,
            usage_manner: None,
            comment_every: None,
            context: 2048,
            model_in_answers: None,
            refuses: Vec::new(),
            api_key: None,
            router: false,
            send_buffer: None,
            record: true,
        }
    }
}

/// A running stand-in; it stops when this is dropped.
pub struct OpenAi {
    state: Arc<State>,
    listener: Listener,
}

/// How a stand-in is to begin.
pub struct Builder {
    addr: SocketAddr,
    style: Style,
    models: Vec<String>,
    behaviour: Behaviour,
    loading: Option<Duration>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            addr: ANY_LOOPBACK,
            style: Style::default(),
            models: Vec::new(),
            behaviour: Behaviour::default(),
            loading: None,
        }
    }
}

impl Builder {
    /// Where it listens, instead of on loopback and a port that the system chooses.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Whose habits it has.
    #[must_use]
    pub fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    /// Adds a model; [`OpenAi::model_id`] has what the server calls it.
    #[must_use]
    pub fn model(mut self, name: &str) -> Self {
        self.models.push(name.to_owned());
        self
    }

    /// From one token to the next.
    #[must_use]
    pub fn token_delay(mut self, delay: Duration) -> Self {
        self.behaviour.token_delay = delay;
        self
    }

    /// The key that is wanted.
    #[must_use]
    pub fn api_key(mut self, key: &str) -> Self {
        self.behaviour.api_key = Some(key.to_owned());
        self
    }

    /// For so long after the start every path says that the model is being loaded.
    #[must_use]
    pub fn loading_for(mut self, time: Duration) -> Self {
        self.loading = Some(time);
        self
    }

    /// Changes how it speaks.
    #[must_use]
    pub fn behaviour(mut self, change: impl FnOnce(&mut Behaviour)) -> Self {
        change(&mut self.behaviour);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system gives no port, or not the one that was asked for.
    pub async fn start(self) -> io::Result<OpenAi> {
        let addr = self.addr;
        let state = self.state();
        let connections = Arc::clone(&state);
        let listener = Listener::start(addr, move |tcp| {
            server::serve_tcp(Arc::clone(&connections), tcp)
        })?;
        Ok(OpenAi { state, listener })
    }

    /// Starts it at the end of a wire that is not there: it serves what arrives, on tokio's clock alone, and is neither
    /// stopped nor started again.
    pub fn start_on_wire(self, arrivals: mpsc::UnboundedReceiver<WireEnd>) -> OpenAi {
        let state = self.state();
        let connections = Arc::clone(&state);
        let listener = Listener::on_wire(arrivals, move |end| {
            server::serve_wire(Arc::clone(&connections), end)
        });
        OpenAi { state, listener }
    }

    fn state(self) -> Arc<State> {
        let mut models = Models::default();
        for name in &self.models {
            models.add(self.style, name);
        }
        let state = State::new(self.style, models, self.behaviour);
        if let Some(time) = self.loading {
            *lock(&state.loading) = Some(Instant::now() + time);
        }
        Arc::new(state)
    }
}

controlled! {
    State, Fault, controls;
    OpenAi, Fault, state.controls;
}

impl OpenAi {
    /// A stand-in that has no model yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The server's base, without `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// What the server calls a model that was added by this name: a path, or with a tag.
    pub fn model_id(&self, name: &str) -> String {
        models::id(self.state.style, name)
    }

    /// Refuses connections and cuts those that are open, running answers included.
    pub async fn stop(&self) {
        self.listener.stop().await;
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// The system refuses the port.
    pub async fn start_again(&self) -> io::Result<()> {
        self.listener.start_again()
    }

    /// Changes how answers that begin from now on are given.
    pub fn set_behaviour(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.state.behaviour));
    }

    /// From now on, for so long, every path says that the model is being loaded.
    pub fn load_for(&self, time: Duration) {
        *lock(&self.state.loading) = Some(Instant::now() + time);
    }

    /// The model is in memory, whatever was said before.
    pub fn loaded(&self) {
        *lock(&self.state.loading) = None;
    }

    /// The server sleeps until the next chat, which waits for `load_delay`.
    pub fn sleep(&self) {
        *lock(&self.state.asleep) = true;
    }

    /// Whether it sleeps.
    pub fn is_asleep(&self) -> bool {
        *lock(&self.state.asleep)
    }

    /// Adds a model.
    pub fn add_model(&self, name: &str) {
        lock(&self.state.models).add(self.state.style, name);
    }

    /// Removes a model; answers that it is giving go on.
    pub fn remove_model(&self, name: &str) {
        lock(&self.state.models).remove(self.state.style, name);
    }

    /// From now on the list is this (see [`lists`]); the ids in it are good for chats.
    pub fn set_list(&self, list: Fault) {
        let mut ids = Vec::new();
        if let Fault::Answer { body, .. } = &list {
            let read: Value = serde_json::from_slice(body).unwrap_or_default();
            let entries = read["data"].as_array().into_iter().flatten();
            ids.extend(entries.filter_map(|entry| entry["id"].as_str().map(str::to_owned)));
        }
        lock(&self.state.models).listed = ids;
        self.state.faults.clear_path(MODELS);
        self.state.faults.plan(MODELS, None, None, list);
    }

    /// The next chat is answered so.
    pub fn answer_next(&self, answer: impl Into<Fault>) {
        self.fail_next(CHAT, 1, answer);
    }

    /// Every chat request so far.
    pub fn chat_requests(&self) -> Vec<Arc<Request>> {
        self.requests_to(CHAT)
    }
}
