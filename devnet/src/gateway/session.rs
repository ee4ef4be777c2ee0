//! One connection, from its upgrade to its end.
//!
//! Invariant: reading and writing never wait for each other, so what an agent does with one direction cannot stop the
//! other one here.

use std::{
    net::IpAddr,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_tungstenite::{
    WebSocketReceiver, WebSocketSender,
    tokio::TokioAdapter,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    frame::{Frame, Sender},
    hub::{Hub, Outgoing},
    muffle::Muffled,
    network::models,
    nodes::Node,
    policy::{AckId, Login, Policy},
    upgrade::{Stream, upgrade},
};
use crate::{journal::lock, listener::Reset};

/// An agent that has not said who it is by then is sent away.
const LOGIN_LIMIT: Duration = Duration::from_secs(10);

/// How far an agent's clock may be from the gateway's, in seconds.
const TIMESTAMP_WINDOW: u64 = 5 * 60;

/// How long the other end may take to answer a Close.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Past any test.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Serves one connection over TCP until it ends.
pub(super) async fn serve_tcp(hub: Arc<Hub>, tcp: TcpStream) {
    // A socket on which this fails is gone, and the upgrade will find that out.
    let _ = tcp.set_nodelay(true);
    let from = tcp.peer_addr().ok().map(|addr| addr.ip());
    if let Ok(reset) = Reset::of(&tcp) {
        serve(hub, Box::new(tcp), from, reset).await;
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(
    hub: Arc<Hub>,
    stream: Box<dyn Stream>,
    from: Option<IpAddr>,
    reset: Reset,
) {
    let limit = hub.policy.borrow().connects_per_minute;
    let too_often = lock(&hub.attempts).note(from, limit, Instant::now());
    let Ok(socket) = upgrade(&hub, stream, too_often).await else {
        return;
    };

    let (sender, receiver) = socket.split();
    let (outgoing, queue) = mpsc::unbounded_channel();
    let (late, delayed) = mpsc::unbounded_channel();
    let entry = hub.enter(outgoing.clone());
    let unanswered = AtomicU32::new(0);
    let mut session = Session {
        hub: &hub,
        number: entry.number,
        outgoing: &outgoing,
        late: &late,
        unanswered: &unanswered,
        phase: Phase::Login,
    };
    tokio::select! {
        () = entry.reset.cancelled() => reset.on_drop(),
        () = write(&hub, entry.number, queue, sender) => {}
        () = ping(&hub, &outgoing, &unanswered) => {}
        () = delay(delayed, &outgoing) => {}
        end = session.read(receiver) => if let End::Reset = end { reset.on_drop() },
    }
}

/// Writes what is queued, what waits together in one flush. Ends when the connection is broken.
async fn write(
    hub: &Hub,
    number: u64,
    mut queue: mpsc::UnboundedReceiver<Message>,
    mut sender: WebSocketSender<TokioAdapter<Muffled>>,
) {
    while let Some(message) = queue.recv().await {
        let mut next = Some(message);
        while let Some(message) = next {
            hub.record_outgoing(number, &message);
            if let Err(tungstenite::Error::Io(_)) = sender.feed(message).await {
                return;
            }
            next = queue.try_recv().ok();
        }
        if let Err(tungstenite::Error::Io(_)) = sender.flush().await {
            return;
        }
    }
}

/// Sends `PING` as often as the policy says. Ends some time after it has closed a session that left too many unanswered.
async fn ping(hub: &Hub, outgoing: &Outgoing, unanswered: &AtomicU32) {
    let mut policy = hub.policy.subscribe();
    loop {
        let (every, allowed) = {
            let policy = policy.borrow_and_update();
            (policy.ping_every.unwrap_or(NEVER), policy.missed_pings)
        };
        tokio::select! {
            // Fails only if the hub is gone, and this task with it.
            _ = policy.changed() => continue,
            () = tokio::time::sleep(every) => {}
        }
        // The connection may be broken already; reading will tell.
        if allowed.is_some_and(|allowed| unanswered.load(Ordering::Relaxed) >= allowed) {
            let _ = outgoing.send(close(1001, "no pong"));
            tokio::time::sleep(CLOSE_LIMIT).await;
            return;
        }
        unanswered.fetch_add(1, Ordering::Relaxed);
        let _ = outgoing.send(text(&json!({"type": "PING"})));
    }
}

/// Sends each frame when it is due. They are due in their order, save where the policy's delay was made shorter.
async fn delay(mut delayed: mpsc::UnboundedReceiver<(Instant, Message)>, outgoing: &Outgoing) {
    while let Some((due, message)) = delayed.recv().await {
        tokio::time::sleep_until(due).await;
        // The connection may be broken already; reading will tell.
        let _ = outgoing.send(message);
    }
}

pub(super) fn text(frame: &Value) -> Message {
    Message::text(frame.to_string())
}

pub(super) fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::from(code),
        reason: reason.into(),
    }))
}

struct Session<'a> {
    hub: &'a Hub,
    number: u64,
    outgoing: &'a Outgoing,
    late: &'a mpsc::UnboundedSender<(Instant, Message)>,
    /// `PING`s since the last `PONG`.
    unanswered: &'a AtomicU32,
    phase: Phase,
}

enum Phase {
    /// Until `AUTH` came, or its time is over.
    Login,
    /// `AUTH` came and will never be answered; until the agent goes.
    Ignored,
    /// Until either side closes, or silence does.
    Open { operator: String },
    /// Until the agent answers the Close, or its time is over.
    Closing,
}

#[derive(Clone, Copy)]
enum End {
    Closed,
    Reset,
}

impl Session<'_> {
    async fn read(&mut self, mut receiver: WebSocketReceiver<TokioAdapter<Muffled>>) -> End {
        if self.hub.policy.borrow().login == Login::NeverRead {
            return std::future::pending().await;
        }
        let mut reading = self.hub.reading.subscribe();
        loop {
            // Neither wait fails: the hub holds the sender.
            let _ = reading.wait_for(|reading| *reading).await;
            let message = tokio::select! {
                biased;
                _ = reading.wait_for(|reading| !reading) => continue,
                message = timeout_at(self.deadline(), receiver.next()) => message,
            };
            let next = match message {
                Ok(Some(Ok(message))) => {
                    let next = self.receive(&message);
                    if message.is_close() && !self.hub.policy.borrow().answer_closes {
                        return std::future::pending().await;
                    }
                    next
                }
                Ok(Some(Err(_)) | None) => ControlFlow::Break(End::Closed),
                Err(_) => self.time_is_over(),
            };
            if let ControlFlow::Break(end) = next {
                return end;
            }
        }
    }

    /// Until when something must have been heard.
    fn deadline(&self) -> Instant {
        let silence_limit = self.hub.policy.borrow().silence_limit;
        Instant::now()
            + match self.phase {
                Phase::Login => LOGIN_LIMIT,
                Phase::Ignored => NEVER,
                Phase::Open { .. } => silence_limit.unwrap_or(NEVER),
                Phase::Closing => CLOSE_LIMIT,
            }
    }

    fn time_is_over(&mut self) -> ControlFlow<End> {
        match self.phase {
            Phase::Login => self.refuse("Authentication timeout"),
            Phase::Open { .. } => self.close(1001, "no heartbeat"),
            Phase::Ignored | Phase::Closing => ControlFlow::Break(End::Closed),
        }
    }

    fn receive(&mut self, message: &Message) -> ControlFlow<End> {
        let frame = self.hub.record(self.number, Sender::Agent, message.clone());
        match &self.phase {
            Phase::Login => self.log_in(&frame),
            Phase::Open { .. } if self.is_poison(&frame) => ControlFlow::Break(End::Closed),
            Phase::Open { operator } => {
                self.answer(&frame, operator);
                ControlFlow::Continue(())
            }
            Phase::Ignored | Phase::Closing => ControlFlow::Continue(()),
        }
    }

    fn log_in(&mut self, frame: &Frame) -> ControlFlow<End> {
        if matches!(frame.name(), "ping" | "pong" | "close") {
            return ControlFlow::Continue(());
        }
        match self.hub.policy.borrow().login.clone() {
            Login::Refuse(message) => return self.refuse(&message),
            Login::Reset => return ControlFlow::Break(End::Reset),
            Login::Hang => {
                self.phase = Phase::Ignored;
                return ControlFlow::Continue(());
            }
            Login::Check
            | Login::Close { .. }
            | Login::Http { .. }
            | Login::NeverRead
            | Login::HangUpgrade => {}
        }
        match check(self.hub, frame) {
            Ok(operator) => match self.hub.turn_away(operator) {
                Some(refusal) => {
                    self.send(&refusal);
                    self.close(1000, "interview failed")
                }
                None => self.accept(operator),
            },
            Err(message) => self.refuse(message),
        }
    }

    fn accept(&mut self, operator: &str) -> ControlFlow<End> {
        // Counted before it is told, so that an agent that knows it is logged in is.
        self.hub.log_in(self.number, operator);
        if self.hub.policy.borrow().one_session_each {
            self.hub
                .end_older_sessions(self.number, operator, &close(1000, ""));
        }
        let node_id = operator.starts_with("pin_").then_some("node_desktop");
        self.send(&json!({
            "type": "AUTH_SUCCESS", "operator_id": operator, "node_id": node_id, "message": "Authenticated",
        }));
        self.phase = Phase::Open {
            operator: operator.to_owned(),
        };
        match self.hub.policy.borrow().login.clone() {
            Login::Close { code, reason } => self.close(code, &reason),
            _ => ControlFlow::Continue(()),
        }
    }

    fn refuse(&mut self, message: &str) -> ControlFlow<End> {
        self.send(&json!({"type": "ERROR", "message": message}));
        self.close(1008, message)
    }

    fn close(&mut self, code: u16, reason: &str) -> ControlFlow<End> {
        // The connection may be broken already; reading will tell.
        let _ = self.outgoing.send(close(code, reason));
        self.phase = Phase::Closing;
        ControlFlow::Continue(())
    }

    fn is_poison(&self, frame: &Frame) -> bool {
        let poison = &self.hub.policy.borrow().poison;
        frame.is_answer() && poison.as_deref() == Some(frame.answers_id())
    }

    /// What a gateway does about a frame of a session. A chat hears of its answer last, when all is done.
    fn answer(&self, frame: &Arc<Frame>, operator: &str) {
        if frame.is_answer() {
            self.hub.book(frame);
        }
        if frame.name() == "MODEL_LIST" {
            self.hub.offer(self.number, models(&frame.value));
        }
        let node = self.register(frame, operator);
        if let Some(reply) = self.reply(frame, node.as_ref()) {
            self.send(&reply);
            if frame.name() == "HEARTBEAT" && self.hub.policy.borrow().repeat_heartbeat_acks {
                self.send(&reply);
            }
        }
        if frame.is_answer() {
            self.acknowledge(frame);
        }
        self.tell_the_network(frame, node, operator);
        if frame.is_answer() || frame.name() == "INFERENCE_CHUNK" {
            self.hub.deliver(frame);
        }
    }

    /// Has the network's rules hear of it, which may answer too.
    fn tell_the_network(&self, frame: &Frame, node: Option<(Node, bool)>, operator: &str) {
        match frame.name() {
            "REGISTER_NODE" => {
                if let Some((node, _)) = node {
                    self.hub
                        .registered(self.number, operator, node, &frame.value);
                }
            }
            "MODEL_LIST" => {
                let models = models(&frame.value);
                self.hub.listed(self.number, operator, &models);
            }
            "PONG" => self.unanswered.store(0, Ordering::Relaxed),
            "INFERENCE_CHUNK" => self.hub.heard(frame.request_id()),
            "INTERVIEW_RESULT" => self.hub.interview_result(self.number, &frame.value),
            _ if frame.is_answer() => self.hub.answered(frame),
            _ => {}
        }
    }

    fn reply(&self, frame: &Frame, node: Option<&(Node, bool)>) -> Option<Value> {
        let policy = self.hub.policy.borrow();
        match frame.name() {
            "HEARTBEAT" => policy.acknowledge_heartbeats.then(|| json!({"type": "HEARTBEAT_ACK"})),
            "MODEL_LIST" => policy.acknowledge_models.then(|| json!({"type": "MODEL_LIST_ACK"})),
            "REGISTER_NODE" => node.filter(|_| policy.acknowledge_registrations).map(|node| node_ack(&frame.value, node)),
            "UPDATE_WALLET" => policy.acknowledge_wallets.then(
                || json!({"type": "UPDATE_WALLET_ACK", "success": true, "message": "Payout address updated"}),
            ),
            _ => None,
        }
    }

    /// Says `RESULT_ACK` as the policy wants it said.
    fn acknowledge(&self, frame: &Frame) {
        let policy = self.hub.policy.borrow();
        if !policy.acknowledge_results {
            return;
        }
        let ack = text(&result_ack(frame, &policy));
        for _ in 0..1 + usize::from(policy.repeat_result_acks) {
            if policy.result_ack_delay.is_zero() {
                // The connection may be broken already; reading will tell.
                let _ = self.outgoing.send(ack.clone());
            } else {
                let due = Instant::now() + policy.result_ack_delay;
                // Never fails: the other end is held beside this one.
                let _ = self.late.send((due, ack.clone()));
            }
        }
    }

    /// The node that a `REGISTER_NODE` is about, and whether it is new.
    fn register(&self, frame: &Frame, operator: &str) -> Option<(Node, bool)> {
        let asked = frame.value["alias"].as_str().unwrap_or_default();
        let is_registration = frame.name() == "REGISTER_NODE";
        is_registration.then(|| lock(&self.hub.nodes).register(operator, asked))
    }

    fn send(&self, frame: &Value) {
        // The connection may be broken already; reading will tell.
        let _ = self.outgoing.send(text(frame));
    }
}

fn node_ack(frame: &Value, (node, created): &(Node, bool)) -> Value {
    let message = if *created {
        "Node registered"
    } else {
        "Node updated"
    };
    json!({
        "type": "REGISTER_NODE_ACK", "node_id": node.id, "alias": node.alias, "models": frame["models"],
        "created": created, "message": message,
    })
}

fn result_ack(frame: &Frame, policy: &Policy) -> Value {
    match policy.result_ack_id {
        AckId::Own => json!({"type": "RESULT_ACK", "request_id": frame.value[frame.id_field()]}),
        AckId::Missing => json!({"type": "RESULT_ACK"}),
        AckId::Another => json!({"type": "RESULT_ACK", "request_id": "another-request"}),
    }
}

/// Whether `AUTH` is right: the client that it is from, or what the gateway says to it.
fn check<'a>(hub: &Hub, auth: &'a Frame) -> Result<&'a str, &'static str> {
    let field = |name: &str| auth.value[name].as_str();
    if auth.name() != "AUTH" {
        return Err("Authentication required");
    }
    let (Some(client_id), Some(timestamp), Some(signature)) =
        (field("client_id"), field("timestamp"), field("signature"))
    else {
        return Err("Invalid authentication message");
    };
    let seconds: i64 = timestamp.parse().map_err(|_| "Invalid timestamp")?;
    if hub.unix_now().abs_diff(seconds) > TIMESTAMP_WINDOW {
        return Err("Timestamp outside window");
    }
    match lock(&hub.secrets).get(client_id) {
        Some(secret) if hub.signature.sign(client_id, timestamp, secret) == signature => {
            Ok(client_id)
        }
        _ => Err("Invalid signature"),
    }
}
