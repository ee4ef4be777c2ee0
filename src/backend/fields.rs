//! Those fields of a JSON object that matter, whatever else is in it.
//!
//! Invariant: nothing that is not asked for spoils what is: no key with half a character in it, no number beyond any type.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The values of an object's fields as they are written, in the order of `names`; `None` for one that is missing or null.
/// Of a key that is written twice the last one counts, as everywhere in Go. `None` for all of them if the JSON is no object,
/// or not valid.
pub(super) fn fields<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let values = deserializer.deserialize_map(Fields(names)).ok()?;
    deserializer.end().ok()?;
    Some(values)
}

struct Fields<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(place) = map.next_key_seed(Key(&self.0))? {
            match place {
                Some(place) => {
                    let value = map.next_value::<&RawValue>()?.get();
                    values[place] = (value != "null").then_some(value);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// Reads a key, and finds its place among names. As bytes: they may be no text.
struct Key<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::any_json;

    #[test]
    fn what_is_asked_for_is_found_as_it_is_written() {
        let json = r#" {"x\ud83d":1e999,"b":[ 1 ],"\u0061":"\ud83d","c":null,"b":{"n": 2}} "#;
        let found = fields(json, ["a", "b", "c", "d"]);
        let expected = [Some(r#""\ud83d""#), Some(r#"{"n": 2}"#), None, None];
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn only_an_object_has_fields() {
        for other in [
            "",
            "null",
            "[1]",
            r#""a""#,
            r#"{"a":1"#,
            r#"{"a":1}x"#,
            "{1:2}",
        ] {
            assert_eq!(fields(other, ["a"]), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_beside_it_a_field_is_found(key in any_json::string(), value in any_json::value()) {
            let json = format!(r#"{{{key}:{value},"the field":7,{key}:{value}}}"#);
            prop_assert_eq!(fields(&json, ["the field"]), Some([Some("7")]));
        }
    }
}
