//! What becomes of an answer, whoever gives it and in whatever dialect: how fast it comes, how long it is, and what goes wrong.
//!
//! Invariant: it follows from the seed, the request's id and how often that was asked, never from what else happens.

use std::time::Duration;

use super::super::{fate::Fate, interviews::is_key};

/// The largest token of an answer to an interview's prompt, in bytes.
const PROMPT_TOKEN: usize = 1_000;

/// How a model server is today.
#[derive(Clone, Debug)]
pub struct Temper {
    /// The most tokens of an answer.
    pub tokens: u64,
    /// The longest time between two, in milliseconds.
    pub token_millis: u64,
    /// The longest time before the first, in milliseconds.
    pub first_millis: u64,
    /// How many answers of a hundred fail.
    pub faults: u64,
    /// How many of a hundred are long: each token `big_token` bytes.
    pub big: u64,
    /// See `big`.
    pub big_token: usize,
    /// How long a load of the model takes, in milliseconds.
    pub load_millis: u64,
    /// How many loads of a hundred fail.
    pub load_faults: u64,
}

impl Default for Temper {
    fn default() -> Self {
        Self {
            tokens: 20,
            token_millis: 60,
            first_millis: 500,
            faults: 5,
            big: 5,
            big_token: 5_000,
            load_millis: 0,
            load_faults: 0,
        }
    }
}

/// What goes wrong with an answer, after so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// There is only an error instead.
    Refused,
    /// An error in its midst.
    Error(u64),
    /// Its connection ends.
    Cut(u64),
    /// Nothing more comes.
    Hang(u64),
    /// Nothing comes for a while.
    Stall(u64),
    /// It ends in order, and lacks what would make it whole.
    Unfinished(u64),
}

/// An answer that is to be.
pub(super) struct Plan {
    pub(super) first: Duration,
    /// In milliseconds.
    pub(super) between: u64,
    pub(super) tokens: u64,
    pub(super) token_bytes: usize,
    pub(super) fault: Fault,
}

impl Plan {
    /// That of the request of this id, which was asked so often before.
    pub(super) fn of(seed: u64, id: &str, ask: u64, temper: &Temper) -> Self {
        let mut fate = Fate::of(seed, id, ask);
        let tokens = fate.within(1..=temper.tokens.max(1));
        let at = fate.within(0..=tokens - 1);
        let fault = if fate.percent(temper.faults) {
            fate.one_of(&[
                Fault::Refused,
                Fault::Error(at),
                Fault::Cut(at),
                Fault::Hang(at),
                Fault::Stall(at),
                Fault::Unfinished(at),
            ])
        } else {
            Fault::None
        };
        Self {
            first: fate.millis(0..=temper.first_millis),
            between: temper.token_millis,
            tokens,
            token_bytes: match fate.percent(temper.big) {
                // All its prompts are one answer.
                true if is_key(id) => temper.big_token.min(PROMPT_TOKEN),
                true => temper.big_token,
                false => 0,
            },
            fault,
        }
    }

    /// A token of it.
    pub(super) fn token(&self, id: &str, ask: u64, number: u64) -> String {
        let mut token = format!("{id}#{ask}.{number} ");
        while token.len() < self.token_bytes {
            token.push_str("lorem ipsum ");
        }
        token
    }
}
