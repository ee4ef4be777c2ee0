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

/// Whether this shows nothing, or a blank, where it stands: control characters, byte order marks, fillers, and what only
/// steers lines and directions. A joiner is none: it changes what is seen.
pub(crate) fn invisible(c: char) -> bool {
    let shows_nothing = c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
                | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}');
    shows_nothing && !joiner(c)
}

/// Whether this shows nothing itself, and changes how letters or emoji beside it are drawn: joiners, variation selectors,
/// and the tags of flags. Among letters that are written alone it is not seen at all.
pub(crate) fn joiner(c: char) -> bool {
    matches!(c,
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0020}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}')
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
            "\0\t\r\u{7f}\u{feff}\u{200b}\u{202e}\u{3164}\u{2800}\u{115f}\u{1160}\u{ffa0}\u{e0001}"
                .chars()
                .all(invisible)
        );
        let joiners = "\u{200c}\u{200d}\u{fe0e}\u{fe0f}\u{e0067}\u{e007f}\u{e0100}";
        assert!(joiners.chars().all(|c| joiner(c) && !invisible(c)));
    }
}
