//! The secret as it is now, for a process that runs for months while files are rotated.
//!
//! Invariant: there is always a secret to log in with. A read that fails does not take away the last good one.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use secrecy::SecretString;

use super::{SecretError, SecretSource};

/// Reads the secret anew for each login and keeps the last good one.
#[derive(Debug)]
pub struct SecretKeeper {
    source: SecretSource,
    last_good: SecretString,
    seen: Option<Fingerprint>,
}

impl SecretKeeper {
    /// Reads the secret for the first time.
    ///
    /// # Errors
    /// It cannot be had: there is none to keep yet.
    pub fn new(source: SecretSource) -> Result<Self, SecretError> {
        let seen = Fingerprint::of(&source);
        let last_good = source.read()?;
        Ok(Self {
            source,
            last_good,
            seen,
        })
    }

    /// The secret to log in with. If it could not be read just now this is the last good one, and the error says why.
    /// Blocks as [`SecretSource::read`] does.
    pub fn current(&mut self) -> (SecretString, Option<SecretError>) {
        // Taken before the read: a change in between is then seen as one.
        self.seen = Fingerprint::of(&self.source);
        let problem = match self.source.read() {
            Ok(secret) => {
                self.last_good = secret;
                None
            }
            Err(error) => Some(error),
        };
        (self.last_good.clone(), problem)
    }

    /// Whether the secret's file has changed since it was last read, so that a refused login is worth another try.
    /// One look at the file's metadata; a value or a keyring never tells.
    pub fn changed(&self) -> bool {
        Fingerprint::of(&self.source) != self.seen
    }
}

/// What changes when a file is written or, as Kubernetes does, replaced.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(source: &SecretSource) -> Option<Self> {
        match source {
            SecretSource::File(path) => Self::of_file(path),
            SecretSource::Value(_) => None,
            #[cfg(feature = "keyring")]
            SecretSource::Keyring { .. } => None,
        }
    }

    fn of_file(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            // Also a file that is only made readable has changed.
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}
