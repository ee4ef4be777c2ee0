//! The demo's arguments, as far as it follows from them what has to be built. The demo itself reads them all.

use std::ffi::OsString;

/// The options that the demo has, and whether a value follows. A test of the demo compares.
const OPTIONS: [(&str, bool); 5] = [
    ("--ollama", true),
    ("--model", true),
    ("--sidecar", true),
    ("--serve", false),
    ("--port", true),
];

/// What the user wrote behind `cargo demo`.
#[derive(Debug, PartialEq)]
pub(crate) struct Arguments {
    /// For the demo, as they are.
    pub(crate) passed: Vec<OsString>,
    /// The demo will start the sidecar that is built here.
    pub(crate) wants_sidecar: bool,
}

impl Arguments {
    /// Reads them. The `--` of `cargo demo -- --serve` may be left out.
    pub(crate) fn new(mut passed: Vec<OsString>) -> Self {
        if passed.first().is_some_and(|first| first == "--") {
            passed.remove(0);
        }
        let wants_sidecar = wants_sidecar(&passed);
        Self {
            passed,
            wants_sidecar,
        }
    }
}

/// Neither with a sidecar of the user's, nor where the demo will only print its help or refuse an argument.
fn wants_sidecar(arguments: &[OsString]) -> bool {
    let mut arguments = arguments.iter().map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        let argument = argument.unwrap_or_default();
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let takes_value = OPTIONS.iter().find(|(known, _)| *known == name);
        match (takes_value, value) {
            (None, _) | (Some((_, false)), Some(_)) => return false,
            (Some((_, true)), None) if arguments.next().is_none() => return false,
            _ if name == "--sidecar" => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Arguments {
        Arguments::new(words.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn a_sidecar_is_built_only_where_the_demo_starts_it() {
        for words in ["", "--", "--serve", "-- --serve --port 1", "--model=a"] {
            assert!(read(words).wants_sidecar, "{words}");
        }
        for words in [
            "--sidecar /x",
            "--sidecar=/x",
            "-- --serve --sidecar /x",
            "--help",
            "-h",
            "--serv",
            "serve",
            "--serve=1",
            "--port",
        ] {
            assert!(!read(words).wants_sidecar, "{words}");
        }
        assert!(
            read("--model --sidecar").wants_sidecar,
            "a value is no option"
        );
    }

    #[test]
    fn the_demo_gets_what_the_user_wrote() {
        assert_eq!(
            read("-- --serve --port 1").passed,
            ["--serve", "--port", "1"]
        );
        assert_eq!(read("--serve -- x").passed, ["--serve", "--", "x"]);
    }
}
