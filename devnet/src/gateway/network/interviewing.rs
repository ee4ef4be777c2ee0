//! Interviews, from their beginning to their end, and what a node becomes by them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Interview, InterviewState, Interviews, Network, Order, Standing, Terms, Tier,
    interview::Verdict, member::interview_failed,
};

/// How many interviews are remembered, the newest.
const INTERVIEWS_KEPT: usize = 4096;

impl Network {
    /// Begins to interview a node, also one in good standing; gives the interview's id too. `None` if it is not on a
    /// session, or has no model.
    pub(crate) fn interview(
        &mut self,
        alias: &str,
        rules: &Interviews,
        now: Instant,
    ) -> Option<(String, Vec<Order>)> {
        let node = self.members.get_mut(alias)?;
        let connection = node.connection?;
        let model = node
            .interview_model
            .as_ref()
            .or(node.models.first())?
            .clone();
        self.asked += 1;
        let interview = Interview {
            id: format!("int-{}", self.asked),
            alias: alias.to_owned(),
            model,
            connection,
            asked: now,
            prompts: rules.count(node.mode),
            state: InterviewState::Running,
        };
        let (id, request) = (interview.id.clone(), rules.request(&interview, &node.id));
        let terms = Terms {
            rules: rules.clone(),
            mode: node.mode,
        };
        node.standing = Standing::Interviewing;
        self.supersede(alias, |state| *state == InterviewState::Running);
        if self.interviews.len() == INTERVIEWS_KEPT {
            self.interviews.remove(0);
        }
        self.interviews.push((interview, terms));
        Some((id, vec![Order::Send(connection, request)]))
    }

    fn supersede(&mut self, alias: &str, which: impl Fn(&InterviewState) -> bool) {
        for (interview, _) in &mut self.interviews {
            if interview.alias == alias && which(&interview.state) {
                interview.state = InterviewState::Superseded;
            }
        }
    }

    /// An `INTERVIEW_RESULT` came over this connection. The first one of a node's open interviews is judged.
    pub(crate) fn result(&mut self, connection: u64, result: &Value, now: Instant) -> Vec<Order> {
        let mut newest_first = self.interviews.iter_mut().rev();
        let asked = newest_first.find(|(one, _)| result["interview_id"] == one.id);
        let Some((interview, terms)) = asked.filter(|(one, _)| one.state.is_open()) else {
            return Vec::new();
        };
        let verdict = terms.verdict(interview, &result["results"]);
        interview.state = InterviewState::Judged(verdict.clone());
        let interview = interview.clone();
        let failure = (verdict.tier == Tier::Failed).then(|| {
            let (reason, message) = verdict.blame(terms.rules.speeds(terms.mode));
            Failure::new(&interview, &terms.rules, reason, message)
        });
        self.supersede(&interview.alias, InterviewState::is_open);
        match failure {
            Some(failure) => self.fail(&failure, connection, now),
            None => self.pass(&interview, &verdict, connection, now),
        }
    }

    fn pass(
        &mut self,
        interview: &Interview,
        verdict: &Verdict,
        connection: u64,
        now: Instant,
    ) -> Vec<Order> {
        let Some(node) = self.members.get_mut(&interview.alias) else {
            return Vec::new();
        };
        node.standing = Standing::Good;
        node.failures = 0;
        node.tier = Some(verdict.tier);
        node.calm_since = now;
        let complete = json!({
            "type": "INTERVIEW_COMPLETE", "interview_id": interview.id, "node_id": node.id,
            "tier": verdict.tier.name(), "accuracy": verdict.accuracy, "tokens_per_sec": verdict.tokens_per_second,
            "reason": "passed",
        });
        vec![Order::Send(connection, complete)]
    }

    /// The node is told so over this connection, which is closed.
    fn fail(&mut self, failure: &Failure, connection: u64, now: Instant) -> Vec<Order> {
        let Some(node) = self.members.get_mut(&failure.alias) else {
            return Vec::new();
        };
        node.failures += 1;
        let may_retry = node.failures < failure.retry_budget;
        let retry_after = may_retry.then_some(failure.retry_after);
        node.standing = Standing::Failed(retry_after.map(|time| now + time));
        let frame = interview_failed(&node.id, failure.reason, &failure.message, retry_after);
        vec![Order::Send(connection, frame), Order::Close(connection)]
    }

    /// Ends the interviews whose results are late. A node that has lost its session has not failed.
    pub(super) fn time_interviews_out(&mut self, now: Instant) -> Vec<Order> {
        let mut failures = Vec::new();
        for (interview, terms) in &mut self.interviews {
            let limit = terms.rules.limit(interview.prompts);
            if interview.asked + limit > now || !interview.state.is_open() {
                continue;
            }
            if interview.state == InterviewState::Running {
                let message = format!("no result within {} s", limit.as_secs());
                let failure = Failure::new(interview, &terms.rules, "timeout", message);
                failures.push((failure, interview.connection));
            }
            interview.state = InterviewState::TimedOut;
        }
        let failures = failures.iter();
        failures
            .flat_map(|(failure, connection)| self.fail(failure, *connection, now))
            .collect()
    }
}

impl Terms {
    fn verdict(&self, interview: &Interview, results: &Value) -> Verdict {
        self.rules.verdict(self.mode, interview.prompts, results)
    }
}

/// An interview that a node has failed.
struct Failure {
    alias: String,
    reason: &'static str,
    message: String,
    retry_after: Duration,
    retry_budget: u32,
}

impl Failure {
    fn new(
        interview: &Interview,
        rules: &Interviews,
        reason: &'static str,
        message: String,
    ) -> Self {
        Self {
            alias: interview.alias.clone(),
            reason,
            message,
            retry_after: rules.retry_after,
            retry_budget: rules.retry_budget,
        }
    }
}
