//! Those fields of a JSON object that matter, whatever else is in it.
//!
//! Invariants: nothing that is not asked for spoils what is: no key with half a character in it, no number beyond any type.
//! The JSON is read once, however deep the fields lie.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Stands in a path for the only element of a list.
pub(super) const ONLY: &str = "[]";

/// The values of an object's fields as they are written, in the order of `names`; `None` for one that is missing or null.
/// Of a key that is written twice the last one counts, as everywhere in Go. `None` for all of them if the JSON is no object,
/// or not valid.
pub(super) fn fields<'a, const N: usize>(
    json: &'a str,
    names: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    deep_fields(json, names.each_ref().map(std::slice::from_ref))
}

/// Like [`fields`], by the keys that lead to them. None of the paths leads through another's end. What lies in an object that is
/// missing or null is `None`; if there is something else in its place, or a list at [`ONLY`] with more elements or fewer,
/// all of them are.
pub(super) fn deep_fields<'a, const N: usize>(
    json: &'a str,
    paths: [&[&str]; N],
) -> Option<[Option<&'a str>; N]> {
    let mut values = [None; N];
    let all = Level {
        paths: &paths,
        depth: 0,
        through: u32::MAX,
        values: &mut values,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(all).ok()?;
    deserializer.end().ok()?;
    Some(values)
}

/// An object or a list on the way, and what is found in it.
struct Level<'p, 'v, 'de> {
    paths: &'p [&'p [&'p str]],
    /// How many steps led here.
    depth: usize,
    /// The paths that lead through here, a bit each.
    through: u32,
    values: &'v mut [Option<&'de str>],
}

impl<'p, 'de> Level<'p, '_, 'de> {
    /// The paths that go on with a step, a bit each.
    fn following(&self, step: &[u8]) -> u32 {
        let mut following = 0;
        for (place, path) in self.paths.iter().enumerate() {
            let is_next = |next: &&str| next.as_bytes() == step;
            if self.through & (1 << place) != 0 && path.get(self.depth).is_some_and(is_next) {
                following |= 1 << place;
            }
        }
        following
    }

    fn below(&mut self, through: u32) -> Level<'p, '_, 'de> {
        Level {
            paths: self.paths,
            depth: self.depth + 1,
            through,
            values: self.values,
        }
    }

    /// What an earlier value of the same key had counts no more.
    fn forget(&mut self, through: u32) {
        for (place, value) in self.values.iter_mut().enumerate() {
            if through & (1 << place) != 0 {
                *value = None;
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object, or a list of one element")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.following(ONLY.as_bytes()) == 0 {
            deserializer.deserialize_map(self)
        } else {
            deserializer.deserialize_seq(self)
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(following) = map.next_key_seed(Key(&self))? {
            if following == 0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.forget(following);
            let place = following.trailing_zeros() as usize;
            if self.paths[place].len() == self.depth + 1 {
                let value = map.next_value::<&RawValue>()?.get();
                self.values[place] = (value != "null").then_some(value);
            } else {
                map.next_value_seed(self.below(following))?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let following = self.following(ONLY.as_bytes());
        let first = list.next_element_seed(self.below(following))?;
        match (first, list.next_element::<IgnoredAny>()?) {
            (Some(()), None) => Ok(()),
            _ => Err(A::Error::custom("not one element")),
        }
    }
}

/// Reads a key, and finds the paths that go on with it. As bytes: it may be no text.
struct Key<'l, 'p, 'v, 'de>(&'l Level<'p, 'v, 'de>);

impl<'de> DeserializeSeed<'de> for Key<'_, '_, '_, '_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_, '_, '_, '_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<u32, E> {
        Ok(self.0.following(key))
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
    fn what_lies_deeper_is_found_where_its_path_leads() {
        let paths: [&[&str]; 4] = [&["a"], &["b", "c"], &["b", "d"], &["l", ONLY, "e"]];
        for (json, found) in [
            (
                r#"{"a":1,"b":{"c":2,"x":{"c":9},"d":[3]},"l":[{"e":4}],"c":9}"#,
                [Some("1"), Some("2"), Some("[3]"), Some("4")],
            ),
            (
                r#"{"b":{"c":2},"b":{"d":3}}"#,
                [None, None, Some("3"), None],
            ),
            (r#"{"b":{"c":2},"b":null,"l":null}"#, [None; 4]),
            ("{}", [None; 4]),
        ] {
            assert_eq!(deep_fields(json, paths), Some(found), "{json}");
        }
        for other in [
            r#"{"b":[]}"#,
            r#"{"b":"c"}"#,
            r#"{"l":[]}"#,
            r#"{"l":[{},{}]}"#,
            r#"{"l":{"[]":{"e":4}}}"#,
            r#"{"l":[7]}"#,
        ] {
            assert_eq!(deep_fields(other, paths), None, "{other}");
        }
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
            let json = format!(r#"{{{key}:{value},"the":{json}}}"#);
            prop_assert_eq!(deep_fields(&json, [&["the", "the field"]]), Some([Some("7")]));
        }
    }
}
