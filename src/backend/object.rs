//! JSON that is passed on: an object as an ordered list of keys and values, of which only what must change is opened.
//!
//! Invariant: bytes are faithful. What is not replaced is written back exactly as it was read: order of keys, large
//! numbers, escapes, fields nobody has heard of. And it is copied once, when the whole is written.

use std::{borrow::Cow, fmt, iter};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use thiserror::Error;

/// The most keys of an object that is opened. Real ones have some twenty; without a bound, two megabytes of `"":0,`
/// would become a hundred in memory.
const MAX_KEYS: usize = 1024;

/// Why text is not an object that can be opened.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum ObjectError {
    /// It is other JSON, or none.
    #[error("not a JSON object")]
    NotAnObject,
    /// It has more than [`MAX_KEYS`].
    #[error("an object with more than {MAX_KEYS} keys")]
    TooManyKeys,
}

/// A value as it will be written.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// JSON as somebody else wrote it. In a [`Value::List`] it may be several elements with the commas between them.
    Raw(&'a str),
    /// JSON made here.
    Json(String),
    /// A string, in pieces that are escaped already.
    Text(Vec<&'a str>),
    /// A list.
    List(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

impl Value<'_> {
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::Raw(json) => out.push_str(json),
            Self::Json(json) => out.push_str(json),
            Self::Text(pieces) => {
                out.push('"');
                pieces.iter().for_each(|piece| out.push_str(piece));
                out.push('"');
            }
            Self::List(elements) => {
                out.push('[');
                for (i, element) in elements.iter().enumerate() {
                    separate(out, i);
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(object) => object.write(out),
        }
    }
}

fn separate(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

#[derive(Debug)]
struct Entry<'a> {
    /// What the key says once its escapes are read.
    name: Cow<'a, str>,
    /// The key between its quotes, as it was written.
    written: &'a str,
    value: Value<'a>,
}

/// A JSON object: keys and values in their order. Of a key that is written twice the last one counts, as everywhere
/// in Go and serde; [`Object::has_duplicates`] tells.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    entries: Vec<Entry<'a>>,
}

impl<'a> Object<'a> {
    /// Opens an object; its values stay as they are.
    pub(super) fn parse(json: &'a str) -> Result<Self, ObjectError> {
        let object: Self = serde_json::from_str(json).map_err(|_| ObjectError::NotAnObject)?;
        if object.entries.len() > MAX_KEYS {
            return Err(ObjectError::TooManyKeys);
        }
        Ok(object)
    }

    /// The JSON of a key's value, as it was read. `null` counts as absent; so does a value made here.
    pub(super) fn given(&self, name: &str) -> Option<&'a str> {
        match self.find(name)?.value {
            Value::Raw("null") => None,
            Value::Raw(json) => Some(json),
            _ => None,
        }
    }

    /// Whether the key is there with anything but `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|entry| !matches!(entry.value, Value::Raw("null")))
    }

    /// A key's value if it is a number, however it is written; infinite where it is beyond what a double holds.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match &self.find(name)?.value {
            Value::Raw(json) => number(json),
            Value::Json(json) => number(json),
            _ => None,
        }
    }

    /// Replaces a value where it stands, or appends it.
    pub(super) fn set(&mut self, name: &'static str, value: Value<'a>) {
        match self.entries.iter_mut().rfind(|entry| entry.name == name) {
            Some(entry) => entry.value = value,
            None => self.entries.push(Entry {
                name: name.into(),
                written: name,
                value,
            }),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| entry.name != name);
    }

    /// Removes those keys for which `is_unwanted`, which is told the key and its value as it was read.
    pub(super) fn remove_where(&mut self, is_unwanted: impl Fn(&str, &str) -> bool) {
        self.entries.retain(|entry| match entry.value {
            Value::Raw(json) => !is_unwanted(&entry.name, json),
            _ => true,
        });
    }

    /// The keys with their values as they were read.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.entries.iter().filter_map(|entry| match entry.value {
            Value::Raw(json) => Some((&*entry.name, json)),
            _ => None,
        })
    }

    /// The keys, escapes read.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a key is written twice, however it is escaped.
    pub(super) fn has_duplicates(&self) -> bool {
        let mut names: Vec<&str> = self.names().collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('{');
        for (i, entry) in self.entries.iter().enumerate() {
            separate(out, i);
            out.push('"');
            out.push_str(entry.written);
            out.push_str("\":");
            entry.value.write(out);
        }
        out.push('}');
    }

    fn find(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().rfind(|entry| entry.name == name)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> de::Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let name =
                string(key.get()).ok_or_else(|| de::Error::custom("a key that is no text"))?;
            // One beyond the bound is kept, so that `parse` sees that it was passed.
            if entries.len() <= MAX_KEYS {
                entries.push(Entry {
                    name,
                    written: interior(key.get()),
                    value: Value::Raw(value.get()),
                });
            }
        }
        Ok(Object { entries })
    }
}

/// What a JSON string says; `None` if the JSON is no string, or not one of Unicode (half a surrogate pair).
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with('"') {
        return None;
    }
    if json.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(interior(json)))
}

/// What a JSON number is; `None` if the JSON is none.
fn number(json: &str) -> Option<f64> {
    // Rust also knows numbers that JSON does not, but they begin with letters.
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        .then(|| json.parse().ok())?
}

/// A count: a whole number, however it is written (`7`, `7.0`, `70e-1`); what a double does not hold exactly is none, and
/// could not be added up.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn count(json: &str) -> Option<u64> {
    const MAX: f64 = (1_u64 << 53) as f64;
    let number = number(json)?;
    let is_count = (0.0..=MAX).contains(&number) && number.fract() == 0.0;
    is_count.then_some(number as u64)
}

/// What is between the quotes of a JSON string, or the brackets of a list.
pub(super) fn interior(json: &str) -> &str {
    json.get(1..json.len().saturating_sub(1))
        .unwrap_or_default()
}

/// The elements of a JSON list as they are written; `None` if the JSON, which must be valid, is no list.
pub(super) fn elements(json: &str) -> Option<impl Iterator<Item = &str>> {
    if !json.starts_with('[') {
        return None;
    }
    let mut rest = interior(json);
    Some(iter::from_fn(move || {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let element = values.next()?.ok()?.get();
        let after = rest
            .get(values.byte_offset()..)
            .unwrap_or_default()
            .trim_start();
        rest = after.strip_prefix(',').unwrap_or_default();
        Some(element)
    }))
}

/// Rewrites those elements of a JSON list for which `rewrite` gives something; `None` if it is no list or all stays.
///
/// What stays between two rewritten elements is one piece, so memory grows with what changes, not with the list.
pub(super) fn rewrite_elements<'a, E>(
    json: &'a str,
    mut rewrite: impl FnMut(&'a str) -> Result<Option<Value<'a>>, E>,
) -> Result<Option<Value<'a>>, E> {
    let mut pieces = Vec::new();
    let mut kept = 1; // where what is not yet written begins: behind the bracket
    for element in elements(json).into_iter().flatten() {
        if let Some(value) = rewrite(element)? {
            let start = offset(json, element);
            push_kept(&mut pieces, &json[kept..start]);
            pieces.push(value);
            kept = start + element.len();
        }
    }
    if pieces.is_empty() {
        return Ok(None);
    }
    push_kept(&mut pieces, &json[kept..json.len() - 1]);
    Ok(Some(Value::List(pieces)))
}

/// Adds elements that stay, less the white space and commas at their ends.
fn push_kept<'a>(pieces: &mut Vec<Value<'a>>, kept: &'a str) {
    let kept = kept.trim_matches(|c: char| c == ',' || c.is_ascii_whitespace());
    if !kept.is_empty() {
        pieces.push(Value::Raw(kept));
    }
}

/// Where `part`, a slice of `whole`, begins in it.
fn offset(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(object: &Object<'_>) -> String {
        let mut out = String::new();
        object.write(&mut out);
        out
    }

    #[test]
    fn what_is_not_touched_is_written_as_it_was_read() {
        let json = r#"{"z\u0061":1e400,"a":"\u00e9\/","n":123456789012345678901234567890,"":[ 1 ,{"b":null} ]}"#;
        assert_eq!(written(&Object::parse(json).unwrap()), json);
    }

    #[test]
    fn a_value_is_replaced_where_it_stands_or_appended() {
        let mut object = Object::parse(r#"{"a":1, "b\u0062":2, "c":3}"#).unwrap();
        object.set("bb", Value::Text(vec!["x", "\\n"]));
        object.set(
            "d",
            Value::List(vec![Value::Raw("1,2"), Value::Json("3".into())]),
        );
        object.remove("a");
        assert_eq!(written(&object), r#"{"b\u0062":"x\n","c":3,"d":[1,2,3]}"#);
    }

    #[test]
    fn a_key_written_twice_is_seen_through_its_escapes() {
        assert!(
            Object::parse(r#"{"keep_alive":1,"x":2,"keep\u005falive":3}"#)
                .unwrap()
                .has_duplicates()
        );
        assert!(
            !Object::parse(r#"{"a":1,"A":2,"b":3}"#)
                .unwrap()
                .has_duplicates()
        );
    }

    #[test]
    fn an_object_has_a_bounded_number_of_keys() {
        let keys = |n: usize| format!("{{{}}}", vec![r#""":0"#; n].join(","));
        assert!(Object::parse(&keys(MAX_KEYS)).is_ok());
        assert_eq!(
            Object::parse(&keys(MAX_KEYS + 1)).unwrap_err(),
            ObjectError::TooManyKeys
        );
        assert_eq!(Object::parse("[]").unwrap_err(), ObjectError::NotAnObject);
        assert_eq!(
            Object::parse(r#"{"a":1"#).unwrap_err(),
            ObjectError::NotAnObject
        );
        assert_eq!(
            Object::parse(r#"{"\ud800":1}"#).unwrap_err(),
            ObjectError::NotAnObject
        );
    }

    #[test]
    fn a_whole_number_is_a_count_however_it_is_written() {
        for (json, counted) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("0.7e1", Some(7)),
            ("70E-1", Some(7)),
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("9007199254740992", Some(1 << 53)),
            ("9007199254740994", None),
            ("1e99", None),
            ("1e999", None),
            ("7.5", None),
            ("-1", None),
            (r#""7""#, None),
            ("true", None),
        ] {
            assert_eq!(count(json), counted, "{json}");
        }
    }

    #[test]
    fn elements_are_found_whatever_they_are_and_however_they_are_spaced() {
        let json = r#"[1 ,"a,]",[ ],{"b":[1]} , null,-2e3 ]"#;
        let found: Vec<&str> = elements(json).unwrap().collect();
        assert_eq!(
            found,
            ["1", r#""a,]""#, "[ ]", r#"{"b":[1]}"#, "null", "-2e3"]
        );
        assert_eq!(elements("[ ]").unwrap().count(), 0);
        assert!(elements("{}").is_none());
    }

    #[test]
    fn only_the_elements_that_change_are_rewritten() {
        let rewrite = |json| {
            let rewritten = rewrite_elements(json, |e| {
                Ok::<_, ()>((e == "0").then(|| Value::Json("\"x\"".into())))
            });
            rewritten.unwrap().map(|value| {
                let mut out = String::new();
                value.write(&mut out);
                out
            })
        };
        assert_eq!(rewrite("[1, 2 , 3]"), None);
        assert_eq!(rewrite("[]"), None);
        assert_eq!(rewrite("[ 0 ]").unwrap(), r#"["x"]"#);
        assert_eq!(
            rewrite("[1 , 2, 0,0, 3,4 ]").unwrap(),
            r#"[1 , 2,"x","x",3,4]"#
        );
    }
}
