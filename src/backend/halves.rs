//! Characters in two halves. JSON escapes one beyond U+FFFF as two (a surrogate pair), and some servers end one line of an
//! answer with the first half and begin the next with the second.
//!
//! Invariant: what is given is text. A half whose other half never comes is U+FFFD, and takes nothing else with it.

use std::{borrow::Cow, iter};

use super::object::{interior, string};

/// How long an escape is, in bytes: `\ud83d`.
const ESCAPE: usize = 6;

/// What stands where a half stays alone.
pub(super) const REPLACEMENT: &str = "\u{fffd}";

/// The first half of a character whose second may come with the next piece of a text, as it was written.
#[derive(Default)]
pub(super) struct Half(Option<String>);

impl Half {
    /// What a piece of a text says, as far as its characters are whole; `None` if the JSON is no string.
    pub(super) fn join<'a>(&mut self, json: &'a str) -> Option<Cow<'a, str>> {
        if self.0.is_none()
            && let Some(text) = string(json)
        {
            return Some(text);
        }
        if !json.starts_with('"') {
            return None;
        }
        let piece = self.0.take().unwrap_or_default() + interior(json);
        let (whole, half) = split_off_first_half(&piece);
        self.0 = half.map(str::to_owned);
        let said = text(&format!("\"{whole}\""))?.into_owned();
        Some(said.into())
    }

    /// What the text ends with, now that no other piece comes.
    pub(super) fn end(&mut self) -> &'static str {
        self.0.take().map_or("", |_| REPLACEMENT)
    }
}

/// What a JSON string says, in characters that are whole; `None` if the JSON is no string.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    string(json).or_else(|| Some(string(&without_halves(json))?.into_owned().into()))
}

/// JSON in which no half stands alone.
pub(super) fn without_halves(json: &str) -> Cow<'_, str> {
    let (mut whole, mut kept) = (String::new(), 0);
    for at in lone_halves(json) {
        whole.push_str(&json[kept..at]);
        whole.push_str(REPLACEMENT);
        kept = at + ESCAPE;
    }
    if kept == 0 {
        return json.into();
    }
    whole.push_str(&json[kept..]);
    whole.into()
}

/// Splits off a first half at the end.
fn split_off_first_half(escaped: &str) -> (&str, Option<&str>) {
    let is_first_and_last =
        |at: &usize| at + ESCAPE == escaped.len() && unit(escaped, *at).is_some_and(is_first);
    match lone_halves(escaped).last().filter(is_first_and_last) {
        Some(at) => (&escaped[..at], Some(&escaped[at..])),
        None => (escaped, None),
    }
}

/// Where the escapes of halves stand in valid JSON that have no other half beside them.
fn lone_halves(json: &str) -> impl Iterator<Item = usize> {
    let mut next = 0;
    iter::from_fn(move || {
        loop {
            let at = next + json.get(next..)?.find('\\')?;
            match (unit(json, at), unit(json, at + ESCAPE)) {
                (Some(one), Some(other)) if is_first(one) && is_second(other) => {
                    next = at + 2 * ESCAPE;
                }
                (Some(one), _) => {
                    next = at + ESCAPE;
                    if is_first(one) || is_second(one) {
                        return Some(at);
                    }
                }
                // Another escape: a backslash and a letter.
                (None, _) => next = at + 2,
            }
        }
    })
}

/// The UTF-16 unit whose escape stands there.
fn unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

fn is_first(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

fn is_second(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::any_json;

    fn joined(pieces: &[&str]) -> String {
        let mut half = Half::default();
        let mut text = String::new();
        for piece in pieces {
            text += &half.join(piece).unwrap();
        }
        text + half.end()
    }

    #[test]
    fn halves_that_come_apart_are_joined() {
        for pieces in [
            &[r#""\ud83d""#, r#""\ude00""#][..],
            &[r#""\uD83D""#, r#""""#, r#""\uDE00""#],
            &[r#""\ud83d\ude00""#],
        ] {
            assert_eq!(joined(pieces), "😀", "{pieces:?}");
        }
        assert_eq!(joined(&[r#""a\n\ud83d""#, r#""\ude00\\b""#]), "a\n😀\\b");
    }

    #[test]
    fn a_half_that_stays_alone_is_replaced_and_takes_nothing_with_it() {
        for (pieces, text) in [
            (&[r#""\ud83d""#][..], "\u{fffd}"),
            (&[r#""a\ud83d""#, r#""b""#], "a\u{fffd}b"),
            (&[r#""\ude00""#, r#""b""#], "\u{fffd}b"),
            (&[r#""\ude00\ud83d""#], "\u{fffd}\u{fffd}"),
            (&[r#""\ud83d""#, r#""\ud83d\ude00""#], "\u{fffd}😀"),
            (&[r#""\ud83d\n\ude00""#], "\u{fffd}\n\u{fffd}"),
            // No half, but a backslash before letters.
            (&[r#""\\ud83d""#], r"\ud83d"),
        ] {
            assert_eq!(joined(pieces), text, "{pieces:?}");
        }
        assert_eq!(Half::default().join("7"), None);
        assert_eq!(text(r#""a\ud83d""#).as_deref(), Some("a\u{fffd}"));
        assert_eq!(text("7"), None);
    }

    proptest! {
        #[test]
        fn any_json_string_has_text_and_stays_what_it_says(pieces in prop::collection::vec(any_json::string(), 1..4)) {
            let mut half = Half::default();
            for piece in &pieces {
                prop_assert!(half.join(piece).is_some());
                let whole = without_halves(piece);
                prop_assert!(string(&whole).is_some());
                if string(piece).is_some() {
                    prop_assert_eq!(&*whole, piece);
                }
            }
        }
    }
}
