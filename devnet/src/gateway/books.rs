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
    /// A hash of each response's bytes: a gateway that runs for days has no room for the responses.
    responses: HashMap<String, u64>,
    altered: BTreeSet<String>,
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

    /// The requests of which a repeated response was not, byte for byte, the first one.
    pub fn altered(&self) -> Vec<&str> {
        self.altered.iter().map(String::as_str).collect()
    }

    pub(super) fn enter(&mut self, frame: &Frame) {
        let deliveries = self
            .deliveries
            .entry(frame.request_id().to_owned())
            .or_default();
        match frame.name() {
            "INFERENCE_RESPONSE" | "TTS_RESPONSE" => {
                deliveries.responses += 1;
                self.bills
                    .entry(frame.request_id().to_owned())
                    .or_insert_with(|| Bill::of(&frame.value["result"]));
                self.compare(frame);
            }
            _ => deliveries.errors += 1,
        }
    }

    fn compare(&mut self, frame: &Frame) {
        let mut hasher = DefaultHasher::new();
        frame.bytes.hash(&mut hasher);
        let hash = hasher.finish();
        let id = frame.request_id();
        if *self.responses.entry(id.to_owned()).or_insert(hash) != hash {
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
