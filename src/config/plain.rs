//! What no setting's value can mean, whatever its type: quotes that a shell would have taken away, characters that nobody
//! sees, and blanks where its grammar has none.
//!
//! Invariant: such a value is refused in words, never trimmed into another one, and a private one is not shown.

use super::{error::Invalid, field::Value};
use crate::invisible::{invisible, joiner, quoted};

/// Where a value of a type may have blanks in it; those around it never count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blanks {
    /// In no place.
    Nowhere,
    /// Beside the commas of a list.
    BesideCommas,
    /// Between one amount with its unit and the next, as in `1h 30m`.
    BesideUnits,
    /// Wherever one likes, as in a name for people or a path.
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
    let misplaced = match V::BLANKS {
        Blanks::Nowhere => text.contains(char::is_whitespace),
        Blanks::BesideCommas => text
            .split(',')
            .any(|entry| entry.trim().contains(char::is_whitespace)),
        Blanks::BesideUnits => {
            let is_amount = |word: &str| {
                word.starts_with(|c: char| c.is_ascii_digit())
                    && word.ends_with(|c: char| c.is_ascii_alphabetic())
            };
            text.contains(char::is_whitespace) && !text.split_whitespace().all(is_amount)
        }
        Blanks::Anywhere => false,
    };
    if misplaced {
        return Err(told::<V>(
            text,
            "has a blank in it; write the value alone, with no blank and no comment behind it",
        ));
    }
    Ok(())
}

/// Refuses characters that nobody sees.
pub(super) fn refuse_invisible<V: Value>(text: &str) -> Result<(), Invalid> {
    let is_hidden = |c: &char| invisible(*c) || !V::FOR_PEOPLE && joiner(*c);
    match text.chars().find(is_hidden) {
        Some(c) => Err(told::<V>(
            text,
            &format!(
                "has an invisible character in it (U+{:04X}); type the value anew, as one line of plain text",
                u32::from(c)
            ),
        )),
        None => Ok(()),
    }
}

fn told<V: Value>(text: &str, reason: &str) -> Invalid {
    if V::PRIVATE {
        Invalid::new(reason)
    } else {
        Invalid::value(text, reason)
    }
}
