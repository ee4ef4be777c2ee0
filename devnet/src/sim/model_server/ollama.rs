//! Ollama's own dialect: lines of JSON, of which the last one says `done`.

use serde_json::{Value, json};

use super::{
    super::{fate::Fate, http::Framing, said::Kind},
    MODEL,
    dialect::{Ask, Dialect, Page, Presence, Question, Style},
    memory::{Memory, Wish},
};

pub(super) struct Ollama;

impl Dialect for Ollama {
    fn asked(&self, path: &str, body: &Value) -> Ask {
        if path != "/api/chat" {
            return Ask::About;
        }
        let wish = Wish::of(body);
        match body["messages"].as_array().and_then(|all| all.last()) {
            Some(last) => Ask::Chat(Question {
                word: super::first_word(last),
                limit: body["options"]["num_predict"].as_u64(),
                has_tools: false,
                wish,
            }),
            None if wish.is_farewell() => Ask::Unload,
            None => Ask::Load(wish),
        }
    }

    fn framing(&self) -> Framing {
        Framing::Told
    }

    fn style(&self, _: &mut Fate, _: bool) -> Style {
        Style::default()
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn opening(&self, _: Style) -> String {
        String::new()
    }

    fn token(&self, _: Style, (_, token): (Kind, &str), _: u64) -> String {
        line(token, None)
    }

    fn ending(&self, _: Style, tokens: u64) -> String {
        line("", Some(tokens))
    }

    fn error(&self, _: Style) -> String {
        "{\"error\":\"an error was encountered while running the model\"}\n".to_owned()
    }

    fn refusal(&self, _: &mut Fate) -> Page {
        Page::json(500, &r#"{"error":"llama runner process has terminated"}"#)
    }

    fn without_model(&self, presence: Presence) -> Option<Page> {
        let error = || json!({"error": format!("model '{MODEL}' not found")});
        (presence != Presence::There).then(|| Page::json(404, &error()))
    }

    fn absence(&self, _: &mut Fate) -> Presence {
        Presence::Absent
    }

    fn load_failed(&self) -> Page {
        Page::json(500, &r#"{"error":"model requires more system memory"}"#)
    }

    fn loaded(&self, is_load: bool) -> Page {
        let reason = if is_load { "load" } else { "unload" };
        let answer = json!({
            "model": MODEL, "created_at": "2024-01-06T00:00:00Z",
            "message": {"role": "assistant", "content": ""}, "done_reason": reason, "done": true,
        });
        Page::json(200, &answer)
    }

    fn about(&self, path: &str, presence: Presence, memory: &Memory) -> Page {
        let models = json!([{"name": MODEL, "model": MODEL, "digest": "d1"}]);
        let answer = match path {
            "/api/tags" if presence != Presence::There => json!({"models": []}),
            "/api/tags" => json!({"models": models}),
            "/api/ps" => memory.list(),
            "/api/version" => json!({"version": "0.17.3"}),
            "/api/show" => json!({
                "capabilities": ["completion"],
                "model_info": {"general.architecture": "llama", "llama.context_length": 8192},
            }),
            _ => json!({}),
        };
        Page::json(200, &answer)
    }
}

/// A line of an answer; the last one says how many tokens there were.
fn line(token: &str, tokens: Option<u64>) -> String {
    let mut line = json!({
        "model": MODEL, "created_at": "2024-01-06T00:00:00Z",
        "message": {"role": "assistant", "content": token}, "done": tokens.is_some(),
    });
    if let Some(tokens) = tokens {
        line["done_reason"] = json!("stop");
        line["prompt_eval_count"] = json!(7);
        line["eval_count"] = json!(tokens);
    }
    format!("{line}\n")
}
