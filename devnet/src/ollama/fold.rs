//! JSON objects as Go's `encoding/json` reads them, which is how Ollama does: a key stands for a field if the two are
//! equal without regard to case, by Unicode's simple folding, and of several such keys the last one wins.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

/// An object with all of its keys, in order, repeated ones too.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<(String, Value)>);

impl Entries {
    /// The value of a field; `name` is written in lower case.
    pub(super) fn get(&self, name: &str) -> &Value {
        let last = self.0.iter().rfind(|(key, _)| folds_to(key, name));
        last.map_or(&Value::Null, |(_, value)| value)
    }

    /// Every value that a field is given, in order: Go merges those of a map.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |(key, _)| folds_to(key, name))
            .map(|(_, value)| value)
    }
}

/// The value of a field of an object that was read before.
pub(super) fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    let mut entries = object.as_object().into_iter().flatten();
    entries
        .rfind(|(key, _)| folds_to(key, name))
        .map_or(&Value::Null, |(_, value)| value)
}

fn folds_to(key: &str, name: &str) -> bool {
    key.chars().map(fold).eq(name.chars())
}

/// Only these two characters beyond ASCII fold to an ASCII one.
fn fold(character: char) -> char {
    match character {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_another_case_counts_and_the_last_one_wins() {
        let read = |text: &str| serde_json::from_str::<Entries>(text).unwrap();
        assert_eq!(
            read(r#"{"stream":true,"STREAM":false}"#).get("stream"),
            false
        );
        assert_eq!(read(r#"{"ſtream":false}"#).get("stream"), false);
        assert_eq!(
            read(r#"{"keep_alive":1,"\u212aeep_alive":0}"#).get("keep_alive"),
            0
        );
        assert_eq!(read(r#"{"stream ":false}"#).get("stream"), &Value::Null);
    }
}
