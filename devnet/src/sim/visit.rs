//! One connection to the model gateway, from the upgrade to its end.
//!
//! Invariant: the place of every frame in what the product wrote is known, so that the books judge when it was
//! written, not when it arrived.

use std::time::Duration;

use async_tungstenite::{
    WebSocketReceiver, WebSocketSender,
    tokio::{TokioAdapter, accept_async},
    tungstenite::{
        Message,
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    books::Seen,
    gateway::{EPOCH, Gateway, Order},
    http,
    interviews::key,
    manners::{Acks, Door, Farewell, Garbage, asked_in_http},
    wire::End,
};
use crate::gateway::Signature;

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(10);

/// The gateway drops an agent that says nothing for this long.
const SILENCE: Duration = Duration::from_secs(60);

/// How far an agent's clock may be off, in seconds.
const WINDOW: u64 = 300;

/// What a client waits for that comes again and again, or its story would have no end.
const CALMING: Duration = Duration::from_secs(1);

/// An acknowledgement that comes after this comes late.
const LATE: Duration = Duration::from_secs(1);

/// The longest wait after a refused login.
const REFUSED: Duration = Duration::from_secs(600);

type Sender = WebSocketSender<TokioAdapter<End>>;
type Receiver = WebSocketReceiver<TokioAdapter<End>>;

/// The connection is over.
struct Over;

struct Visit {
    gateway: Gateway,
    number: u64,
    /// How much the product had written when the frame that is looked at ended.
    place: u64,
    /// The same for its beginning.
    start: u64,
    orders: mpsc::UnboundedSender<Order>,
}

pub(super) async fn serve(gateway: Gateway, mut end: End) {
    let number = end.number();
    if gateway.shared.books.arrived() {
        sleep(CALMING).await;
    }
    if !gateway.lets_through() {
        gateway.shared.books.count("attempts that the edge refused");
        let _ = too_many(&gateway, &mut end).await;
        return;
    }
    if let Door::Unavailable(seconds) = gateway.manners().door {
        gateway
            .shared
            .trace
            .say(format_args!("gateway: 503, retry after {seconds} s"));
        // A client that does not wait for its answer has it its own way.
        let _ = unavailable(&gateway, &mut end, seconds).await;
        return;
    }
    let Ok(Ok(socket)) = timeout(LOGIN, accept_async(end)).await else {
        return;
    };
    let (sender, receiver) = socket.split();
    let (orders, queue) = mpsc::unbounded_channel();
    gateway
        .shared
        .books
        .ledger()
        .sessions
        .entry(number)
        .or_default();
    let mut visit = Visit {
        place: gateway.shared.link.read_by_server(number),
        start: 0,
        gateway: gateway.clone(),
        number,
        orders,
    };
    tokio::select! {
        biased;
        _ = visit.read(receiver) => {}
        _ = write(&gateway, number, sender, queue) => {}
    }
    gateway
        .shared
        .trace
        .say(format_args!("gateway: session {number} is over"));
    gateway.went_down(number);
}

/// The edge's answer to an address that comes too often.
async fn too_many(gateway: &Gateway, end: &mut End) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    gateway.shared.trace.say(format_args!("gateway: 429"));
    http::read(end).await?;
    end.write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
        .await?;
    http::hung_up(end).await;
    Ok(())
}

async fn unavailable(gateway: &Gateway, end: &mut End, seconds: &str) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt;
    http::read(end).await?;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n"
    );
    end.write_all(answer.as_bytes()).await?;
    let books = gateway.shared.books.clone();
    let asked = asked_in_http(seconds);
    gateway
        .shared
        .link
        .when_read(end.number(), move |now| match asked {
            Some(away) => books.was_sent_away(now, away),
            None => books.count("asked to stay away for what is no time"),
        });
    http::hung_up(end).await;
    Ok(())
}

async fn write(
    gateway: &Gateway,
    number: u64,
    mut sender: Sender,
    mut queue: mpsc::UnboundedReceiver<Order>,
) -> Result<(), Over> {
    while let Some(order) = queue.recv().await {
        match order {
            Order::Frame(text, mark) => {
                say(gateway, number, &mut sender, Message::text(text)).await?;
                if let Some(mark) = mark {
                    gateway.shared.link.when_read(number, mark);
                }
            }
            Order::Cancel(text, mark, (id, place)) => {
                // Nothing is between it and what was read before if it finds the way empty.
                let is_alone = gateway.shared.link.is_all_read(number);
                say(gateway, number, &mut sender, Message::text(text)).await?;
                if let (true, Some(place)) = (is_alone, place) {
                    gateway.shared.books.cancel_is_alone(&id, place);
                }
                if let Some(mark) = mark {
                    gateway.shared.link.when_read(number, mark);
                }
            }
            Order::Garbage(garbage) => say(gateway, number, &mut sender, message(garbage)).await?,
            Order::Slip(text, mark) => {
                gateway.shared.link.slip(number, &unmasked(&text));
                if let Some(mark) = mark {
                    gateway.shared.link.when_read(number, mark);
                }
            }
            Order::Close(farewell) => {
                let frame = farewell.code.map(|code| CloseFrame {
                    code: CloseCode::from(code),
                    reason: farewell.reason.into(),
                });
                sender.send(Message::Close(frame)).await.map_err(|_| Over)?;
                gateway.has_left(number, farewell);
                // Whatever it would still say comes too late, and is no reason not to read on.
                break;
            }
            Order::Break => return Err(Over),
        }
    }
    // Held, so that nobody takes the session for one that takes nothing.
    let _queue = queue;
    std::future::pending().await
}

/// Sends something. Behind a Close that the agent has sent nothing can be said any more; but that is still to be answered.
async fn say(
    gateway: &Gateway,
    number: u64,
    sender: &mut Sender,
    message: Message,
) -> Result<(), Over> {
    match sender.send(message).await {
        Err(_) if !gateway.shared.books.has_closed(number) => Err(Over),
        _ => Ok(()),
    }
}

/// A text as a server frames it (RFC 6455, section 5.2), for where the library would send nothing more.
fn unmasked(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length @ 0..126), _) => bytes.push(length),
        (_, Ok(length)) => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((text.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

fn message(garbage: Garbage) -> Message {
    match garbage {
        Garbage::NotJson => Message::text("{\"type\": PING"),
        Garbage::Nested => Message::text("[".repeat(1_000)),
        Garbage::Binary => Message::binary(vec![0; 100]),
        Garbage::UnknownType => Message::text(r#"{"type":"GREETING","request_id":"r1"}"#),
        Garbage::Large(bytes) => Message::text("x".repeat(bytes)),
        Garbage::NotUtf8 => Message::Frame(Frame::message(
            vec![0xFF, 0xFE, 0xFD],
            OpCode::Data(Data::Text),
            true,
        )),
        Garbage::NoId => Message::text(r#"{"type":"INFERENCE_REQUEST","payload":{}}"#),
        Garbage::Error => Message::text(r#"{"type":"ERROR","message":"something is odd"}"#),
    }
}

impl Visit {
    async fn read(&mut self, mut receiver: Receiver) -> Result<(), Over> {
        let auth = timeout(LOGIN, self.next(&mut receiver))
            .await
            .map_err(|_| Over)??;
        if !self.log_in(&auth.0)? {
            // The refusal is still to be read.
            while self.next(&mut receiver).await.is_ok() {}
            return Err(Over);
        }
        loop {
            self.gateway.reading().await;
            let next = timeout(SILENCE, self.next(&mut receiver)).await;
            let Ok(next) = next else {
                self.say(format_args!("drops the agent: nothing for 60 s"));
                return Err(Over);
            };
            let (text, written) = next?;
            self.frame(&text, written)?;
        }
    }

    /// The next text, and when the product wrote its first byte.
    async fn next(&mut self, receiver: &mut Receiver) -> Result<(String, Instant), Over> {
        loop {
            let message = receiver.next().await.ok_or(Over)?.map_err(|_| Over)?;
            let length = message.len() as u64;
            let head = match length {
                0..126 => 6,
                126..65_536 => 8,
                _ => 14,
            };
            let written = self
                .gateway
                .shared
                .link
                .written_at(self.number, self.place + 1);
            let start = self.place;
            self.start = start;
            self.place += head + length;
            match message {
                Message::Text(text) => return Ok((text.as_str().to_owned(), written)),
                Message::Close(frame) => {
                    let code = frame.map(|frame| u16::from(frame.code));
                    self.say(format_args!("< Close {code:?}"));
                    let (books, place) = (&self.gateway.shared.books, (start, self.place));
                    let is_own = books.close_seen(self.number, code, written, place);
                    if is_own && code == Some(1000) && !books.has_left(self.number) {
                        // The library answers when it is asked for more.
                        let thinking = self.gateway.dawdle();
                        if !thinking.is_zero() {
                            sleep(thinking).await;
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.gateway
            .shared
            .trace
            .say(format_args!("gateway, session {} {what}", self.number));
    }

    fn send(&self, frame: &Value) {
        // Nobody takes it where the connection is just ending.
        let _ = self.orders.send(Order::Frame(frame.to_string(), None));
    }

    fn log_in(&mut self, auth: &str) -> Result<bool, Over> {
        let door = self.gateway.manners().door;
        let shared = &self.gateway.shared;
        if door == Door::Refused || !self.is_signed(auth) {
            self.say(format_args!("refuses the login"));
            shared.books.count("refused logins");
            shared.books.ledger().sent_away = Some((Instant::now(), REFUSED));
            self.send(&json!({"type": "ERROR", "message": "Invalid signature"}));
            let _ = self.orders.send(Order::Close(Farewell::AWAY));
            return Ok(false);
        }
        self.say(format_args!("accepts the login"));
        shared.books.logs_in(self.number);
        let (books, number) = (shared.books.clone(), self.number);
        let mark = move |now| {
            let mut ledger = books.ledger();
            ledger.sent_away = None;
            ledger.sessions.entry(number).or_default().up = Some(now);
        };
        let accepted = json!({"type": "AUTH_SUCCESS", "operator_id": shared.agent.0, "node_id": null, "message": "hello"});
        let _ = self
            .orders
            .send(Order::Frame(accepted.to_string(), Some(Box::new(mark))));
        if let Door::Slammed(millis, farewell) = door {
            let orders = self.orders.clone();
            self.gateway.slams(self.number);
            tokio::spawn(async move {
                sleep(Duration::from_millis(millis)).await;
                let _ = orders.send(Order::Close(farewell));
            });
        }
        self.gateway.came_up(self.number, self.orders.clone());
        Ok(true)
    }

    fn is_signed(&self, auth: &str) -> bool {
        let auth: Value = serde_json::from_str(auth).unwrap_or_default();
        let shared = &self.gateway.shared;
        let (client, secret) = &shared.agent;
        let timestamp = auth["timestamp"].as_str().unwrap_or_default();
        let now = EPOCH + shared.began.elapsed().as_secs();
        let fresh = timestamp
            .parse::<u64>()
            .is_ok_and(|then| then.abs_diff(now) <= WINDOW);
        let signed = [Signature::Sha256, Signature::HmacSha256]
            .iter()
            .any(|signature| {
                auth["signature"] == signature.sign(client, timestamp, secret).as_str()
            });
        auth["type"] == "AUTH" && auth["client_id"] == client.as_str() && fresh && signed
    }

    fn frame(&mut self, text: &str, written: Instant) -> Result<(), Over> {
        let value: Value = serde_json::from_str(text).map_err(|_| Over)?;
        let kind = value["type"].as_str().unwrap_or_default();
        let id = match kind {
            "INTERVIEW_RESULT" => &value["interview_id"],
            _ => &value["request_id"],
        };
        let id = id.as_str().unwrap_or_default();
        let acks = self.gateway.manners().acks;
        let late = self.gateway.manners().late_millis;
        let books = &self.gateway.shared.books;
        if self.gateway.is_deaf_to(self.number) {
            books.thrown_away(self.number, kind, id);
            return Ok(());
        }
        books.frame_seen(self.number, kind, (written, self.place), text.len() as u64);
        match kind {
            "HEARTBEAT" => {
                let now = Instant::now();
                if let Some(session) = self
                    .gateway
                    .shared
                    .books
                    .ledger()
                    .sessions
                    .get_mut(&self.number)
                {
                    session.last_heartbeat = Some(now);
                }
                self.say(format_args!("< HEARTBEAT"));
                if acks != Acks::Nothing {
                    self.acknowledge(&json!({"type": "HEARTBEAT_ACK"}), None, late);
                }
                self.gateway.meddle(self.number);
            }
            "MODEL_LIST" if acks != Acks::Nothing => {
                self.say(format_args!("< MODEL_LIST"));
                self.acknowledge(&json!({"type": "MODEL_LIST_ACK"}), None, late);
            }
            "PONG" => self.say(format_args!("< PONG")),
            "REGISTER_NODE" => self.register(&value, written),
            "INFERENCE_CHUNK" | "INFERENCE_RESPONSE" | "INFERENCE_ERROR" | "INTERVIEW_RESULT"
            | "TTS_RESPONSE" | "TTS_ERROR" => {
                self.data(kind, id, &value, text, written)?;
                if kind != "INFERENCE_CHUNK" {
                    self.gateway.meddle(self.number);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn register(&self, frame: &Value, written: Instant) {
        let models = frame["models"].as_array().map_or(0, Vec::len);
        self.say(format_args!("< REGISTER_NODE with {models} models"));
        let shared = &self.gateway.shared;
        shared.books.registers(self.number, models, written);
        let alias = frame["alias"].as_str().unwrap_or_default();
        let (node_id, alias) = self.gateway.registered(alias);
        self.send(&json!({
            "type": "REGISTER_NODE_ACK", "node_id": node_id, "alias": alias,
            "models": frame["models"], "created": true, "message": "",
        }));
    }

    fn data(
        &self,
        kind: &str,
        id: &str,
        value: &Value,
        text: &str,
        written: Instant,
    ) -> Result<(), Over> {
        let shared = &self.gateway.shared;
        match kind {
            "INFERENCE_CHUNK" => self.say(format_args!("< {kind} {id} {}", value["index"])),
            "INFERENCE_ERROR" | "TTS_ERROR" => {
                self.say(format_args!("< {kind} {id} {}", value["error"]));
            }
            _ => self.say(format_args!("< {kind} {id} {} bytes", text.len())),
        }
        let is_response = matches!(kind, "INFERENCE_RESPONSE" | "TTS_RESPONSE");
        if is_response && shared.books.is_poisoned(id) {
            self.say(format_args!("dies of {id}"));
            let is_spoiled = self.gateway.has_spoiled(self.number);
            shared.books.dies_of(self.number, id, written, is_spoiled);
            return Err(Over);
        }
        let is_interview = kind == "INTERVIEW_RESULT";
        let name = if is_interview { key(id) } else { id.to_owned() };
        shared.books.seen(&Seen {
            session: self.number,
            kind,
            id: &name,
            value,
            text,
            written,
            start: self.start,
        });
        self.gateway.hears(kind, id);
        let manners = self.gateway.manners();
        // What is only refused is neither kept nor proven.
        let is_kept = is_response
            || is_interview
                && shared.books.is(&name, |it| {
                    it.answers.last().is_some_and(|it| it.code.is_none())
                });
        if is_kept && manners.acks != Acks::All {
            shared.books.needs_fence(self.number, &name, written);
        }
        if kind != "INFERENCE_CHUNK" {
            shared.books.terminal_read(self.number, id);
        }
        if matches!(kind, "INFERENCE_ERROR" | "TTS_ERROR") && self.gateway.whim(manners.retries) {
            self.gateway.retry(id);
        }
        if kind != "INFERENCE_CHUNK" && manners.acks == Acks::All {
            if self.gateway.whim(manners.lies) {
                self.gateway.lie(self.number);
            }
            if manners.strays {
                self.send(&json!({"type": "RESULT_ACK", "request_id": "never-made"}));
                self.send(&json!({"type": "RESULT_ACK"}));
            }
            self.acknowledge(
                &json!({"type": "RESULT_ACK", "request_id": id}),
                Some(id),
                manners.ack_millis,
            );
        }
        if is_interview {
            self.gateway.judges(self.number, &name);
        }
        Ok(())
    }

    /// Acknowledges something, `id` if it is an answer, at once or within so many milliseconds.
    fn acknowledge(&self, ack: &Value, id: Option<&str>, within: u64) {
        let times = if self.gateway.manners().doubles { 2 } else { 1 };
        let wait = self.gateway.millis(within);
        let orders = self.orders.clone();
        let ack = ack.to_string();
        let (books, number, id) = (
            self.gateway.shared.books.clone(),
            self.number,
            id.map(str::to_owned),
        );
        if wait > LATE {
            books.count("acknowledgements that were late");
        }
        let send = move || {
            for _ in 0..times {
                if let Some(id) = &id {
                    books.acknowledges(number, id);
                }
                let _ = orders.send(Order::Frame(ack.clone(), None));
            }
        };
        if wait.is_zero() {
            send();
        } else {
            tokio::spawn(async move {
                sleep(wait).await;
                send();
            });
        }
    }
}
