//! The objects that a chat's answer is made of, their keys in the order in which Ollama writes them: whoever passes
//! them on must keep it.

use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
pub(super) struct Message<'a> {
    pub(super) role: &'static str,
    pub(super) content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) thinking: Option<&'a str>,
    /// What OpenAI's dialect calls thinking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<Value>,
}

impl<'a> Message<'a> {
    pub(super) fn saying(content: &'a str) -> Self {
        Self {
            role: "assistant",
            content,
            thinking: None,
            reasoning: None,
            tool_calls: None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Native<'a> {
    pub(super) model: &'a str,
    pub(super) created_at: String,
    pub(super) message: Message<'a>,
    pub(super) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) done_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) logprobs: Vec<Logprob<'a>>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Counts>,
}

/// In nanoseconds and tokens; Ollama leaves out what is 0.
#[derive(Serialize)]
pub(super) struct Counts {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) total_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) load_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) prompt_eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) eval_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) eval_duration: u64,
}

// Serde gives a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
pub(super) struct Logprob<'a> {
    pub(super) token: &'a str,
    pub(super) logprob: f64,
    pub(super) bytes: &'a [u8],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_logprobs: Vec<Logprob<'a>>,
}

#[derive(Serialize)]
pub(super) struct OpenAi<'a> {
    pub(super) id: &'static str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
}

#[derive(Serialize)]
pub(super) struct Choice<'a> {
    pub(super) index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delta: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<Message<'a>>,
    pub(super) finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) total_tokens: u64,
}

/// These types are maps of strings, numbers and values, none of which serialising can refuse.
pub(super) fn write(object: &impl Serialize) -> String {
    #[allow(clippy::expect_used)]
    serde_json::to_string(object).expect("plain objects can be written as JSON")
}
