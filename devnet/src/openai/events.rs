//! The bytes of one event, as each server writes it: the order of its keys, its spaces, and what it leaves out.

use super::style::{Opening, Style};

const ID: &str = "chatcmpl-9kT2vQ0b";
const CREATED: u64 = 1_764_000_000;

/// What one event adds.
pub(super) enum Delta<'a> {
    /// The role, before anything is said.
    Role,
    Text(&'a str),
    Thought(&'a str),
    /// The beginning of a tool call, with the first of its arguments.
    Call {
        index: usize,
        id: &'a str,
        name: &'a str,
        arguments: &'a str,
    },
    /// More of its arguments.
    Arguments {
        index: usize,
        arguments: &'a str,
    },
    /// Nothing: the answer ends.
    Nothing,
}

/// What was used, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) completion: u64,
}

/// Who speaks.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    pub(super) style: Style,
    /// What the server calls its model.
    pub(super) model: String,
    /// The key of what is thought.
    pub(super) reasoning: &'static str,
}

/// `text` as JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Usage {
    pub(super) fn json(self) -> String {
        let Self { prompt, completion } = self;
        let total = prompt + completion;
        format!(
            r#"{{"completion_tokens":{completion},"prompt_tokens":{prompt},"total_tokens":{total}}}"#
        )
    }
}

impl Voice {
    /// An event with a choice.
    pub(super) fn chunk(&self, delta: &Delta, finish: Option<&str>, usage: Option<&str>) -> String {
        let delta = self.delta(delta);
        let reason = finish.map_or("null".to_owned(), quoted);
        let choice = match self.style {
            Style::LlamaServer => {
                format!(r#"{{"finish_reason":{reason},"index":0,"delta":{delta}}}"#)
            }
            Style::Vllm => {
                format!(
                    r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason},"token_ids":null}}"#
                )
            }
            Style::Mlx => {
                format!(r#"{{"index": 0, "finish_reason": {reason}, "delta": {delta}}}"#)
            }
            Style::Transformers if finish.is_none() => {
                format!(r#"{{"delta":{delta},"index":0}}"#)
            }
            Style::Transformers => {
                format!(r#"{{"delta":{delta},"index":0,"finish_reason":{reason}}}"#)
            }
            Style::Ollama => {
                format!(r#"{{"index":0,"delta":{delta},"finish_reason":{reason}}}"#)
            }
        };
        self.event("chat.completion.chunk", &choice, usage, "")
    }

    /// The event after the last, which has nothing but what was used.
    pub(super) fn usage(&self, usage: &str, timings: &str) -> String {
        // mlx_lm takes the name of the other kind of answer here.
        let object = match self.style {
            Style::Mlx => "chat.completion",
            _ => "chat.completion.chunk",
        };
        self.event(object, "", Some(usage), timings)
    }

    fn event(&self, object: &str, choices: &str, usage: Option<&str>, more: &str) -> String {
        let model = quoted(&self.model);
        let used = usage.map_or(String::new(), |usage| format!(r#","usage":{usage}"#));
        let event = match self.style {
            Style::LlamaServer => format!(
                r#"{{"choices":[{choices}],"created":{CREATED},"id":"{ID}","model":{model},"system_fingerprint":"b0-unknown","object":"{object}"{used}{more}}}"#
            ),
            Style::Vllm => format!(
                r#"{{"id":"{ID}","object":"{object}","created":{CREATED},"model":{model},"choices":[{choices}]{used}}}"#
            ),
            Style::Mlx => {
                let used = usage.map_or(String::new(), |usage| format!(r#", "usage": {usage}"#));
                format!(
                    r#"{{"id": "{ID}", "system_fingerprint": "0.32.2", "object": "{object}", "model": {model}, "created": {CREATED}, "choices": [{choices}]{used}}}"#
                )
            }
            Style::Transformers => format!(
                r#"{{"id":"{ID}","choices":[{choices}],"created":{CREATED},"model":{model},"object":"{object}","system_fingerprint":""{used}}}"#
            ),
            Style::Ollama => format!(
                r#"{{"id":"{ID}","object":"{object}","created":{CREATED},"model":{model},"system_fingerprint":"fp_ollama","choices":[{choices}]{used}}}"#
            ),
        };
        format!("data: {event}\n\n")
    }

    fn delta(&self, delta: &Delta) -> String {
        let role = self.style.manners().opening == Opening::Text;
        let inner = match delta {
            Delta::Role => match self.style.manners().opening {
                Opening::Role(content) => {
                    format!(r#""role":"assistant","content":{content}"#)
                }
                Opening::RoleAlone | Opening::Text => r#""role":"assistant""#.to_owned(),
            },
            Delta::Text(text) => format!(r#""content":{}"#, quoted(text)),
            Delta::Thought(text) => self.thought(text),
            Delta::Call {
                index,
                id,
                name,
                arguments,
            } => self.call(*index, id, name, arguments),
            Delta::Arguments { index, arguments } => format!(
                r#""tool_calls":[{{"index":{index},"function":{{"arguments":{}}}}}]"#,
                quoted(arguments)
            ),
            Delta::Nothing => match self.style {
                Style::Ollama | Style::Vllm => r#""content":"""#.to_owned(),
                Style::LlamaServer | Style::Mlx | Style::Transformers => String::new(),
            },
        };
        let role = match (role, inner.is_empty()) {
            (true, true) => r#""role": "assistant""#,
            (true, false) if self.style == Style::Mlx => r#""role": "assistant", "#,
            (true, false) => r#""role":"assistant","#,
            (false, _) => "",
        };
        format!("{{{role}{inner}}}")
    }

    fn thought(&self, text: &str) -> String {
        let text = quoted(text);
        let key = self.reasoning;
        match self.style {
            Style::Ollama => format!(r#""content":"","{key}":{text}"#),
            _ => format!(r#""{key}":{text}"#),
        }
    }

    fn call(&self, index: usize, id: &str, name: &str, arguments: &str) -> String {
        let (id, name, arguments) = (quoted(id), quoted(name), quoted(arguments));
        match self.style {
            Style::Vllm => format!(
                r#""content":null,"tool_calls":[{{"id":{id},"type":"function","index":{index},"function":{{"name":{name}}}}}]"#
            ),
            Style::Ollama => format!(
                r#""content":"","tool_calls":[{{"id":{id},"index":{index},"type":"function","function":{{"name":{name},"arguments":{arguments}}}}}]"#
            ),
            Style::LlamaServer | Style::Mlx | Style::Transformers => format!(
                r#""tool_calls":[{{"index":{index},"id":{id},"type":"function","function":{{"name":{name},"arguments":{arguments}}}}}]"#
            ),
        }
    }
}
