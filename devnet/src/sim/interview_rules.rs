//! The rules about interviews: judged when the model server is asked a prompt, and when the gateway has read a result.
//!
//! Invariant: each excuse is written beside its rule. Times are held against what the model server saw of the same chat, so
//! that what is measured from another moment shows.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    books::{Opened, Seen},
    frames::{CODES, fnv},
    interviews::{Asked, Interview, Sort},
    ledger::{Answer, Chat, Class, Ledger, Request},
};

const RULE: &str = "12 (interviews)";

/// What milliseconds lose, and timers of whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(3);

/// What the product may add to a time, beside what the network takes.
const ADDED: Duration = Duration::from_millis(50);

/// What a chat that had its slot before an interview was read may take to reach the model server, the network aside.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// How old a list of models may be, so that no look is needed before a model is said not to be there.
const FRESH: Duration = Duration::from_secs(1);

/// What a result says of one prompt.
struct Entry {
    id: String,
    response: String,
    first: Duration,
    total: Duration,
    tokens: u64,
    error: Option<String>,
}

impl Entry {
    fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let time = |key: &str| {
            let millis = value[key].as_f64().unwrap_or(-1.0);
            Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or(Duration::MAX)
        };
        Self {
            id: text("prompt_id"),
            response: text("response"),
            first: time("ttft_ms"),
            total: time("total_ms"),
            tokens: value["tokens_generated"].as_u64().unwrap_or(u64::MAX),
            error: value["error"].as_str().map(str::to_owned),
        }
    }

    /// A refusal's error is a code alone; a failure's has a sentence behind it.
    fn code(&self) -> Option<&str> {
        let error = self.error.as_deref()?;
        Some(error.split_once(": ").map_or(error, |(code, _)| code))
    }

    fn is_nothing(&self) -> bool {
        let times = self.first + self.total;
        times.is_zero() && self.tokens == 0 && self.response.is_empty()
    }
}

impl Ledger {
    /// The model server is asked a prompt, for the interview of this key.
    pub(super) fn check_prompt(&mut self, key: &str, prompt: usize, opened: &Opened, now: Instant) {
        let Some((request, interview)) = self
            .requests
            .get(key)
            .and_then(|request| Some((request, request.interview.as_ref()?)))
        else {
            return self.breach(key, RULE, "a prompt that nobody asked for");
        };
        let others = self.requests.iter().filter(|(other, request)| {
            request.class == Some(Class::Interview) && other.as_str() != key
        });
        let others: usize = others.map(|(_, other)| self.open_chats(other)).sum();
        let last = request.chats.iter().zip(&interview.asked).next_back();
        let last = last.filter(|(chat, asked)| !self.is_forgotten(chat, asked, now));
        let last = last.map(|(_, asked)| asked.prompt);
        let read = request.made.iter().filter_map(|made| made.read).min();
        let mut breaches = Vec::new();
        if interview.sort == Sort::UnknownModel {
            breaches.push((RULE, "a prompt to a model that is not there".to_owned()));
        }
        if others > 0 {
            breaches.push(("3 (capacity)", "two interviews run at once".to_owned()));
        }
        if self.open_chats(request) > 0 {
            breaches.push((RULE, "two of its prompts run at once".to_owned()));
        }
        if let Some(what) = self.asked_again(key, request, prompt, now) {
            breaches.push(("2 (once)", what));
        } else if request.last_asked(prompt, now).is_none()
            && last.is_some_and(|last| last > prompt)
            && !read.is_some_and(|read| self.is_called_off(key, request, read, now))
        {
            breaches.push((RULE, format!("prompt {prompt} is asked out of order")));
        }
        if opened.is_limited {
            breaches.push((RULE, "a prompt is asked with a limit of tokens".to_owned()));
        }
        let was_loaded = self
            .warmth
            .load_asked
            .is_some_and(|asked| Some(asked) >= read);
        // The request that was to load it may have been lost on its way.
        let is_lost = Some(self.ollama.calm_since()) >= read || !self.ollama.is_free();
        if !opened.is_warm && !was_loaded && !is_lost {
            breaches.push((
                RULE,
                "a prompt is asked of a model that is not loaded".to_owned(),
            ));
        }
        for (rule, what) in breaches {
            self.breach(key, rule, &what);
        }
    }

    /// A prompt that was asked before, though nothing had made the interview free for that.
    fn asked_again(
        &self,
        key: &str,
        request: &Request,
        prompt: usize,
        now: Instant,
    ) -> Option<String> {
        // The client of HTTP asks anew, and nobody else need know, where a connection closes in the moment of the request.
        let was_heard = |chat: &Chat| {
            let facts = self.ollama.facts(chat.connection);
            let closed = facts.and_then(|facts| facts.client_closed);
            chat.read.is_some() || closed.is_none_or(|closed| closed > chat.opened)
        };
        let asked = &request.interview.as_ref()?.asked;
        let mut pairs = request.chats.iter().zip(asked);
        let (chat, _) = pairs.find(|(chat, asked)| asked.prompt == prompt && was_heard(chat))?;
        let (last, asked) = request.last_asked(prompt, now)?;
        // It waited before that, and may have been called off meanwhile.
        let read = request.made.iter().filter_map(|made| made.read).min()?;
        let is_free =
            self.is_called_off(key, request, read, now) || self.is_forgotten(last, asked, now);
        (!is_free).then(|| {
            let ago = now - chat.opened;
            format!("prompt {prompt} is asked again, {ago:?} after the first time")
        })
    }

    /// Whether what was asked then belongs to a run whose result is so old that the product may not know it any more.
    fn is_forgotten(&self, chat: &Chat, asked: &Asked, now: Instant) -> bool {
        let facts = self.ollama.facts(chat.connection);
        let closed = facts.and_then(|facts| facts.client_closed);
        let ended = chat.read.or(asked.ended).or(closed);
        ended.is_some_and(|ended| now - ended >= self.limits.result_ttl)
    }

    /// A chat has come to the model server though an interview waits for the slot that it has.
    pub(super) fn check_precedence(&mut self, id: &str, now: Instant) {
        let Some(before) = now.checked_sub(ON_ITS_WAY + self.ollama.latency() * 10) else {
            return;
        };
        let is_calm = self.ollama.is_free()
            && self.ollama.calm_since() < before
            && self.full.is_none()
            && !self.is_young(now)
            && self
                .warmth
                .has_model_since
                .is_some_and(|since| since < before);
        if is_calm
            && self.slots_taken(now) >= self.limits.capacity
            && self.waits_since_before(before, now)
        {
            self.breach(
                id,
                RULE,
                "a chat has got the slot that an interview waits for",
            );
        }
    }

    /// The gateway has read a result.
    pub(super) fn result(&mut self, request: &mut Request, seen: &Seen<'_>) {
        self.count("interview results");
        self.check_due(request, seen);
        let Some(interview) = request.interview.clone() else {
            return;
        };
        let results = seen.value["results"].as_array();
        let entries: Vec<_> = results.into_iter().flatten().map(Entry::read).collect();
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
        if interview.sort != Sort::Odd && ids != interview.prompts {
            let what = format!(
                "results of {ids:?} where {:?} were asked",
                interview.prompts
            );
            self.breach(seen.id, RULE, &what);
        }
        for entry in entries.iter().filter(|entry| entry.error.is_some()) {
            if !entry.is_nothing() {
                self.breach(seen.id, RULE, "a prompt that failed has figures");
            }
            if !entry.code().is_some_and(|code| CODES.contains(&code)) {
                self.breach(seen.id, "11 (codes)", "a code that is none");
            }
        }
        let code = refusal(&entries);
        match &code {
            Some(code) => self.check_refusal(request, seen, code),
            None => self.check_outcome(request, &interview, &entries, seen),
        }
        request.answers.push(Answer {
            written: seen.written,
            code,
        });
    }

    /// Whether a refusal has its reason.
    fn check_refusal(&mut self, request: &Request, seen: &Seen<'_>, code: &str) {
        self.count("interviews refused");
        let Some(interview) = &request.interview else {
            return;
        };
        let read = request.made.iter().filter_map(|made| made.read);
        let read: Vec<_> = read.filter(|read| *read <= seen.written).collect();
        // One that is made again while it waits goes on waiting.
        let waited = read.first().map_or(Duration::ZERO, |it| seen.written - *it);
        let read = read.last().copied();
        let is_troubled = self.ollama.calm_since() > self.began || self.warmth.is_troubled(read);
        // A list that is younger than a second is not read anew.
        let is_new = read.is_some_and(|read| {
            let listed = read.checked_sub(FRESH + self.ollama.latency() * 2);
            self.warmth.is_troubled(listed)
        });
        // Before it is known whose they are those that wait have no place, and one that comes later may have it.
        let has_no_place = self.others_wait(seen.id, read) >= 2
            || self.had_no_room(request, seen)
            || read.is_some_and(|read| self.is_young(read));
        let fits = match code {
            "model_not_found" => {
                matches!(interview.sort, Sort::UnknownModel | Sort::UnknownNode)
                    || is_troubled
                    || is_new
                    // Without a place to wait for a look, the last one has to do.
                    || (has_no_place && self.warmth.is_troubled(Some(self.began)))
                    || self.is_young(seen.written)
            }
            "invalid" => interview.sort == Sort::Odd,
            "busy" => has_no_place,
            "draining" => !self.drains.is_empty(),
            // Its result may have been given up as poison.
            "duplicate" => {
                request.response.is_some() || request.chats.iter().any(|chat| self.is_over(chat))
            }
            "timeout" => {
                interview.sort == Sort::Odd || waited + ROUNDING >= self.time_of(interview)
            }
            "backend" => is_troubled,
            _ => interview.sort == Sort::Odd,
        };
        if !fits && interview.sort != Sort::Odd {
            let what = format!("there is no reason to refuse it as `{code}`");
            self.breach(seen.id, "11 (refusals)", &what);
        }
    }

    /// How many other interviews had been read and not answered when this one was read.
    fn others_wait(&self, key: &str, read: Option<Instant>) -> usize {
        let others = self.requests.iter().filter(|(other, request)| {
            request.class == Some(Class::Interview) && other.as_str() != key
        });
        let waits = |request: &Request| {
            let made = request.made.iter().filter_map(|made| made.read);
            let made = made.filter(|made| Some(*made) <= read).max();
            made.is_some_and(|made| {
                let mut answers = request.answers.iter().map(|answer| answer.written);
                !answers.any(|answer| answer > made && Some(answer) < read)
            })
        };
        others.filter(|(_, request)| waits(request)).count()
    }

    /// Whether each entry is what the model server saw.
    fn check_outcome(
        &mut self,
        request: &mut Request,
        interview: &Interview,
        entries: &[Entry],
        seen: &Seen<'_>,
    ) {
        let hash = fnv(&seen.value["results"].to_string());
        match request.response {
            None => {
                self.count("interviews done");
                request.response = Some((hash, seen.written));
            }
            Some((first, at)) => {
                self.count("interview results delivered again");
                let runs = request.chats.iter().zip(&interview.asked);
                let runs = runs.filter(|(_, asked)| asked.prompt == 0).count();
                let is_expired = seen.written - at >= self.limits.result_ttl;
                // One that is asked again after a cancel is new work, be the cancel read behind the first result.
                let is_new = request.cancelled_since(at);
                if first != hash && runs < 2 && !is_expired && !is_new {
                    let what = "a second result, other than the first";
                    self.breach(seen.id, "1 (answers)", what);
                }
                return;
            }
        }
        if interview.sort == Sort::Odd {
            return;
        }
        let failed = entries.iter().filter(|entry| entry.error.is_some()).count();
        if failed > 0 {
            self.count("interviews with a prompt that failed");
        }
        for (place, entry) in entries.iter().enumerate() {
            let asked = request
                .last_asked(place, seen.written)
                .map(|(chat, asked)| (chat.clone(), asked.clone()));
            let what = match (&entry.error, &asked) {
                (Some(error), asked) => {
                    let asked = asked.as_ref();
                    self.failed_for_nothing(request, interview, asked)
                        .map(|why| format!("`{error}`, {why}"))
                }
                (None, None) => Some("it was never asked".to_owned()),
                (None, Some((chat, asked))) => {
                    self.misreported(request, interview, entry, (chat, asked))
                }
            };
            if let Some(what) = what {
                let what = format!("prompt {place}: {what}");
                self.breach(seen.id, RULE, &what);
            }
        }
    }

    /// Whether the way to the model server was left alone since the interview was read.
    fn was_calm(&self, request: &Request) -> bool {
        let read = request.made.iter().filter_map(|made| made.read).min();
        let is_rated = !self.ollama.is_free();
        !is_rated && read.is_some_and(|read| self.ollama.calm_since() < read)
    }

    /// Why a prompt should not have failed, if it should not.
    fn failed_for_nothing(
        &self,
        request: &Request,
        interview: &Interview,
        asked: Option<&(Chat, Asked)>,
    ) -> Option<String> {
        if !self.was_calm(request) {
            return None;
        }
        let read = request.made.iter().filter_map(|made| made.read).min();
        let Some((chat, _)) = asked else {
            let is_late = read.is_none_or(|read| read.elapsed() >= self.time_of(interview));
            let excused = is_late || self.warmth.is_troubled(read);
            return (!excused).then(|| "and it was never asked".to_owned());
        };
        let facts = self.ollama.facts(chat.connection);
        let ended = chat.read.or(facts.and_then(|facts| facts.client_closed));
        let took = ended.map_or(Duration::MAX, |ended| {
            ended.saturating_duration_since(chat.opened) + self.travel()
        });
        let over = read.map(|read| read + self.time_of(interview));
        let is_late = ended.map(|ended| ended + self.travel()) >= over;
        // Where it was run again since, its time may have been over before this prompt was reached.
        let mut again = request.made.iter().filter_map(|made| made.read);
        let is_late = is_late
            || again.any(|read| read > chat.opened && read.elapsed() >= self.time_of(interview));
        let is_cut = facts.is_none_or(|facts| facts.cut.is_some());
        let excused = chat.failed || is_cut || is_late || took >= self.time_of_prompt(interview);
        (!excused).then(|| format!("though it was answered within {took:?}"))
    }

    /// What a prompt may take: no longer than a chat.
    fn time_of_prompt(&self, interview: &Interview) -> Duration {
        interview.timeout.min(self.limits.request_timeout)
    }

    /// What an interview may take, its wait and a load included.
    fn time_of(&self, interview: &Interview) -> Duration {
        let prompts = u32::try_from(interview.prompts.len()).unwrap_or(u32::MAX);
        self.time_of_prompt(interview) * prompts
    }

    /// What a request and the words of its answer may take on the way, beside what the model server sees.
    fn travel(&self) -> Duration {
        // To dial, to be heard, and to hear.
        self.ollama.latency() * 4 + ADDED
    }

    /// What is wrong about a prompt's figures.
    fn misreported(
        &self,
        request: &Request,
        interview: &Interview,
        entry: &Entry,
        (chat, asked): (&Chat, &Asked),
    ) -> Option<String> {
        let Some(read) = chat.read else {
            return Some("it was not answered".to_owned());
        };
        let (first, total) = (entry.first, entry.total);
        if entry.response != asked.text {
            return Some("the response is not what the model server said".to_owned());
        }
        if entry.tokens != asked.tokens {
            return Some(format!("{} tokens of {}", entry.tokens, asked.tokens));
        }
        if first > total {
            return Some(format!("the first token after {first:?} of {total:?}"));
        }
        if total > interview.timeout + ADDED {
            return Some(format!("{total:?} are over {:?}", interview.timeout));
        }
        let most = self.was_calm(request).then(|| self.travel());
        let seen = |moment: Instant| moment.saturating_duration_since(chat.opened);
        let differs = |said: Duration, seen: Duration| {
            said + ROUNDING < seen || most.is_some_and(|most| said > seen + most)
        };
        if differs(total, seen(read)) {
            return Some(format!("{total:?} in all, where it took {:?}", seen(read)));
        }
        let first_read = asked.first?;
        differs(first, seen(first_read)).then(|| {
            let took = seen(first_read);
            format!("{first:?} to the first token, where it took {took:?}")
        })
    }

    /// A prompt whose answer was let go though nobody had asked for that, and time had not run out.
    pub(super) fn prompt_given_up_for_nothing(
        &self,
        key: &str,
        request: &Request,
        chat: &Chat,
    ) -> Option<String> {
        let interview = request.interview.as_ref()?;
        let at = self.given_up(chat)?;
        let facts = self.ollama.facts(chat.connection)?;
        let read = request.made.iter().filter_map(|made| made.read).min()?;
        let took = at.saturating_duration_since(chat.opened) + self.travel();
        let excused = chat.failed
            || at <= chat.opened
            || chat.written.is_some()
            || facts.cut.is_some()
            || facts.deaf.is_some()
            || self.was_cut_short(at)
            || request.cancelled_since(read)
            || self.is_superseded(key, request, read, at)
            || took >= self.time_of_prompt(interview)
            || at + self.travel() >= read + self.time_of(interview)
            || self.ollama.calm_since() >= read;
        (!excused).then(|| format!("a prompt was given up after {took:?}"))
    }

    /// Whether a drain may have ended an interview that was read then without a word.
    pub(super) fn was_cut_by_drain(&self, request: &Request, read: Instant) -> bool {
        let Some(interview) = &request.interview else {
            return false;
        };
        let last = interview.prompts.len().checked_sub(1);
        // What was asked for an earlier making of it does not count.
        let done = last
            .and_then(|last| request.last_asked(last, Instant::now()))
            .filter(|(chat, _)| chat.opened >= read)
            .and_then(|(chat, asked)| chat.read.or(asked.ended));
        self.drains.iter().any(|drain| {
            let is_later = drain.over.is_none_or(|over| over >= read);
            let cut = drain.began + self.limits.drain_timeout;
            is_later && done.is_none_or(|done| done + self.travel() >= cut)
        })
    }
}

/// The code of a result that only refuses: all its prompts have that and no sentence.
fn refusal(entries: &[Entry]) -> Option<String> {
    let Some(first) = entries.first() else {
        return Some(String::new());
    };
    let code = first.error.as_deref()?;
    let is_refused =
        |entry: &Entry| entry.error.as_deref() == Some(code) && entry.code() == Some(code);
    entries.iter().all(is_refused).then(|| code.to_owned())
}
