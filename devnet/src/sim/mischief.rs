//! What a gateway does at the worst moment: cancels all at once, repeats what was answered, closes while it is closed on,
//! acknowledges what it has not read.
//!
//! Invariant: its own fate decides, never that of what else the gateway does, so that a story without mischief is the same
//! with it.

use serde_json::json;
use tokio::time::Duration;

use super::{
    books::Class,
    gateway::{Gateway, Order},
    interviews::wire_id,
    ledger::Request,
};

/// A burst of cancels is about the last so many requests.
const RECENT: usize = 24;

/// So often a request that fails is made again at once.
const RETRIES: usize = 3;

/// So often in a session answered requests are made again in a drain.
const LAST_REPEATS: u64 = 3;

/// The longest that it thinks before it answers a Close, in milliseconds. A product waits for 800 at least.
const THINKING: u64 = 500;

impl Gateway {
    /// Cancels most of what was asked of late, answered or not, and asks for something behind it that is refused at once:
    /// whoever has refused it has understood the cancels.
    pub fn cancel_many(&self) {
        let Some((session, orders)) = self.session() else {
            return;
        };
        let known = self.shared.books.ids(Request::is_job);
        let mut recent: Vec<_> = known
            .into_iter()
            .filter_map(|id| Some((id.strip_prefix('r')?.parse::<u64>().ok()?, id)))
            .collect();
        recent.sort_unstable();
        let recent = recent.split_off(recent.len().saturating_sub(RECENT));
        // What runs comes first, since the product takes the frames behind a cancel only once it has dealt with that.
        let (runs, is_over): (Vec<_>, Vec<_>) = recent
            .into_iter()
            .map(|(_, id)| id)
            .partition(|id| self.shared.books.is(id, Request::is_unanswered));
        let mut cancelled = Vec::new();
        for id in runs.into_iter().chain(is_over) {
            if self.whim(75) {
                self.cancel_on(session, &orders, &id);
                self.shared.books.count("cancels in a burst");
                cancelled.push(id);
            }
        }
        if cancelled.is_empty() {
            return;
        }
        let id = format!("p{}", self.next_probe());
        self.shared.books.made_behind(&id, session, &cancelled);
        self.say_again(&id, r#"{"model":"x"}"#);
        self.make(&id, Class::Invalid, false);
    }

    /// Makes a request that has failed again, but not for ever.
    pub(super) fn retry(&self, id: &str) {
        let books = &self.shared.books;
        let again = books.is(id, |request| {
            request.is_job() && request.made.len() <= RETRIES
        });
        if again {
            books.count("failed requests made again at once");
            self.repeat_of(id);
        }
    }

    /// The agent drains and shows life.
    pub(super) fn meddle(&self, session: u64) {
        if !self.shared.books.is_draining() {
            return;
        }
        let manners = self.manners();
        if manners.last_repeats && self.may_repeat(LAST_REPEATS) && self.whim(50) {
            self.repeat_answered(false);
        }
        if let Some((percent, farewell)) = manners.crosses
            && self.whim(percent)
        {
            // With luck while the agent's own Close is under way.
            let wait = self.whim_within(self.shared.link.latency() * 2);
            let (gateway, current) = (self.clone(), session);
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                if gateway
                    .session()
                    .is_some_and(|(session, _)| session == current)
                {
                    gateway.close(farewell);
                }
            });
        }
    }

    /// It has read the agent's Close. Gives how long it thinks before it answers that.
    pub(super) fn dawdle(&self) -> Duration {
        if !self.manners().last_repeats {
            return Duration::ZERO;
        }
        self.repeat_answered(true);
        self.whim_within(Duration::from_millis(THINKING)) + Duration::from_millis(1)
    }

    fn repeat_answered(&self, behind_close: bool) {
        let is_answered =
            |request: &Request| request.is_job() && request.response.is_some() && !request.poisoned;
        let answered = self.shared.books.ids(is_answered);
        for _ in 0..2 {
            let Some(id) = self.whim_of(&answered) else {
                return;
            };
            if behind_close {
                self.shared
                    .books
                    .count("requests made again behind the Close");
                self.slip(&id);
            } else {
                self.shared
                    .books
                    .count("answered requests made again in a drain");
                self.repeat_of(&id);
            }
        }
    }

    /// Acknowledges something that it has not read, or has long.
    pub(super) fn lie(&self, session: u64) {
        let books = &self.shared.books;
        let Some((_, orders)) = self.session() else {
            return;
        };
        let ids = match self.whim_number(4) {
            0 => books.ids(|request| request.is_job() && request.is_unanswered()),
            1 => books.ids(|request| request.response.is_some()),
            2 => books.ids(|request| !request.cancels.is_empty()),
            _ => vec![String::new()],
        };
        let Some(id) = self.whim_of(&ids) else { return };
        let id = wire_id(&id).to_owned();
        self.shared.trace.say(format_args!(
            "gateway, session {session} > RESULT_ACK `{id}`, of its own invention"
        ));
        books.count("acknowledgements of its own invention");
        books.acknowledges(session, &id);
        let ack = json!({"type": "RESULT_ACK", "request_id": id}).to_string();
        let _ = orders.send(Order::Frame(ack, None));
    }
}
