//! A session over a WebSocket: AUTH and its answer, frames as text messages, counted acknowledgements, Close.
//!
//! Invariant: a frame is read once. What it proves is worked out here, so that nobody above counts acknowledgements.

pub(super) mod acknowledgements;
mod login;
mod refusal;
mod socket;
mod upgrade;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::UNIX_EPOCH,
};

use futures_util::{FutureExt, future::BoxFuture};
use hyper::{HeaderMap, header};
use secrecy::SecretString;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

use self::{
    acknowledgements::{Acknowledged, Acknowledgements},
    socket::{Message, Receiver, Sender},
};
use super::{
    CloseFrame, Connect, ConnectBudget, Link, LinkEnd, OpenError, Opened, Outgoing, Position,
    Received,
};
use crate::{
    clock::WallClock,
    config::{GatewaySettings, Identity},
    protocol::{FromGateway, GatewayMessage, SignatureScheme, Unreadable},
    shared::Shared,
    telemetry::Metrics,
    transport::{Dial, Endpoint, Meter, Metered, Probe},
};

/// RFC 6455, section 7.4.1: the purpose of the connection has been fulfilled.
const CLOSE_NORMAL: u16 = 1000;

/// The same section: what stands for a Close without a code.
const CLOSE_WITHOUT_CODE: u16 = 1005;

/// Opens sessions over WebSockets.
pub struct WebSocket {
    client_id: String,
    signature: SignatureScheme,
    settings: GatewaySettings,
    gateway: Endpoint,
    dial: Arc<dyn Dial>,
    /// Whether the last login was answered with a Close for reasons of policy.
    was_closed_by_policy: AtomicBool,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
    probe: Probe,
}

/// A WebSocket over which nobody has logged in.
struct Reached {
    sender: Sender,
    receiver: Receiver,
    meter: Arc<Meter>,
}

impl WebSocket {
    /// Sessions of this identity with this gateway, over connections that `dial` opens.
    pub fn new(
        identity: &Identity,
        settings: &GatewaySettings,
        dial: Arc<dyn Dial>,
        shared: &Shared,
    ) -> Self {
        Self {
            client_id: identity.client_id.clone(),
            signature: identity.signature,
            gateway: Endpoint::from(settings.url.origin()),
            settings: settings.clone(),
            dial,
            was_closed_by_policy: AtomicBool::new(false),
            clock: Arc::clone(&shared.clock),
            metrics: Arc::clone(&shared.metrics),
            probe: Probe::default(),
        }
    }

    /// The same, noting what it finds.
    #[must_use]
    pub fn noting(self, probe: Probe) -> Self {
        Self { probe, ..self }
    }

    /// Goes as far as a session without a login: reaches the gateway, has it open a WebSocket, and closes that.
    ///
    /// # Errors
    /// As [`Connect::open`].
    pub async fn knock(&self, budget: &ConnectBudget) -> Result<(), OpenError> {
        let mut reached = self.reach(budget).await?;
        // Whether it hears that or not: it has opened.
        let _ = timeout(
            self.settings.connect_timeout,
            reached.sender.close(CLOSE_NORMAL),
        )
        .await;
        Ok(())
    }

    async fn reach(&self, budget: &ConnectBudget) -> Result<Reached, OpenError> {
        let meter = Meter::new(
            self.metrics.received_bytes_total.clone(),
            self.metrics.sent_bytes_total.clone(),
        );
        let stream = Metered {
            stream: self.dial.dial(&self.gateway).await?,
            meter: Arc::clone(&meter),
        };
        let answered = |head: &HeaderMap| self.note_answer(head);
        let connected = socket::connect(stream, &self.settings, budget, answered).await;
        let (sender, receiver) = connected.inspect_err(|error| {
            if error.is_silence() {
                self.dial.suspect(&self.gateway);
            }
        })?;
        Ok(Reached {
            sender,
            receiver,
            meter,
        })
    }

    /// Notes that the gateway has answered, and what time it is there.
    fn note_answer(&self, head: &HeaderMap) {
        self.probe.note(|findings| {
            findings.answered = Some(Instant::now());
            let date = head.get(header::DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
            let since = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
            findings.clocks = since.map(|since| (since.as_secs(), self.clock.unix_seconds()));
        });
    }

    async fn link(
        &self,
        secret: &SecretString,
        budget: &ConnectBudget,
    ) -> Result<Opened, OpenError> {
        let Reached {
            mut sender,
            mut receiver,
            meter,
        } = self.reach(budget).await?;
        let node_id = self.log_in(secret, &mut sender, &mut receiver).await?;
        let link = WebSocketLink {
            sender: AsyncMutex::new(sender),
            receiver: AsyncMutex::new(receiver),
            meter,
            acknowledgements: Mutex::default(),
            has_closed: AtomicBool::new(false),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        };
        Ok(Opened {
            link: Box::new(link),
            node_id,
        })
    }
}

impl Connect for WebSocket {
    fn transport(&self) -> &'static str {
        "ws"
    }

    fn trouble(&self) -> Option<String> {
        self.dial.trouble()
    }

    fn open<'a>(
        &'a self,
        secret: &'a SecretString,
        budget: &'a ConnectBudget,
    ) -> BoxFuture<'a, Result<Opened, OpenError>> {
        self.link(secret, budget).boxed()
    }
}

struct WebSocketLink {
    sender: AsyncMutex<Sender>,
    receiver: AsyncMutex<Receiver>,
    meter: Arc<Meter>,
    acknowledgements: Mutex<Acknowledgements>,
    /// The system has taken our Close: what the peer closes with from now on may be its answer.
    has_closed: AtomicBool,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
}

impl WebSocketLink {
    async fn write(&self, outgoing: &[Outgoing]) -> Result<(), LinkEnd> {
        let mut sender = self.sender.lock().await;
        let now = Instant::now();
        for outgoing in outgoing {
            let ping = self.acknowledgements().begin(outgoing, now);
            sender.feed(outgoing.encode()).await?;
            if let Some(payload) = ping {
                sender.feed_ping(payload).await?;
            }
        }
        sender.flush().await
    }

    async fn receive(&self) -> Result<Received, LinkEnd> {
        let message = self.receiver.lock().await.next().await?;
        Ok(match message {
            Message::Text(text) => self.read(&text),
            Message::Binary => self.unreadable(Unreadable {
                message: GatewayMessage::Unknown,
                reason: "it is not text",
                operation: None,
                request_id: None,
            }),
            Message::Pong(payload) => {
                let heard = self.acknowledgements().pong(payload, Instant::now());
                self.heard(&heard)
            }
            Message::Control => Received::Nothing,
            Message::Close(frame) => return Err(self.closed(frame)),
        })
    }

    fn read(&self, text: &str) -> Received {
        self.metrics
            .last_message_received_timestamp_seconds
            .set(self.clock.unix_seconds() as f64);
        let (message, frame) = match FromGateway::read(text) {
            Ok(read) => read,
            Err(unreadable) => return self.unreadable(unreadable),
        };
        let received = &self.metrics.messages_received_total;
        received.of(message).inc();
        let heard = match frame {
            FromGateway::HeartbeatAck => self.acknowledgements().heartbeat(Instant::now()),
            FromGateway::ModelListAck => self.acknowledgements().model_list(),
            FromGateway::ResultAck {
                request_id: Some(request_id),
            } => self.acknowledgements().result(&request_id),
            // Whichever it means: it is a sign of life, as any frame is.
            FromGateway::ResultAck { request_id: None } => return Received::Nothing,
            frame => return Received::Frame(frame),
        };
        self.heard(&heard)
    }

    fn unreadable(&self, unreadable: Unreadable) -> Received {
        let received = &self.metrics.messages_received_total;
        received.of(unreadable.message).inc();
        Received::Unreadable(unreadable)
    }

    fn heard(&self, heard: &Acknowledged) -> Received {
        if let Some(round_trip) = heard.round_trip {
            let histogram = &self.metrics.heartbeat_rtt_seconds;
            histogram.observe(round_trip.as_secs_f64());
        }
        heard.proof.map_or(Received::Nothing, Received::Proof)
    }

    /// The peer has closed the link. It answers our Close where that is written, and repeats our code or has none (RFC
    /// 6455, section 5.5.1); any other is a Close of the peer's own and proves nothing. One of its own with that very code,
    /// which crosses ours on the way, looks like an answer: nothing in the protocol tells them apart.
    fn closed(&self, frame: CloseFrame) -> LinkEnd {
        let has_code = matches!(frame.code, CLOSE_NORMAL | CLOSE_WITHOUT_CODE);
        if has_code && self.has_closed.load(Ordering::Relaxed) {
            LinkEnd::Finished
        } else {
            LinkEnd::Closed(Some(frame))
        }
    }

    fn acknowledgements(&self) -> MutexGuard<'_, Acknowledgements> {
        self.acknowledgements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link for WebSocketLink {
    fn send<'a>(&'a self, outgoing: &'a [Outgoing]) -> BoxFuture<'a, Result<(), LinkEnd>> {
        self.write(outgoing).boxed()
    }

    fn next(&self) -> BoxFuture<'_, Result<Received, LinkEnd>> {
        self.receive().boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LinkEnd>> {
        async {
            self.sender.lock().await.close(CLOSE_NORMAL).await?;
            self.has_closed.store(true, Ordering::Relaxed);
            Ok(())
        }
        .boxed()
    }

    fn leave(self: Box<Self>, end: LinkEnd) -> BoxFuture<'static, ()> {
        let (mut sender, receiver) = (self.sender.into_inner(), self.receiver.into_inner());
        async move {
            match socket::close_code(&end) {
                Some(code) => sender.leave(receiver, code).await,
                // The answer to its Close. Where there is nobody left to hear it, that is known already.
                None => drop(sender.flush().await),
            }
        }
        .boxed()
    }

    fn last_received(&self) -> Instant {
        self.meter.last_received()
    }

    fn unanswered_since(&self) -> Option<Instant> {
        self.acknowledgements().unanswered_since()
    }

    fn fenced(&self) -> Position {
        self.acknowledgements().fenced()
    }
}
