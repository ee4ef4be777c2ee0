//! What a node is asked in an interview, and what its answers are worth.
//!
//! Invariant: a verdict follows from the result and the rules alone; nothing is believed that is not a number.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// How nodes are interviewed.
#[derive(Clone, Debug)]
pub struct Interviews {
    /// How many prompts; `None`: 5 for `apiMode` ollama, 7 for openai.
    pub prompts: Option<usize>,
    /// How long each may take, told as `timeout_ms`. The result is waited for so long for each prompt.
    pub timeout: Duration,
    /// The `max_tokens` of each prompt.
    pub max_tokens: u32,
    /// What is wanted of a node whose `apiMode` is ollama.
    pub ollama: Speeds,
    /// What is wanted of one whose `apiMode` is openai.
    pub openai: Speeds,
    /// The share of right answers below which a node fails.
    pub least_accuracy: f64,
    /// Whether this is a right answer to this prompt.
    pub judge: fn(prompt: &str, response: &str) -> bool,
    /// How long a node that failed must stay away.
    pub retry_after: Duration,
    /// After so many failures in a row a node is not interviewed again.
    pub retry_budget: u32,
    /// Interview a node each time it registers, also one that has passed.
    pub every_registration: bool,
}

/// Tokens a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speeds {
    /// Above it a node is among the best.
    pub best: f64,
    /// Below it a node fails.
    pub floor: f64,
}

/// The prompts, speeds and times that others report of the network; a budget of three, and 60 % of the answers right, are
/// this gateway's.
impl Default for Interviews {
    fn default() -> Self {
        Self {
            prompts: None,
            timeout: Duration::from_secs(60),
            max_tokens: 128,
            ollama: Speeds {
                best: 20.0,
                floor: 10.0,
            },
            openai: Speeds {
                best: 30.0,
                floor: 15.0,
            },
            least_accuracy: 0.6,
            judge: |_, response| !response.trim().is_empty(),
            retry_after: Duration::from_secs(259),
            retry_budget: 3,
            every_registration: false,
        }
    }
}

/// What is asked, in turn.
const PROMPTS: [&str; 7] = [
    "Explain in a few sentences why the sky is blue.",
    "List the planets of the solar system from the innermost to the outermost.",
    "A train leaves at 9:40 and arrives at 11:05. How long does it travel?",
    "Write a function that reverses a string, in a language that you like.",
    "Summarise in three sentences how a bill becomes a law.",
    "Translate into French: the meeting was moved to Thursday.",
    "What is the difference between a process and a thread?",
];

/// A model server's interface, as `apiMode` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiMode {
    Ollama,
    OpenAi,
}

/// An interview that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Interview {
    /// Its `interview_id`.
    pub id: String,
    /// The node, by the alias that the network knows it by.
    pub alias: String,
    /// The model.
    pub model: String,
    /// The connection over which it was asked.
    pub connection: u64,
    /// When.
    pub asked: Instant,
    /// How many prompts.
    pub prompts: usize,
    /// What has become of it.
    pub state: InterviewState,
}

/// What has become of an interview.
#[derive(Clone, Debug, PartialEq)]
pub enum InterviewState {
    /// Its result is waited for; until it is there, time is up, or the session ends.
    Running,
    /// Its session ended. A result that comes over a later one is taken, until time is up.
    Broken,
    /// Its result is there, and this is what it is worth; for good.
    Judged(Verdict),
    /// Another interview of the node was judged first, or a newer one begun; for good. A result is not looked at.
    Superseded,
    /// There was no result in time; for good. A result is not looked at.
    TimedOut,
}

impl InterviewState {
    /// Whether a result would be judged.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Running | Self::Broken)
    }
}

/// What a result is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How good the node is.
    pub tier: Tier,
    /// The share of prompts with a right answer, 0 to 1.
    pub accuracy: f64,
    /// All tokens by the time of all prompts that did not fail.
    pub tokens_per_second: f64,
    /// The time to the first token, the mean of the prompts that did not fail; `None` where all of them did.
    pub first_token: Option<Duration>,
}

/// A node's quality, as `INTERVIEW_COMPLETE` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Faster than [`Speeds::best`], and nine of ten answers right.
    Elite,
    /// Nearer to the best than to the floor, and four of five answers right: a bound of this gateway's.
    High,
    /// Good enough.
    Standard,
    /// Too slow, or too often wrong.
    Failed,
}

impl Tier {
    /// `elite`, `high`, `standard` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Elite => "elite",
            Self::High => "high",
            Self::Standard => "standard",
            Self::Failed => "failed",
        }
    }
}

impl Interviews {
    pub(super) fn count(&self, mode: ApiMode) -> usize {
        self.prompts.unwrap_or(match mode {
            ApiMode::Ollama => 5,
            ApiMode::OpenAi => 7,
        })
    }

    pub(super) fn speeds(&self, mode: ApiMode) -> Speeds {
        match mode {
            ApiMode::Ollama => self.ollama,
            ApiMode::OpenAi => self.openai,
        }
    }

    /// How long so many prompts may take.
    pub(super) fn limit(&self, prompts: usize) -> Duration {
        self.timeout * u32::try_from(prompts).unwrap_or(u32::MAX)
    }

    pub(super) fn request(&self, interview: &Interview, node_id: &str) -> Value {
        let prompt = |index| json!({"id": prompt_id(index), "prompt": prompt(index), "max_tokens": self.max_tokens});
        let prompts: Vec<Value> = (0..interview.prompts).map(prompt).collect();
        json!({
            "type": "INTERVIEW_REQUEST", "interview_id": interview.id, "node_id": node_id, "model": interview.model,
            "prompts": prompts, "timeout_ms": millis(self.timeout),
        })
    }

    /// What the `results` of an `INTERVIEW_RESULT` with so many prompts are worth. A prompt without a result has failed.
    pub(super) fn verdict(&self, mode: ApiMode, prompts: usize, results: &Value) -> Verdict {
        let results = results.as_array().map_or(&[][..], Vec::as_slice);
        let answered: Vec<(usize, &Value)> = (0..prompts)
            .filter_map(|index| Some((index, result_of(index, results)?)))
            .collect();
        let sum = |field: &str| answered.iter().map(|(_, one)| number(one, field)).sum();
        let right = answered
            .iter()
            .filter(|(index, one)| {
                (self.judge)(prompt(*index), one["response"].as_str().unwrap_or_default())
            })
            .count();
        let (tokens, time, first): (f64, f64, f64) =
            (sum("tokens_generated"), sum("total_ms"), sum("ttft_ms"));
        let accuracy = share(right, prompts);
        // Times are whole milliseconds, and a stand-in may take none.
        let tokens_per_second = 1000.0 * tokens / time.max(1.0);
        Verdict {
            tier: self.tier(self.speeds(mode), accuracy, tokens_per_second),
            accuracy,
            tokens_per_second,
            first_token: (!answered.is_empty())
                .then(|| Duration::from_secs_f64(first * share(1, answered.len()) / 1000.0)),
        }
    }

    fn tier(&self, Speeds { best, floor }: Speeds, accuracy: f64, speed: f64) -> Tier {
        if speed < floor || accuracy < self.least_accuracy {
            Tier::Failed
        } else if speed > best && accuracy >= 0.9 {
            Tier::Elite
        } else if speed > f64::midpoint(best, floor) && accuracy >= 0.8 {
            Tier::High
        } else {
            Tier::Standard
        }
    }
}

impl Verdict {
    /// Why a node failed, as `reason` and `message` say it.
    pub(super) fn blame(&self, Speeds { floor, .. }: Speeds) -> (&'static str, String) {
        let speed = self.tokens_per_second;
        if speed < floor {
            let message = format!("{speed:.1} tokens/s are too slow: {floor:.0} are needed");
            ("too_slow", message)
        } else {
            let percent = 100.0 * self.accuracy;
            (
                "low_accuracy",
                format!("{percent:.0} % of the answers are right"),
            )
        }
    }
}

fn prompt_id(index: usize) -> String {
    format!("p{}", index + 1)
}

fn prompt(index: usize) -> &'static str {
    PROMPTS[index % PROMPTS.len()]
}

/// The prompt's result, unless it failed.
fn result_of(index: usize, results: &[Value]) -> Option<&Value> {
    let id = prompt_id(index);
    let result = results.iter().find(|result| result["prompt_id"] == id)?;
    result["error"].is_null().then_some(result)
}

/// A number that times and counts can be reckoned with; what is none is 0. Bounded, so that no sum of them is infinite.
fn number(result: &Value, field: &str) -> f64 {
    result[field].as_f64().unwrap_or(0.0).clamp(0.0, 1e12)
}

#[allow(clippy::cast_precision_loss, reason = "there are few prompts")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(index: usize, tokens: u32, total: u32) -> Value {
        json!({
            "prompt_id": prompt_id(index), "response": "yes", "ttft_ms": 50, "total_ms": total,
            "tokens_generated": tokens,
        })
    }

    fn verdict(results: &[Value]) -> Verdict {
        Interviews::default().verdict(ApiMode::Ollama, 5, &json!(results))
    }

    fn at_speed(tokens_per_second: u32) -> Tier {
        let results: Vec<Value> = (0..5).map(|n| result(n, tokens_per_second, 1000)).collect();
        verdict(&results).tier
    }

    #[test]
    fn a_tier_follows_from_all_tokens_by_all_time() {
        let tiers = [9, 10, 15, 16, 20, 21].map(at_speed);
        let expected = [
            Tier::Failed,
            Tier::Standard,
            Tier::Standard,
            Tier::High,
            Tier::High,
            Tier::Elite,
        ];
        assert_eq!(tiers, expected);
        let mixed = verdict(&[result(0, 100, 1000), result(1, 20, 3000)]);
        assert!((mixed.tokens_per_second - 30.0).abs() < 1e-9);
        assert_eq!(mixed.first_token, Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_prompt_that_failed_or_is_missing_costs_accuracy_and_no_speed() {
        let failed = json!({
            "prompt_id": "p5", "response": "", "ttft_ms": 0, "total_ms": 0, "tokens_generated": 0, "error": "timeout",
        });
        let mut results: Vec<Value> = (0..4).map(|n| result(n, 40, 1000)).collect();
        results.push(failed);
        let with_failure = verdict(&results);
        assert_eq!(with_failure, verdict(&results[..4]));
        assert_eq!(
            (with_failure.tier, with_failure.accuracy),
            (Tier::High, 0.8)
        );
        assert_eq!(verdict(&results[..2]).tier, Tier::Failed);
    }

    #[test]
    fn a_result_is_not_believed_what_is_no_number() {
        for results in [
            json!(null),
            json!([]),
            json!([7]),
            json!([{"prompt_id": "p1", "response": "yes", "total_ms": "1", "tokens_generated": -7, "ttft_ms": []}]),
            json!([{"prompt_id": "p1", "response": 7, "total_ms": 1e300, "tokens_generated": 1e300, "ttft_ms": 1e300}]),
        ] {
            let verdict = Interviews::default().verdict(ApiMode::OpenAi, 7, &results);
            assert_eq!(verdict.tier, Tier::Failed, "{results}");
        }
    }
}
