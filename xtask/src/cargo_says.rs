//! What cargo says while it builds, as text for people on its stderr and as JSON on its stdout. A piece that is not
//! understood is kept for the user, never an error: the form is cargo's own and may change.

use std::path::PathBuf;

/// A piece of cargo's stderr, which ends at a line feed or, where cargo draws, at a carriage return.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    /// The bar: steps that are done, all steps, the crates in work.
    Progress(usize, usize, String),
    /// Work has begun on a crate.
    Compiling(String),
    /// Crates are fetched.
    Fetching,
    /// Another cargo has the directory or the cache.
    Waiting,
    /// Nothing that a person who waits has to know.
    Idle,
    /// An empty line.
    Blank,
    /// Anything else: a diagnostic, or a line of one.
    Other,
}

impl Said {
    pub(crate) fn read(piece: &str) -> Self {
        let piece = without_escapes(piece);
        let piece = piece.trim();
        let (verb, rest) = piece.split_once(' ').unwrap_or((piece, ""));
        match verb {
            "" => Self::Blank,
            "Finished" | "Fresh" | "Locking" | "Adding" => Self::Idle,
            "Building" => progress(rest).unwrap_or(Self::Idle),
            "Compiling" | "Checking" => {
                Self::Compiling(rest.split(' ').next().unwrap_or_default().to_owned())
            }
            "Updating" | "Downloading" | "Downloaded" => Self::Fetching,
            "Blocking" => Self::Waiting,
            _ => Self::Other,
        }
    }

    /// Whether it belongs to what the user reads if the build fails, behind what is kept already: the diagnostics, with
    /// the empty lines between them but not those that a bar leaves.
    pub(crate) fn is_for_the_user(&self, kept: &[String]) -> bool {
        match self {
            Self::Other => true,
            Self::Blank => kept.last().is_some_and(|last| !last.trim().is_empty()),
            _ => false,
        }
    }
}

/// Reads `[=====>     ] 12/127: syn, libc(build)`.
fn progress(bar: &str) -> Option<Said> {
    let (_, rest) = bar.split_once("] ")?;
    let (numbers, crates) = rest.split_once(':').unwrap_or((rest, ""));
    let (done, all) = numbers.split_once('/')?;
    Some(Said::Progress(
        done.trim().parse().ok()?,
        all.trim().parse().ok()?,
        crates.trim().to_owned(),
    ))
}

/// Text without colours and links.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\x1b' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            // To its last byte, which is the first of these.
            Some('[') => while characters.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
            // To a bell or to ESC \.
            Some(']') => {
                let end = characters.find(|c| matches!(c, '\x07' | '\x1b'));
                if end == Some('\x1b') {
                    characters.next();
                }
            }
            _ => {}
        }
    }
    plain
}

/// The binary that one of cargo's JSON messages, which have a line each, tells of.
pub(crate) fn executable(message: &str) -> Option<PathBuf> {
    let (_, rest) = message.split_once(r#""executable":""#)?;
    unquoted(rest).map(PathBuf::from)
}

/// The rest of a JSON string whose opening quote has been read.
fn unquoted(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => match characters.next()? {
                'u' => {
                    let digits: String = characters.by_ref().take(4).collect();
                    value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '/') => value.push(escaped),
                _ => return None,
            },
            character => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_has_its_numbers_and_the_crates_in_work() {
        let crates = "syn, libc(build)".to_owned();
        let bar = "    Building [=>       ] 10/127: syn, libc(build)          ";
        assert_eq!(Said::read(bar), Said::Progress(10, 127, crates));
        let bar = "\x1b[1m\x1b[96m    Building\x1b[0m [========>] 127/127: devnet(bin)";
        assert_eq!(
            Said::read(bar),
            Said::Progress(127, 127, "devnet(bin)".to_owned())
        );
        assert_eq!(
            Said::read("    Building [>  ] 1/9"),
            Said::Progress(1, 9, String::new())
        );
        assert_eq!(Said::read("    Building a bridge"), Said::Idle);
    }

    #[test]
    fn what_cargo_does_is_told_from_what_the_user_has_to_read() {
        for (piece, said) in [
            (
                "   Compiling ring v0.17.14",
                Said::Compiling("ring".to_owned()),
            ),
            (
                "\x1b[1m\x1b[92m   Compiling\x1b[0m syn v3.0.10",
                Said::Compiling("syn".to_owned()),
            ),
            (" Downloading 12 crates", Said::Fetching),
            ("    Updating crates.io index", Said::Fetching),
            (
                "    Blocking waiting for file lock on build directory",
                Said::Waiting,
            ),
            (
                "\x1b[1m\x1b[92m    Finished\x1b[0m \x1b]8;;https://x\x1b\\`release`\x1b]8;;\x1b\\ in 0.1s",
                Said::Idle,
            ),
            ("   ", Said::Blank),
            ("error[E0425]: cannot find value `x`", Said::Other),
            ("warning: unused variable", Said::Other),
            ("  --> src/lib.rs:3:5", Said::Other),
        ] {
            assert_eq!(Said::read(piece), said, "{piece}");
        }
    }

    #[test]
    fn an_empty_line_stands_only_between_others() {
        let mut kept: Vec<String> = Vec::new();
        for piece in ["", "error: x", "", "  ", " --> y", "   Compiling z v1"] {
            if Said::read(piece).is_for_the_user(&kept) {
                kept.push(piece.to_owned());
            }
        }
        assert_eq!(kept, ["error: x", "", " --> y"]);
    }

    #[test]
    fn escapes_go_wherever_they_stand() {
        assert_eq!(without_escapes("a\x1b[1;31mb\x1b[0m"), "ab");
        assert_eq!(without_escapes("\x1b]8;;u\x07t\x1b]8;;\x07."), "t.");
        assert_eq!(without_escapes("cut\x1b["), "cut");
    }

    #[test]
    fn the_binary_is_where_cargo_says_it_is() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"demo"},"executable":"/a \"b\"\\\u00fc/demo","fresh":true}"#;
        assert_eq!(executable(message), Some(PathBuf::from("/a \"b\"\\ü/demo")));
        assert_eq!(executable(r#"{"executable":null}"#), None);
        assert_eq!(executable(r#"{"executable":"/cut"#), None);
        assert_eq!(
            executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}
