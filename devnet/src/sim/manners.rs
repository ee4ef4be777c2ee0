//! How a model gateway behaves: what it acknowledges, how it meets agents, how it closes. Pure.
//!
//! Invariant: whatever it does wrong is told to the books by whoever does it, so that a loss is laid at its own door and
//! never at the product's.

use std::time::Duration;

/// What it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Heartbeats, lists of models and answers.
    All,
    /// Heartbeats and lists of models.
    Heartbeats,
    /// Nothing; only its socket answers Pings.
    Nothing,
}

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Manners {
    /// What it acknowledges.
    pub acks: Acks,
    /// The longest time before an answer is acknowledged, in milliseconds.
    pub ack_millis: u64,
    /// Whether it says everything twice that it acknowledges.
    pub doubles: bool,
    /// Whether it acknowledges what was never sent.
    pub strays: bool,
    /// How often it sends PING.
    pub ping_every: Option<Duration>,
    /// How many of a hundred unanswered requests it makes again after a login.
    pub repeats: u64,
    /// How it meets agents.
    pub door: Door,
    /// The longest time before a heartbeat or a list of models is acknowledged, in milliseconds.
    pub late_millis: u64,
    /// How many of a hundred answers have it acknowledge another id than theirs as well.
    pub lies: u64,
    /// How many of a hundred requests that failed it makes again at once.
    pub retries: u64,
    /// How many of a hundred heartbeats of an agent that drains have it close the session itself, with this Close.
    pub crosses: Option<(u64, Farewell)>,
    /// Whether it makes answered requests again when an agent that drains shows life, and after it has read that agent's
    /// Close, before it answers that.
    pub last_repeats: bool,
    /// What the network does that is behind it.
    pub network: Network,
}

/// What a network does beside handing out requests. The default: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// How many of a hundred nodes that register, or log in as generation 1, it interviews.
    pub interviews: u64,
    /// How many of a hundred results it takes for failures, so that the agent is sent away.
    pub fails: u64,
    /// How often it sends a probe.
    pub probe_every: Option<Duration>,
    /// Whether a node of bad reputation gets only a few of the requests.
    pub judges: bool,
    /// Whether it does anything at all, such as to give up what nothing is heard of for 90 s.
    pub is_there: bool,
}

/// How it meets agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// They may log in.
    Open,
    /// They are refused.
    Refused,
    /// They may log in and are closed on after so many milliseconds.
    Slammed(u64, Farewell),
    /// The upgrade is answered with 503 and this `Retry-After`.
    Unavailable(&'static str),
}

/// A frame that means nothing, or nothing good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garbage {
    /// Text that is no JSON.
    NotJson,
    /// JSON of a thousand levels.
    Nested,
    /// A binary message.
    Binary,
    /// A type that nobody has heard of.
    UnknownType,
    /// A text of so many bytes.
    Large(usize),
    /// A text that is not UTF-8.
    NotUtf8,
    /// A request without an id.
    NoId,
    /// An ERROR.
    Error,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            ack_millis: 0,
            doubles: false,
            strays: false,
            ping_every: None,
            repeats: 50,
            door: Door::Open,
            late_millis: 0,
            lies: 0,
            retries: 0,
            crosses: None,
            last_repeats: false,
            network: Network::default(),
        }
    }
}

/// A Close of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// Its code; `None`: it has none.
    pub code: Option<u16>,
    /// Its reason.
    pub reason: &'static str,
    /// Whether the gateway throws away what it reads from then on.
    pub is_deaf: bool,
}

impl Farewell {
    /// A restart, without a word more.
    pub const AWAY: Self = Self {
        code: Some(1001),
        reason: "",
        is_deaf: false,
    };

    /// Whether it looks like the answer to an agent's Close 1000: an answer repeats the code or has none (RFC 6455, section
    /// 5.5.1).
    pub fn is_like_an_answer(&self) -> bool {
        matches!(self.code, Some(1000) | None)
    }
}

/// No gateway keeps an agent away for longer than this by asking once.
const LONGEST_AWAY: Duration = Duration::from_secs(3_600);

/// How long an agent has to stay away that was told `retry_after_seconds` in these words of JSON; `None`: they name no time.
pub fn asked_in_json(words: &str) -> Option<Duration> {
    let seconds: f64 = words.parse().ok()?;
    (seconds >= 0.0).then(|| {
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(LONGEST_AWAY)
            .min(LONGEST_AWAY)
    })
}

/// The same for a `Retry-After`, which knows whole seconds only (RFC 9110, section 10.2.3).
pub fn asked_in_http(words: &str) -> Option<Duration> {
    let is_number = !words.is_empty() && words.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| {
        let seconds = words.parse().unwrap_or(u64::MAX);
        Duration::from_secs(seconds).min(LONGEST_AWAY)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_from_zero_on_names_no_time_and_nothing_is_longer_than_an_hour() {
        for (words, asked) in [
            ("0", Some(Duration::ZERO)),
            ("1e-9", Some(Duration::from_nanos(1))),
            ("259", Some(Duration::from_secs(259))),
            ("1e999", Some(LONGEST_AWAY)),
            ("18446744073709551615", Some(LONGEST_AWAY)),
            ("-1", None),
            ("\"7\"", None),
            ("null", None),
        ] {
            assert_eq!(asked_in_json(words), asked, "{words}");
        }
        assert_eq!(asked_in_http("3601"), Some(LONGEST_AWAY));
        assert_eq!(asked_in_http("99999999999999999999"), Some(LONGEST_AWAY));
        assert_eq!(asked_in_http("soon"), None);
    }
}
