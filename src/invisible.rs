//! What a person who looks at a text does not see in it, or does not take for a part of it.

/// Quotes that come in pairs, as shells, editors and chat programs write them.
const PAIRS: [(char, char); 5] = [
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('\u{201c}', '\u{201d}'),
    ('\u{2018}', '\u{2019}'),
];

/// Whether a pair of quotes stands around the whole text: one of the same inside, unless a backslash is before it, means
/// that the first ends there.
pub(crate) fn quoted(text: &str) -> bool {
    let mut chars = text.chars();
    let Some(ends) = chars.next().zip(chars.next_back()) else {
        return false;
    };
    let mut before = ends.0;
    PAIRS.contains(&ends)
        && chars.all(|c| {
            let is_escaped = std::mem::replace(&mut before, c) == '\\';
            is_escaped || (c != ends.0 && c != ends.1)
        })
}

/// Whether this shows nothing where it stands: control characters, byte order marks, and what only steers lines and
/// directions. The joiners of emoji are none: they change what is seen.
pub(crate) fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pair_around_the_whole_counts_as_quotes() {
        for text in [
            "\"a\"",
            "''",
            "`a b`",
            "\u{201c}a\u{201d}",
            "\"it's\"",
            "'\"a\"'",
            r#""a \"b\" c""#,
        ] {
            assert!(quoted(text), "{text}");
        }
        for text in [
            "",
            "\"",
            "\"a",
            "a\"b\"",
            "'a\"",
            "\"a\" b",
            "\"a\" and \"b\"",
            "'n' Haus'",
            "\u{201c}a\u{201d} and \u{201c}b\u{201d}",
        ] {
            assert!(!quoted(text), "{text}");
        }
    }

    #[test]
    fn what_is_seen_is_not_invisible() {
        assert!(
            "a #\u{1f468}\u{200d}\u{1f680}\u{fe0f} \u{e4}"
                .chars()
                .all(|c| !invisible(c))
        );
        assert!(
            "\0\t\r\u{7f}\u{feff}\u{200b}\u{202e}"
                .chars()
                .all(invisible)
        );
    }
}
