//! An Ollama without a GPU: the shapes and the behaviour of version 0.17.4 as seen on the wire, with faults on demand.
//! It speaks the words of the last user message over and over, so that answers can be told apart ([`spoken`]).
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use devnet::ollama::{CHAT, Fault, ModelShape, Ollama};
//!
//! let ollama = Ollama::builder().model("llama3.2:latest", ModelShape::default()).start().await?;
//! println!("PIN_OLLAMA_URL={}", ollama.url());
//! ollama.fail_next(CHAT, 2, Fault::Cut { after: 3 });
//! # Ok(())
//! # }
//! ```

mod answer;
mod fault;
mod fold;
mod models;
mod pull;
mod request;
mod server;
mod state;
mod stream;
mod timestamp;
mod wire;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::mpsc;

pub use fault::Fault;
pub use models::ModelShape;
pub use pull::Pullable;

pub use crate::model_server::{Chats, Controls, Request, spoken};

use crate::{
    journal::lock,
    listener::{ANY_LOOPBACK, Listener},
    model_server::controlled,
    sim::wire::End,
};
use models::Models;
use pull::Registry;
use state::State;

/// The version that it says it is.
pub const VERSION: &str = "0.17.4";

/// Where chats go, for [`Controls::fail_next`].
pub const CHAT: &str = "/api/chat";

/// Where pulls go, for [`Controls::fail_next`].
pub const PULL: &str = "/api/pull";

/// How the stand-in speaks.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// How long loading a model takes.
    pub load_delay: Duration,
    /// The context that a model is loaded with where nobody asks for another: Ollama's `OLLAMA_CONTEXT_LENGTH`.
    pub context_length: u64,
    /// How many models may be loaded at once; one more, and the one that was to go first goes.
    pub room: usize,
    /// From the loaded model to the first token.
    pub first_token_delay: Duration,
    /// From one token to the next.
    pub token_delay: Duration,
    /// From the last token to the line that says that the answer is whole.
    pub done_delay: Duration,
    /// From that line to the end of a streamed answer's body.
    pub end_delay: Duration,
    /// How many tokens an answer has where nobody says otherwise.
    pub tokens: usize,
    /// These tokens instead of the prompt's words.
    pub script: Option<Vec<String>>,
    /// How many lines leave in one write.
    pub lines_per_write: usize,
    /// Where a chat offers tools, call the first one with these arguments instead of speaking.
    pub tool_arguments: Option<Value>,
    /// What a connection's socket holds of what the client has not taken, in bytes, for connections to come; `None`
    /// leaves that to the system, which takes megabytes.
    pub send_buffer: Option<usize>,
    /// How many bytes of a model that is pulled arrive in 60 ms.
    pub pull_bytes_per_tick: u64,
    /// Once so many bytes of all models have been pulled, none arrive any more; the lines go on.
    pub pull_stops_at: Option<u64>,
    /// Keep every request for [`Controls::requests`] and the waiting calls.
    pub record: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            load_delay: Duration::ZERO,
            context_length: 4096,
            room: usize::MAX,
            first_token_delay: Duration::ZERO,
            token_delay: Duration::ZERO,
            done_delay: Duration::ZERO,
            end_delay: Duration::ZERO,
            tokens: 24,
            script: None,
            lines_per_write: 1,
            tool_arguments: None,
            send_buffer: None,
            pull_bytes_per_tick: u64::MAX,
            pull_stops_at: None,
            record: true,
        }
    }
}

/// A running stand-in; it stops when this is dropped.
pub struct Ollama {
    state: Arc<State>,
    listener: Listener,
}

/// How a stand-in is to begin.
pub struct Builder {
    addr: SocketAddr,
    models: Models,
    registry: Registry,
    behaviour: Behaviour,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            addr: ANY_LOOPBACK,
            models: Models::default(),
            registry: Registry::default(),
            behaviour: Behaviour::default(),
        }
    }
}

impl Builder {
    /// Where it listens, instead of on loopback and a port that the system chooses; agents in containers are not on
    /// loopback.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.addr = addr;
        self
    }

    /// Adds a model; without a tag it is `:latest`.
    #[must_use]
    pub fn model(mut self, name: &str, shape: ModelShape) -> Self {
        self.models.add(name, shape);
        self
    }

    /// Adds a model that it does not have, but can pull.
    #[must_use]
    pub fn pullable(mut self, name: &str, model: Pullable) -> Self {
        self.registry.publish(name, model);
        self
    }

    /// From one token to the next.
    #[must_use]
    pub fn token_delay(mut self, delay: Duration) -> Self {
        self.behaviour.token_delay = delay;
        self
    }

    /// How long loading a model takes.
    #[must_use]
    pub fn load_delay(mut self, delay: Duration) -> Self {
        self.behaviour.load_delay = delay;
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
    pub async fn start(self) -> io::Result<Ollama> {
        let state = Arc::new(State::new(self.models, self.registry, self.behaviour));
        let connections = Arc::clone(&state);
        let listener = Listener::start(self.addr, move |tcp| {
            server::serve_tcp(Arc::clone(&connections), tcp)
        })?;
        Ok(Ollama { state, listener })
    }

    /// Starts it at the end of a wire that is not there: it serves what arrives, on tokio's clock alone, and is neither
    /// stopped nor started again.
    pub fn start_on_wire(self, arrivals: mpsc::UnboundedReceiver<End>) -> Ollama {
        let state = Arc::new(State::new(self.models, self.registry, self.behaviour));
        let connections = Arc::clone(&state);
        let listener = Listener::on_wire(arrivals, move |end| {
            server::serve(Arc::clone(&connections), end)
        });
        Ollama { state, listener }
    }
}

controlled! {
    State, Fault, controls;
    Ollama, Fault, state.controls;
}

impl Ollama {
    /// A stand-in that has no model yet.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The value for `PIN_OLLAMA_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Refuses connections and cuts those that are open, running answers included. Models are loaded anew afterwards.
    pub async fn stop(&self) {
        self.listener.stop().await;
        lock(&self.state.models).unload_all();
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// The system refuses the port.
    pub async fn start_again(&self) -> io::Result<()> {
        self.listener.start_again()
    }

    /// Changes how answers that begin from now on are spoken.
    pub fn set_behaviour(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.state.behaviour));
    }

    /// Adds a model, or puts another one in its place.
    pub fn add_model(&self, name: &str, shape: ModelShape) {
        lock(&self.state.models).add(name, shape);
    }

    /// From now on there is such a model to pull.
    pub fn publish(&self, name: &str, model: Pullable) {
        lock(&self.state.registry).publish(name, model);
    }

    /// Removes a model; answers that it is giving go on.
    pub fn remove_model(&self, name: &str) {
        lock(&self.state.models).remove(name);
    }

    /// How often a model was loaded.
    pub fn loads(&self, name: &str) -> usize {
        lock(&self.state.models).loads(name)
    }

    /// Throws a model out of memory, as `ollama stop` does.
    pub fn unload(&self, name: &str) {
        lock(&self.state.models).unload(name);
    }

    /// Whether a model is in memory.
    pub fn is_loaded(&self, name: &str) -> bool {
        lock(&self.state.models).is_loaded(name)
    }

    /// Every chat request so far.
    pub fn chat_requests(&self) -> Vec<Arc<Request>> {
        self.requests_to(CHAT)
    }

    /// Every request so far that was only to load a model, or to unload it.
    pub fn load_requests(&self) -> Vec<Value> {
        let chats = self.chat_requests();
        let bodies = chats.iter().map(|request| request.json());
        bodies
            .filter(|body| body["messages"].as_array().is_none_or(Vec::is_empty))
            .collect()
    }

    /// Every request to pull a model so far, by the model's name.
    pub fn pull_requests(&self) -> Vec<String> {
        let pulls = self.requests_to(PULL);
        pulls
            .iter()
            .map(|request| {
                request.json()["model"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect()
    }
}
