//! What the stand-ins hear and say.

use serde_json::Value;

/// The first `tokens` words that the stand-in speaks when asked this: the prompt's own, over and over.
pub fn spoken(prompt: &str, tokens: usize) -> String {
    words(prompt).take(tokens).collect()
}

/// The tokens of an endless answer.
pub(crate) fn words(prompt: &str) -> impl Iterator<Item = String> + use<> {
    let mut words: Vec<String> = prompt.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        words.push("hello".to_owned());
    }
    (0..).map(move |index: usize| {
        let space = if index == 0 { "" } else { " " };
        format!("{space}{}", words[index % words.len()])
    })
}

/// Text, or the texts of a list of parts.
pub(crate) fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}
