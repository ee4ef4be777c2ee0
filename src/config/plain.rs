//! What no setting's value can mean, whatever its type: quotes that a shell would have taken away, characters that nobody
//! sees, and blanks where its grammar has none.
//!
//! Invariant: such a value is refused in words, never trimmed into another one, and a private one is not shown.

use super::{error::Invalid, field::Value};
use crate::invisible::{invisible, joiner, quoted};

/// Where a value of a type may have blanks in it; at its ends none has one, and only [`Blanks::Anywhere`] others than plain
/// spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blanks {
    /// In no place.
    Nowhere,
    /// Beside the commas of a list.
    BesideCommas,
    /// Between one amount with its unit and the next, as in `1h 30m`.
    BesideUnits,
    /// Wherever one likes between its ends, as in a name for people or a path.
    Anywhere,
}

/// Refuses quotes around the whole value, and blanks that may not be there. It is asked before the value is read, since a
/// type can only say that it does not understand them.
pub(super) fn refuse_wrapping<V: Value>(text: &str) -> Result<(), Invalid> {
    if quoted(text) {
        return Err(told::<V>(
            text,
            "has quotes around it; write it without them, since what hands settings on (docker --env-file, kubectl, \
             kustomize) leaves them in the value",
        ));
    }
    let is_blank = |c: &char| c.is_whitespace();
    let ends = [
        (text.chars().next(), "beginning"),
        (text.chars().next_back(), "end"),
    ];
    for (c, end) in ends {
        if let Some(c) = c.filter(is_blank) {
            return Err(told::<V>(
                text,
                &format!(
                    "has a blank at its {end} (U+{:04X}); write the value alone",
                    u32::from(c)
                ),
            ));
        }
    }
    if has_misplaced_blank(V::BLANKS, text) {
        return Err(told::<V>(
            text,
            "has a blank in it; write the value alone, with no blank and no comment behind it",
        ));
    }
    Ok(())
}

fn has_misplaced_blank(allowed: Blanks, text: &str) -> bool {
    let is_blank = |c: char| c.is_whitespace();
    let is_amount = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.ends_with(|c: char| c.is_ascii_alphabetic())
    };
    match allowed {
        Blanks::Nowhere => text.contains(is_blank),
        Blanks::BesideCommas => text
            .split(',')
            .any(|entry| entry.trim_matches(' ').contains(is_blank)),
        Blanks::BesideUnits => {
            let mut words = text.split(' ').filter(|word| !word.is_empty());
            text.contains(is_blank)
                && !words.all(|word| is_amount(word) && !word.contains(is_blank))
        }
        Blanks::Anywhere => false,
    }
}

/// Refuses characters that nobody sees.
pub(super) fn refuse_invisible<V: Value>(text: &str) -> Result<(), Invalid> {
    let is_hidden = |c: &char| invisible(*c) || !V::FOR_PEOPLE && joiner(*c);
    let Some(c) = text.chars().find(is_hidden) else {
        return Ok(());
    };
    let cause = if c == '\r' {
        "; a file with Windows line ends (CRLF) leaves this one at the end of each line: save it with LF alone"
    } else {
        ""
    };
    Err(told::<V>(
        text,
        &format!(
            "has an invisible character in it (U+{:04X}); type the value anew, as one line of plain text{cause}",
            u32::from(c)
        ),
    ))
}

fn told<V: Value>(text: &str, reason: &str) -> Invalid {
    if V::PRIVATE {
        Invalid::new(reason)
    } else {
        Invalid::value(text, reason)
    }
}
