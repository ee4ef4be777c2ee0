//! Why the secret cannot be had, with what an operator needs in order to mend it.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::file_access::FileFacts;

/// Why the secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It is nowhere that one looks for it.
    #[error(
        "no secret: set PIN_API_SECRET_FILE to the file that has it, or mount that file at {}, or set \
         PIN_API_SECRET{}",
        listed(default_files),
        if cfg!(feature = "keyring") { ", or store it in the keyring with `pin-sidecar secret set`" } else { "" }
    )]
    NotConfigured {
        /// The files that are looked for by default.
        default_files: Vec<PathBuf>,
    },
    /// The file cannot be opened or read.
    #[error("secret file {}: {error} ({facts}); {}", path.display(), facts.advice(error, Some(*setting)))]
    Unreadable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Who may read it.
        facts: FileFacts,
        /// What the system said.
        error: io::Error,
    },
    /// What is in the file cannot be the secret.
    #[error("secret file {}: {problem} ({facts}); put the secret into it, as one line of text", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Who may read it.
        facts: FileFacts,
        /// What is wrong.
        problem: Problem,
    },
    /// What came from elsewhere cannot be the secret.
    #[error("the secret from {place}: {problem}")]
    Unfit {
        /// Where it came from.
        place: &'static str,
        /// What is wrong.
        problem: Problem,
    },
    /// Whoever has it has not answered yet: a person who is to unlock the keyring, or a file server.
    #[error(
        "it could not be read within {}; unlock the keyring, or see that the file's server answers",
        humantime::format_duration(*.0)
    )]
    Slow(Duration),
    /// The keyring failed or has no such secret; the sentence has no part of a secret.
    #[error("keyring: {0}")]
    Keyring(String),
}

fn listed(files: &[PathBuf]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    files.join(" or ")
}

/// What is wrong with something that should be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// More than any secret has.
    #[error("it is larger than 64 KiB")]
    TooLarge,
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotUtf8,
    /// Something that nobody sees, and that no secret begins with.
    #[error("it begins with a byte order mark (U+FEFF); save it as UTF-8 without one")]
    ByteOrderMark,
    /// More than one line: nobody can tell which is meant.
    #[error("it has a second line; keep the secret's line alone")]
    SecondLine,
    /// White space where it is not seen.
    #[error("it has a blank at its {0}; delete that")]
    Blank(End),
    /// A control character, or another that is not seen.
    #[error(
        "its character {place} is invisible (U+{code:04X}); delete that, or write the file anew as plain text"
    )]
    Invisible {
        /// Its place, counted from 1.
        place: usize,
        /// Which one.
        code: u32,
    },
    /// White space within a token, as before a comment.
    #[error(
        "its character {place} is a blank, which no token has; delete that and what follows it"
    )]
    BlankInside {
        /// Its place, counted from 1.
        place: usize,
    },
    /// A header was copied, or a part of one.
    #[error("it begins with the word Bearer; leave that out, and keep the token alone")]
    Scheme,
    /// It was copied from a shell or a configuration file.
    #[error("it has quotes around it; keep what is between them alone")]
    Quoted,
    /// The same.
    #[error("it is written as NAME=value; keep what is behind the = alone")]
    Assignment,
    /// A directory, a pipe, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// It stopped in the middle.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// An end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where it begins.
    Beginning,
    /// Where it ends.
    End,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beginning => "beginning",
            Self::End => "end",
        })
    }
}
