//! A speech server without a voice: the shapes and the behaviour of local-tts-studio 1.0.0 as seen on the wire, with faults
//! on demand. A clip has the text that it speaks in it, so that clips can be told apart ([`clip`]).
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use devnet::speech::{Fault, SPEECH, SpeechServer};
//!
//! let speech = SpeechServer::start().await?;
//! println!("PIN_TTS_URL={}", speech.url());
//! speech.fail_next(SPEECH, 2, Fault::Cut { after: 100 });
//! # Ok(())
//! # }
//! ```

mod fault;
mod server;

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;

pub use crate::model_server::{Chats, Controls, Request};
pub use fault::Fault;
pub use server::clip;

use crate::{
    listener::{ANY_LOOPBACK, Listener},
    model_server::controlled,
    sim::wire::End,
};

/// Where speech is asked for, for [`Controls::fail_next`].
pub const SPEECH: &str = "/v1/audio/speech";

/// Where it lists models.
pub const MODELS: &str = "/v1/models";

/// A running stand-in; it stops when this is dropped.
pub struct SpeechServer {
    state: Arc<State>,
    listener: Listener,
}

/// What all connections share. A clip stops before its first byte or not at all.
type State = Controls<Fault>;

controlled! {
    SpeechServer, Fault, state;
}

impl SpeechServer {
    /// Starts one on loopback, on a port that the system chooses.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn start() -> io::Result<Self> {
        let state = Arc::<State>::default();
        let connections = Arc::clone(&state);
        let listener = Listener::start(ANY_LOOPBACK, move |tcp| {
            server::serve_tcp(Arc::clone(&connections), tcp)
        })?;
        Ok(Self { state, listener })
    }

    /// Starts one at the end of a wire that is not there: it serves what arrives, on tokio's clock alone, and is neither
    /// stopped nor started again.
    pub fn start_on_wire(arrivals: mpsc::UnboundedReceiver<End>) -> Self {
        let state = Arc::<State>::default();
        let connections = Arc::clone(&state);
        let listener = Listener::on_wire(arrivals, move |end| {
            server::serve(Arc::clone(&connections), end)
        });
        Self { state, listener }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The value for `PIN_TTS_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Refuses connections and cuts those that are open.
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

    /// The bodies of the requests for speech so far.
    pub fn asked(&self) -> Vec<Bytes> {
        let requests = self.requests_to(SPEECH);
        requests
            .iter()
            .map(|request| request.body.clone())
            .collect()
    }
}
