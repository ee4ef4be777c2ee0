//! What a gateway does and leaves undone; every part of it may change while it runs.

use std::time::Duration;

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
    /// Answer every result, errors included, with `RESULT_ACK`.
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
    /// Drop an operator that was not heard for this long.
    pub silence_limit: Option<Duration>,
    /// A login ends the older session of the same client, without saying why. If not, a client may have several.
    pub one_session_each: bool,
    /// What becomes of a connection and its login.
    pub login: Login,
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
            silence_limit: Some(Duration::from_secs(60)),
            one_session_each: false,
            login: Login::Check,
            clock_ahead: 0,
            record: true,
            record_chats: true,
        }
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
