//! A secret from a file or from standard input. No buffer that held it is left behind as it was.

use std::{io::Read, path::Path};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{
    Kind,
    error::{Problem, SecretError},
};
use crate::file_access::{FileFacts, open_regular, read_at_most};

/// Far more than any secret has: whoever points at a larger file has the wrong one.
const LARGEST: usize = 64 * 1024;

/// Reads the secret from a file, which this setting names.
pub(super) fn read(
    path: &Path,
    setting: &'static str,
    kind: Kind,
) -> Result<SecretString, SecretError> {
    let unreadable = |error| SecretError::Unreadable {
        setting,
        path: path.to_owned(),
        facts: FileFacts::of(path),
        error,
    };
    let unusable = |problem| match problem {
        Problem::Io(error) => unreadable(error),
        problem => SecretError::Unusable {
            path: path.to_owned(),
            facts: FileFacts::of(path),
            problem,
        },
    };
    let file = open_regular(path).map_err(unreadable)?;
    let file = file.ok_or_else(|| unusable(Problem::NotAFile))?;
    secret(file, kind).map_err(unusable)
}

/// Reads a secret from `reader` up to its end, such as from standard input. `place` names it in errors.
///
/// # Errors
/// It cannot be read, is empty, too large, or not text.
pub fn read_from(place: &'static str, reader: impl Read) -> Result<SecretString, SecretError> {
    secret(reader, Kind::Secret).map_err(|problem| SecretError::Unfit { place, problem })
}

fn secret(reader: impl Read, kind: Kind) -> Result<SecretString, Problem> {
    // Large enough from the start: a buffer that grows leaves its old self behind. The two more than the limit are one
    // to see that there is too much, and one that keeps `read_to_end` from growing it to see the end.
    let mut buffer = Zeroizing::new(Vec::with_capacity(LARGEST + 2));
    if !read_at_most(LARGEST, reader, &mut buffer)? {
        return Err(Problem::TooLarge);
    }
    from_bytes(&buffer, kind)
}

/// Makes a secret of bytes that may have newlines at their end.
pub(super) fn from_bytes(bytes: &[u8], kind: Kind) -> Result<SecretString, Problem> {
    kind.read(str::from_utf8(bytes).map_err(|_| Problem::NotUtf8)?)
}
