//! The rules that are looked at when all is over: nothing is left unanswered, nor given up without need.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    books::Books,
    ledger::{Chat, Class, Ledger, Request},
};

/// How a run ended, for the last look.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Answers that the product says it dropped because they were too old.
    pub expired: u64,
    /// Answers that it says it dropped as poison.
    pub rejected: u64,
    /// Answers that it still holds for a gateway that is not well, which may end a session with each that it reads.
    pub held: u64,
    /// Whether the process has ended, saying that something was dropped.
    pub dropped: bool,
    /// Whether it has ended.
    pub is_over: bool,
}

impl Books {
    /// The last look, when nothing is under way any more.
    pub fn close(&self, ending: Ending) {
        let mut ledger = self.ledger();
        if ledger.gateway.most_open() > 1 {
            ledger.breach(
                "gateway",
                "6 (one session)",
                "two connections were open at once",
            );
        }
        let rejected = usize::try_from(ending.rejected).unwrap_or(usize::MAX);
        if rejected.saturating_mul(3) > ledger.sessions.len() {
            let what = format!(
                "{rejected} answers were given up in {} sessions",
                ledger.sessions.len()
            );
            ledger.breach("gateway", "5 (poison)", &what);
        }
        ledger.check_answers(ending);
    }
}

impl Ledger {
    /// How long a request may take.
    fn patience_with(&self, request: &Request) -> Duration {
        /// What is ahead of an interview: the one that runs, and a load.
        const AHEAD: u32 = 2;
        match &request.interview {
            Some(interview) => interview.time() * AHEAD + self.limits.token_timeout,
            None => self.limits.request_timeout,
        }
    }

    /// Every request that was read has its end.
    fn check_answers(&mut self, ending: Ending) {
        let mut missing: Vec<(String, &str)> = Vec::new();
        let mut faults = Vec::new();
        for (id, request) in &self.requests {
            if request.class == Some(Class::BadId) || !request.is_unanswered() {
                continue;
            }
            let Some(last) = request.made.iter().rev().find(|made| made.read.is_some()) else {
                continue;
            };
            let read = last.read.unwrap_or(last.sent);
            // A gateway that asks again after each failure asks until the end.
            if !ending.is_over && read.elapsed() < self.patience_with(request) {
                continue;
            }
            let now = Instant::now();
            let is_interview = request.class == Some(Class::Interview);
            if is_interview
                && (self.is_superseded(id, request, last.sent, now)
                    || self.was_cut_by_drain(request, read))
            {
                continue;
            }
            let is_cancelled = request
                .cancels
                .iter()
                .any(|cancel| cancel.sent >= last.sent);
            if is_cancelled || request.answers.iter().any(|answer| answer.written >= read) {
                continue;
            }
            // A chat that was given up before may reach the backend late, where the network has held it.
            let is_of_before = |chat: &Chat| {
                let facts = self.ollama.facts(chat.connection);
                facts
                    .and_then(|facts| facts.client_closed)
                    .is_some_and(|closed| closed <= read)
            };
            let mut chats = request.chats.iter();
            let worked_on = chats.any(|chat| chat.opened >= read && !is_of_before(chat));
            let session = self.sessions.get(&last.session);
            // It was not lost where the product itself has closed it, saying that it was done.
            let done = session.and_then(|session| session.done);
            let leaves = session.is_some_and(|session| session.leaving.is_some());
            let is_done = done.is_some_and(|done| read < done) && !leaves;
            let ended = self.gateway.facts(last.session).and_then(|facts| {
                let closed = facts.client_closed.filter(|_| !is_done);
                let ends = [closed, facts.cut, facts.deaf, facts.mute];
                ends.into_iter().flatten().min()
            });
            let what = match (worked_on, ended) {
                (true, _) => "worked on and never answered",
                (false, None) => "read and never answered, and its session was not lost",
                (false, Some(_)) => continue,
            };
            match self.is_gateways_fault(id, request, last.session) {
                Some(fault) => faults.push(fault),
                None => missing.push((id.clone(), what)),
            }
        }
        faults.into_iter().for_each(|fault| self.count(fault));
        let Ending {
            expired,
            rejected,
            held,
            ..
        } = ending;
        let excused = usize::try_from(expired + rejected + held).unwrap_or(usize::MAX);
        if missing.len() <= excused || ending.dropped {
            return;
        }
        for (id, what) in missing {
            let what =
                format!("{what}; {expired} expired, {rejected} were rejected, {held} are held");
            self.breach(&id, "1 (answers)", &what);
        }
    }
}
