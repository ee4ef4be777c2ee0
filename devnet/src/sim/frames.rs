//! The delivery rules that a frame can break: judged when the gateway has read a chunk, a response or an error, and when the
//! model server is asked for a chat.
//!
//! Invariant: each excuse is written beside its rule.

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    books::Seen,
    ledger::{Answer, Chat, Class, Ledger, Request, Stream},
    model_server::{MODEL, VOICE},
    said::{Kind, Said},
};

/// The closed set of codes that an error's text may begin with.
pub(super) const CODES: &[&str] = &[
    "busy",
    "draining",
    "queue_timeout",
    "invalid",
    "model_not_found",
    "timeout",
    "rejected",
    "backend",
    "too_large",
    "internal",
    "duplicate",
    "orphaned",
];

/// A product that has just started may not have seen a model yet.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// From the last line of a chat to its answer: the end of the body is waited for that long, and a little more is lost
/// to timers of whole milliseconds.
const FINISHING: Duration = Duration::from_millis(25);

impl Ledger {
    pub(super) fn check_second_generation(&mut self, id: &str, now: Instant) {
        let Some(request) = self.requests.get(id) else {
            return self.breach(id, "2 (once)", "a chat that nobody asked for");
        };
        if request.chats.iter().any(|chat| self.is_open(chat)) {
            return self.breach(id, "2 (once)", "a second generation while the first runs");
        }
        let Some(read) = request.chats.iter().filter_map(|chat| chat.read).max() else {
            return;
        };
        let failed = request.answers.iter().any(|answer| {
            answer.written >= read
                && answer
                    .code
                    .as_deref()
                    .is_some_and(|code| code != "duplicate")
        });
        let forgotten = now - read >= self.limits.result_ttl;
        let cut_short = self.was_stopped_at(request, read);
        if !request.cancelled_since(read)
            && !failed
            && !forgotten
            && !request.poisoned
            && !cut_short
        {
            self.breach(id, "2 (once)", "a second generation after a whole answer");
        }
    }

    /// Whether a job may have been told to stop in the very moment in which it had its last line: it fails then, and its
    /// error may be under way, or superseded, when the request is made again.
    fn was_stopped_at(&self, request: &Request, read: Instant) -> bool {
        let orphaned = self
            .lost_before(read)
            .map(|lost| lost + self.limits.orphan_grace);
        let made = request.made.iter().filter_map(|made| made.read);
        let late = made.map(|made| made + self.limits.request_timeout);
        let drains = self.drains.iter();
        let mut drained = drains.map(|drain| drain.began + self.limits.drain_timeout);
        let at_once = orphaned
            .into_iter()
            .chain(late)
            .any(|stop| stop + FINISHING >= read && stop <= read + FINISHING);
        // A job that a full outbox keeps from reading may have the last line in its buffers for long when a drain ends it.
        at_once || drained.any(|stop| stop + FINISHING >= read)
    }

    pub(super) fn runs_since_earlier(&self, id: &str, session: u64) -> bool {
        self.requests.get(id).is_some_and(|request| {
            request.made_on(session) == 0 && request.chats.iter().any(|chat| self.is_open(chat))
        })
    }

    pub(super) fn check_silence(&mut self, request: &Request, seen: &Seen<'_>) {
        if self.has_namesake(seen.id) {
            return;
        }
        if request.silent_from.is_some_and(|from| from <= seen.session) {
            let what = format!("{} after the cancel was understood", seen.kind);
            self.breach(seen.id, "7 (cancel)", &what);
        }
        let blocked = self
            .gateway
            .facts(seen.session)
            .and_then(|facts| facts.client_blocked);
        // What stood in the socket's way when the cancel was read went out later, and could not be called back.
        let was_free = blocked.is_none_or(|blocked| {
            request
                .cancels
                .iter()
                .filter_map(|cancel| cancel.read)
                .max()
                > Some(blocked + self.limits.heartbeat_timeout)
        });
        let is_behind = blocked.is_none() && request.is_behind_a_cancel(seen.session, seen.start);
        if is_behind
            || (was_free && request.is_silenced(seen.written, |cancel| self.was_looked_at(cancel)))
        {
            let what = format!("{} after the cancel was read", seen.kind);
            self.breach(seen.id, "7 (cancel)", &what);
        }
    }

    pub(super) fn chunk(&mut self, request: &mut Request, seen: &Seen<'_>) {
        self.count("chunks");
        let index = seen.value["index"].as_u64().unwrap_or(u64::MAX);
        let delta = seen.value["delta"].as_str().unwrap_or_default();
        let made = request.made_on(seen.session);
        if !request.stream {
            self.breach(seen.id, "8 (streams)", "a chunk, but it does not stream");
        }
        if made == 0 {
            self.breach(
                seen.id,
                "8 (streams)",
                "a chunk on a session where it was not asked for",
            );
        }
        let due = request.terminals_due(seen.session);
        let stream = request.streams.entry(seen.session).or_default();
        if stream.terminals >= due {
            return self.breach(seen.id, "8 (streams)", "a chunk after the terminal frame");
        }
        let is_new =
            stream.next == 0 || stream.runs < made || stream.terminals > stream.terminals_before;
        if index == 0 && is_new {
            *stream = Stream {
                runs: stream.runs + 1,
                made,
                terminals: stream.terminals,
                terminals_before: stream.terminals,
                ..Stream::default()
            };
        } else if index != stream.next {
            let what = format!("chunk {index} where {} is due", stream.next);
            return self.breach(seen.id, "8 (streams)", &what);
        }
        stream.next = index + 1;
        match seen.value["kind"].as_str() {
            Some("content") => stream.said.add(Kind::Content, delta),
            Some("thinking") => stream.said.add(Kind::Thinking, delta),
            _ => self.breach(seen.id, "8 (streams)", "a chunk of no known kind"),
        }
    }

    pub(super) fn terminal(&mut self, request: &mut Request, seen: &Seen<'_>) {
        self.check_due(request, seen);
        let is_speech = request.class.is_some_and(Class::is_speech);
        if seen.kind.starts_with("TTS_") != is_speech {
            self.breach(
                seen.id,
                "1 (answers)",
                "the answer to another kind of request",
            );
        }
        let code = match seen.kind {
            "INFERENCE_ERROR" | "TTS_ERROR" => {
                let error = seen.value["error"].as_str().unwrap_or_default();
                let code = error.split_once(": ").map_or("", |(code, _)| code);
                self.check_code(request, seen, code, error);
                Some(code.to_owned())
            }
            _ => {
                self.response(request, seen);
                None
            }
        };
        request.answers.push(Answer {
            written: seen.written,
            code,
        });
        let behind = request
            .behind
            .take()
            .filter(|(session, _)| *session == seen.session);
        for (id, made) in behind.into_iter().flat_map(|(_, cancelled)| cancelled) {
            let Some(cancelled) = self.requests.get_mut(&id) else {
                continue;
            };
            if cancelled.made.len() == made {
                cancelled.silent_from = Some(seen.session);
                self.count("cancels that were understood");
            }
        }
    }

    /// A terminal frame has come: one for each time that the request was made.
    pub(super) fn check_due(&mut self, request: &mut Request, seen: &Seen<'_>) {
        let due = request.terminals_due(seen.session);
        let stream = request.streams.entry(seen.session).or_default();
        stream.terminals += 1;
        if stream.terminals > due {
            let what = format!(
                "terminal frame {} of {due} on one session",
                stream.terminals
            );
            self.breach(seen.id, "1 (answers)", &what);
        }
    }

    /// Whether a product that has just started may not have seen a model yet.
    pub(super) fn is_young(&self, moment: Instant) -> bool {
        moment < self.began + FIRST_LOOK
    }

    /// Whether the product had the whole answer before the time of a request was over, and before it wrote this error.
    fn was_whole_in_time(&self, request: &Request, written: Instant) -> bool {
        let answers = request.answers.iter().map(|answer| answer.written);
        let cancels = request.cancels.iter().filter_map(|cancel| cancel.read);
        let since = answers.chain(cancels).max();
        let made = request.made.iter().filter_map(|made| made.read);
        let first = made.filter(|read| Some(*read) > since).min();
        let mut chats = request.chats.iter().rev();
        // What was asked for again since may be other work, where the answer is older than it may be.
        let chat = chats.find(|chat| chat.opened <= written);
        let chat = chat.filter(|chat| {
            let again = |made: Instant| Some(made) > chat.read && made <= written;
            let mut made = request.made.iter().filter_map(|made| made.read);
            chat.read.is_some_and(|read| read < written) && !made.any(again)
        });
        let (Some(first), Some(chat)) = (first, chat) else {
            return false;
        };
        let is_late = |read: Instant| read + FINISHING >= first + self.limits.request_timeout;
        chat.opened >= first && chat.read.is_some_and(|read| !is_late(read))
    }

    /// Whether a job that was complete may have given its last chunks up: they had no room, and it might not wait longer.
    fn gave_chunks_up(&self, request: &Request, seen: &Seen<'_>) -> bool {
        let blocked = self
            .gateway
            .facts(seen.session)
            .and_then(|facts| facts.client_blocked);
        let had_no_room = |since: Instant| {
            blocked.is_some_and(|blocked| blocked >= since)
                || self.full.is_some_and(|full| full >= since)
        };
        // A chunk larger than the bound is let in only where nothing else is kept, such as an answer not yet confirmed.
        let is_too_large = seen.text.len() as u64 > self.limits.outbox_bytes;
        let timeout = self.limits.request_timeout;
        let is_over =
            |made: Instant| seen.written >= made + timeout || self.was_cut_short(seen.written);
        let made = request.made.iter().filter_map(|made| made.read);
        made.into_iter()
            .any(|made| is_over(made) && (is_too_large || had_no_room(made)))
    }

    /// What a response says.
    fn said_in(&self, request: &Request, seen: &Seen<'_>) -> Said {
        let result = &seen.value["result"];
        match request.class {
            Some(Class::Speech) => Said::only(spoken_in(result).unwrap_or_default()),
            _ if self.limits.generation == 1 => Said::in_message(&result["message"]),
            _ => Said::in_message(&result["choices"][0]["message"]),
        }
    }

    /// A response is all that the model server has said, and that was whole.
    fn check_whole(&mut self, request: &Request, seen: &Seen<'_>, said: &Said) {
        let is_it = |chat: &Chat| chat.written.is_some() && chat.said == *said;
        if !request.chats.iter().any(is_it) {
            let what = "a response that is not all that the model server has said";
            self.breach(seen.id, "1 (answers)", what);
        }
        let reason = &seen.value["result"]["choices"][0]["finish_reason"];
        if said.has_calls() && self.limits.generation == 2 && reason != "tool_calls" {
            let what = format!("a response that calls a tool and ends with {reason}");
            self.breach(seen.id, "1 (answers)", &what);
        }
        // Where its files are is the operator's own business.
        let model = seen.value["result"]["model"].as_str();
        let asked = match request.class {
            Some(Class::Speech) => VOICE,
            _ => MODEL,
        };
        if model != Some(asked) {
            self.breach(
                seen.id,
                "1 (answers)",
                "a response of another model than was asked for",
            );
        }
    }

    fn response(&mut self, request: &mut Request, seen: &Seen<'_>) {
        if !request.is_job() {
            self.breach(seen.id, "11 (refusals)", "a response to what has none");
        }
        let said = self.said_in(request, seen);
        self.check_whole(request, seen, &said);
        if said.has_thoughts() {
            self.count("responses with thoughts");
        }
        if said.has_calls() {
            self.count("responses that call a tool");
        }
        let said = said.in_chunks();
        let made = request.made_on(seen.session);
        let stream = request.streams.entry(seen.session).or_default();
        let is_its_own = stream.made == made && stream.terminals == stream.terminals_before + 1;
        let chunks = stream.next;
        let (is_whole, is_prefix) = (stream.said == said, stream.said.begins(&said));
        let streamed = said != Said::default() && request.streamed_on(seen.session, seen.written);
        if (chunks > 0 && is_its_own && !is_whole) || (chunks == 0 && streamed) {
            if is_prefix && self.gave_chunks_up(request, seen) {
                self.count("answers whose last chunks were given up");
            } else if chunks == 0 {
                self.breach(seen.id, "8 (streams)", "no chunk came, though it streams");
            } else {
                self.breach(seen.id, "8 (streams)", "the chunks are not the response");
            }
        }
        let hash = fnv(seen.text);
        // One that was lost with an earlier session is never read.
        let in_transit = request.cancels.iter().any(|cancel| match cancel.read {
            Some(read) => read >= seen.written,
            None => cancel.session == seen.session,
        });
        match request.response {
            _ if in_transit => self.count("responses that crossed a cancel"),
            None => {
                self.count("responses billed");
                request.response = Some((hash, seen.written));
            }
            Some((billed, at)) => {
                self.count("responses delivered again");
                // Whether there may be a second generation is rule 2's to say; one generation has one answer.
                let generations = request.chats.iter().filter(|chat| chat.read.is_some());
                let expired = seen.written - at >= self.limits.result_ttl;
                if billed != hash && !expired && generations.count() < 2 {
                    self.breach(
                        seen.id,
                        "1 (answers)",
                        "a second response, other than the first",
                    );
                }
            }
        }
    }

    fn check_code(&mut self, request: &Request, seen: &Seen<'_>, code: &str, error: &str) {
        if let Some(known) = CODES.iter().find(|known| **known == code) {
            self.count(known);
        }
        let failed = request.chats.iter().any(|chat| {
            chat.failed
                || self
                    .ollama
                    .facts(chat.connection)
                    .is_none_or(|facts| facts.cut.is_some())
        });
        let answered = request.chats.iter().any(|chat| chat.read.is_some());
        let fits = match code {
            "invalid" => request.class == Some(Class::Invalid),
            "model_not_found" => {
                matches!(
                    request.class,
                    Some(Class::UnknownModel | Class::UnknownSpeech)
                ) || self.ollama.calm_since() > self.began
                    || self.warmth.is_troubled(Some(self.began))
                    || self.is_young(seen.written)
            }
            "duplicate" => answered,
            // What it said in a drain may be read after it.
            "draining" => !self.drains.is_empty(),
            "backend" => failed || self.ollama.calm_since() > self.began,
            "internal" => false,
            "orphaned" => self.sessions.len() > 1,
            "timeout" => !self.was_whole_in_time(request, seen.written),
            "rejected" => false,
            "busy" | "queue_timeout" | "too_large" => true,
            _ => return self.breach(seen.id, "11 (codes)", "a code that is none"),
        };
        if !fits {
            let what = format!("there is no reason for `{error}`");
            self.breach(seen.id, "11 (refusals)", &what);
        }
    }
}

/// What the audio of a result says. `None`: it is no base64, or not of the length that it says.
fn spoken_in(result: &Value) -> Option<String> {
    let audio = BASE64
        .decode(result["audio_b64"].as_str()?.as_bytes())
        .ok()?;
    let is_counted = result["bytes"].as_u64() == u64::try_from(audio.len()).ok();
    String::from_utf8(audio).ok().filter(|_| is_counted)
}

pub(super) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
