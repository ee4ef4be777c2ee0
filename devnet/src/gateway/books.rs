//! Who delivered what, and what is paid for it.
//!
//! Invariant: delivery is at least once, a bill is made once; so the two are counted apart.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::Value;

use super::frame::Frame;

/// What came for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deliveries {
    /// How many times a response was delivered, text or speech.
    pub responses: usize,
    /// How many times an error was.
    pub errors: usize,
}

/// What one request costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Tokens of the prompt, as the agent said.
    pub prompt_tokens: u64,
    /// Tokens generated, likewise.
    pub completion_tokens: u64,
}

/// The books of a gateway since it was started.
#[derive(Clone, Debug, Default)]
pub struct Books {
    deliveries: HashMap<String, Deliveries>,
    bills: HashMap<String, Bill>,
    /// A hash of each response's bytes, by whether it is an interview's, and its id: a gateway that runs for days has no room for the responses.
    responses: HashMap<(bool, String), u64>,
    altered: BTreeSet<String>,
    given_up: BTreeSet<String>,
    interview_results: HashMap<String, usize>,
}

impl Books {
    /// What was delivered for this request.
    pub fn deliveries(&self, request_id: &str) -> Deliveries {
        self.deliveries.get(request_id).copied().unwrap_or_default()
    }

    /// The sum over all requests.
    pub fn all_deliveries(&self) -> Deliveries {
        self.deliveries
            .values()
            .fold(Deliveries::default(), |sum, one| Deliveries {
                responses: sum.responses + one.responses,
                errors: sum.errors + one.errors,
            })
    }

    /// The bill for this request, if it was answered with a response.
    pub fn bill(&self, request_id: &str) -> Option<Bill> {
        self.bills.get(request_id).copied()
    }

    /// How many requests were billed.
    pub fn bills(&self) -> usize {
        self.bills.len()
    }

    /// The requests and interviews of which a repeated response was not, byte for byte, the first one.
    pub fn altered(&self) -> Vec<&str> {
        self.altered.iter().map(String::as_str).collect()
    }

    /// The requests that were given up. What was answered later all the same was delivered, and is not paid.
    pub fn given_up(&self) -> Vec<&str> {
        self.given_up.iter().map(String::as_str).collect()
    }

    /// How many times the result of this interview was delivered.
    pub fn interview_results(&self, interview_id: &str) -> usize {
        let count = self.interview_results.get(interview_id);
        count.copied().unwrap_or_default()
    }

    /// The sum over all interviews.
    pub fn all_interview_results(&self) -> usize {
        self.interview_results.values().sum()
    }

    pub(super) fn give_up(&mut self, request_id: &str) {
        self.given_up.insert(request_id.to_owned());
    }

    pub(super) fn enter(&mut self, frame: &Frame) {
        if frame.name() == "INTERVIEW_RESULT" {
            let id = frame.answers_id().to_owned();
            *self.interview_results.entry(id).or_default() += 1;
            self.compare(frame);
            return;
        }
        let deliveries = self
            .deliveries
            .entry(frame.request_id().to_owned())
            .or_default();
        match frame.name() {
            "INFERENCE_RESPONSE" | "TTS_RESPONSE" => {
                deliveries.responses += 1;
                if !self.given_up.contains(frame.request_id()) {
                    self.bills
                        .entry(frame.request_id().to_owned())
                        .or_insert_with(|| Bill::of(&frame.value["result"]));
                }
                self.compare(frame);
            }
            _ => deliveries.errors += 1,
        }
    }

    fn compare(&mut self, frame: &Frame) {
        let mut hasher = DefaultHasher::new();
        frame.bytes.hash(&mut hasher);
        let hash = hasher.finish();
        let id = frame.answers_id();
        // Ids of requests and interviews are apart.
        let key = (frame.name() == "INTERVIEW_RESULT", id.to_owned());
        if *self.responses.entry(key).or_insert(hash) != hash {
            self.altered.insert(id.to_owned());
        }
    }
}

impl Bill {
    /// Reads the counts of either generation's result.
    fn of(result: &Value) -> Self {
        let count = |openai: &str, ollama: &str| {
            let count = &result["usage"][openai];
            count
                .as_u64()
                .or_else(|| result[ollama].as_u64())
                .unwrap_or(0)
        };
        Self {
            prompt_tokens: count("prompt_tokens", "prompt_eval_count"),
            completion_tokens: count("completion_tokens", "eval_count"),
        }
    }
}
