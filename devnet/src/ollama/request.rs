//! What a chat request asks for, and what Ollama refuses, in its words. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use super::fold::{Entries, field};
use crate::model_server::text;

/// A year is as good.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// An HTTP status with an `error`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) error: String,
}

impl Refusal {
    pub(super) fn new(status: u16, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    pub(super) fn no_such_model(name: &str) -> Self {
        Self::new(404, format!("model '{name}' not found"))
    }
}

/// A chat, native or in OpenAI's dialect.
#[derive(Debug, Default)]
pub(super) struct ChatRequest {
    pub(super) model: String,
    pub(super) messages: Vec<Value>,
    pub(super) stream: bool,
    pub(super) think: Option<bool>,
    /// The level of thinking that is asked for, where one is.
    pub(super) level: Option<String>,
    pub(super) tools: Vec<Value>,
    pub(super) logprobs: bool,
    pub(super) top_logprobs: u64,
    /// How long the model is to stay once this has ended; `None`: as long as it was to before.
    pub(super) keep_alive: Option<Duration>,
    pub(super) num_predict: Option<usize>,
    pub(super) num_ctx: Option<u64>,
    pub(super) include_usage: bool,
    options: Map<String, Value>,
}

/// Reads the first JSON value of a body, as Go's decoder does: what follows it is not looked at.
pub(super) fn entries(body: &[u8]) -> Result<Entries, Refusal> {
    if body.is_empty() {
        return Err(Refusal::new(400, "missing request body"));
    }
    let mut values = serde_json::Deserializer::from_slice(body).into_iter();
    match values.next() {
        Some(Ok(entries)) => Ok(entries),
        Some(Err(error)) if error.is_data() => Err(Refusal::new(
            400,
            "json: cannot unmarshal array into Go value of type api.ChatRequest",
        )),
        Some(Err(error)) if error.is_syntax() => {
            let character = char::from(body[error.column().saturating_sub(1).min(body.len() - 1)]);
            Err(Refusal::new(
                400,
                format!("invalid character '{character}' looking for beginning of value"),
            ))
        }
        Some(Err(_)) | None => Err(Refusal::new(400, "unexpected EOF")),
    }
}

impl ChatRequest {
    /// Reads the body of `POST /api/chat`.
    pub(super) fn native(body: &[u8]) -> Result<Self, Refusal> {
        let entries = entries(body)?;
        let mut options = Map::new();
        for value in entries.all("options") {
            options.extend(
                optional(
                    value,
                    "options",
                    "map[string]interface {}",
                    Value::as_object,
                )?
                .cloned()
                .unwrap_or_default(),
            );
        }
        let list = |name, kind| {
            optional(entries.get(name), name, kind, Value::as_array)
                .map(|list| list.cloned().unwrap_or_default())
        };
        let request = Self {
            model: model(&entries)?,
            messages: list("messages", "[]api.Message")?,
            stream: optional(entries.get("stream"), "stream", "bool", Value::as_bool)?
                .unwrap_or(true),
            think: think(entries.get("think"))?,
            level: entries.get("think").as_str().map(str::to_owned),
            tools: list("tools", "[]api.Tool")?,
            logprobs: optional(entries.get("logprobs"), "logprobs", "bool", Value::as_bool)?
                .unwrap_or(false),
            top_logprobs: optional(
                entries.get("top_logprobs"),
                "top_logprobs",
                "int",
                Value::as_u64,
            )?
            .unwrap_or(0),
            keep_alive: keep_alive(entries.get("keep_alive"))?,
            options,
            ..Self::default()
        };
        request.check_messages()?;
        if request.top_logprobs > 20 {
            return Err(Refusal::new(400, "top_logprobs must be between 0 and 20"));
        }
        Ok(request)
    }

    /// Reads the body of `POST /v1/chat/completions`.
    pub(super) fn openai(body: &[u8]) -> Result<Self, Refusal> {
        let entries = entries(body)?;
        let messages = entries
            .get("messages")
            .as_array()
            .cloned()
            .unwrap_or_default();
        if messages.is_empty() {
            return Err(Refusal::new(400, "[] is too short - 'messages'"));
        }
        let limit = entries
            .get("max_tokens")
            .as_u64()
            .and_then(|limit| usize::try_from(limit).ok());
        Ok(Self {
            model: model(&entries)?,
            messages,
            stream: entries.get("stream").as_bool().unwrap_or(false),
            tools: entries.get("tools").as_array().cloned().unwrap_or_default(),
            num_predict: limit,
            include_usage: field(entries.get("stream_options"), "include_usage") == true,
            ..Self::default()
        })
    }

    /// Checks the options' types, which Ollama does only once it has found the model.
    pub(super) fn read_options(&mut self) -> Result<(), Refusal> {
        for (name, value) in &self.options {
            check_option(name, value)?;
        }
        // Exact names here, unlike everywhere else; Go cuts fractions off, and no limit is written as 0 or less.
        #[allow(clippy::cast_possible_truncation)]
        let integer = |name: &str| {
            self.options
                .get(name)
                .and_then(Value::as_f64)
                .map(|number| number as i64)
        };
        if let Some(limit) = integer("num_predict") {
            self.num_predict = usize::try_from(limit).ok().filter(|limit| *limit > 0);
        }
        self.num_ctx = integer("num_ctx").and_then(|context| u64::try_from(context).ok());
        Ok(())
    }

    /// The words of the last message of a user.
    pub(super) fn prompt(&self) -> String {
        let last = self
            .messages
            .iter()
            .rev()
            .find(|message| field(message, "role") == "user");
        last.map(|message| text(field(message, "content")))
            .unwrap_or_default()
    }

    /// A count in the place of the prompt's tokens: its words.
    pub(super) fn prompt_tokens(&self) -> usize {
        let words = |message| text(field(message, "content")).split_whitespace().count();
        self.messages.iter().map(words).sum()
    }

    fn check_messages(&self) -> Result<(), Refusal> {
        for message in &self.messages {
            optional(
                field(message, "content"),
                "messages.content",
                "string",
                Value::as_str,
            )?;
        }
        Ok(())
    }
}

fn model(entries: &Entries) -> Result<String, Refusal> {
    let model =
        optional(entries.get("model"), "model", "string", Value::as_str)?.unwrap_or_default();
    if model.is_empty() {
        Err(Refusal::new(400, "model is required"))
    } else {
        Ok(model.to_owned())
    }
}

/// A value of the wanted kind; null is as good as none.
fn optional<'a, T>(
    value: &'a Value,
    name: &str,
    kind: &str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    if value.is_null() {
        return Ok(None);
    }
    let wrong = || {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        Refusal::new(
            400,
            format!(
                "json: cannot unmarshal {found} into Go struct field ChatRequest.{name} of type {kind}"
            ),
        )
    };
    read(value).map(Some).ok_or_else(wrong)
}

fn think(value: &Value) -> Result<Option<bool>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(think) => Ok(Some(*think)),
        Value::String(effort) if matches!(effort.as_str(), "high" | "medium" | "low") => {
            Ok(Some(true))
        }
        other => Err(Refusal::new(
            400,
            format!(
                "invalid think value: {other} (must be \"high\", \"medium\", \"low\", true, or false)"
            ),
        )),
    }
}

/// `keep_alive`: seconds, or a duration as Go writes it, as far as anybody writes one here: a number and a unit. Less than
/// nothing is for ever.
fn keep_alive(value: &Value) -> Result<Option<Duration>, Refusal> {
    let seconds =
        match value {
            Value::Number(seconds) => seconds.as_f64(),
            Value::String(duration) => Some(seconds(duration).ok_or_else(|| {
                Refusal::new(400, format!("time: invalid duration \"{duration}\""))
            })?),
            _ => None,
        };
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(FOR_EVER)))
}

fn seconds(duration: &str) -> Option<f64> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, seconds)| Some((duration.strip_suffix(name)?, seconds)))
        .unwrap_or((duration, &1.0));
    let number: f64 = number.parse().ok()?;
    Some(number * unit)
}

fn check_option(name: &str, value: &Value) -> Result<(), Refusal> {
    let (right, kind) = match name {
        "num_keep" | "seed" | "num_predict" | "top_k" | "repeat_last_n" | "num_ctx"
        | "num_batch" | "num_gpu" | "main_gpu" | "num_thread" => (value.is_number(), "integer"),
        "top_p" | "min_p" | "typical_p" | "temperature" | "repeat_penalty" | "presence_penalty"
        | "frequency_penalty" => (value.is_number(), "float32"),
        "use_mmap" => (value.is_boolean(), "boolean"),
        "stop" => (value.is_array(), "array"),
        _ => return Ok(()),
    };
    if right || value.is_null() {
        return Ok(());
    }
    Err(Refusal::new(
        500,
        format!("option \"{name}\" must be of type {kind}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_model_stays_is_a_number_of_seconds_or_a_duration() {
        for (written, seconds) in [
            ("0", Some(0.0)),
            ("90", Some(90.0)),
            (r#""0""#, Some(0.0)),
            (r#""30m""#, Some(1800.0)),
            (r#""1.5h""#, Some(5400.0)),
            (r#""250ms""#, Some(0.25)),
            ("-1", Some(FOR_EVER.as_secs_f64())),
            (r#""-1s""#, Some(FOR_EVER.as_secs_f64())),
            ("null", None),
        ] {
            let value: Value = serde_json::from_str(written).unwrap_or_default();
            let read = keep_alive(&value).map(|kept| kept.map(|kept| kept.as_secs_f64()));
            assert_eq!(read, Ok(seconds), "{written}");
        }
    }

    #[test]
    fn refusals_are_in_ollamas_words() {
        let refusal = |body: &str| {
            let read =
                ChatRequest::native(body.as_bytes()).and_then(|mut request| request.read_options());
            read.err().map(|refusal| (refusal.status, refusal.error))
        };
        for (body, status, error) in [
            ("{", 400, "unexpected EOF"),
            ("", 400, "missing request body"),
            (
                "xx",
                400,
                "invalid character 'x' looking for beginning of value",
            ),
            (
                "[]",
                400,
                "json: cannot unmarshal array into Go value of type api.ChatRequest",
            ),
            (
                r#"{"model":3}"#,
                400,
                "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
            ),
            (
                r#"{"model":"m","messages":"x"}"#,
                400,
                "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
            ),
            (r#"{"messages":[]}"#, 400, "model is required"),
            (
                r#"{"model":"m","keep_alive":"x"}"#,
                400,
                "time: invalid duration \"x\"",
            ),
            (
                r#"{"model":"m","think":"odd"}"#,
                400,
                "invalid think value: \"odd\" (must be \"high\", \"medium\", \"low\", true, or false)",
            ),
            (
                r#"{"model":"m","options":{"num_predict":"3"}}"#,
                500,
                "option \"num_predict\" must be of type integer",
            ),
            (
                r#"{"model":"m","options":{"temperature":"3"}}"#,
                500,
                "option \"temperature\" must be of type float32",
            ),
            (
                r#"{"model":"m","options":{"stop":"3"}}"#,
                500,
                "option \"stop\" must be of type array",
            ),
        ] {
            assert_eq!(refusal(body), Some((status, error.to_owned())), "{body}");
        }
        assert_eq!(
            refusal(r#"{"model":"m","options":{"nonsense":"1","seed":null}} and more"#),
            None
        );
    }
}
