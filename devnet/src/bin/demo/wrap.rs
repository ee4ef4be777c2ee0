//! Text in lines of a given width.

/// Words in lines of at most that many columns. Blanks and line feeds are all the same. With more text behind it every line
/// but the last stays as it is, so what is spoken bit by bit can be shown line by line.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    let (mut line, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let word_width: usize = word.chars().map(width).sum();
        if used > 0 && used + 1 + word_width <= columns {
            line.push(' ');
            used += 1;
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        for character in word.chars() {
            if used + width(character) > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(character);
            used += width(character);
        }
    }
    if used > 0 {
        lines.push(line);
    }
    lines
}

/// As if every character were one column wide, two beyond the first blocks.
fn width(character: char) -> usize {
    if u32::from(character) < 0x1100 { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_between_words_and_never_is_too_long() {
        assert_eq!(wrap("why is it\n so", 6), ["why is", "it so"]);
        assert_eq!(wrap("unbelievable", 5), ["unbel", "ievab", "le"]);
        assert_eq!(wrap("a unbelievable", 5), ["a", "unbel", "ievab", "le"]);
        assert_eq!(wrap("a🦀🦀", 3), ["a🦀", "🦀"]);
        assert_eq!(wrap("  ", 3), Vec::<String>::new());
    }

    #[test]
    fn a_line_that_has_one_below_it_never_changes() {
        let text = "Why is the sky blue, unbelievably blue, 空は青い, at noon?";
        let mut before: Vec<String> = Vec::new();
        for (end, _) in text.char_indices() {
            let lines = wrap(&text[..end], 9);
            let settled = before.len().saturating_sub(1);
            assert_eq!(lines[..settled], before[..settled], "{end}");
            before = lines;
        }
    }
}
