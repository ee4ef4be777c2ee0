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
    books::Books,
    fate::Fate,
    http,
    trace::Trace,
    wire::{End, Link},
};
use crate::journal::lock;

/// The one model that it has.
pub const MODEL: &str = "sim:latest";

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
}

impl Shared {
    async fn serve(&self, mut end: End) -> io::Result<()> {
        while let Some(request) = http::read(&mut end).await? {
            match request.path.as_str() {
                "/api/chat" => self.chat(&mut end, &request.body).await?,
                path => http::whole(&mut end, 200, &about(path).to_string()).await?,
            }
        }
        Ok(())
    }

    async fn chat(&self, end: &mut End, body: &[u8]) -> io::Result<()> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let prompt = body["messages"]
            .as_array()
            .and_then(|messages| messages.last()?["content"].as_str())
            .unwrap_or_default();
        let id = prompt.split(' ').next().unwrap_or_default();
        let ask = self.books.chat_opened(id, end.number());
        let plan = self.plan(id, ask);
        self.trace.say(format_args!(
            "ollama: asked {id} #{ask}, {} tokens of {} bytes, {:?}",
            plan.tokens, plan.token_bytes, plan.fault
        ));
        let spoken = self.speak(end, id, ask, &plan).await;
        let how = match &spoken {
            Ok(()) if plan.fault == Fault::None => "whole",
            Ok(()) => "as its fault has it",
            Err(_) => "the client has gone",
        };
        self.trace
            .say(format_args!("ollama: ends {id} #{ask}: {how}"));
        spoken
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
            http::part(end, &line(&token, false)).await?;
            if plan.between > 0 {
                rest(end, fate.millis(0..=plan.between)).await?;
            }
        }
        http::part(end, &line("", true)).await?;
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
            token_bytes: if fate.percent(temper.big) {
                temper.big_token
            } else {
                0
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

fn line(token: &str, done: bool) -> String {
    let mut line = json!({
        "model": MODEL, "created_at": "2024-01-06T00:00:00Z",
        "message": {"role": "assistant", "content": token}, "done": done,
    });
    if done {
        line["done_reason"] = json!("stop");
        line["prompt_eval_count"] = json!(7);
        line["eval_count"] = json!(11);
    }
    format!("{line}\n")
}

fn about(path: &str) -> Value {
    match path {
        "/api/version" => json!({"version": "0.17.3"}),
        "/api/tags" => json!({"models": [{"name": MODEL, "model": MODEL, "digest": "d1"}]}),
        "/api/ps" => json!({"models": []}),
        "/api/show" => json!({
            "capabilities": ["completion"],
            "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
        }),
        _ => json!({}),
    }
}
