//! The dialect of OpenAI-compatible servers: events, in as many styles as such servers have.

use serde_json::{Value, json};

use super::{
    super::{
        fate::Fate,
        http::Framing,
        said::{CALL, Kind, TOOL},
    },
    MODEL,
    dialect::{Ask, Dialect, Page, Presence, Question, Style, Usage},
    memory::{Memory, Wish},
};

/// A chat with so many tokens only has the model loaded.
const LOAD: u64 = 1;

/// So many of a hundred answers do not end behind `[DONE]`.
const LINGERS: u64 = 10;

/// So many of a hundred servers let their model think, and so many of a hundred chats make it.
const THINKS: u64 = 50;
const THOUGHTFUL: u64 = 60;

/// So many of a hundred chats that may call a tool do.
const CALLS: u64 = 70;

/// Of five servers one speaks HTTP/1.0, as mlx_lm's does, and two are like llama-server.
const FRAMINGS: [Framing; 5] = [
    Framing::UntilClose,
    Framing::ToldAndClosed,
    Framing::ToldAndClosed,
    Framing::Told,
    Framing::Told,
];

/// What servers call thoughts: vLLM has another name than llama.cpp, and some write both.
const THOUGHT_NAMES: [&[&str]; 3] = [
    &["reasoning_content"],
    &["reasoning"],
    &["reasoning_content", "reasoning"],
];

/// A server, as far as such servers differ.
pub(super) struct OpenAi {
    /// What it calls thoughts; `None`: it has none.
    thought_names: Option<&'static [&'static str]>,
    framing: Framing,
}

impl OpenAi {
    /// One of many.
    pub(super) fn of(fate: &mut Fate) -> Self {
        let thinks = fate.percent(THINKS);
        let names = fate.one_of(&THOUGHT_NAMES);
        Self {
            thought_names: thinks.then_some(names),
            framing: fate.one_of(&FRAMINGS),
        }
    }
}

impl Dialect for OpenAi {
    fn asked(&self, path: &str, body: &Value) -> Ask {
        if path != "/v1/chat/completions" {
            return Ask::About;
        }
        let limit = body["max_tokens"].as_u64();
        if limit == Some(LOAD) {
            return Ask::Load(Wish::default());
        }
        let messages = body["messages"].as_array();
        Ask::Chat(Question {
            word: messages
                .and_then(|all| all.last())
                .map_or_else(String::new, super::first_word),
            limit,
            has_tools: body["tools"].is_array(),
            wish: Wish::default(),
        })
    }

    fn framing(&self) -> Framing {
        self.framing
    }

    fn style(&self, fate: &mut Fate, has_tools: bool) -> Style {
        let is_done = fate.percent(75);
        let mut style = Style {
            framing: self.framing,
            is_early: fate.percent(50),
            comments: fate.percent(40),
            has_role_first: fate.percent(60),
            usage: fate.one_of(&[Usage::Behind, Usage::Behind, Usage::Last, Usage::Each]),
            is_done,
            lingers: is_done && fate.percent(LINGERS),
            ..Style::default()
        };
        if let Some(names) = self.thought_names.filter(|_| fate.percent(THOUGHTFUL)) {
            style.thought_names = names;
            style.thoughts = fate.one_of(&[30, 60, 100]);
        }
        if has_tools && fate.percent(CALLS) {
            style.arguments = fate.one_of(&[30, 100]);
            style.is_bare_call = fate.percent(50);
            style.called_reason = fate.one_of(&["tool_calls", "tool_calls", "stop"]);
        }
        style
    }

    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn opening(&self, style: Style) -> String {
        if style.has_role_first {
            chunk(
                &json!([{"index": 0, "delta": {"role": "assistant", "content": null}, "finish_reason": null}]),
                None,
            )
        } else {
            String::new()
        }
    }

    fn token(&self, style: Style, (kind, token): (Kind, &str), number: u64) -> String {
        let usage = (style.usage == Usage::Each).then_some(number + 1);
        let deltas = match kind {
            Kind::Content => vec![json!({"content": token})],
            Kind::Thinking => {
                let names = style.thought_names.iter();
                vec![names.map(|name| (*name, token)).collect()]
            }
            Kind::Arguments => fragments(style, token),
        };
        let event = |delta| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": null});
            chunk(&json!([choice]), usage)
        };
        deltas.into_iter().map(event).collect()
    }

    fn ending(&self, style: Style, tokens: u64) -> String {
        let reason = if style.calls(tokens) {
            style.called_reason
        } else {
            "stop"
        };
        let last = json!([{"index": 0, "delta": {}, "finish_reason": reason}]);
        let mut ending = if style.usage == Usage::Last {
            chunk(&last, Some(tokens))
        } else {
            chunk(&last, None) + &chunk(&json!([]), Some(tokens))
        };
        if style.is_done {
            ending.push_str("data: [DONE]\n\n");
        }
        ending
    }

    fn error(&self, style: Style) -> String {
        let error = json!({"error": {"message": "the engine has failed", "type": "InternalServerError", "code": 500}});
        // Some say all the same that they are done.
        let done = if style.is_done {
            "data: [DONE]\n\n"
        } else {
            ""
        };
        format!("data: {error}\n\n{done}")
    }

    fn refusal(&self, fate: &mut Fate) -> Page {
        match fate.within(0..=4) {
            0 => Page::json(500, &json!({"error": {"message": "the engine has failed"}})),
            1 => Page::json(503, &json!({"error": "the queue is full"})),
            2 => Page::json(429, &json!({"detail": "too many requests"})),
            // An error that is said to be none.
            3 => Page::json(200, &json!({"error": "Unexpected endpoint or method"})),
            _ => Page {
                status: 200,
                content_type: "text/html",
                body: "<html><body>a user interface</body></html>".to_owned(),
            },
        }
    }

    fn without_model(&self, presence: Presence) -> Option<Page> {
        let error = |status, words: &str| Page::json(status, &json!({"error": {"message": words}}));
        match presence {
            Presence::There => None,
            Presence::Absent => Some(error(404, "there is no such model")),
            Presence::Locked => Some(error(401, "Invalid API key")),
            Presence::Loading => Some(error(503, "Loading model")),
        }
    }

    fn absence(&self, fate: &mut Fate) -> Presence {
        fate.one_of(&[Presence::Absent, Presence::Locked, Presence::Loading])
    }

    fn load_failed(&self) -> Page {
        Page::json(503, &json!({"error": {"message": "out of memory"}}))
    }

    fn loaded(&self, _: bool) -> Page {
        let answer = chunk(
            &json!([{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]),
            None,
        );
        Page {
            status: 200,
            content_type: self.content_type(),
            body: answer + &self.ending(Style::default(), LOAD),
        }
    }

    fn about(&self, path: &str, presence: Presence, _: &Memory) -> Page {
        if path != "/v1/models" {
            return Page::json(404, &json!({"error": {"message": "there is no such path"}}));
        }
        match presence {
            Presence::There => Page::json(
                200,
                &json!({"object": "list", "data": [{"id": MODEL, "object": "model"}]}),
            ),
            Presence::Absent => Page::json(200, &json!({"object": "list", "data": []})),
            // Whoever refuses a chat for that refuses everything.
            Presence::Locked | Presence::Loading => self
                .without_model(presence)
                .unwrap_or_else(|| Page::json(500, &"")),
        }
    }
}

/// The deltas of a piece of a call's arguments. With the first one, which begins with the brace, go the call's id and name.
fn fragments(style: Style, piece: &str) -> Vec<Value> {
    let delta = |call: Value| json!({"tool_calls": [call]});
    let more = |piece: &str| delta(json!({"index": 0, "function": {"arguments": piece}}));
    let Some(rest) = piece.strip_prefix('{') else {
        return vec![more(piece)];
    };
    let mut function = json!({"name": TOOL});
    if !style.is_bare_call {
        function["arguments"] = json!("{");
    }
    let begun = delta(json!({"index": 0, "id": CALL, "type": "function", "function": function}));
    vec![begun, more(if style.is_bare_call { piece } else { rest })]
}

/// An event of an answer. `model` is where the operator keeps it, which is nobody's business.
fn chunk(choices: &Value, tokens: Option<u64>) -> String {
    let mut chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_704_499_200,
        "model": "/models/sim.gguf", "choices": choices,
    });
    if let Some(tokens) = tokens {
        chunk["usage"] =
            json!({"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": tokens + 7});
    }
    format!("data: {chunk}\n\n")
}
