//! What a gateway does and leaves undone; every part of it may change while it runs.

use std::time::Duration;

use serde_json::{Value, json};

use super::network::{Interviews, Reputation};

/// How the gateway behaves.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Answer `HEARTBEAT` with `HEARTBEAT_ACK`.
    pub acknowledge_heartbeats: bool,
    /// Answer `MODEL_LIST` with `MODEL_LIST_ACK`.
    pub acknowledge_models: bool,
    /// Answer `REGISTER_NODE` with `REGISTER_NODE_ACK`.
    pub acknowledge_registrations: bool,
    /// Answer `UPDATE_WALLET` with `UPDATE_WALLET_ACK`.
    pub acknowledge_wallets: bool,
    /// Answer every result, errors and interviews included, with `RESULT_ACK`.
    pub acknowledge_results: bool,
    /// Which result `RESULT_ACK` says it is about.
    pub result_ack_id: AckId,
    /// How long after its result `RESULT_ACK` comes.
    pub result_ack_delay: Duration,
    /// Say every `RESULT_ACK` twice.
    pub repeat_result_acks: bool,
    /// Say every `HEARTBEAT_ACK` twice.
    pub repeat_heartbeat_acks: bool,
    /// Answer WebSocket Pings with Pongs.
    pub answer_pings: bool,
    /// Answer the agent's Close. If not, the connection stands until the agent leaves it, and no Close is sent at all.
    pub answer_closes: bool,
    /// End the session without a word as soon as the answer with this id has been read, as a gateway does that the
    /// answer crashes: it is neither booked nor acknowledged.
    pub poison: Option<String>,
    /// Send `PING` this often.
    pub ping_every: Option<Duration>,
    /// Close a session on which so many `PING`s in a row were not answered when the next one is due.
    pub missed_pings: Option<u32>,
    /// Drop an operator that was not heard for this long.
    pub silence_limit: Option<Duration>,
    /// A login ends the older session of the same client, without saying why. If not, a client may have several.
    pub one_session_each: bool,
    /// What becomes of a connection and its login.
    pub login: Login,
    /// How many connections may be asked for within a minute from one address; the next one is answered with 429.
    pub connects_per_minute: Option<usize>,
    /// Interview new nodes. Without it each node is in good standing.
    pub interviews: Option<Interviews>,
    /// Probe nodes in good standing.
    pub probes: Option<Probes>,
    /// Give a request up of which nothing has come for so long, neither a chunk nor an answer: its consumer is told so,
    /// and an answer that comes later is not paid.
    pub give_up_after: Option<Duration>,
    /// Cancel what is given up.
    pub cancel_given_up: bool,
    /// What a node's deeds are worth.
    pub reputation: Reputation,
    /// How far the gateway's clock is ahead of the system's, in seconds.
    pub clock_ahead: i64,
    /// Keep every frame for [`Gateway::frames`](super::Gateway::frames) and the waiting calls.
    pub record: bool,
    /// Keep those about chats too; without them a gateway can be watched for long under any load.
    pub record_chats: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            acknowledge_heartbeats: true,
            acknowledge_models: true,
            acknowledge_registrations: true,
            acknowledge_wallets: true,
            acknowledge_results: true,
            result_ack_id: AckId::Own,
            result_ack_delay: Duration::ZERO,
            repeat_result_acks: false,
            repeat_heartbeat_acks: false,
            answer_pings: true,
            answer_closes: true,
            poison: None,
            ping_every: None,
            missed_pings: None,
            silence_limit: Some(Duration::from_secs(60)),
            one_session_each: false,
            login: Login::Check,
            connects_per_minute: None,
            interviews: None,
            probes: None,
            give_up_after: None,
            cancel_given_up: false,
            reputation: Reputation::default(),
            clock_ahead: 0,
            record: true,
            record_chats: true,
        }
    }
}

impl Policy {
    /// Turns on all that the network does by clocks and rules of its own, with the numbers that others report of it.
    pub fn network_rules(&mut self) {
        self.ping_every = Some(Duration::from_secs(30));
        self.missed_pings = Some(2);
        self.connects_per_minute = Some(10);
        self.interviews = Some(Interviews::default());
        self.probes = Some(Probes::default());
        self.give_up_after = Some(Duration::from_secs(90));
    }
}

/// How nodes are probed: with their first model, and `ping` as the only message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// How long after its registration, its interview or its last probe a node is probed. The network's is not known.
    pub every: Duration,
    /// When the answer must be there.
    pub limit: Duration,
    /// The probe's `max_tokens`.
    pub max_tokens: u32,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5 * 60),
            limit: Duration::from_secs(10),
            max_tokens: 5,
        }
    }
}

impl Probes {
    pub(super) fn request(&self, id: &str, model: &str) -> Value {
        let payload = json!({
            "model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": self.max_tokens,
        });
        json!({"type": "INFERENCE_REQUEST", "request_id": id, "payload": payload})
    }
}

/// Which result a `RESULT_ACK` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckId {
    /// The one that came.
    Own,
    /// None.
    Missing,
    /// One that never was.
    Another,
}

/// What becomes of a connection and its login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Check client, time and signature, and let those in that are right.
    Check,
    /// Answer any `AUTH` with this `ERROR` and close.
    Refuse(String),
    /// Read, and never answer `AUTH`.
    Hang,
    /// Let in, then close at once.
    Close {
        /// Of the WebSocket Close frame.
        code: u16,
        /// Of the WebSocket Close frame.
        reason: String,
    },
    /// Reset the connection as soon as `AUTH` came.
    Reset,
    /// Answer the WebSocket upgrade with this instead.
    Http {
        /// The status of the answer, 300 or more.
        status: u16,
        /// `Retry-After`, as it is written.
        retry_after: Option<String>,
        /// The answer's body.
        body: String,
    },
    /// Accept the WebSocket and never read a byte from it.
    NeverRead,
    /// Accept the TCP connection and never answer the upgrade.
    HangUpgrade,
}
