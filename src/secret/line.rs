//! What a secret may be: one line of printable characters, and a token one word of them (RFC 6750). What else there is in its
//! place was put there by an editor, a shell or a copy, and would be signed with for ever.
//!
//! Invariant: what is wrong is told by its kind and its place, never with a part of the secret.

use secrecy::{ExposeSecret as _, SecretString};

use super::error::{End, Problem};
use crate::invisible::{invisible, joiner, quoted};

/// Makes a secret of text that may have newlines at its end, which editors and `echo` leave there.
///
/// # Errors
/// What keeps it from being one.
pub(crate) fn from_text(text: &str) -> Result<SecretString, Problem> {
    let line = text.trim_end_matches(['\n', '\r']);
    if line.trim().is_empty() {
        return Err(Problem::Empty);
    }
    match problem(line) {
        Some(problem) => Err(problem),
        None => Ok(SecretString::from(line)),
    }
}

/// The same of text that should be a token.
///
/// # Errors
/// What keeps it from being one.
pub(crate) fn token_from_text(text: &str) -> Result<SecretString, Problem> {
    let token = from_text(text)?;
    match problem_of_token(token.expose_secret()) {
        Some(problem) => Err(problem),
        None => Ok(token),
    }
}

fn problem_of_token(line: &str) -> Option<Problem> {
    const SCHEME: &str = "Bearer";
    let place = line.chars().position(char::is_whitespace)? + 1;
    let word = line.split(char::is_whitespace).next()?;
    if word.trim_end_matches(':').eq_ignore_ascii_case(SCHEME) {
        return Some(Problem::Scheme);
    }
    Some(Problem::BlankInside { place })
}

fn problem(line: &str) -> Option<Problem> {
    if line.starts_with('\u{feff}') {
        return Some(Problem::ByteOrderMark);
    }
    if line.contains(['\n', '\r']) {
        return Some(Problem::SecondLine);
    }
    if line.starts_with(char::is_whitespace) {
        return Some(Problem::Blank(End::Beginning));
    }
    if line.ends_with(char::is_whitespace) {
        return Some(Problem::Blank(End::End));
    }
    if let Some((index, c)) = line
        .chars()
        .enumerate()
        .find(|(_, c)| invisible(*c) || joiner(*c))
    {
        return Some(Problem::Invisible {
            place: index + 1,
            code: u32::from(c),
        });
    }
    if quoted(line) {
        return Some(Problem::Quoted);
    }
    is_assignment(line).then_some(Problem::Assignment)
}

/// Whether this is a line of a shell or of a file of variables. A secret may have a `=` itself, as Base64 has at its end: a
/// name is known by its upper case or by its words.
fn is_assignment(line: &str) -> bool {
    let Some((name, value)) = line.split_once('=') else {
        return false;
    };
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let is_shouted = name.contains('_') && !name.contains(|c: char| c.is_ascii_lowercase());
    let lower = name.to_ascii_lowercase();
    let has_word = ["secret", "password", "token", "key"]
        .iter()
        .any(|word| lower.ends_with(word));
    is_name && (is_shouted || has_word) && !value.trim_start_matches('=').is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_nobody_sees_in_a_secret_is_told_by_its_kind_and_place_and_never_with_its_value() {
        for (written, told) in [
            (
                "\u{feff}s3cret",
                "it begins with a byte order mark (U+FEFF)",
            ),
            ("s3cret\nother\n", "it has a second line"),
            ("\ns3cret", "it has a second line"),
            ("s3cret\r\n# mine", "it has a second line"),
            ("s3cret \n", "it has a blank at its end"),
            ("s3cret\t", "it has a blank at its end"),
            ("s3cret\u{a0}", "it has a blank at its end"),
            (" s3cret", "it has a blank at its beginning"),
            ("s3c\0ret", "its character 4 is invisible (U+0000)"),
            ("s3cret\0", "its character 7 is invisible (U+0000)"),
            ("s3c\u{200b}ret", "its character 4 is invisible (U+200B)"),
            ("s3c\tret", "its character 4 is invisible (U+0009)"),
            ("s3c\u{200d}ret", "its character 4 is invisible (U+200D)"),
            ("s3cret\u{fe0f}", "its character 7 is invisible (U+FE0F)"),
            ("s3cret\u{e0041}", "its character 7 is invisible (U+E0041)"),
            ("s3cret\u{3164}", "its character 7 is invisible (U+3164)"),
            ("s3cret\u{2800}\n", "its character 7 is invisible (U+2800)"),
            ("\"s3cret\"", "it has quotes around it"),
            ("'s3cret'\n", "it has quotes around it"),
            ("PIN_API_SECRET=s3cret", "it is written as NAME=value"),
            (
                "export PIN_API_SECRET=s3cret",
                "it is written as NAME=value",
            ),
            ("apiSecret = s3cret", "it is written as NAME=value"),
            ("api-key=s3cret", "it is written as NAME=value"),
        ] {
            let problem = from_text(written).unwrap_err().to_string();
            assert!(problem.starts_with(told), "{written:?}: {problem}");
            assert!(!problem.contains("s3c"), "{problem}");
        }
    }

    #[test]
    fn one_line_of_printable_characters_is_a_secret_as_it_stands() {
        for written in [
            "s3cret",
            "two words",
            "YWJj=",
            "ABC_DEF==",
            "a=b",
            "x\"y\"",
            "s\u{e4}cret",
        ] {
            assert_eq!(from_text(written).unwrap().expose_secret(), written);
        }
    }

    #[test]
    fn a_token_is_one_word_and_what_is_beside_it_is_told_by_its_place_and_never_with_its_value() {
        let blank = |place| {
            format!(
                "its character {place} is a blank, which no token has; delete that and what follows it"
            )
        };
        let scheme = "it begins with the word Bearer; leave that out, and keep the token alone";
        for (written, told) in [
            ("sk-abc # my key", blank(7)),
            ("sk-abc def\n", blank(7)),
            ("sk-äbc\u{a0}def", blank(7)),
            ("Bearer sk-abc", scheme.to_owned()),
            ("bearer  sk-abc\n", scheme.to_owned()),
            (
                "sk-abc ",
                "it has a blank at its end; delete that".to_owned(),
            ),
            (
                "token=sk-abc x",
                "it is written as NAME=value; keep what is behind the = alone".to_owned(),
            ),
        ] {
            let problem = token_from_text(written).unwrap_err().to_string();
            assert_eq!(problem, told, "{written:?}");
        }
        for token in ["sk-abc", "Bearer", "bearer-abc", "a#b", "YWJj="] {
            assert_eq!(token_from_text(token).unwrap().expose_secret(), token);
        }
    }

    proptest! {
        #[test]
        fn no_base64_and_no_hexadecimal_is_taken_for_something_else(secret in "[A-Za-z0-9+/_-]{16,64}={0,2}") {
            prop_assert!(from_text(&secret).is_ok());
        }
    }
}
