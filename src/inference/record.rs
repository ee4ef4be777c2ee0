//! The line that a request leaves in the log.
//!
//! Invariant: one line a request that was taken, at its end, with the same fields whatever became of it; and nothing of
//! what it said.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    job::Job,
    jobs::{Handle, Stop},
    work::Done,
};
use crate::{
    admin::EndedRequest,
    clock::millis,
    label::Label,
    node::{Node, Offered},
    outbox::{Earning, SessionNumber},
    protocol::{Code, Failure, Operation, RequestId},
};

/// When things happened.
#[derive(Default)]
pub(super) struct Times {
    pub(super) started: Option<Instant>,
    /// Shared with whoever looks on.
    first_token: Arc<OnceLock<Instant>>,
    last_token: Option<Instant>,
}

/// What became of a job, apart from its answer's text.
pub(super) struct Record {
    pub(super) request_id: RequestId,
    pub(super) received: Instant,
    pub(super) operation: Operation,
    pub(super) model: Option<Arc<str>>,
    /// Who serves it, once that is known.
    node: Option<Arc<Node>>,
    pub(super) times: Times,
}

/// The outcome of a request that has its answer; of any other it is a code or why nothing was said.
pub(super) const ANSWERED: &str = "ok";

/// How a job has ended.
#[derive(Clone, Copy)]
pub(super) enum Ended<'a> {
    Answered(&'a Done),
    Failed(Code),
    /// It was stopped, and nothing is said of it.
    Silenced(Stop),
}

impl<'a> Ended<'a> {
    pub(super) fn of(outcome: &'a Result<Done, Failure>) -> Self {
        match outcome {
            Ok(done) => Self::Answered(done),
            Err(failure) => Self::Failed(failure.code),
        }
    }

    fn outcome(self) -> &'static str {
        match self {
            Self::Answered(_) => ANSWERED,
            Self::Failed(code) => code.as_str(),
            Self::Silenced(stop) => stop.as_str(),
        }
    }

    fn tokens(self) -> Option<(u64, u64)> {
        match self {
            Self::Answered(done) => done.tokens.map(|tokens| (tokens.prompt, tokens.generated)),
            Self::Failed(_) | Self::Silenced(_) => None,
        }
    }

    fn is_operators_concern(self) -> bool {
        matches!(self, Self::Failed(code) if code.is_operators_concern())
    }
}

impl Times {
    /// Times whose first token is seen by whoever holds the job.
    pub(super) fn seen_by(handle: &Handle) -> Self {
        Self {
            first_token: Arc::clone(&handle.first_token),
            ..Self::default()
        }
    }

    pub(super) fn token(&mut self) {
        let now = Instant::now();
        self.first_token.get_or_init(|| now);
        self.last_token = Some(now);
    }

    pub(super) fn first_token(&self) -> Option<Instant> {
        self.first_token.get().copied()
    }

    /// The mean time between tokens. The first token's own time is the time to first token.
    pub(super) fn per_token(&self, tokens: u64) -> Option<Duration> {
        let gaps = u32::try_from(tokens.checked_sub(1)?)
            .ok()
            .filter(|gaps| *gaps > 0)?;
        Some((self.last_token? - self.first_token()?) / gaps)
    }
}

impl Record {
    /// `sole`: the node, if there is but one.
    pub(super) fn new(job: &Job, sole: Option<&Arc<Node>>) -> Self {
        let mut record = Self {
            request_id: job.request_id.clone(),
            received: job.received,
            operation: job.work.operation(),
            model: None,
            node: sole.cloned(),
            times: Times::default(),
        };
        if let Some(offered) = job.place.offering.first() {
            record.offered_by(offered);
        }
        record
    }

    /// It is this model that is asked, on this node.
    pub(super) fn offered_by(&mut self, offered: &Offered) {
        self.model = Some(Arc::clone(&offered.model.name));
        self.node = Some(Arc::clone(&offered.node));
    }

    /// What an answer earns, by an estimate, if it is delivered. Nobody pays for an interview, and prices are those of
    /// tokens.
    pub(super) fn earning(&self, done: &Done) -> Option<Earning> {
        if self.operation == Operation::Interview {
            return None;
        }
        let price = self
            .node
            .as_ref()?
            .settings
            .price_per_thousand_tokens
            .as_f64();
        let tokens = done.tokens?;
        let tokens = tokens.prompt.saturating_add(tokens.generated);
        Some(Earning {
            model: Arc::clone(self.model.as_ref()?),
            usd: tokens as f64 * price / 1_000.0,
        })
    }

    /// Writes the line. `session`: the last that the request came by.
    pub(super) fn log(&self, session: SessionNumber, ended: Ended<'_>) {
        let (prompt_tokens, generation_tokens) = ended.tokens().unzip();
        // The level of an event is part of its call site, so there are two.
        macro_rules! line {
            ($level:ident, $message:literal) => {
                $level!(
                    request_id = self.request_id.as_str(),
                    model = self.model.as_deref(),
                    node = self.node.as_ref().map(|node| &*node.alias),
                    operation = %self.operation,
                    outcome = ended.outcome(),
                    session = session.get(),
                    queue_ms = self.since_received(self.times.started),
                    first_token_ms = self.since_received(self.times.first_token()),
                    duration_ms = millis(self.received.elapsed()),
                    prompt_tokens,
                    generation_tokens,
                    $message
                )
            };
        }
        match ended {
            Ended::Answered(_) | Ended::Silenced(_) => line!(info, "request ended"),
            Ended::Failed(_) if ended.is_operators_concern() => line!(warn, "request failed"),
            Ended::Failed(_) => line!(info, "request failed"),
        }
    }

    /// What people may see of it. `received_at`: when it came, in Unix seconds.
    pub(super) fn shown(&self, received_at: u64, ended: Ended<'_>) -> EndedRequest {
        let (prompt_tokens, generation_tokens) = ended.tokens().unzip();
        EndedRequest {
            id: self.request_id.as_str().to_owned(),
            model: self.model.as_deref().map(ToOwned::to_owned),
            operation: self.operation.as_str(),
            outcome: ended.outcome(),
            received: received_at,
            wait_ms: self.since_received(self.times.started),
            first_token_ms: self.since_received(self.times.first_token()),
            duration_ms: millis(self.received.elapsed()),
            prompt_tokens,
            generation_tokens,
        }
    }

    fn since_received(&self, then: Option<Instant>) -> Option<u64> {
        then.map(|then| millis(then - self.received))
    }
}
