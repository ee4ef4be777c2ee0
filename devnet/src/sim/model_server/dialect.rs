//! How a model server is spoken with: how requests are read and answers written. What becomes of an answer is not a
//! dialect's to say.
//!
//! Invariant: pure; the bytes follow from what is given.

use std::fmt::Display;

use serde_json::Value;

use super::{
    super::{fate::Fate, http::Framing, said::Kind},
    memory::{Memory, Wish},
    ollama::Ollama,
    openai::OpenAi,
};

/// `PIN_API_MODE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiMode {
    /// Ollama's own interface.
    #[default]
    Ollama,
    /// OpenAI's.
    OpenAi,
}

impl ApiMode {
    /// That of a server which follows from the seed.
    pub(super) fn dialect(self, seed: u64) -> Box<dyn Dialect> {
        match self {
            Self::Ollama => Box::new(Ollama),
            Self::OpenAi => Box::new(OpenAi::of(&mut Fate::of(seed, "server", 0))),
        }
    }
}

/// What a request asks for.
pub(super) enum Ask {
    /// A chat.
    Chat(Question),
    /// To have the model in memory.
    Load(Wish),
    /// To have it there no more.
    Unload,
    /// Something about the server itself.
    About,
}

/// What a chat asks.
pub(super) struct Question {
    /// The first word of its last message.
    pub(super) word: String,
    /// So many tokens at most.
    pub(super) limit: Option<u64>,
    /// Whether a tool may be called in its answer.
    pub(super) has_tools: bool,
    pub(super) wish: Wish,
}

/// Whether the server has its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has.
    #[default]
    There,
    /// It lists none.
    Absent,
    /// It refuses everybody's key.
    Locked,
    /// It serves nothing while it loads.
    Loading,
}

impl Presence {
    /// Whether it answers every request with an error.
    pub(super) fn is_unwell(self) -> bool {
        matches!(self, Self::Locked | Self::Loading)
    }
}

/// How one answer is written, as far as servers differ in that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) framing: Framing,
    /// Its head goes out before the first token is there.
    pub(super) is_early: bool,
    /// Something that carries nothing goes out each second of silence.
    pub(super) comments: bool,
    /// The role has an event of its own before the first token.
    pub(super) has_role_first: bool,
    pub(super) usage: Usage,
    /// `[DONE]` is behind it.
    pub(super) is_done: bool,
    /// Behind that the body does not end until the client hangs up.
    pub(super) lingers: bool,
    /// So many of a hundred tokens are thoughts, ahead of all others.
    pub(super) thoughts: u64,
    /// Under which names they are written.
    pub(super) thought_names: &'static [&'static str],
    /// So many of a hundred tokens are the arguments of a call, behind all others.
    pub(super) arguments: u64,
    /// A call begins without any of them.
    pub(super) is_bare_call: bool,
    /// What is said at the end of an answer with a call.
    pub(super) called_reason: &'static str,
}

impl Style {
    /// A token as it stands in an answer of so many: the arguments of a call are a JSON object.
    pub(super) fn piece(self, number: u64, tokens: u64, mut token: String) -> (Kind, String) {
        let kind = self.kind(number, tokens);
        if kind == Kind::Arguments {
            if number == 0 || self.kind(number - 1, tokens) != kind {
                token.insert_str(0, r#"{"what":""#);
            }
            if number + 1 == tokens {
                token.push_str(r#""}"#);
            }
        }
        (kind, token)
    }

    /// Whether an answer of so many tokens ends with a call.
    pub(super) fn calls(self, tokens: u64) -> bool {
        tokens > 0 && self.kind(tokens - 1, tokens) == Kind::Arguments
    }

    fn kind(self, number: u64, tokens: u64) -> Kind {
        let place = number * 100 / tokens.max(1);
        if place < self.thoughts {
            Kind::Thinking
        } else if place + self.arguments >= 100 {
            Kind::Arguments
        } else {
            Kind::Content
        }
    }
}

/// Where the counts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Usage {
    /// In an event behind the last of the answer.
    #[default]
    Behind,
    /// In the last event of the answer.
    Last,
    /// In each event, and in one behind.
    Each,
}

/// A whole answer of one piece.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Page {
    pub(super) fn json(status: u16, body: &impl Display) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: body.to_string(),
        }
    }
}

/// A dialect.
pub(super) trait Dialect: Send + Sync {
    /// What a request asks for.
    fn asked(&self, path: &str, body: &Value) -> Ask;

    /// How all its answers are framed.
    fn framing(&self) -> Framing;

    /// How the next answer is written.
    fn style(&self, fate: &mut Fate, has_tools: bool) -> Style;

    /// What a stream's head says that it is.
    fn content_type(&self) -> &'static str;

    /// What comes before the first token; perhaps nothing.
    fn opening(&self, style: Style) -> String;

    /// A token, which is the answer's `number`th.
    fn token(&self, style: Style, token: (Kind, &str), number: u64) -> String;

    /// What makes an answer of so many tokens whole.
    fn ending(&self, style: Style, tokens: u64) -> String;

    /// An error in the midst of an answer.
    fn error(&self, style: Style) -> String;

    /// An error in place of an answer.
    fn refusal(&self, fate: &mut Fate) -> Page;

    /// What a server says that cannot be asked for its model; `None`: it can.
    fn without_model(&self, presence: Presence) -> Option<Page>;

    /// What a server is like whose model cannot be had.
    fn absence(&self, fate: &mut Fate) -> Presence;

    /// The answer to a load that fails.
    fn load_failed(&self) -> Page;

    /// The answer to a load, or the opposite.
    fn loaded(&self, is_load: bool) -> Page;

    /// The answer to a question about the server itself.
    fn about(&self, path: &str, presence: Presence, memory: &Memory) -> Page;
}
