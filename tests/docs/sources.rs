//! What the sources of this program say, as far as it stands in them: their string literals, less those of tests.

use std::{fs, ops::Range, path::Path};

use crate::repository::{files, root};

/// A source file, its literals apart from its code.
pub(crate) struct Source {
    /// Its path from the root.
    pub(crate) name: String,
    /// Its text with blanks for what is in comments and literals, byte for byte.
    code: String,
    /// Each literal with where it begins, in their order.
    literals: Vec<(usize, String)>,
}

/// All of `src`, without its tests.
pub(crate) fn sources() -> Vec<Source> {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let files = files(&root().join("src")).into_iter();
    let sources = files.filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    sources
        .filter(|file| !is_test(file) && !file.ends_with("tests.rs"))
        .map(|file| {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            Source::read(name, &fs::read_to_string(&file).unwrap())
        })
        .collect()
}

impl Source {
    pub(crate) fn read(name: String, text: &str) -> Self {
        let mut source = Self {
            name,
            code: String::new(),
            literals: Vec::new(),
        };
        let text = text
            .split_once("\nmod tests {")
            .map_or(text, |(own, _)| own);
        let mut rest = text;
        while !rest.is_empty() {
            let (taken, literal) = next_piece(rest);
            let (piece, after) = rest.split_at(taken);
            match literal {
                Some(_) => source.code.push_str(&" ".repeat(taken)),
                None if piece.starts_with("//") => source.code.push_str(&" ".repeat(taken)),
                None => source.code.push_str(piece),
            }
            let at = text.len() - rest.len();
            source.literals.extend(literal.map(|literal| (at, literal)));
            rest = after;
        }
        source
    }

    /// Its literals.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.literals.iter().map(|(_, text)| text.as_str())
    }

    /// The literals of each thing that begins like this, up to the bracket that closes it.
    pub(crate) fn in_each(&self, beginning: &str) -> Vec<Vec<&str>> {
        let begins = self.code.match_indices(beginning);
        let things = begins.map(|(at, _)| at..at + closed_after(&self.code[at..]));
        let within = |thing: Range<usize>| {
            let literals = self.literals.iter();
            let within = literals.filter(|(at, _)| thing.contains(at));
            within.map(|(_, text)| text.as_str()).collect()
        };
        things.map(within).collect()
    }
}

/// Where the first bracket is closed.
fn closed_after(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// How long the comment, literal or character is that the text begins with, in bytes, and the literal.
fn next_piece(text: &str) -> (usize, Option<String>) {
    let first = text.chars().next().map_or(0, char::len_utf8);
    if text.starts_with("//") {
        (text.find('\n').unwrap_or(text.len()), None)
    } else if text.starts_with("'\"'") {
        (3, None)
    } else if let Some(raw) = raw_string(text) {
        raw
    } else if text.starts_with('"') {
        string(text)
    } else {
        (first, None)
    }
}

fn raw_string(text: &str) -> Option<(usize, Option<String>)> {
    let hashes = text.strip_prefix('r')?;
    let content = hashes.trim_start_matches('#');
    let marks = "#".repeat(hashes.len() - content.len());
    let content = content.strip_prefix('"')?;
    let len = content.find(&format!("\"{marks}"))?;
    let whole = 1 + marks.len() + 1 + len + 1 + marks.len();
    Some((whole, Some(content[..len].to_owned())))
}

fn string(text: &str) -> (usize, Option<String>) {
    let mut said = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (at + 1, Some(said)),
            '\\' => match chars.next() {
                // The rest of the text is in the next line.
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, escaped)) => said.push(escaped),
                None => {}
            },
            c => said.push(c),
        }
    }
    (text.len(), Some(said))
}

#[test]
fn literals_are_told_from_code_comments_and_tests() {
    let text = r##"
        // warn!("no");
        warn!(a = f('"'), "it {b} \
            \"is\"");
        warn!(c);
        let raw = (r#"a "raw" one"#, "x");
mod tests { "never" }
"##;
    let source = Source::read("x".to_owned(), text);
    let texts: Vec<_> = source.texts().collect();
    assert_eq!(texts, ["it {b} \"is\"", "a \"raw\" one", "x"]);
    let logged = source.in_each("warn!(");
    assert_eq!(logged, [&["it {b} \"is\""][..], &[]]);
}
