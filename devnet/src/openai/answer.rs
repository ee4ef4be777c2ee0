//! What the stand-in says to a chat, event by event.

use super::{
    Behaviour,
    asked::Asked,
    events::{Delta, Usage, Voice, quoted},
    style::{Opening, Style, UsageManner},
};
use crate::model_server::words;

/// What a model that thinks thinks before it speaks.
const THOUGHTS: [&str; 4] = ["Let", " me", " think", "."];

/// Into how many bytes a call's arguments are cut.
const FRAGMENT: usize = 4;

const CALL_ID: &str = "call-85cc0a";

#[derive(Debug)]
enum Piece {
    Thought(String),
    Text(String),
    Call { name: String, arguments: String },
    Arguments(String),
}

/// One answer that is ready to be given.
pub(super) struct Answer {
    voice: Voice,
    pieces: Vec<Piece>,
    finish: &'static str,
    prompt_tokens: u64,
    /// Instead of what was counted: of the prompt, and of the answer.
    counts: Option<(u64, u64)>,
    usage: UsageManner,
    include_usage: bool,
    done: bool,
}

impl Answer {
    pub(super) fn new(asked: &Asked, voice: Voice, behaviour: &Behaviour) -> Self {
        let manners = voice.style.manners();
        let pieces = pieces(asked, voice.style, behaviour);
        let calls = pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Call { .. }));
        let finish = match asked.limit {
            _ if calls => "tool_calls",
            Some(limit) if limit == pieces.len() => "length",
            _ => "stop",
        };
        Self {
            voice,
            pieces,
            finish,
            prompt_tokens: asked.prompt_tokens as u64,
            counts: behaviour.usage,
            usage: behaviour.usage_manner.unwrap_or(manners.usage),
            include_usage: asked.include_usage,
            done: manners.done,
        }
    }

    /// How many tokens it has.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn opening(&self) -> String {
        match self.voice.style.manners().opening {
            Opening::Text => String::new(),
            Opening::Role(_) | Opening::RoleAlone => {
                self.voice
                    .chunk(&Delta::Role, None, self.so_far(0).as_deref())
            }
        }
    }

    /// The event of one token.
    pub(super) fn line(&self, index: usize) -> String {
        let finish = (self.ends_with_text() && index + 1 == self.len()).then_some(self.finish);
        let usage = self.so_far(index + 1);
        let delta = match self.pieces.get(index) {
            Some(Piece::Thought(text)) => Delta::Thought(text),
            Some(Piece::Text(text)) => Delta::Text(text),
            Some(Piece::Call { name, arguments }) => Delta::Call {
                index: 0,
                id: CALL_ID,
                name,
                arguments,
            },
            Some(Piece::Arguments(arguments)) => Delta::Arguments {
                index: 0,
                arguments,
            },
            None => Delta::Nothing,
        };
        self.voice.chunk(&delta, finish, usage.as_deref())
    }

    /// What comes before usage and the end: the event with the `finish_reason`.
    pub(super) fn finish(&self) -> String {
        if self.ends_with_text() {
            return String::new();
        }
        let before = match self.usage {
            UsageManner::Before => self.voice.usage(&self.counted(), ""),
            _ => String::new(),
        };
        let usage = match self.usage {
            UsageManner::WithFinish => Some(self.counted()),
            UsageManner::Each => self.so_far(self.len()),
            UsageManner::Null => Some("null".to_owned()),
            UsageManner::Asked | UsageManner::Before | UsageManner::Never => None,
        };
        before
            + &self
                .voice
                .chunk(&Delta::Nothing, Some(self.finish), usage.as_deref())
    }

    /// What comes last.
    pub(super) fn end(&self) -> String {
        let mut end = String::new();
        let after = match self.usage {
            UsageManner::Asked => self.include_usage,
            UsageManner::Each => true,
            UsageManner::WithFinish
            | UsageManner::Before
            | UsageManner::Null
            | UsageManner::Never => false,
        };
        if after {
            end += &self.voice.usage(&self.counted(), &self.timings());
        }
        if self.done {
            end += "data: [DONE]\n\n";
        }
        end
    }

    /// All of it as one object.
    pub(super) fn whole(&self) -> String {
        let (mut text, mut thought, mut name, mut arguments) =
            (String::new(), String::new(), None, String::new());
        for piece in &self.pieces {
            match piece {
                Piece::Thought(more) => thought += more,
                Piece::Text(more) => text += more,
                Piece::Call {
                    name: called,
                    arguments: first,
                } => {
                    name = Some(called);
                    arguments += first;
                }
                Piece::Arguments(more) => arguments += more,
            }
        }
        let mut message = format!(r#""role":"assistant","content":{}"#, quoted(&text));
        if !thought.is_empty() {
            message += &format!(r#","{}":{}"#, self.voice.reasoning, quoted(&thought));
        }
        if let Some(name) = name {
            let (name, arguments) = (quoted(name), quoted(&arguments));
            message += &format!(
                r#","tool_calls":[{{"id":"{CALL_ID}","type":"function","function":{{"name":{name},"arguments":{arguments}}}}}]"#
            );
        }
        format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":{},"choices":[{{"index":0,"message":{{{message}}},"finish_reason":"{}"}}],"usage":{}}}"#,
            quoted(&self.voice.model),
            self.finish,
            self.counted()
        )
    }

    /// vLLM's last token comes with the `finish_reason`, unless the model has ended by itself.
    fn ends_with_text(&self) -> bool {
        let text = matches!(self.pieces.last(), Some(Piece::Text(_)));
        self.voice.style == Style::Vllm && text && self.finish == "length"
    }

    fn counted(&self) -> String {
        let (prompt, completion) = self
            .counts
            .unwrap_or((self.prompt_tokens, self.len() as u64));
        Usage { prompt, completion }.json()
    }

    /// The counts after so many tokens, where each event has them.
    fn so_far(&self, tokens: usize) -> Option<String> {
        let usage = Usage {
            prompt: self.prompt_tokens,
            completion: tokens as u64,
        };
        (self.usage == UsageManner::Each).then(|| usage.json())
    }

    fn timings(&self) -> String {
        match self.voice.style {
            Style::LlamaServer => format!(
                r#","timings":{{"cache_n":0,"prompt_n":{},"prompt_ms":5.7,"predicted_n":{},"predicted_ms":1.1}}"#,
                self.prompt_tokens,
                self.len()
            ),
            Style::Vllm | Style::Mlx | Style::Transformers | Style::Ollama => String::new(),
        }
    }
}

/// Thoughts first; as many in all as the chat allows, or as the stand-in says by itself. A call is not cut short.
fn pieces(asked: &Asked, style: Style, behaviour: &Behaviour) -> Vec<Piece> {
    let thoughts = THOUGHTS
        .into_iter()
        .filter(|_| behaviour.thinks)
        .map(|thought| Piece::Thought(thought.to_owned()));
    if let (Some(name), Some(arguments)) = (&asked.tool, &behaviour.tool_arguments) {
        return thoughts
            .chain(call(style, name, &arguments.to_string()))
            .collect();
    }
    let words = match &behaviour.script {
        Some(script) => script.clone(),
        None => words(&asked.prompt)
            .take(asked.limit.unwrap_or(behaviour.tokens))
            .collect(),
    };
    thoughts
        .chain(words.into_iter().map(Piece::Text))
        .take(asked.limit.unwrap_or(usize::MAX))
        .collect()
}

/// A call in fragments, or whole where the server does not cut it.
fn call(style: Style, name: &str, arguments: &str) -> Vec<Piece> {
    let name = name.to_owned();
    let whole = matches!(style, Style::Ollama | Style::Mlx | Style::Transformers);
    if whole {
        let arguments = arguments.to_owned();
        return vec![Piece::Call { name, arguments }];
    }
    let characters: Vec<_> = arguments.chars().collect();
    let mut fragments: Vec<String> = characters
        .chunks(FRAGMENT)
        .map(|part| part.iter().collect())
        .collect();
    // vLLM's first delta has no arguments.
    let first = if style == Style::Vllm {
        String::new()
    } else {
        fragments.remove(0)
    };
    let rest = fragments.into_iter().map(Piece::Arguments);
    std::iter::once(Piece::Call {
        name,
        arguments: first,
    })
    .chain(rest)
    .collect()
}
