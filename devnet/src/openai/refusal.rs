//! Errors, in each server's shape.

use hyper::Response;
use serde_json::{Value, json};

use super::style::Style;
use crate::model_server::{Body, whole};

/// An answer that is none.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// OpenAI's `type`, where the shape has one.
    kind: &'static str,
    message: String,
    /// What else llama-server tells.
    more: Value,
}

impl Refusal {
    pub(super) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            kind,
            message,
            more: Value::Null,
        }
    }

    /// A request that the server does not understand or does not want.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// A prompt that does not fit.
    pub(super) fn too_long(prompt: usize, context: usize) -> Self {
        let message = "the request exceeds the available context size, try increasing it";
        Self {
            more: json!({"n_prompt_tokens": prompt, "n_ctx": context}),
            ..Self::new(400, "exceed_context_size_error", message)
        }
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// llama-server's, on every path, for as long as its model is not in memory.
    pub(super) fn loading() -> Self {
        Self::new(503, "unavailable_error", "Loading model")
    }

    /// The body, and its type.
    pub(super) fn body(&self, style: Style) -> (&'static str, String) {
        let Self {
            status,
            kind,
            message,
            ..
        } = self;
        let body = match style {
            Style::LlamaServer => {
                let mut error = json!({"code": status, "message": message, "type": kind});
                if let (Some(error), Some(more)) = (error.as_object_mut(), self.more.as_object()) {
                    error.extend(more.clone());
                }
                json!({"error": error})
            }
            Style::Vllm if *status == 401 => json!({"error": "Unauthorized"}),
            Style::Vllm => {
                let kind = match status {
                    404 => "NotFoundError",
                    400..=499 => "BadRequestError",
                    _ => "InternalServerError",
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": status}})
            }
            Style::Mlx => json!({"error": message}),
            Style::Transformers if *status >= 500 => {
                return (
                    "text/plain; charset=utf-8",
                    "Internal Server Error".to_owned(),
                );
            }
            Style::Transformers if *status == 422 => json!({"detail": [{
                "type": "value_error", "loc": ["body"], "msg": message, "input": null,
            }]}),
            Style::Transformers => json!({"detail": message}),
            Style::Ollama => {
                let kind = match status {
                    400 => "invalid_request_error",
                    404 => "not_found_error",
                    _ => "api_error",
                };
                json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
            }
        };
        ("application/json", body.to_string())
    }

    pub(super) fn answer(&self, style: Style) -> Response<Body> {
        let (content_type, body) = self.body(style);
        whole(self.status, content_type, body)
    }
}
