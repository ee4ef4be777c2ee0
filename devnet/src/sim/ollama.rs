//! A model Ollama: answers chats token by token in virtual time, and fails in the ways that a real one fails.
//!
//! Invariant: what becomes of a chat follows from the seed, the request's id and how often it was asked, never from
//! what else happens. The first word of the last message is the request's id.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

use super::{
    books::{Books, Opened},
    fate::Fate,
    http,
    interviews::is_key,
    memory::{Memory, Wish},
    trace::Trace,
    wire::{End, Link},
};
use crate::journal::lock;

/// The one model that it has.
pub const MODEL: &str = "sim:latest";

/// The largest token of an answer to an interview's prompt, in bytes.
const PROMPT_TOKEN: usize = 1_000;

/// How it is today.
#[derive(Clone, Debug)]
pub struct Temper {
    /// The most tokens of an answer.
    pub tokens: u64,
    /// The longest time between two, in milliseconds.
    pub token_millis: u64,
    /// The longest time before the first, in milliseconds.
    pub first_millis: u64,
    /// How many chats of a hundred fail.
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

/// The model server. Runs until it is dropped.
pub struct Ollama {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    link: Link,
    books: Books,
    trace: Trace,
    temper: Mutex<Temper>,
    memory: Memory,
    /// Whether the model is on its disk.
    has_model: Mutex<bool>,
}

/// What goes wrong with an answer, after so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Status500,
    ErrorLine(u64),
    Cut(u64),
    Hang(u64),
    Stall(u64),
    EndWithoutDone(u64),
}

struct Plan {
    first: Duration,
    between: u64,
    tokens: u64,
    token_bytes: usize,
    fault: Fault,
}

impl Ollama {
    /// Serves what arrives.
    pub fn start(
        seed: u64,
        link: Link,
        mut arrivals: mpsc::UnboundedReceiver<End>,
        books: Books,
        trace: Trace,
        temper: Temper,
    ) -> Self {
        let shared = Arc::new(Shared {
            seed,
            link,
            books,
            trace,
            temper: Mutex::new(temper),
            memory: Memory::default(),
            has_model: Mutex::new(true),
        });
        let server = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Some(end) = arrivals.recv().await {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    // However a client goes away, it has gone away.
                    let _ = server.serve(end).await;
                });
            }
        });
        Self { shared }
    }

    /// Is another from now on; chats that run go on as they began.
    pub fn become_like(&self, temper: Temper) {
        self.shared.trace.say(format_args!("ollama: {temper:?}"));
        *lock(&self.shared.temper) = temper;
    }

    /// Is a new process from now on, with nothing in memory, after so long an absence.
    pub fn restart(&self, absence: Duration) {
        self.shared.trace.say(format_args!("ollama: restarts"));
        let was_loaded = self.shared.memory.forget();
        self.shared.books.ollama_restarted(absence, was_loaded);
    }

    /// The model has to leave the memory.
    pub fn evict(&self) {
        if self.shared.memory.forget() {
            self.shared
                .trace
                .say(format_args!("ollama: evicts the model"));
            self.shared.books.model_evicted();
        }
    }

    /// The model is deleted, or there again.
    pub fn have_model(&self, has: bool) {
        if std::mem::replace(&mut *lock(&self.shared.has_model), has) == has {
            return;
        }
        self.shared
            .trace
            .say(format_args!("ollama: has the model: {has}"));
        self.shared.books.model_comes_and_goes(has);
    }
}

impl Shared {
    async fn serve(&self, mut end: End) -> io::Result<()> {
        while let Some(request) = http::read(&mut end).await? {
            match request.path.as_str() {
                "/api/chat" => self.chat(&mut end, &request.body).await?,
                path => http::whole(&mut end, 200, &self.about(path).to_string()).await?,
            }
        }
        Ok(())
    }

    async fn chat(&self, end: &mut End, body: &[u8]) -> io::Result<()> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let wish = Wish::of(&body);
        let last = body["messages"].as_array().and_then(|all| all.last());
        let Some(last) = last else {
            return self.load(end, wish).await;
        };
        let prompt = last["content"].as_str().unwrap_or_default();
        let id = prompt.split(' ').next().unwrap_or_default();
        let limit = body["options"]["num_predict"].as_u64();
        let opened = Opened {
            connection: end.number(),
            is_warm: self.memory.is_ready(wish),
            is_limited: limit.is_some(),
        };
        let ask = self.books.chat_opened(id, opened);
        let mut plan = self.plan(id, ask);
        plan.tokens = plan.tokens.min(limit.unwrap_or(u64::MAX));
        self.trace.say(format_args!(
            "ollama: asked {id} #{ask}, {} tokens of {} bytes, {:?}",
            plan.tokens, plan.token_bytes, plan.fault
        ));
        let spoken = self.warm_and_speak(end, id, ask, (&plan, wish)).await;
        self.memory.keep(wish);
        let how = match &spoken {
            Ok(()) if plan.fault == Fault::None => "whole",
            Ok(()) => "as its fault has it",
            Err(_) => "the client has gone",
        };
        self.trace
            .say(format_args!("ollama: ends {id} #{ask}: {how}"));
        spoken
    }

    /// A request without messages: it only loads the model, or has it leave.
    async fn load(&self, end: &mut End, wish: Wish) -> io::Result<()> {
        let reason = if wish.is_farewell() {
            self.trace.say(format_args!("ollama: asked to unload"));
            self.memory.forget();
            "unload"
        } else {
            let load = self.books.load_asked(self.memory.is_ready(wish));
            self.trace
                .say(format_args!("ollama: asked for load {load}"));
            let temper = lock(&self.temper).clone();
            if Fate::of(self.seed, "load", load).percent(temper.load_faults) {
                self.books.load_failed();
                let error = r#"{"error":"model requires more system memory"}"#;
                return http::whole(end, 500, error).await;
            }
            self.warm(end, wish).await?;
            self.memory.keep(wish);
            "load"
        };
        let answer = json!({
            "model": MODEL, "created_at": "2024-01-06T00:00:00Z",
            "message": {"role": "assistant", "content": ""}, "done_reason": reason, "done": true,
        });
        http::whole(end, 200, &answer.to_string()).await
    }

    async fn warm(&self, end: &mut End, wish: Wish) -> io::Result<()> {
        let time = Duration::from_millis(lock(&self.temper).load_millis);
        self.memory.load(end, wish, time).await?;
        self.books.model_loaded();
        Ok(())
    }

    async fn warm_and_speak(
        &self,
        end: &mut End,
        id: &str,
        ask: u64,
        (plan, wish): (&Plan, Wish),
    ) -> io::Result<()> {
        if !*lock(&self.has_model) {
            self.books.chat_failed(id, ask);
            let error = json!({"error": format!("model '{MODEL}' not found")});
            return http::whole(end, 404, &error.to_string()).await;
        }
        self.warm(end, wish).await?;
        self.speak(end, id, ask, plan).await
    }

    async fn speak(&self, end: &mut End, id: &str, ask: u64, plan: &Plan) -> io::Result<()> {
        let mut fate = Fate::of(self.seed, id, ask + 1_000);
        rest(end, plan.first).await?;
        if plan.fault == Fault::Status500 {
            self.books.chat_failed(id, ask);
            return http::whole(
                end,
                500,
                r#"{"error":"llama runner process has terminated"}"#,
            )
            .await;
        }
        http::begin(end).await?;
        let mut token = String::new();
        for number in 0..plan.tokens {
            if self.strike(end, id, ask, plan.fault, number).await? {
                return Ok(());
            }
            token.clear();
            token.push_str(&format!("{id}#{ask}.{number} "));
            while token.len() < plan.token_bytes {
                token.push_str("lorem ipsum ");
            }
            http::part(end, &line(&token, None)).await?;
            self.books.chat_said(id, ask, &token);
            if number == 0 {
                let (books, read) = (self.books.clone(), id.to_owned());
                self.link
                    .when_read(end.number(), move |now| books.first_read(&read, ask, now));
            }
            if plan.between > 0 {
                rest(end, fate.millis(0..=plan.between)).await?;
            }
        }
        http::part(end, &line("", Some(plan.tokens))).await?;
        self.books.chat_written(id, ask);
        let (books, read) = (self.books.clone(), id.to_owned());
        self.link
            .when_read(end.number(), move |now| books.chat_read(&read, ask, now));
        http::finish(end).await
    }

    /// Does what the fault does at this token; tells whether the answer is over.
    async fn strike(
        &self,
        end: &mut End,
        id: &str,
        ask: u64,
        fault: Fault,
        token: u64,
    ) -> io::Result<bool> {
        match fault {
            Fault::ErrorLine(at) if at == token => {
                self.books.chat_failed(id, ask);
                http::part(
                    end,
                    "{\"error\":\"an error was encountered while running the model\"}\n",
                )
                .await?;
                http::finish(end).await?;
                Ok(true)
            }
            Fault::Cut(at) if at == token => {
                self.books.chat_failed(id, ask);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Fault::Hang(at) if at == token => {
                http::hung_up(end).await;
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Fault::Stall(at) if at == token => {
                rest(end, Duration::from_secs(8)).await?;
                Ok(false)
            }
            Fault::EndWithoutDone(at) if at == token => {
                self.books.chat_failed(id, ask);
                http::finish(end).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn plan(&self, id: &str, ask: u64) -> Plan {
        let temper = lock(&self.temper).clone();
        let mut fate = Fate::of(self.seed, id, ask);
        let tokens = fate.within(1..=temper.tokens.max(1));
        let at = fate.within(0..=tokens - 1);
        let fault = if fate.percent(temper.faults) {
            fate.one_of(&[
                Fault::Status500,
                Fault::ErrorLine(at),
                Fault::Cut(at),
                Fault::Hang(at),
                Fault::Stall(at),
                Fault::EndWithoutDone(at),
            ])
        } else {
            Fault::None
        };
        Plan {
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
}

/// Waits, unless the client hangs up first.
async fn rest(end: &mut End, time: Duration) -> io::Result<()> {
    tokio::select! {
        biased;
        () = http::hung_up(end) => Err(io::ErrorKind::BrokenPipe.into()),
        () = sleep(time) => Ok(()),
    }
}

/// A line of an answer; the last one says how many tokens there were.
fn line(token: &str, tokens: Option<u64>) -> String {
    let mut line = json!({
        "model": MODEL, "created_at": "2024-01-06T00:00:00Z",
        "message": {"role": "assistant", "content": token}, "done": tokens.is_some(),
    });
    if let Some(tokens) = tokens {
        line["done_reason"] = json!("stop");
        line["prompt_eval_count"] = json!(7);
        line["eval_count"] = json!(tokens);
    }
    format!("{line}\n")
}

impl Shared {
    fn about(&self, path: &str) -> Value {
        match path {
            "/api/tags" if !*lock(&self.has_model) => json!({"models": []}),
            "/api/ps" => self.memory.list(),
            _ => about(path),
        }
    }
}

fn about(path: &str) -> Value {
    match path {
        "/api/version" => json!({"version": "0.17.3"}),
        "/api/tags" => json!({"models": [{"name": MODEL, "model": MODEL, "digest": "d1"}]}),
        "/api/show" => json!({
            "capabilities": ["completion"],
            "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
        }),
        _ => json!({}),
    }
}
