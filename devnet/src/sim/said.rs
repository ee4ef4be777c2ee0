//! What an answer says, by kind: as a model server has said it, as chunks have brought it, and as a response has it.
//!
//! Invariant: pure; two that are equal say the same, byte by byte.

use serde_json::Value;

/// The id and the name of every call of a tool.
pub(super) const CALL: &str = "call-1";
pub(super) const TOOL: &str = "look_up";

/// What part of an answer something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is said.
    Content,
    /// What is thought before that.
    Thinking,
    /// The arguments of a call of a tool.
    Arguments,
}

/// What an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    content: String,
    thinking: String,
    /// The calls of tools: of each the id, the name and the arguments.
    calls: String,
}

impl Said {
    /// What is said and nothing else.
    pub(super) fn only(content: String) -> Self {
        Self {
            content,
            ..Self::default()
        }
    }

    /// What a response's message says, of either generation: arguments are text in one and an object in the other.
    pub(super) fn in_message(message: &Value) -> Self {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let calls = message["tool_calls"].as_array();
        let call = |call: &Value| {
            let function = &call["function"];
            let [id, name] = [&call["id"], &function["name"]].map(text);
            format!("{id} {name} {}", text(&function["arguments"]))
        };
        Self {
            content: text(&message["content"]),
            thinking: text(&message["thinking"]),
            calls: calls.into_iter().flatten().map(call).collect(),
        }
    }

    /// Adds what is said next.
    pub(super) fn add(&mut self, kind: Kind, text: &str) {
        let part = match kind {
            Kind::Content => &mut self.content,
            Kind::Thinking => &mut self.thinking,
            Kind::Arguments => &mut self.calls,
        };
        if kind == Kind::Arguments && part.is_empty() {
            *part = format!("{CALL} {TOOL} ");
        }
        part.push_str(text);
    }

    pub(super) fn has_thoughts(&self) -> bool {
        !self.thinking.is_empty()
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// What chunks bring of it: all but the calls.
    pub(super) fn in_chunks(&self) -> Self {
        Self {
            calls: String::new(),
            ..self.clone()
        }
    }

    /// Whether all of it is the beginning of another, kind by kind.
    pub(super) fn begins(&self, whole: &Self) -> bool {
        whole.content.starts_with(&self.content)
            && whole.thinking.starts_with(&self.thinking)
            && whole.calls.starts_with(&self.calls)
    }
}
