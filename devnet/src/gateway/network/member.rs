//! A node as the network sees it: who it is, what it has, and what it may expect.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    super::nodes::Node,
    interview::{ApiMode, Tier},
};

/// A node.
#[derive(Clone, Debug)]
pub struct Member {
    /// The alias that it is known by.
    pub alias: String,
    /// What it may expect.
    pub standing: Standing,
    /// The tier of the last interview that it passed.
    pub tier: Option<Tier>,
    /// In points; what is worth how much is in [`Policy::reputation`](super::super::Policy::reputation).
    pub reputation: u32,
    /// Its probes so far.
    pub probes: ProbeCounts,
    pub(super) id: String,
    pub(super) operator: String,
    pub(super) mode: ApiMode,
    pub(super) interview_model: Option<String>,
    /// The models of its registration.
    pub(super) registered: Vec<String>,
    /// Those that it has now, in its order.
    pub(super) models: Vec<String>,
    /// The connection over which it is registered.
    pub(super) connection: Option<u64>,
    /// Interviews that it failed in a row.
    pub(super) failures: u32,
    /// When it was last registered, judged or probed.
    pub(super) calm_since: Instant,
}

/// What a node may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// To be interviewed; until its next registration.
    New,
    /// A verdict; until it is there, time is up, or the session ends.
    Interviewing,
    /// To be probed; until it fails an interview that somebody asks for.
    Good,
    /// To be turned away until then and to be interviewed after it; for ever where there is no time.
    Failed(Option<Instant>),
}

impl Standing {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Interviewing => "interviewing",
            Self::Good => "good",
            Self::Failed(_) => "failed",
        }
    }
}

/// What came of a node's probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// How many were sent.
    pub sent: usize,
    /// How many were answered in time and without an error.
    pub answered: usize,
    /// How many were answered with an error, too late, or not at all while the session stood.
    pub missed: usize,
}

/// A node that asks to be let in.
pub(crate) struct Registration {
    pub(super) node: Node,
    pub(super) operator: String,
    pub(super) connection: u64,
    pub(super) models: Vec<String>,
    pub(super) interview_model: Option<String>,
    pub(super) mode: ApiMode,
}

impl Registration {
    /// Reads a `REGISTER_NODE` that came over this connection, after which the node is known as `node`.
    pub(crate) fn read(frame: &Value, node: Node, operator: &str, connection: u64) -> Self {
        let mode = match frame["apiMode"].as_str() {
            Some("openai") => ApiMode::OpenAi,
            _ => ApiMode::Ollama,
        };
        Self {
            node,
            operator: operator.to_owned(),
            connection,
            models: models(frame),
            interview_model: frame["interviewModel"].as_str().map(str::to_owned),
            mode,
        }
    }

    /// An agent of generation 1 registers no node; it is one by its first list.
    pub(super) fn of_desktop(operator: &str, connection: u64, models: &[String]) -> Self {
        Self {
            node: Node {
                id: "node_desktop".to_owned(),
                alias: operator.to_owned(),
            },
            operator: operator.to_owned(),
            connection,
            models: models.to_vec(),
            interview_model: None,
            mode: ApiMode::Ollama,
        }
    }
}

/// The `models` of a frame.
pub(crate) fn models(frame: &Value) -> Vec<String> {
    let listed = frame["models"].as_array();
    let names = listed.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

impl Member {
    pub(super) fn new(asks: &Registration, reputation: u32, now: Instant) -> Self {
        Self {
            alias: asks.node.alias.clone(),
            standing: Standing::New,
            tier: None,
            reputation,
            probes: ProbeCounts::default(),
            id: asks.node.id.clone(),
            operator: asks.operator.clone(),
            mode: asks.mode,
            interview_model: None,
            registered: Vec::new(),
            models: Vec::new(),
            connection: None,
            failures: 0,
            calm_since: now,
        }
    }

    pub(super) fn update(&mut self, asks: Registration, now: Instant) {
        self.connection = Some(asks.connection);
        self.mode = asks.mode;
        self.interview_model = asks.interview_model;
        self.models.clone_from(&asks.models);
        self.registered = asks.models;
        self.calm_since = now;
    }

    /// If it is turned away now: for how long yet, where that ends, and what it is told.
    pub(super) fn barred(&self, now: Instant) -> Option<(Option<Duration>, Value)> {
        let Standing::Failed(until) = self.standing else {
            return None;
        };
        let left = until.map(|until| until.saturating_duration_since(now));
        let (reason, message) = match left {
            Some(Duration::ZERO) => return None,
            Some(_) => (
                "recently_failed",
                "the last interview failed a short time ago",
            ),
            None => (
                "retry_budget_exhausted",
                "too many interviews failed in a row",
            ),
        };
        Some((left, interview_failed(&self.id, reason, message, left)))
    }

    /// Whether it is to be probed: with no model on a session there is nothing to ask it for.
    pub(super) fn is_probed(&self) -> bool {
        self.standing == Standing::Good && self.connection.is_some() && !self.models.is_empty()
    }

    pub(super) fn has(&self, model: &str) -> bool {
        let tagged = format!("{model}:latest");
        let mut models = self.models.iter();
        models.any(|name| name.eq_ignore_ascii_case(model) || name.eq_ignore_ascii_case(&tagged))
    }
}

/// The frame of this name. Seconds are rounded up: who stays away for so long is not early.
pub(super) fn interview_failed(
    node_id: &str,
    reason: &str,
    message: &str,
    retry_after: Option<Duration>,
) -> Value {
    let mut frame = json!({
        "type": "INTERVIEW_FAILED", "node_id": node_id, "reason": reason, "message": message,
    });
    if let Some(left) = retry_after {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        frame["retry_after_seconds"] = json!(seconds);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_failed_is_told_how_long_to_stay_away_and_never_too_little() {
        let now = Instant::now();
        let asks = Registration::of_desktop("pin_a", 1, &[]);
        let mut node = Member::new(&asks, 100, now);
        assert_eq!(node.barred(now), None);
        node.standing = Standing::Failed(Some(now + Duration::from_secs(259)));
        for (passed, seconds) in [
            (0, Some(259)),
            (1, Some(259)),
            (258_001, Some(1)),
            (259_000, None),
        ] {
            let refusal = node.barred(now + Duration::from_millis(passed));
            let told = refusal.map(|(_, frame)| frame["retry_after_seconds"].clone());
            assert_eq!(told, seconds.map(|seconds| json!(seconds)), "{passed} ms");
        }
        node.standing = Standing::Failed(None);
        let (left, frame) = node.barred(now).unwrap_or_default();
        assert_eq!(
            (left, &frame["reason"]),
            (None, &json!("retry_budget_exhausted"))
        );
        assert!(frame["retry_after_seconds"].is_null());
    }
}
