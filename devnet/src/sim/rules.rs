//! The delivery rules that time alone can break: looked at every virtual second, and once more when all is over.
//!
//! Invariant: a rule speaks only where nothing excuses the product; each excuse is written beside the rule.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    attempts::REFILL,
    books::{Books, Gauges},
    ledger::{CAUGHT_UP, Chat, Class, Drain, Ledger, Request},
};

/// What a link that was left alone may still add to any promise.
const SLACK: Duration = Duration::from_secs(1);

/// How soon the backend's request must be closed after a cancel, and after the grace for orphans.
const CLOSING: Duration = Duration::from_millis(250);

/// An answer of this age is fenced.
const FENCE_AGE: Duration = Duration::from_secs(1);

/// So much time is between two fences.
const FENCE_PAUSE: Duration = Duration::from_secs(1);

/// What an answer holds that is only an error, in bytes.
const SMALL_ANSWER: u64 = 1024;

/// With jobs or undelivered answers backoff is capped at this.
const BUSY_BACKOFF: Duration = Duration::from_secs(5);

impl Books {
    /// The gateway reads and lets agents in, or no longer does.
    pub fn set_open(&self, open: bool) {
        self.ledger().open_since = open.then(Instant::now);
    }

    /// The product was told to drain.
    pub fn draining(&self) {
        let began = Instant::now();
        let mut ledger = self.ledger();
        if !ledger.is_draining() {
            ledger.drains.push(Drain { began, over: None });
        }
    }

    /// The product was told to end.
    pub fn ending(&self) {
        self.draining();
        self.ledger().ending_since.get_or_insert_with(Instant::now);
    }

    /// Whether it was.
    pub fn is_ending(&self) -> bool {
        self.ledger().ending_since.is_some()
    }

    /// The product is asked to drain on request. Gives how often it was before.
    pub fn drain_asked(&self) -> u64 {
        let mut ledger = self.ledger();
        ledger.count("drains on request");
        ledger.counts["drains on request"] - 1
    }

    /// Whether it was, and has not been told to serve again.
    pub fn is_draining(&self) -> bool {
        self.ledger().is_draining()
    }

    /// The product was told to stay away until then.
    pub fn pauses(&self, until: Instant) {
        self.ledger().paused_until = Some(until);
    }

    /// It has drained for that.
    pub fn rests(&self) {
        let mut ledger = self.ledger();
        ledger.rests_since = ledger.paused_until.map(|_| Instant::now());
        // Its model is not in memory because of that.
        ledger.warmth.forget_eviction();
    }

    /// The product serves again by itself, which ends its pause.
    pub fn pause_ended(&self) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        // It is over already where somebody else has had it serve again.
        if let Some(until) = ledger.paused_until
            && now < until
        {
            let what = format!("a pause has ended {:?} before its time", until - now);
            ledger.breach("pause", "16 (pause)", &what);
        }
        drop(ledger);
        self.serves_again();
    }

    /// The product was told to serve again after a drain.
    pub fn serves_again(&self) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        (ledger.paused_until, ledger.rests_since) = (None, None);
        ledger.warmth.forget_eviction();
        if let Some(drain) = ledger.drains.last_mut() {
            // Of several that waited for it the first one counts.
            drain.over.get_or_insert(now);
        }
        // It is expected back from now on, as where the gateway had been away.
        ledger.open_since = ledger.open_since.map(|_| now);
    }

    /// Whether the network broke the last session while the product held it, so that it has not said all it had to say.
    pub fn was_cut_off(&self) -> bool {
        let ledger = self.ledger();
        ledger
            .sessions
            .iter()
            .next_back()
            .is_some_and(|(number, session)| {
                let facts = ledger.gateway.facts(*number);
                session.done.is_none() && facts.is_some_and(|facts| facts.client_cut_off)
            })
    }

    /// Whether the last session's link carries nothing in one direction, which nobody may be able to tell.
    pub fn is_half_open(&self) -> bool {
        let ledger = self.ledger();
        let last = ledger.sessions.keys().next_back();
        let facts = last.and_then(|number| ledger.gateway.facts(*number));
        facts.is_some_and(|facts| facts.deaf.is_some() || facts.mute.is_some())
    }

    /// A look at everything, as often as anybody likes.
    pub fn look(&self, gauges: Gauges) {
        let now = Instant::now();
        let mut ledger = self.ledger();
        let busy = gauges.running + gauges.waiting + gauges.undelivered > 0;
        if !busy {
            ledger.busy_since = None;
        } else if ledger.busy_since.is_none() {
            ledger.busy_since = Some(now);
        }
        ledger.check_gauges(gauges);
        ledger.check_heartbeat(now);
        ledger.check_pongs(now);
        ledger.check_fence(now);
        ledger.check_half_open(now);
        ledger.check_login(now);
        ledger.check_chats(now);
        ledger.check_attempts();
        ledger.check_registered(now);
        ledger.check_warm(now);
    }
}

impl Ledger {
    fn check_gauges(&mut self, gauges: Gauges) {
        let bound =
            |value: i64, most: usize| usize::try_from(value).is_ok_and(|value| value <= most);
        let limits = self.limits.clone();
        if !bound(gauges.running, limits.capacity) || !bound(gauges.waiting, limits.queue) {
            let what = format!(
                "{gauges:?} is more than {} and {}",
                limits.capacity, limits.queue
            );
            self.breach("gauges", "10 (bounds)", &what);
        }
        if u64::try_from(gauges.outbox_bytes).is_ok_and(|bytes| bytes > limits.outbox_bytes / 2) {
            self.full = Some(Instant::now());
        }
        if gauges.waiting > 10 {
            self.count("looks at a waiting room with more than ten");
        }
        // A job starts to run only while there is room; then it may answer. One that waits may only fail, but for the
        // interview behind the one that runs, whose time goes on: it was admitted while there was room, and does not wait for it.
        // A chunk with all the text so far may alone be larger than the bound, and is let in where there is nothing else;
        // it counts twice, since its job has the text as well.
        let caught_up = self.counts.contains_key(CAUGHT_UP);
        let catching_up = if caught_up {
            2 * limits.answer_bytes
        } else {
            0
        };
        let most = limits.outbox_bytes.max(catching_up)
            + (limits.capacity as u64 + 1) * limits.answer_bytes
            + limits.queue as u64 * SMALL_ANSWER;
        if u64::try_from(gauges.outbox_bytes).is_ok_and(|bytes| bytes > most) {
            let what = format!(
                "the outbox holds {} bytes, at most {most}",
                gauges.outbox_bytes
            );
            self.breach("gauges", "10 (bounds)", &what);
        }
    }

    /// The moment from which the session of this number had nothing in its way; `None` while it has.
    pub(super) fn free_since(&self, number: u64) -> Option<Instant> {
        let facts = self.gateway.facts(number)?;
        let gone = facts.client_closed.is_some() || facts.cut.is_some() || facts.deaf.is_some();
        // A gateway that has said Close may not listen any more.
        let leaves = self
            .sessions
            .get(&number)
            .is_some_and(|session| session.leaving.is_some());
        if gone || leaves || !self.gateway.is_usable() || facts.under_way_up > 0 {
            return None;
        }
        let calm = self.gateway.calm_since().max(self.open_since?);
        Some(calm.max(facts.client_blocked.unwrap_or(calm)))
    }

    fn check_heartbeat(&mut self, now: Instant) {
        let Some((number, session)) = self.sessions.iter().next_back() else {
            return;
        };
        let (Some(up), Some(free)) = (session.up, self.free_since(*number)) else {
            return;
        };
        let since = session.last_heartbeat.unwrap_or(up).max(up).max(free);
        let most = self.limits.heartbeat_interval + self.gateway.latency() * 2 + SLACK;
        if !self.is_draining() && now - since > most {
            let (subject, what) = (
                format!("session {number}"),
                format!("no heartbeat for {:?}", now - since),
            );
            self.breach(&subject, "4 (heartbeats)", &what);
        }
    }

    fn check_pongs(&mut self, now: Instant) {
        let Some((number, session)) = self.sessions.iter().next_back() else {
            return;
        };
        let Some(free) = self.free_since(*number) else {
            return;
        };
        let limit = Duration::from_millis(100) + self.gateway.latency() * 2;
        // Behind its Close there is none.
        let late = session.done.is_none()
            && !session.has_closed
            && session
                .pings
                .iter()
                .any(|ping| ping.read > free && now - ping.read > limit);
        if late && session.up.is_some() {
            let subject = format!("session {number}");
            self.breach(&subject, "4 (pongs)", "a PING was read and not answered");
        }
    }

    /// A second until it is due, and one since the last.
    fn check_fence(&mut self, now: Instant) {
        let Some((number, session)) = self.sessions.iter().next_back() else {
            return;
        };
        let Some(free) = self.free_since(*number) else {
            return;
        };
        let limit = FENCE_AGE + FENCE_PAUSE + SLACK + self.gateway.latency() * 2;
        // One that was given up for its age before it was due needs none.
        let is_late = session.unfenced.iter().any(|unfenced| {
            let due = unfenced.written.max(free) + limit;
            due < now && due < unfenced.expires
        });
        if is_late && session.up.is_some() && !session.has_closed {
            let subject = format!("session {number}");
            self.breach(&subject, "4 (fences)", "an answer is left without a fence");
        }
    }

    fn check_half_open(&mut self, now: Instant) {
        let Some(number) = self.sessions.keys().next_back().copied() else {
            return;
        };
        let Some(facts) = self.gateway.facts(number) else {
            return;
        };
        let limit = self
            .limits
            .heartbeat_timeout
            .max(self.limits.connect_timeout)
            + SLACK * 3;
        if let (Some(deaf), None) = (facts.deaf, facts.client_closed)
            && now - deaf > limit
        {
            let subject = format!("session {number}");
            self.breach(&subject, "5 (half-open)", "a deaf link was not given up");
        }
        // A heartbeat must have been answered before, or nobody can tell that none is any more.
        let answered = self.sessions.get(&number).and_then(|s| s.last_heartbeat);
        let travel = self.gateway.latency() * 2 + SLACK;
        let limit = self.limits.heartbeat_interval + limit + travel;
        // One that had stopped reading answers what lay in its buffers once it reads again.
        if let (Some(mute), None, Some(answered), Some(open)) =
            (facts.mute, facts.client_closed, answered, self.open_since)
            && answered + travel < mute
            && !self.is_draining()
            && now - mute.max(open) > limit
        {
            let subject = format!("session {number}");
            self.breach(&subject, "5 (half-open)", "a mute link was not given up");
        }
    }

    fn check_login(&mut self, now: Instant) {
        let Some(open) = self.open_since else {
            return;
        };
        if self.is_draining() || !self.gateway.is_usable() || self.gateway.open() > 0 {
            return;
        }
        let closed = self.gateway.last_closed().unwrap_or(self.began);
        let since = open.max(self.gateway.calm_since()).max(closed);
        // A dial that had begun before the link was mended may still run into its own time-out.
        let mut most =
            self.limits.reconnect_max.max(BUSY_BACKOFF) + self.limits.connect_timeout * 2 + SLACK;
        // Answers or jobs all the while, and a wait that began when the link was good.
        if self.busy_since.is_some_and(|busy| busy <= since) && since == closed {
            most = BUSY_BACKOFF + SLACK * 2;
        }
        if self.may_have_used_up_attempts(now) {
            // A wait of chance goes on top, or all that were sent away together would come back together.
            most += REFILL;
        }
        if let Some((_, wait)) = self.sent_away {
            most = most.max(wait + wait / 5 + self.limits.reconnect_max + SLACK);
        }
        if now - since > most {
            let what = format!(
                "no attempt to log in for {:?}, at most {most:?}",
                now - since
            );
            self.breach("gateway", "5 (reconnecting)", &what);
        }
    }

    fn check_chats(&mut self, now: Instant) {
        let down = self.down_since();
        let mut breaches = Vec::new();
        let mut live = std::mem::take(&mut self.live);
        for id in &live {
            let Some(request) = self.requests.get(id) else {
                continue;
            };
            for chat in &request.chats {
                self.check_cancelled(id, request, chat, now, &mut breaches);
                if let Some(what) = self.is_waited_for_in_vain(request, chat, now) {
                    breaches.push((id.clone(), "17 (silence)", what));
                }
                let orphaned = down
                    .map(|down| down + self.limits.orphan_grace + CLOSING)
                    .is_some_and(|latest| now > latest && chat.opened < latest);
                let is_interview = request.class == Some(Class::Interview);
                if orphaned && !is_interview && self.is_open(chat) && !self.held_back() {
                    breaches.push((
                        id.clone(),
                        "9 (orphans)",
                        "its chat outlives the grace".to_owned(),
                    ));
                }
                let given_up = if is_interview {
                    self.prompt_given_up_for_nothing(id, request, chat)
                } else {
                    self.given_up_for_nothing(request, chat)
                };
                if let Some(what) = given_up {
                    breaches.push((id.clone(), "9 (given up)", what));
                }
            }
        }
        // What was over at this look has been judged by all that there will ever be to know.
        live.retain(|id| {
            let request = self.requests.get(id);
            request.is_some_and(|request| !request.chats.iter().all(|chat| self.is_over(chat)))
        });
        self.live = live;
        for (id, rule, what) in breaches {
            self.breach(&id, rule, &what);
        }
    }

    /// A chat of which nothing more comes is given up when its silence has lasted for long enough. What carries nothing, such
    /// as a comment, does not break it.
    fn is_waited_for_in_vain(
        &self,
        request: &Request,
        chat: &Chat,
        now: Instant,
    ) -> Option<String> {
        let silence = now - chat.hangs.filter(|_| self.is_open(chat))?;
        let most = self.limits.token_timeout + SLACK + self.ollama.latency() * 4;
        // Where chunks find no room nobody waits for the model server; nor is it its fault what the network holds back.
        let excused = request.stream
            || !request.is_job()
            || !self.ollama.is_free()
            || self.ollama.calm_since() >= chat.opened;
        (silence > most && !excused)
            .then(|| format!("nothing has come for {silence:?}, and it is still waited for"))
    }

    /// What the model server has written, but cannot arrive, does not say that the product still waits for it.
    fn held_back(&self) -> bool {
        !self.ollama.is_usable()
    }

    fn check_cancelled(
        &self,
        id: &str,
        request: &Request,
        chat: &Chat,
        now: Instant,
        breaches: &mut Vec<(String, &'static str, String)>,
    ) {
        let cancel = request
            .cancels
            .iter()
            .filter(|cancel| self.was_looked_at(cancel))
            .filter_map(|cancel| cancel.read)
            .find(|read| *read > chat.opened);
        let Some(cancel) = cancel.filter(|_| !self.has_namesake(id)) else {
            return;
        };
        let until = self.given_up(chat).unwrap_or(now);
        let over = chat.read.is_some() || chat.failed;
        if !over
            && until > cancel + CLOSING
            && self
                .ollama
                .facts(chat.connection)
                .is_some_and(|facts| facts.cut.is_none())
        {
            let what = format!("its chat ran on for {:?} after the cancel", until - cancel);
            breaches.push((id.to_owned(), "7 (cancel)", what));
        }
    }

    /// A generation that was thrown away though nobody had asked for that, and time had not run out.
    fn given_up_for_nothing(&self, request: &Request, chat: &Chat) -> Option<String> {
        let at = self.given_up(chat)?;
        let facts = self.ollama.facts(chat.connection)?;
        let away = self.away_before(at);
        // One that was given up on the way to the model server was asked for before that.
        let asked = chat.opened.min(at);
        // Patience runs from the first making that this chat is the work of.
        let before = request
            .answers
            .iter()
            .map(|answer| answer.written)
            .filter(|written| *written < asked)
            .max();
        let received = request
            .made
            .iter()
            .filter_map(|made| made.read)
            .filter(|read| *read <= asked && Some(*read) >= before)
            .min();
        // The client of HTTP asks anew, and nobody else need know, where a connection closes in the moment of the request.
        let is_asked_anew = at <= chat.opened;
        let excused = chat.failed
            || is_asked_anew
            || chat.written.is_some()
            || facts.cut.is_some()
            || facts.deaf.is_some()
            || self.was_cut_short(at)
            || request.cancelled_since(chat.opened.min(received.unwrap_or(chat.opened)))
            || away.is_some_and(|away| away >= self.limits.orphan_grace)
            || received.is_none_or(|received| at - received >= self.limits.token_timeout)
            || received.is_none_or(|received| self.ollama.calm_since() >= received)
            || received.is_none_or(|received| at - received >= self.limits.request_timeout);
        (!excused).then(|| {
            format!(
                "its chat was given up after {:?}, {:?} after the session was lost",
                at - chat.opened,
                away
            )
        })
    }
}
