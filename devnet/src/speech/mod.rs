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
use tokio::sync::{mpsc, watch};

pub use crate::model_server::{Chats, Request};
pub use fault::Fault;
pub use server::clip;

use crate::{
    journal::{Journal, wait_until},
    listener::{ANY_LOOPBACK, Listener},
    model_server::Faults,
    sim::wire::End,
};

/// Where speech is asked for, for [`SpeechServer::fail_next`].
pub const SPEECH: &str = "/v1/audio/speech";

/// Where it lists models.
pub const MODELS: &str = "/v1/models";

/// A running stand-in; it stops when this is dropped.
pub struct SpeechServer {
    state: Arc<State>,
    listener: Listener,
}

/// What all connections share.
struct State {
    faults: Faults<Fault>,
    requests: Journal<Request>,
    clips: watch::Sender<Chats>,
    /// Where answers wait: `Some(0)`, before their first byte.
    pause: watch::Sender<Option<usize>>,
}

impl State {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            faults: Faults::default(),
            requests: Journal::default(),
            clips: watch::Sender::new(Chats::default()),
            pause: watch::Sender::new(None),
        })
    }
}

impl SpeechServer {
    /// Starts one on loopback, on a port that the system chooses.
    ///
    /// # Errors
    /// The system gives no port.
    pub async fn start() -> io::Result<Self> {
        let state = State::new();
        let connections = Arc::clone(&state);
        let listener = Listener::start(ANY_LOOPBACK, move |tcp| {
            server::serve_tcp(Arc::clone(&connections), tcp)
        })?;
        Ok(Self { state, listener })
    }

    /// Starts one at the end of a wire that is not there: it serves what arrives, on tokio's clock alone, and is neither
    /// stopped nor started again.
    pub fn start_on_wire(arrivals: mpsc::UnboundedReceiver<End>) -> Self {
        let state = State::new();
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

    /// Clips stop before their first byte, until [`go_on`](Self::go_on).
    pub fn pause(&self) {
        self.state.pause.send_replace(Some(0));
    }

    /// No clip stops any more.
    pub fn go_on(&self) {
        self.state.pause.send_replace(None);
    }

    /// The next requests to a path go wrong, after those that were told to before.
    pub fn fail_next(&self, path: &str, times: usize, fault: Fault) {
        self.state.faults.plan(path, None, Some(times), fault);
    }

    /// Every request to a path goes wrong, until [`clear_faults`](Self::clear_faults).
    pub fn fail_always(&self, path: &str, fault: Fault) {
        self.state.faults.plan(path, None, None, fault);
    }

    /// Nothing goes wrong any more, except what is going wrong already.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.state.requests.all()
    }

    /// The bodies of the requests for speech so far.
    pub fn asked(&self) -> Vec<Bytes> {
        let requests = self.requests().into_iter();
        let speech = requests.filter(|request| request.path == SPEECH);
        speech.map(|request| request.body.clone()).collect()
    }

    /// The first request to a path, of the past or the future.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_request(&self, path: &str) -> Arc<Request> {
        let is_it = |request: &Request| request.path == path;
        self.state.requests.find(0, "a request", is_it).await.1
    }

    /// How many requests for speech run and ran.
    pub fn clips(&self) -> Chats {
        *self.state.clips.borrow()
    }

    /// Waits until as many requests for speech have begun since the start.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_clips(&self, ever: usize) -> Chats {
        let clips = self.state.clips.subscribe();
        wait_until(clips, &format!("clip {ever}"), |clips| clips.ever >= ever).await
    }

    /// Waits until no request for speech runs.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_until_idle(&self) -> Chats {
        let clips = self.state.clips.subscribe();
        wait_until(clips, "the end of all clips", |clips| clips.running == 0).await
    }
}
