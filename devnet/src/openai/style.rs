//! Where the servers differ, as they were seen to: a table and no behaviour of its own.

use std::time::Duration;

/// Whose habits the stand-in has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// llama.cpp's llama-server: ignores the model's name, sends no status before the first token.
    #[default]
    LlamaServer,
    /// vLLM: strict about names, types and limits.
    Vllm,
    /// `mlx_lm.server`: HTTP/1.0, comments before the first token, no chunked requests, no nulls.
    Mlx,
    /// `transformers serve`: no `[DONE]`, no unknown fields, an empty list.
    Transformers,
    /// Ollama's `/v1`.
    Ollama,
}

/// What a server refuses, beyond what all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    /// A request without Content-Length: 411.
    NoContentLength,
    /// A request without Content-Type: 400 or 422.
    NoContentType,
    /// A field at the top whose value is null: 400.
    Nulls,
    /// A field that OpenAI does not have: 422.
    UnknownFields,
    /// `stream_options` without `stream`: 400.
    StreamOptions,
    /// A tool call's `arguments` as an object, in the history: 400.
    ObjectArguments,
    /// An assistant's message that has neither content nor calls: 400.
    NullContent,
    /// A `max_tokens` that does not fit into the context: 400.
    MaxTokens,
    /// No messages: 400, 404 or 500.
    NoMessages,
}

/// How a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// An event with the role and this as content, together with the first token.
    Role(&'static str),
    /// An event with the role and nothing else, before anything is there.
    RoleAlone,
    /// The first token, with the role, as in every delta.
    Text,
}

/// When a stream tells what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageManner {
    /// In an event of its own after the end, if the request asks for it.
    Asked,
    /// In the event with the `finish_reason`, always.
    WithFinish,
    /// In each event, the counts so far, and after the end.
    Each,
    /// Before the `finish_reason`, in an event of its own.
    Before,
    /// As null in the last event.
    Null,
    /// Never.
    Never,
}

pub(super) struct Manners {
    pub(super) opening: Opening,
    pub(super) usage: UsageManner,
    pub(super) done: bool,
    /// The status is sent at once, and not with the first token.
    pub(super) head_at_once: bool,
    pub(super) http_1_0: bool,
    /// Closes the connection behind each stream, though its head does not say so.
    pub(super) closes_behind_streams: bool,
    /// A comment, how often it comes, and whether only before the first token or only after it.
    pub(super) comment: Option<(&'static str, Duration, Comments)>,
    pub(super) reasoning: &'static str,
    pub(super) refuses: &'static [Refuses],
    /// Honours `max_completion_tokens`.
    pub(super) completion_limit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comments {
    BeforeFirstToken,
    AfterFirstToken,
}

const PING: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(1);

impl Style {
    pub(super) fn manners(self) -> Manners {
        let plain = Manners {
            opening: Opening::Text,
            usage: UsageManner::Asked,
            done: true,
            head_at_once: true,
            http_1_0: false,
            closes_behind_streams: false,
            comment: None,
            reasoning: "reasoning",
            refuses: &[],
            completion_limit: true,
        };
        match self {
            Self::LlamaServer => Manners {
                opening: Opening::Role("null"),
                head_at_once: false,
                closes_behind_streams: true,
                comment: Some((":\n\n", PING, Comments::AfterFirstToken)),
                reasoning: "reasoning_content",
                ..plain
            },
            Self::Vllm => Manners {
                opening: Opening::Role("\"\""),
                refuses: &[
                    Refuses::NoContentType,
                    Refuses::NoMessages,
                    Refuses::StreamOptions,
                    Refuses::ObjectArguments,
                    Refuses::MaxTokens,
                ],
                ..plain
            },
            Self::Mlx => Manners {
                http_1_0: true,
                comment: Some((": keepalive 1/1\n\n", KEEPALIVE, Comments::BeforeFirstToken)),
                refuses: &[
                    Refuses::NoContentLength,
                    Refuses::Nulls,
                    Refuses::NoMessages,
                ],
                ..plain
            },
            Self::Transformers => Manners {
                opening: Opening::RoleAlone,
                usage: UsageManner::WithFinish,
                done: false,
                refuses: &[
                    Refuses::NoContentType,
                    Refuses::UnknownFields,
                    Refuses::NoMessages,
                ],
                completion_limit: false,
                ..plain
            },
            Self::Ollama => Manners {
                head_at_once: false,
                refuses: &[Refuses::NullContent, Refuses::NoMessages],
                completion_limit: false,
                ..plain
            },
        }
    }
}
