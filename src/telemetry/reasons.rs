//! The closed sets that the metrics' labels `reason` and `tier` are from, except for the codes of failed requests, which
//! the protocol owns.

use crate::label::{Label, labels};

labels! {
    /// Why an attempt to open a session failed.
    pub enum ConnectFailure {
        /// The gateway's name could not be resolved.
        Dns = "dns",
        /// No TCP connection (refused, unreachable, no route), or one that ended before the login was answered.
        Tcp = "tcp",
        /// The TLS handshake failed, or the certificate is not trusted.
        Tls = "tls",
        /// The proxy refused or could not be reached.
        Proxy = "proxy",
        /// The upgrade was answered with an HTTP status other than 101.
        Http = "http",
        /// The gateway refused the login: a human must act.
        Auth = "auth",
        /// A step took longer than `PIN_CONNECT_TIMEOUT`.
        Timeout = "timeout",
        /// What answered does not speak the protocol.
        Protocol = "protocol",
    }
}

labels! {
    /// Why a session that was up has ended.
    pub enum DisconnectReason {
        /// The gateway closed it in order.
        Closed = "closed",
        /// The connection broke.
        Reset = "reset",
        /// Nothing was received for `PIN_HEARTBEAT_TIMEOUT`.
        Silent = "silent",
        /// A due heartbeat could not be written for `PIN_HEARTBEAT_TIMEOUT`, or none was answered any more: what we send is
        /// no longer read.
        Stuck = "stuck",
        /// The gateway broke the WebSocket protocol, or sent a frame that is too large.
        Protocol = "protocol",
        /// The gateway asked to stay away for a while.
        RetryAfter = "retry_after",
        /// The sidecar is ending, or was told to disconnect.
        Shutdown = "shutdown",
    }
}

labels! {
    /// Why nothing of a server is offered.
    pub enum ServerOutage {
        /// It does not answer, or keeps the sidecar out.
        Down = "down",
        /// It answers, and has no model to offer.
        NoModels = "no_models",
    }
}

labels! {
    /// Why an answer was dropped without proof that it was delivered.
    pub enum DropReason {
        /// It was older than `PIN_RESULT_TTL`.
        Expired = "expired",
        /// The gateway cancelled its request.
        Cancelled = "cancelled",
        /// It was an error, and its request came again as new work.
        Superseded = "superseded",
        /// Sessions ended, time and again, after it was sent.
        Rejected = "rejected",
        /// The sidecar ended before it was delivered.
        Shutdown = "shutdown",
    }
}

labels! {
    /// What the network thinks of this node's speed and accuracy.
    pub enum Tier {
        /// The best.
        Elite = "elite",
        /// Fast and accurate.
        High = "high",
        /// Good enough to be given work.
        Standard = "standard",
        /// Not good enough: the gateway closes the session.
        Failed = "failed",
        /// A word that this version does not know.
        Other = "other",
    }
}

impl Tier {
    /// The tier of a word of the network's, whatever its case.
    pub fn of(word: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|tier| tier.as_str().eq_ignore_ascii_case(word))
            .unwrap_or(Self::Other)
    }
}
