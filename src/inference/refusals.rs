//! What the log says of requests that are refused.
//!
//! Invariant: however many are refused, each code has a line at once and then one for all that have come since, within a
//! second at first and within a minute in the long run. At level `debug` each has a line of its own.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    protocol::{Code, Operation, RequestId},
    telemetry::{LogThrottle, Occurrences, throttled},
};

/// A refused request, as the log has it.
#[derive(Clone, Copy)]
pub(super) struct Refusal<'a> {
    pub(super) request_id: &'a RequestId,
    /// Its model, where that is one that is offered.
    pub(super) model: Option<&'a str>,
    pub(super) operation: Operation,
    pub(super) code: Code,
}

/// The refusals of late, by kind of work and code.
pub(super) struct Refusals {
    /// The node, if there is but one that they can be of.
    node: Option<Arc<str>>,
    floods: Mutex<HashMap<(Operation, Code), LogThrottle<()>>>,
    untold: Notify,
}

impl Refusals {
    pub(super) fn new(node: Option<Arc<str>>) -> Self {
        Self {
            node,
            floods: Mutex::default(),
            untold: Notify::new(),
        }
    }

    /// A request has been refused.
    pub(super) fn tell(&self, refusal: Refusal<'_>) {
        let Refusal {
            operation, code, ..
        } = refusal;
        let told = {
            let mut floods = self.lock();
            let flood = floods
                .entry((operation, code))
                .or_insert_with(LogThrottle::flood);
            flood.seen(())
        };
        self.one(refusal, told);
        if told.is_none() {
            self.untold.notify_one();
        }
    }

    /// Tells sums when they are due, for as long as it is polled.
    pub(super) async fn keep_summing(&self) -> Infallible {
        loop {
            self.untold.notified().await;
            while let Some(due) = self.next_sum() {
                sleep_until(due).await;
                self.tell_sums(LogThrottle::sum);
            }
        }
    }

    /// Tells what is left to tell.
    pub(super) fn tell_rest(&self) {
        self.tell_sums(LogThrottle::rest);
    }

    fn next_sum(&self) -> Option<Instant> {
        self.lock().values().filter_map(LogThrottle::sum_due).min()
    }

    fn tell_sums(&self, sum: impl Fn(&mut LogThrottle<()>) -> Option<Occurrences>) {
        for ((operation, code), flood) in self.lock().iter_mut() {
            self.many(*operation, *code, sum(flood));
        }
    }

    fn one(&self, refusal: Refusal<'_>, told: Option<Occurrences>) {
        macro_rules! line {
            ($level:ident) => {
                throttled!($level or debug, told, [
                    request_id = refusal.request_id.as_str(),
                    model = refusal.model,
                    node = self.node.as_deref(),
                    operation = %refusal.operation,
                    outcome = %refusal.code,
                ] "request refused")
            };
        }
        if refusal.code.is_operators_concern() {
            line!(warn);
        } else {
            line!(info);
        }
    }

    fn many(&self, operation: Operation, outcome: Code, told: Option<Occurrences>) {
        let node = self.node.as_deref();
        if outcome.is_operators_concern() {
            throttled!(warn, told, [node, %operation, %outcome,] "requests refused");
        } else {
            throttled!(info, told, [node, %operation, %outcome,] "requests refused");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Operation, Code), LogThrottle<()>>> {
        self.floods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
