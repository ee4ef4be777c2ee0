//! Histories of an agent that keeps the rules about interviews, registration and warm models, and of agents that break one
//! each: the books must tell them apart.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, advance},
};

use super::{
    books::{Books, Class, Gauges, Limits, Opened, Seen},
    fate::Fate,
    interviews::{Interview, Sort, key},
    model_server::MODEL,
    said::{CALL, Kind, TOOL},
    trace::Trace,
    wire::{End, Link, Weather},
};

const SECOND: Duration = Duration::from_secs(1);

/// One session, and one connection to the model server.
struct History {
    books: Books,
    session: u64,
    connection: u64,
    written: u64,
    _ends: (End, End),
    _arrivals: [mpsc::UnboundedReceiver<End>; 2],
}

impl History {
    async fn new() -> Self {
        let trace = Trace::new(false);
        let weather = Weather {
            latency: Duration::ZERO,
            ..Weather::default()
        };
        let link = |name| Link::new(name, weather.clone(), Fate::new(1), trace.clone());
        let ((gateway, callers), (ollama, asks)) = (link("gateway"), link("ollama"));
        // Later than anything that is done to the links at the beginning.
        advance(SECOND).await;
        let books = Books::new(limits(), gateway.clone(), ollama.clone());
        let ends = (gateway.dial().await.unwrap(), ollama.dial().await.unwrap());
        let session = ends.0.number();
        books.ledger().sessions.entry(session).or_default().up = Some(Instant::now());
        Self {
            session,
            connection: ends.1.number(),
            written: 0,
            books,
            _ends: ends,
            _arrivals: [callers, asks],
        }
    }

    /// An interview of two prompts, which is read at once.
    fn interview(&self, id: &str) {
        let key = key(id);
        let interview = Interview {
            sort: Sort::Fair,
            prompts: vec!["p1".to_owned(), "p2".to_owned()],
            timeout: SECOND * 10,
            asked: Vec::new(),
        };
        self.books.interview(&key, interview);
        let place = self.books.made(&key, Class::Interview, false, self.session);
        self.books.was_read(&key, place, Instant::now());
    }

    /// A prompt is asked and answered: 1 s to the first token, 2 s in all.
    async fn ask(&self, id: &str, prompt: usize) {
        self.open(id, prompt, true);
        advance(SECOND).await;
        let word = format!("{}/{prompt}", key(id));
        let ask = self.asks(id) - 1;
        self.books.chat_said(&word, ask, Kind::Content, "four");
        self.books.first_read(&word, ask, Instant::now());
        advance(SECOND).await;
        self.books.chat_written(&word, ask);
        self.books.chat_read(&word, ask, Instant::now());
    }

    fn open(&self, id: &str, prompt: usize, is_warm: bool) {
        let opened = Opened {
            connection: self.connection,
            is_warm,
            is_limited: false,
        };
        let word = format!("{}/{prompt}", key(id));
        self.books.chat_opened(&word, opened);
    }

    fn asks(&self, id: &str) -> u64 {
        let ledger = self.books.ledger();
        ledger.requests[&key(id)].chats.len() as u64
    }

    fn result(&mut self, id: &str, results: &Value) {
        let value = json!({"interview_id": id, "model": "sim:latest", "results": results});
        self.seen("INTERVIEW_RESULT", &key(id), &value);
    }

    fn seen(&mut self, kind: &str, id: &str, value: &Value) {
        self.written += 1;
        self.books.seen(&Seen {
            session: self.session,
            kind,
            id,
            value,
            text: &value.to_string(),
            written: Instant::now(),
            start: self.written,
        });
    }

    /// The breaches so far, less the times at which they were seen.
    fn breaches(&self) -> Vec<String> {
        let all = self.books.violations().into_iter();
        all.map(|it| it.split_once(": ").unwrap().1.to_owned())
            .collect()
    }

    fn assert_breach(&self, of: &str) {
        let breaches = self.breaches();
        assert!(
            breaches.iter().any(|it| it.contains(of)),
            "no `{of}` among {breaches:?}"
        );
    }
}

fn limits() -> Limits {
    Limits {
        capacity: 1,
        queue: 4,
        heartbeat_interval: SECOND * 3_600,
        heartbeat_timeout: SECOND * 3_600,
        reconnect_max: SECOND * 60,
        connect_timeout: SECOND * 10,
        orphan_grace: SECOND * 30,
        result_ttl: SECOND * 600,
        request_timeout: SECOND * 60,
        token_timeout: SECOND * 20,
        drain_timeout: SECOND * 25,
        outbox_bytes: 1024 * 1024,
        answer_bytes: 400_000,
        generation: 2,
        preloads: true,
    }
}

fn told(prompt: &str, first: u64, total: u64) -> Value {
    json!({
        "prompt_id": prompt, "response": "four", "ttft_ms": first, "total_ms": total,
        "tokens_generated": 1,
    })
}

fn busy(prompt: &str) -> Value {
    json!({
        "prompt_id": prompt, "response": "", "ttft_ms": 0, "total_ms": 0,
        "tokens_generated": 0, "error": "busy",
    })
}

#[tokio::test(start_paused = true)]
async fn an_interview_that_is_done_as_it_should_be_breaks_no_rule() {
    let mut history = History::new().await;
    history.books.load_asked(false);
    history.books.model_loaded();
    history.books.registers(1, 1, Instant::now());
    history.interview("i1");
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    let results = json!([told("p1", 1_000, 2_000), told("p2", 1_000, 2_000)]);
    history.result("i1", &results);
    assert_eq!(history.breaches(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn times_that_are_measured_from_the_receipt_are_told() {
    let mut history = History::new().await;
    history.interview("i1");
    advance(SECOND * 3).await;
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    let results = json!([told("p1", 4_000, 5_000), told("p2", 1_000, 2_000)]);
    history.result("i1", &results);
    history.assert_breach("prompt 0: 5s in all, where it took 2s");
}

#[tokio::test(start_paused = true)]
async fn a_time_to_first_token_that_is_none_is_told() {
    let mut history = History::new().await;
    history.interview("i1");
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    history.result(
        "i1",
        &json!([told("p1", 0, 2_000), told("p2", 1_000, 2_000)]),
    );
    history.assert_breach("0ns to the first token, where it took 1s");
}

#[tokio::test(start_paused = true)]
async fn prompts_that_are_run_again_are_told() {
    let mut history = History::new().await;
    history.interview("i1");
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    let results = json!([told("p1", 1_000, 2_000), told("p2", 1_000, 2_000)]);
    history.result("i1", &results);
    history.books.made(&key("i1"), Class::Interview, false, 1);
    history.ask("i1", 0).await;
    history.assert_breach("rule 2 (once): prompt 0 is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_lacks_something_or_is_of_an_answer_that_never_was_whole_is_told() {
    let is_told = async |message: Value, is_whole: bool| {
        let mut history = History::new().await;
        let place = history.books.made("r1", Class::Chat, false, 1);
        history.books.was_read("r1", place, Instant::now());
        let opened = Opened {
            connection: history.connection,
            is_warm: true,
            is_limited: false,
        };
        let ask = history.books.chat_opened("r1", opened);
        let pieces = [
            (Kind::Thinking, "hm "),
            (Kind::Thinking, "so"),
            (Kind::Content, "r1#0.0 and all"),
            (Kind::Arguments, r#"{"what":"#),
            (Kind::Arguments, r#""r1"}"#),
        ];
        for (kind, piece) in pieces {
            history.books.chat_said("r1", ask, kind, piece);
        }
        if is_whole {
            history.books.chat_written("r1", ask);
            history.books.chat_read("r1", ask, Instant::now());
        }
        let choice = json!({"message": message, "finish_reason": "tool_calls"});
        let value = json!({"result": {"model": MODEL, "choices": [choice]}});
        history.seen("INFERENCE_RESPONSE", "r1", &value);
        !history.breaches().is_empty()
    };
    let call =
        |id, arguments| json!([{"id": id, "function": {"name": TOOL, "arguments": arguments}}]);
    let calls = call(CALL, r#"{"what":"r1"}"#);
    let all = json!({"content": "r1#0.0 and all", "thinking": "hm so", "tool_calls": calls});
    assert!(!is_told(all.clone(), true).await);
    assert!(is_told(all.clone(), false).await);
    for (part, other) in [
        ("content", json!("r1#0.0 and")),
        ("content", json!("hm sor1#0.0 and all")),
        ("thinking", json!(null)),
        ("thinking", json!("hm ")),
        ("tool_calls", json!([])),
        ("tool_calls", call(CALL, r#"{"what":"#)),
        ("tool_calls", call("another", r#"{"what":"r1"}"#)),
    ] {
        let mut message = all.clone();
        message[part] = other;
        assert!(is_told(message.clone(), true).await, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_of_which_nothing_more_comes_is_to_be_given_up() {
    let history = History::new().await;
    let place = history.books.made("r1", Class::Chat, false, 1);
    history.books.was_read("r1", place, Instant::now());
    let opened = Opened {
        connection: history.connection,
        is_warm: true,
        is_limited: false,
    };
    let ask = history.books.chat_opened("r1", opened);
    history.books.chat_hangs("r1", ask);
    advance(limits().token_timeout).await;
    history.books.look(Gauges::default());
    assert_eq!(history.breaches(), Vec::<String>::new());
    advance(SECOND * 2).await;
    history.books.look(Gauges::default());
    history.assert_breach("r1: rule 17 (silence): nothing has come for 22s");
}

#[tokio::test(start_paused = true)]
async fn a_second_result_other_than_the_first_is_told_unless_a_cancel_was_read_between() {
    let refusal = |code| {
        json!({
            "prompt_id": "p1", "response": "", "ttft_ms": 0, "total_ms": 0,
            "tokens_generated": 0, "error": code,
        })
    };
    let results = [
        json!([told("p1", 1_000, 2_000), told("p2", 1_000, 2_000)]),
        json!([told("p1", 1_000, 2_000), refusal("backend: it broke")]),
    ];
    for is_cancelled in [false, true] {
        let mut history = History::new().await;
        let key = key("i1");
        history.interview("i1");
        history.ask("i1", 0).await;
        history.ask("i1", 1).await;
        // The gateway cancels, and only then reads what had been under way before that.
        let cancel = is_cancelled.then(|| history.books.cancelled(&key, 1).unwrap());
        history.result("i1", &results[0]);
        advance(SECOND).await;
        if let Some(place) = cancel {
            history.books.cancel_was_read(&key, place, Instant::now());
        }
        history.books.made(&key, Class::Interview, false, 1);
        history.result("i1", &results[1]);
        let breaches = history.breaches();
        let is_told = breaches.iter().any(|it| it.contains("a second result"));
        assert_eq!(is_told, !is_cancelled, "{breaches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_in_another_order_or_with_figures_of_what_failed_are_told() {
    let mut history = History::new().await;
    history.interview("i1");
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    let mut failed = told("p1", 1_000, 2_000);
    failed["error"] = json!("backend: it broke");
    history.result("i1", &json!([told("p2", 1_000, 2_000), failed]));
    history.assert_breach(r#"results of ["p2", "p1"]"#);

    let mut history = History::new().await;
    history.interview("i1");
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    let mut failed = told("p2", 1_000, 2_000);
    failed["error"] = json!("backend: it broke");
    history.result("i1", &json!([told("p1", 1_000, 2_000), failed]));
    history.assert_breach("a prompt that failed has figures");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_was_answered_and_is_said_to_have_failed_is_told() {
    let mut history = History::new().await;
    history.interview("i1");
    history.ask("i1", 0).await;
    history.ask("i1", 1).await;
    let failed = json!({
        "prompt_id": "p2", "response": "", "ttft_ms": 0, "total_ms": 0,
        "tokens_generated": 0, "error": "backend: it broke",
    });
    history.result("i1", &json!([told("p1", 1_000, 2_000), failed]));
    history.assert_breach("prompt 1: `backend: it broke`, though it was answered");
}

#[tokio::test(start_paused = true)]
async fn two_interviews_at_once_are_told_and_a_prompt_of_a_cold_model() {
    let history = History::new().await;
    history.interview("i1");
    history.interview("i2");
    history.open("i1", 0, false);
    history.assert_breach("a prompt is asked of a model that is not loaded");
    history.open("i2", 0, true);
    history.assert_breach("two interviews run at once");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_reason_is_told() {
    let mut history = History::new().await;
    advance(SECOND * 20).await;
    history.interview("i1");
    history.result("i1", &json!([busy("p1"), busy("p2")]));
    history.assert_breach("there is no reason to refuse it as `busy`");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_lack_of_room_is_none_unless_the_outbox_was_full_since_it_was_asked() {
    let limits = limits();
    let full = i64::try_from(limits.outbox_bytes).unwrap();
    // What the gauge says as the interview is read, and as it is refused.
    for (read, refused, is_told) in [
        (full, 0, false),
        (0, full, false),
        (0, full - 1, true),
        (full - 1, 0, true),
    ] {
        let mut history = History::new().await;
        let bytes = Arc::new(AtomicI64::new(full));
        let gauge = Arc::clone(&bytes);
        let books = &history.books;
        books.watch_outbox(move || gauge.load(Ordering::Relaxed));
        // It has been full before, as a look has found.
        books.look(Gauges {
            outbox_bytes: full,
            ..Gauges::default()
        });
        advance(SECOND * 20).await;
        bytes.store(read, Ordering::Relaxed);
        history.interview("i1");
        advance(SECOND).await;
        bytes.store(refused, Ordering::Relaxed);
        history.result("i1", &json!([busy("p1"), busy("p2")]));
        let breaches = history.breaches();
        assert_eq!(
            !breaches.is_empty(),
            is_told,
            "{read}, {refused}: {breaches:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_registered_twice_or_without_a_model_or_in_a_drain_is_told() {
    let history = History::new().await;
    history.books.model_loaded();
    history.books.registers(1, 1, Instant::now());
    history.books.registers(1, 1, Instant::now());
    history.assert_breach("session 1: rule 14 (registration): the node is registered twice");
    history.books.registers(2, 0, Instant::now());
    history
        .assert_breach("session 2: rule 14 (registration): a node is registered that has no model");
    history.books.draining();
    advance(SECOND).await;
    history.books.registers(3, 1, Instant::now());
    history.assert_breach("session 3: rule 14 (registration): a node is registered that drains");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_registered_before_its_model_is_loaded_is_told() {
    let history = History::new().await;
    advance(SECOND).await;
    history.books.registers(1, 1, Instant::now());
    history.assert_breach("a node is registered before its model is loaded");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_not_loaded_again_after_a_restart_is_told_and_one_that_is_again_after_an_eviction()
 {
    let history = History::new().await;
    history.books.model_loaded();
    history.books.registers(1, 1, Instant::now());
    advance(SECOND).await;
    history.books.ollama_restarted(SECOND * 10, true);
    advance(SECOND * 30).await;
    history.books.look(Gauges::default());
    history.assert_breach("ollama: rule 15 (warm): not loaded again");

    let history = History::new().await;
    history.books.model_loaded();
    advance(SECOND).await;
    history.books.model_evicted();
    advance(SECOND * 60).await;
    history.books.load_asked(false);
    history.assert_breach("ollama: rule 15 (warm): loaded again 60s after an eviction");
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_gets_the_slot_of_an_interview_that_waits_is_told() {
    let history = History::new().await;
    history.books.made("r1", Class::Chat, false, 1);
    advance(SECOND * 30).await;
    history.interview("i1");
    advance(SECOND * 5).await;
    let opened = Opened {
        connection: history.connection,
        is_warm: true,
        is_limited: false,
    };
    history.books.chat_opened("r1", opened);
    history.assert_breach("r1: rule 12 (interviews): a chat has got the slot");
}
