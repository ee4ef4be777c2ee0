//! A PIN gateway. It checks what a gateway checks, says what a gateway says, writes down every frame, and misbehaves
//! on demand.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use devnet::gateway::Gateway;
//! use serde_json::json;
//!
//! let gateway = Gateway::builder().secret("op_test", "s3cret").start().await?;
//! println!("PIN_SERVER_URL={}", gateway.url());
//! gateway.wait_for_session(1).await;
//! let mut chat = gateway.chat(json!({"model": "llama3.2", "messages": [{"role": "user", "content": "hello"}]}));
//! println!("{}", chat.outcome().await.text());
//! # Ok(())
//! # }
//! ```

mod attempts;
mod books;
mod chat;
mod frame;
mod hub;
mod keeper;
mod muffle;
mod network;
mod nodes;
mod policy;
mod session;
mod signature;
mod upgrade;

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc};

use async_tungstenite::tungstenite::{Bytes, Message};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::task::AbortOnDropHandle;

pub use attempts::Attempt;
pub use books::{Bill, Books, Deliveries};
pub use chat::{Chat, ChatEvent, Chunk, Outcome};
pub use frame::{Frame, Sender};
pub use hub::Sessions;
pub use network::{
    Interview, InterviewState, Interviews, Member, ProbeCounts, Reputation, Speeds, Standing, Tier,
    Verdict,
};
pub use policy::{AckId, Login, Policy, Probes};
pub use signature::Signature;

use crate::{
    journal::{lock, wait_until},
    listener::{ANY_LOOPBACK, Listener, Reset},
    sim::wire::End,
};
use hub::Hub;

const NO_SESSION: &str = "no session is open, so nothing can be sent: wait_for_session first";

/// A running gateway; it stops when this is dropped.
pub struct Gateway {
    hub: Arc<Hub>,
    listener: Listener,
    _keeper: AbortOnDropHandle<()>,
}

/// How a gateway is to begin.
pub struct Builder {
    addr: SocketAddr,
    secrets: HashMap<String, String>,
    signature: Signature,
    tls: Option<Arc<ServerConfig>>,
    policy: Policy,
    taken: Vec<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            addr: ANY_LOOPBACK,
            secrets: HashMap::new(),
            signature: Signature::default(),
            tls: None,
            policy: Policy::default(),
            taken: Vec::new(),
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

    /// Lets a client in.
    #[must_use]
    pub fn secret(mut self, client_id: &str, secret: &str) -> Self {
        self.secrets.insert(client_id.to_owned(), secret.to_owned());
        self
    }

    /// Which signature the gateway checks.
    #[must_use]
    pub fn signature(mut self, signature: Signature) -> Self {
        self.signature = signature;
        self
    }

    /// Speak TLS.
    #[must_use]
    pub fn tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// An alias that another operator's node has.
    #[must_use]
    pub fn taken_alias(mut self, alias: &str) -> Self {
        self.taken.push(alias.to_owned());
        self
    }

    /// Changes what the gateway does and leaves undone.
    #[must_use]
    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system gives no port, or not the one that was asked for.
    pub async fn start(self) -> io::Result<Gateway> {
        let addr = self.addr;
        let hub = self.hub();
        let connections = Arc::clone(&hub);
        let listener = Listener::start(addr, move |tcp| {
            session::serve_tcp(Arc::clone(&connections), tcp)
        })?;
        Ok(Gateway::new(hub, listener))
    }

    /// Starts it at the end of a wire that is not there: it serves what arrives, on tokio's clock alone, and is neither
    /// stopped nor started again. What is to happen to the network happens to the [`Link`](crate::sim::wire::Link).
    pub fn start_on_wire(self, arrivals: mpsc::UnboundedReceiver<End>) -> Gateway {
        let hub = self.hub();
        let connections = Arc::clone(&hub);
        let listener = Listener::on_wire(arrivals, move |end| {
            let reset = Reset::of_wire(&end);
            session::serve(Arc::clone(&connections), Box::new(end), None, reset)
        });
        Gateway::new(hub, listener)
    }

    fn hub(self) -> Arc<Hub> {
        let hub = Hub::new(
            self.signature,
            self.secrets,
            self.tls.map(TlsAcceptor::from),
            self.policy,
        );
        self.taken
            .into_iter()
            .for_each(|alias| lock(&hub.nodes).take(alias));
        Arc::new(hub)
    }
}

impl Gateway {
    fn new(hub: Arc<Hub>, listener: Listener) -> Self {
        let keeper = tokio::spawn(keeper::keep(Arc::clone(&hub)));
        Self {
            hub,
            listener,
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// A gateway that begins with [`Policy::default`] and lets nobody in.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The value for `PIN_SERVER_URL`. With TLS the host is `localhost`, for the sake of certificates.
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// The same for another address that leads here, such as a [`Proxy`](crate::network::Proxy)'s.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        match self.hub.tls {
            Some(_) => format!("wss://localhost:{}{}", addr.port(), upgrade::PATH),
            None => format!("ws://{addr}{}", upgrade::PATH),
        }
    }

    /// Refuses connections and drops those that are open. Books, nodes and frames stay.
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

    /// Changes what the gateway does from now on.
    pub fn set_policy(&self, change: impl FnOnce(&mut Policy)) {
        self.hub.policy.send_modify(change);
    }

    /// Lets a client in with this secret, and with no other, from its next login on. Sessions that are open stay.
    pub fn set_secret(&self, client_id: &str, secret: &str) {
        lock(&self.hub.secrets).insert(client_id.to_owned(), secret.to_owned());
    }

    /// How many sessions there are and were.
    pub fn sessions(&self) -> Sessions {
        *self.hub.sessions().borrow()
    }

    /// Waits until the n-th login has succeeded, 1 being the first.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_session(&self, n: usize) -> Sessions {
        wait_until(self.hub.sessions(), &format!("login {n}"), |sessions| {
            sessions.ever >= n
        })
        .await
    }

    /// Waits until no session is open.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_no_session(&self) -> Sessions {
        wait_until(self.hub.sessions(), "the end of all sessions", |sessions| {
            sessions.open == 0
        })
        .await
    }

    /// The models on the newest session's last list; none if no session is open.
    pub fn models(&self) -> Vec<String> {
        self.hub.models()
    }

    /// Every frame so far, both ways.
    pub fn frames(&self) -> Vec<Arc<Frame>> {
        self.hub.frames.all()
    }

    /// The first frame, of the past or the future, that matches.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for(&self, what: impl Fn(&Frame) -> bool) -> Arc<Frame> {
        self.wait_for_since(0, what).await.1
    }

    /// The first frame from the given place in [`frames`](Gateway::frames) on that matches, with its own place.
    ///
    /// # Panics
    /// Past [`PATIENCE`](crate::PATIENCE).
    pub async fn wait_for_since(
        &self,
        from: usize,
        what: impl Fn(&Frame) -> bool,
    ) -> (usize, Arc<Frame>) {
        self.hub.frames.find(from, "a frame", what).await
    }

    /// Deliveries and bills so far.
    pub fn books(&self) -> Books {
        self.hub.books()
    }

    /// Sends a chat with a fresh id to the newest session.
    ///
    /// # Panics
    /// If no session is open.
    pub fn chat(&self, payload: Value) -> Chat {
        self.chat_with_id(&self.hub.fresh_id(), payload)
    }

    /// Sends a chat to the newest session. Several may have one id: each hears what comes for it.
    ///
    /// # Panics
    /// If no session is open.
    #[allow(clippy::needless_pass_by_value)]
    pub fn chat_with_id(&self, id: &str, payload: Value) -> Chat {
        let chat = self.listen_for(id);
        self.send(&json!({"type": "INFERENCE_REQUEST", "request_id": id, "payload": payload}));
        chat
    }

    /// Sends a request for speech with a fresh id to the newest session.
    ///
    /// # Panics
    /// If no session is open.
    pub fn speech(&self, payload: Value) -> Chat {
        self.speech_with_id(&self.hub.fresh_id(), payload)
    }

    /// Sends a request for speech to the newest session.
    ///
    /// # Panics
    /// If no session is open.
    #[allow(clippy::needless_pass_by_value)]
    pub fn speech_with_id(&self, id: &str, payload: Value) -> Chat {
        let speech = self.listen_for(id);
        self.send(&json!({"type": "TTS_REQUEST", "request_id": id, "payload": payload}));
        speech
    }

    /// As [`chat`](Gateway::chat); `None` if no session is open.
    pub fn try_chat(&self, payload: &Value) -> Option<Chat> {
        let chat = self.listen_for(&self.hub.fresh_id());
        let request =
            json!({"type": "INFERENCE_REQUEST", "request_id": chat.id(), "payload": payload});
        self.hub.send_frame(&request).then_some(chat)
    }

    /// Sends a request to the newest session without listening for what comes of it; false if no session is open.
    pub fn try_request(&self, id: &str, payload: &Value) -> bool {
        let request = json!({"type": "INFERENCE_REQUEST", "request_id": id, "payload": payload});
        self.hub.send_frame(&request)
    }

    /// As [`cancel`](Gateway::cancel); does nothing if no session is open.
    pub fn try_cancel(&self, id: &str) {
        self.hub
            .send_frame(&json!({"type": "CANCEL_REQUEST", "request_id": id}));
    }

    /// As [`chat`](Gateway::chat) where the payload's bytes matter.
    ///
    /// # Panics
    /// If no session is open.
    pub fn chat_with_text(&self, payload: &str) -> Chat {
        let id = self.hub.fresh_id();
        let chat = self.listen_for(&id);
        self.hub.note_request(&id, "");
        self.send_text(&format!(
            r#"{{"type":"INFERENCE_REQUEST","request_id":"{id}","payload":{payload}}}"#
        ));
        chat
    }

    /// Hears what comes for an id without sending anything.
    pub fn listen_for(&self, id: &str) -> Chat {
        self.hub.chat(id)
    }

    /// Cancels a chat.
    ///
    /// # Panics
    /// If no session is open.
    pub fn cancel(&self, id: &str) {
        self.send(&json!({"type": "CANCEL_REQUEST", "request_id": id}));
    }

    /// Sends `RESULT_ACK` for this id to the newest session.
    ///
    /// # Panics
    /// If no session is open.
    pub fn acknowledge(&self, id: &str) {
        self.send(&json!({"type": "RESULT_ACK", "request_id": id}));
    }

    /// Sends a frame to the newest session.
    ///
    /// # Panics
    /// If no session is open.
    pub fn send(&self, frame: &Value) {
        assert!(self.hub.send_frame(frame), "{NO_SESSION}");
    }

    /// Sends text to the newest session, whatever it is.
    ///
    /// # Panics
    /// If no session is open.
    pub fn send_text(&self, text: &str) {
        self.send_message(Message::text(text));
    }

    /// Sends a WebSocket ping to the newest session; the pong is a frame of that name.
    ///
    /// # Panics
    /// If no session is open.
    pub fn send_ping(&self, payload: &'static [u8]) {
        self.send_message(Message::Ping(Bytes::from_static(payload)));
    }

    /// Sends a WebSocket message to the newest session.
    ///
    /// # Panics
    /// If no session is open.
    pub fn send_message(&self, message: Message) {
        assert!(self.hub.send(message), "{NO_SESSION}");
    }

    /// Sends every connection a Close frame. A connection ends when the agent answers it.
    pub fn close_sessions(&self, code: u16, reason: &str) {
        self.hub.send_to_all(&session::close(code, reason));
    }

    /// Resets every connection, without a Close frame.
    pub fn drop_sessions(&self) {
        self.hub.reset_all();
    }

    /// Reads nothing any more from any connection, until [`read_again`](Gateway::read_again).
    pub fn stop_reading(&self) {
        self.hub.reading.send_replace(false);
    }

    /// Reads again.
    pub fn read_again(&self) {
        self.hub.reading.send_replace(true);
    }
}
