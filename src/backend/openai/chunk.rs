//! Those parts of an answer's chunk that matter, as they are written.
//!
//! Invariant: a part of another type than its own is missing, and takes no other with it. A chunk of the usual shape is read
//! once: there is one for each token.

use crate::backend::{
    fields::{ONLY, deep_fields, fields},
    object::{count, elements},
};

/// What is read of a chunk, or of a whole answer, which has the same shape.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chunk<'a> {
    pub(super) error: Option<&'a str>,
    pub(super) usage: Option<&'a str>,
    pub(super) timings: Option<&'a str>,
    choices: Choices<'a>,
}

#[derive(Debug, Default, PartialEq)]
enum Choices<'a> {
    #[default]
    None,
    /// The only one.
    Read(Choice<'a>),
    /// JSON that should be a list of them.
    Unread(&'a str),
}

/// One of the answers that were asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice<'a> {
    pub(super) index: Option<&'a str>,
    pub(super) finish_reason: Option<&'a str>,
    /// Of the tokens of its text.
    pub(super) logprobs: Option<&'a str>,
    pub(super) delta: Delta<'a>,
}

/// What a chunk adds to an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delta<'a> {
    pub(super) reasoning_content: Option<&'a str>,
    pub(super) reasoning: Option<&'a str>,
    pub(super) content: Option<&'a str>,
    pub(super) tool_calls: Option<&'a str>,
}

impl<'a> Chunk<'a> {
    /// `None` if the JSON is no object, or not valid.
    pub(super) fn read(json: &'a str) -> Option<Self> {
        Self::read_usual(json).or_else(|| Self::read_any(json))
    }

    /// Reads a chunk that has one choice with something in its place.
    fn read_usual(json: &'a str) -> Option<Self> {
        let [
            error,
            usage,
            timings,
            index,
            finish_reason,
            logprobs,
            message,
            reasoning_content,
            reasoning,
            content,
            tool_calls,
        ] = deep_fields(
            json,
            [
                &["error"],
                &["usage"],
                &["timings"],
                &["choices", ONLY, "index"],
                &["choices", ONLY, "finish_reason"],
                &["choices", ONLY, "logprobs", "content"],
                &["choices", ONLY, "message"],
                &["choices", ONLY, "delta", "reasoning_content"],
                &["choices", ONLY, "delta", "reasoning"],
                &["choices", ONLY, "delta", "content"],
                &["choices", ONLY, "delta", "tool_calls"],
            ],
        )?;
        let choice = Choice {
            index,
            finish_reason,
            logprobs,
            delta: Delta {
                reasoning_content,
                reasoning,
                content,
                tool_calls,
            },
        };
        let is_usual = message.is_none() && choice != Choice::default();
        is_usual.then_some(Self {
            error,
            usage,
            timings,
            choices: Choices::Read(choice),
        })
    }

    fn read_any(json: &'a str) -> Option<Self> {
        let [error, usage, timings, choices] =
            fields(json, ["error", "usage", "timings", "choices"])?;
        Some(Self {
            error,
            usage,
            timings,
            choices: choices.map_or(Choices::None, Choices::Unread),
        })
    }

    /// Whether there is anything in their place.
    pub(super) fn has_choices(&self) -> bool {
        !matches!(self.choices, Choices::None)
    }

    pub(super) fn choices(&self) -> impl Iterator<Item = Choice<'a>> {
        let (read, unread) = match &self.choices {
            Choices::None => (None, None),
            Choices::Read(choice) => (Some(choice.clone()), None),
            Choices::Unread(list) => (None, elements(list)),
        };
        let unread = unread.into_iter().flatten().filter_map(Choice::read);
        read.into_iter().chain(unread)
    }
}

impl<'a> Choice<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let names = ["index", "finish_reason", "logprobs", "delta", "message"];
        let [index, finish_reason, logprobs, delta, message] = fields(json, names)?;
        Some(Self {
            index,
            finish_reason,
            logprobs: logprobs.and_then(|logprobs| fields(logprobs, ["content"])?[0]),
            delta: delta.or(message).and_then(Delta::read).unwrap_or_default(),
        })
    }
}

impl<'a> Delta<'a> {
    fn read(json: &'a str) -> Option<Self> {
        let names = ["reasoning_content", "reasoning", "content", "tool_calls"];
        let [reasoning_content, reasoning, content, tool_calls] = fields(json, names)?;
        Some(Self {
            reasoning_content,
            reasoning,
            content,
            tool_calls,
        })
    }
}

/// Tokens, as the server counted them; 0 where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) prompt: u64,
    pub(super) generation: u64,
}

impl Counts {
    /// From `usage`, where it has any.
    pub(super) fn of_usage(usage: &str) -> Option<Self> {
        let [prompt, generation] = fields(usage, ["prompt_tokens", "completion_tokens"])?;
        Self::of(prompt.and_then(count), generation.and_then(count))
    }

    /// From llama.cpp's `timings`, which it also sends where nobody asks for counts.
    pub(super) fn of_timings(timings: &str) -> Option<Self> {
        let [cached, prompt, generation] = fields(timings, ["cache_n", "prompt_n", "predicted_n"])?;
        let cached = cached.and_then(count).unwrap_or_default();
        let prompt = prompt.and_then(count);
        let prompt = prompt.map(|prompt| prompt.saturating_add(cached));
        Self::of(prompt, generation.and_then(count))
    }

    fn of(prompt: Option<u64>, generation: Option<u64>) -> Option<Self> {
        prompt.or(generation)?;
        Some(Self {
            prompt: prompt.unwrap_or_default(),
            generation: generation.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::any_json;

    /// A chunk with anything in some of the places that matter, which may be there twice.
    fn any_chunk() -> impl Strategy<Value = String> {
        let object = |names: &'static [&'static str], value: BoxedStrategy<String>| {
            let field = (prop::sample::select(names), value);
            let field = field.prop_map(|(name, value)| format!(r#""{name}":{value}"#));
            prop::collection::vec(field, 0..5)
                .prop_map(|fields| format!("{{{}}}", fields.join(",")))
        };
        let or_any =
            |usual: BoxedStrategy<String>| prop_oneof![4 => usual, 1 => any_json::value()].boxed();
        let leaf = || or_any(any_json::string().boxed());
        let delta = object(
            &[
                "reasoning_content",
                "reasoning",
                "content",
                "tool_calls",
                "role",
            ],
            leaf(),
        );
        let choice = object(
            &[
                "index",
                "finish_reason",
                "logprobs",
                "delta",
                "delta",
                "message",
            ],
            or_any(delta.boxed()),
        );
        let choices = prop::collection::vec(or_any(choice.boxed()), 0..3);
        let choices = choices.prop_map(|choices| format!("[{}]", choices.join(",")));
        object(
            &["choices", "choices", "usage", "timings", "error", "id"],
            or_any(choices.boxed()),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_chunk_has_the_same_parts_whether_it_is_read_once_or_part_by_part(json in any_chunk()) {
            let parts = |chunk: Chunk<'_>| {
                let choices: Vec<_> = chunk.choices().map(|choice| format!("{choice:?}")).collect();
                let others = [chunk.error, chunk.usage, chunk.timings].map(|part| part.map(str::to_owned));
                (chunk.has_choices(), choices, others)
            };
            if let Some(once) = Chunk::read_usual(&json) {
                let by_part = Chunk::read_any(&json).map(parts);
                prop_assert_eq!(Some(parts(once)), by_part);
            }
        }
    }
}
