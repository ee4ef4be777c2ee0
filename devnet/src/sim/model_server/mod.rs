//! The machine of the model servers: one that answers chats token by token in virtual time, in Ollama's dialect or OpenAI's,
//! and beside it one that speaks. Both fail in the ways that real ones fail.
//!
//! Invariant: what becomes of an answer follows from the seed, the request's id and how often it was asked, never from
//! what else happens. The first word of the last message, or of what is to be spoken, is the request's id.

mod dialect;
mod memory;
mod ollama;
mod openai;
mod plan;
mod speech;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};

pub use self::{dialect::ApiMode, plan::Temper};

use self::{
    dialect::{Ask, Dialect, Page, Presence, Question, Style},
    memory::{Memory, Wish},
    plan::{Fault, Plan},
};
use super::{
    books::{Books, Opened},
    fate::Fate,
    http::{self, Framing},
    said::Kind,
    trace::Trace,
    wire::{End, Link},
};
use crate::journal::lock;

/// The one model that chats.
pub const MODEL: &str = "sim:latest";

/// The one model that speaks.
pub const VOICE: &str = "sim-voice";

/// How long one stalls that does.
const STALL: Duration = Duration::from_secs(8);

/// How long a server that closes its connection behind a chat takes for that. It reads no more.
const CLOSES_AFTER: Duration = Duration::from_millis(1);

/// How often a server says something that carries nothing, if it does.
const COMMENTS: Duration = Duration::from_secs(1);

/// What that is.
const COMMENT: &str = ": keep-alive\n\n";

/// The model servers. They run until this is dropped.
pub struct ModelServer {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    dialect: Box<dyn Dialect>,
    link: Link,
    books: Books,
    trace: Trace,
    temper: Mutex<Temper>,
    memory: Memory,
    presence: Mutex<Presence>,
    absences: Mutex<u64>,
}

/// A request that is being answered: its id, and how often it was asked before.
#[derive(Clone, Copy)]
struct Asked<'a> {
    id: &'a str,
    ask: u64,
}

impl ModelServer {
    /// Serves what arrives.
    pub fn start(
        seed: u64,
        mode: ApiMode,
        link: Link,
        mut arrivals: mpsc::UnboundedReceiver<End>,
        books: Books,
        trace: Trace,
        temper: Temper,
    ) -> Self {
        let dialect = mode.dialect(seed);
        match dialect.framing() {
            Framing::Told => {}
            Framing::ToldAndClosed => books.count("stories with a server that closes behind chats"),
            Framing::UntilClose => books.count("stories with a server of HTTP/1.0"),
        }
        let shared = Arc::new(Shared {
            seed,
            dialect,
            link,
            books,
            trace,
            temper: Mutex::new(temper),
            memory: Memory::default(),
            presence: Mutex::default(),
            absences: Mutex::default(),
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

    /// Is another from now on; answers that are under way go on as they began.
    pub fn become_like(&self, temper: Temper) {
        self.shared.say(format_args!("{temper:?}"));
        *lock(&self.shared.temper) = temper;
    }

    /// Is a new process from now on, with nothing in memory, after so long an absence.
    pub fn restart(&self, absence: Duration) {
        self.shared.say(format_args!("restarts"));
        let was_loaded = self.shared.memory.forget();
        self.shared.books.ollama_restarted(absence, was_loaded);
    }

    /// The model has to leave the memory.
    pub fn evict(&self) {
        if self.shared.memory.forget() {
            self.shared.say(format_args!("evicts the model"));
            self.shared.books.model_evicted();
        }
    }

    /// The model cannot be had any more, or can again.
    pub fn have_model(&self, has: bool) {
        let shared = &self.shared;
        let mut presence = lock(&shared.presence);
        if has == (*presence == Presence::There) {
            return;
        }
        let mut absences = lock(&shared.absences);
        *absences += u64::from(!has);
        let mut fate = Fate::of(shared.seed, "absence", *absences);
        let next = if has {
            Presence::There
        } else {
            shared.dialect.absence(&mut fate)
        };
        shared.say(format_args!("the model is {next:?}"));
        // A server that refuses everything may be taken for one that is not there.
        if [*presence, next].iter().any(|it| it.is_unwell()) {
            shared.books.was_unwell();
        }
        *presence = next;
        shared.books.model_comes_and_goes(has);
    }
}

impl Shared {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.trace.say(format_args!("ollama: {what}"));
    }

    fn presence(&self) -> Presence {
        *lock(&self.presence)
    }

    async fn serve(&self, mut end: End) -> io::Result<()> {
        while let Some(request) = http::read(&mut end).await? {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            if request.path == speech::PATH {
                self.speech(&mut end, &body).await?;
                continue;
            }
            match self.dialect.asked(&request.path, &body) {
                Ask::Chat(question) => {
                    self.chat(&mut end, &question).await?;
                    if self.dialect.framing() == Framing::ToldAndClosed {
                        return rest(&mut end, CLOSES_AFTER).await;
                    }
                }
                Ask::Load(wish) => self.load(&mut end, wish).await?,
                Ask::Unload => self.unload(&mut end).await?,
                Ask::About => {
                    let (path, presence) = (&request.path, self.presence());
                    let page = self.dialect.about(path, presence, &self.memory);
                    self.show(&mut end, &page).await?;
                }
            }
        }
        Ok(())
    }

    /// Enters a request in the books, and plans its answer.
    fn opened(&self, id: &str, opened: Opened, limit: Option<u64>) -> (u64, Plan) {
        let ask = self.books.chat_opened(id, opened);
        let temper = lock(&self.temper).clone();
        let mut plan = Plan::of(self.seed, id, ask, &temper);
        plan.tokens = plan.tokens.min(limit.unwrap_or(u64::MAX));
        self.say(format_args!(
            "asked {id} #{ask}, {} tokens of {} bytes, {:?}",
            plan.tokens, plan.token_bytes, plan.fault
        ));
        (ask, plan)
    }

    /// Tells how an answer has ended.
    fn ended(&self, Asked { id, ask }: Asked<'_>, plan: &Plan, how: &io::Result<()>) {
        let how = match how {
            Ok(()) if plan.fault == Fault::None => "whole",
            Ok(()) => "as its fault has it",
            Err(_) => "the client has gone",
        };
        self.say(format_args!("ends {id} #{ask}: {how}"));
    }

    async fn chat(&self, end: &mut End, question: &Question) -> io::Result<()> {
        let Question {
            word: ref id,
            limit,
            wish,
            ..
        } = *question;
        let opened = Opened {
            connection: end.number(),
            is_warm: self.memory.is_ready(wish),
            is_limited: limit.is_some(),
        };
        let (ask, plan) = self.opened(id, opened, limit);
        let asked = Asked { id, ask };
        let spoken = self.warm_and_answer(end, asked, &plan, question).await;
        self.memory.keep(wish);
        self.ended(asked, &plan, &spoken);
        spoken
    }

    async fn unload(&self, end: &mut End) -> io::Result<()> {
        self.say(format_args!("asked to unload"));
        self.memory.forget();
        self.show(end, &self.dialect.loaded(false)).await
    }

    async fn load(&self, end: &mut End, wish: Wish) -> io::Result<()> {
        let load = self.books.load_asked(self.memory.is_ready(wish));
        self.say(format_args!("asked for load {load}"));
        let faults = lock(&self.temper).load_faults;
        let fails = Fate::of(self.seed, "load", load).percent(faults);
        let turned_away = self.presence().is_unwell().then(|| self.turned_away());
        let failed = fails.then(|| self.dialect.load_failed());
        if let Some(page) = turned_away.flatten().or(failed) {
            self.books.load_failed();
            return self.show(end, &page).await;
        }
        self.warm(end, wish).await?;
        self.memory.keep(wish);
        self.show(end, &self.dialect.loaded(true)).await
    }

    /// What a server says that cannot be asked for its model, if it is such.
    fn turned_away(&self) -> Option<Page> {
        let presence = self.presence();
        if presence == Presence::Locked {
            self.books.key_refused();
        }
        self.dialect.without_model(presence)
    }

    async fn warm(&self, end: &mut End, wish: Wish) -> io::Result<()> {
        let time = Duration::from_millis(lock(&self.temper).load_millis);
        self.memory.load(end, wish, time).await?;
        self.books.model_loaded();
        Ok(())
    }

    async fn warm_and_answer(
        &self,
        end: &mut End,
        asked: Asked<'_>,
        plan: &Plan,
        question: &Question,
    ) -> io::Result<()> {
        if let Some(page) = self.turned_away() {
            return self.fail(end, asked, &page).await;
        }
        self.warm(end, question.wish).await?;
        let mut fate = Fate::of(self.seed, asked.id, asked.ask + 2_000);
        let style = self.dialect.style(&mut fate, question.has_tools);
        if plan.fault == Fault::Refused {
            rest(end, plan.first).await?;
            return self
                .fail(end, asked, &self.dialect.refusal(&mut fate))
                .await;
        }
        self.answer(end, asked, plan, style).await
    }

    async fn show(&self, end: &mut End, page: &Page) -> io::Result<()> {
        let framing = self.dialect.framing();
        framing
            .whole(end, page.status, page.content_type, &page.body)
            .await
    }

    /// Answers with an error.
    async fn fail(&self, end: &mut End, asked: Asked<'_>, page: &Page) -> io::Result<()> {
        self.books.chat_failed(asked.id, asked.ask);
        self.show(end, page).await
    }

    async fn answer(
        &self,
        end: &mut End,
        asked: Asked<'_>,
        plan: &Plan,
        style: Style,
    ) -> io::Result<()> {
        let mut fate = Fate::of(self.seed, asked.id, asked.ask + 1_000);
        let (dialect, Asked { id, ask }) = (&self.dialect, asked);
        let framing = style.framing;
        if style.is_early {
            framing.begin(end, dialect.content_type()).await?;
            silence(end, style, plan.first).await?;
        } else {
            rest(end, plan.first).await?;
            framing.begin(end, dialect.content_type()).await?;
        }
        framing.part(end, &dialect.opening(style)).await?;
        for number in 0..plan.tokens {
            if self.strike(end, asked, (plan.fault, style), number).await? {
                return Ok(());
            }
            let (kind, piece) = style.piece(number, plan.tokens, plan.token(id, ask, number));
            framing
                .part(end, &dialect.token(style, (kind, &piece), number))
                .await?;
            self.said(end, asked, number, (kind, &piece));
            if plan.between > 0 {
                let pause = fate.millis(0..=plan.between);
                silence(end, style, pause).await?;
            }
        }
        framing
            .part(end, &dialect.ending(style, plan.tokens))
            .await?;
        self.written(end, asked);
        if style.lingers {
            http::hung_up(end).await;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        framing.finish(end).await
    }

    /// Enters what was said.
    fn said(
        &self,
        end: &End,
        Asked { id, ask }: Asked<'_>,
        number: u64,
        (kind, piece): (Kind, &str),
    ) {
        self.books.chat_said(id, ask, kind, piece);
        if number == 0 {
            let (books, read) = (self.books.clone(), id.to_owned());
            self.link
                .when_read(end.number(), move |now| books.first_read(&read, ask, now));
        }
    }

    /// Enters that all was said that makes an answer whole.
    fn written(&self, end: &End, Asked { id, ask }: Asked<'_>) {
        self.books.chat_written(id, ask);
        let (books, read) = (self.books.clone(), id.to_owned());
        self.link
            .when_read(end.number(), move |now| books.chat_read(&read, ask, now));
    }

    /// Does what the fault does at this token; tells whether the answer is over.
    async fn strike(
        &self,
        end: &mut End,
        Asked { id, ask }: Asked<'_>,
        (fault, style): (Fault, Style),
        token: u64,
    ) -> io::Result<bool> {
        match fault {
            Fault::Error(at) if at == token => {
                self.books.chat_failed(id, ask);
                style.framing.part(end, &self.dialect.error(style)).await?;
                style.framing.finish(end).await?;
                Ok(true)
            }
            Fault::Cut(at) if at == token => {
                self.books.chat_failed(id, ask);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Fault::Hang(at) if at == token => {
                self.books.chat_hangs(id, ask);
                while silence(end, style, COMMENTS).await.is_ok() {}
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Fault::Stall(at) if at == token => {
                silence(end, style, STALL).await?;
                Ok(false)
            }
            Fault::Unfinished(at) if at == token => {
                self.books.chat_failed(id, ask);
                style.framing.finish(end).await?;
                Ok(true)
            }
            _ => Ok(false),
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

/// Waits in the midst of an answer, saying what carries nothing, if this one does.
async fn silence(end: &mut End, style: Style, mut time: Duration) -> io::Result<()> {
    while style.comments && time >= COMMENTS {
        rest(end, COMMENTS).await?;
        style.framing.part(end, COMMENT).await?;
        time -= COMMENTS;
    }
    rest(end, time).await
}

/// The first word of a message.
fn first_word(message: &Value) -> String {
    word_of(&message["content"])
}

fn word_of(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
