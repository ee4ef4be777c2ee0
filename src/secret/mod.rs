//! Where the client's secret comes from.
//!
//! Invariant: the secret is in no `Debug`, no `Display` and no error, and buffers that held it are overwritten.

mod error;
mod file;
mod keeper;
#[cfg(feature = "keyring")]
pub mod keyring;
mod line;

use std::{fmt, path::PathBuf};

use secrecy::SecretString;

use self::error::Problem;

pub use self::{error::SecretError, file::read_from, keeper::SecretKeeper};

/// What a secret may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any line of printable characters.
    Secret,
    /// One word, which goes behind `Bearer` in a header.
    Token,
}

impl Kind {
    /// Reads one from text that may have newlines at its end.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub(crate) fn read(self, text: &str) -> Result<SecretString, Problem> {
        match self {
            Self::Secret => line::from_text(text),
            Self::Token => line::token_from_text(text),
        }
    }
}

/// A place that the secret can be read from, again and again.
#[derive(Clone)]
pub enum SecretSource {
    /// It was given as a value and cannot change.
    Value(SecretString),
    /// It is what the file has in it.
    File {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// What may be in it.
        kind: Kind,
    },
    /// The system's keyring has it, under this client id.
    #[cfg(feature = "keyring")]
    Keyring {
        /// The id that the secret belongs to.
        client_id: String,
    },
}

impl SecretSource {
    /// Decides where the secret is: the value, the file, the first default file that exists, the keyring; in this order.
    /// Nothing is read yet.
    ///
    /// # Errors
    /// [`SecretError::NotConfigured`] if none of these is there.
    pub fn find(
        value: Option<SecretString>,
        file: Option<PathBuf>,
        default_files: &[PathBuf],
        client_id: Option<&str>,
    ) -> Result<Self, SecretError> {
        if let Some(value) = value {
            return Ok(Self::Value(value));
        }
        if let Some(file) = file {
            return Ok(Self::file(file));
        }
        // A file of which not even that can be told is tried, so that the error says why it cannot be read.
        let mut files = default_files.iter();
        if let Some(file) = files.find(|file| file.try_exists().unwrap_or(true)) {
            return Ok(Self::file(file.clone()));
        }
        Self::in_keyring(client_id).ok_or_else(|| SecretError::NotConfigured {
            default_files: default_files.to_owned(),
        })
    }

    fn file(path: PathBuf) -> Self {
        Self::File {
            path,
            setting: "PIN_API_SECRET_FILE",
            kind: Kind::Secret,
        }
    }

    #[cfg(feature = "keyring")]
    fn in_keyring(client_id: Option<&str>) -> Option<Self> {
        client_id.map(|client_id| Self::Keyring {
            client_id: client_id.to_owned(),
        })
    }

    #[cfg(not(feature = "keyring"))]
    fn in_keyring(_: Option<&str>) -> Option<Self> {
        None
    }

    /// Reads the secret. Blocks: shortly for a file, for the keyring until it is unlocked.
    ///
    /// # Errors
    /// It cannot be read, is empty, or is not text.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File {
                path,
                setting,
                kind,
            } => file::read(path, setting, *kind),
            #[cfg(feature = "keyring")]
            Self::Keyring { client_id } => keyring::get(client_id),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("PIN_API_SECRET"),
            Self::File { path, .. } => write!(f, "file {}", path.display()),
            #[cfg(feature = "keyring")]
            Self::Keyring { .. } => f.write_str("keyring"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use secrecy::ExposeSecret as _;
    use tempfile::TempDir;

    use super::*;
    use crate::file_access::{FileFacts, Obstacle};

    fn file_with(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn refused(source: &SecretSource) -> String {
        source.read().unwrap_err().to_string()
    }

    #[test]
    fn a_secret_loses_the_newlines_at_its_end_and_nothing_else() {
        for written in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\n\n"] {
            let (_dir, path) = file_with(written);
            assert_eq!(
                SecretSource::file(path).read().unwrap().expose_secret(),
                "s3cret",
                "{written:?}"
            );
        }
        let (_dir, path) = file_with("two words\n");
        assert_eq!(
            SecretSource::file(path).read().unwrap().expose_secret(),
            "two words"
        );
    }

    #[test]
    fn a_secret_file_that_cannot_be_used_is_named_with_its_owner_its_mode_and_our_uid() {
        let uid = rustix::process::geteuid().as_raw();
        for (content, problem) in [
            (b"".to_vec(), "it is empty"),
            (b" \r\n".to_vec(), "it is empty"),
            (b"\xff\xfe".to_vec(), "it is not UTF-8 text"),
            (
                b"\xef\xbb\xbfs3cret".to_vec(),
                "it begins with a byte order mark (U+FEFF); save it as UTF-8 without one",
            ),
            (vec![b'x'; 64 * 1024 + 1], "it is larger than 64 KiB"),
        ] {
            let (_dir, path) = file_with(content);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let expected = format!(
                "secret file {}: {problem} (owner uid {uid}, mode 0640; this process: uid {uid}); put the secret into it, \
                 as one line of text",
                path.display()
            );
            assert_eq!(refused(&SecretSource::file(path)), expected);
        }
    }

    #[test]
    fn a_secret_of_the_largest_size_is_read() {
        let (_dir, path) = file_with(vec![b'x'; 64 * 1024]);
        assert_eq!(
            SecretSource::file(path)
                .read()
                .unwrap()
                .expose_secret()
                .len(),
            64 * 1024
        );
    }

    #[test]
    fn a_secret_file_that_is_no_file_is_told_and_never_waited_for() {
        let (dir, path) = file_with("");
        assert!(refused(&SecretSource::file(dir.path().to_owned())).contains("not a regular file"));
        fs::remove_file(&path).unwrap();
        let missing = refused(&SecretSource::file(path));
        let helps = "the file is missing: create it, see that it is mounted, or correct PIN_API_SECRET_FILE";
        assert!(missing.contains("No such file"), "{missing}");
        assert!(missing.ends_with(helps), "{missing}");
    }

    #[test]
    fn what_may_not_be_read_is_told_with_what_to_do() {
        let error = SecretError::Unreadable {
            setting: "PIN_API_SECRET_FILE",
            path: PathBuf::from("/run/secrets/pin_api_secret"),
            facts: FileFacts {
                owner_and_mode: Some((0, 0o400)),
                process_uid: 65532,
                obstacle: Obstacle::Mode,
            },
            error: std::io::Error::from(std::io::ErrorKind::PermissionDenied),
        };
        assert_eq!(
            error.to_string(),
            "secret file /run/secrets/pin_api_secret: permission denied (owner uid 0, mode 0400; this process: uid \
             65532); let uid 65532 read it: chown it to that user or chmod it to 0444; on Kubernetes set the volume's \
             defaultMode to 0444"
        );
    }

    #[test]
    fn the_secret_is_looked_for_in_order() {
        let (dir, default) = file_with("default");
        let value = || Some(SecretString::from("value"));
        let find = |value, file, default: &Path| {
            SecretSource::find(value, file, &[default.to_owned()], None)
        };
        assert!(matches!(
            find(value(), Some("f".into()), &default),
            Ok(SecretSource::Value(_))
        ));
        assert!(
            matches!(find(None, Some("f".into()), &default), Ok(SecretSource::File { path, .. }) if path == Path::new("f"))
        );
        assert!(
            matches!(find(None, None, &default), Ok(SecretSource::File { path, .. }) if path == default)
        );
        let none = find(None, None, &dir.path().join("none"))
            .unwrap_err()
            .to_string();
        for way in ["PIN_API_SECRET_FILE", "none", "PIN_API_SECRET"] {
            assert!(none.contains(way), "{none}");
        }
    }

    #[tokio::test]
    async fn a_rotated_secret_is_used_at_the_next_login_and_the_last_good_one_is_kept() {
        let (_dir, path) = file_with("old\n");
        let keeper = SecretKeeper::new(SecretSource::file(path.clone())).unwrap();
        assert!(!keeper.changed().await);

        fs::write(&path, "newer\n").unwrap();
        assert!(keeper.changed().await);
        let (secret, problem) = keeper.current().await;
        assert_eq!((secret.expose_secret(), problem.is_none()), ("newer", true));
        assert!(!keeper.changed().await);

        fs::remove_file(&path).unwrap();
        assert!(keeper.changed().await);
        let (secret, problem) = keeper.current().await;
        assert_eq!(secret.expose_secret(), "newer");
        assert!(
            problem
                .unwrap()
                .to_string()
                .contains(&path.display().to_string())
        );
        assert!(!keeper.changed().await);
    }

    #[tokio::test]
    async fn a_secret_that_was_read_between_two_logins_is_the_last_good_one_and_worth_another_login()
     {
        let (_dir, path) = file_with("old\n");
        let keeper = SecretKeeper::new(SecretSource::file(path.clone())).unwrap();
        fs::write(&path, "newer\n").unwrap();
        assert!(keeper.read_again().await.is_ok());
        assert!(keeper.changed().await, "no login has used it");
        fs::write(&path, "").unwrap();
        assert!(keeper.read_again().await.is_err());
        let (secret, problem) = keeper.current().await;
        assert_eq!(secret.expose_secret(), "newer");
        assert!(problem.is_some());
    }

    #[tokio::test]
    async fn a_secret_that_is_replaced_as_kubernetes_does_is_seen_to_change() {
        let (dir, first) = file_with("first");
        let second = dir.path().join("other");
        fs::write(&second, "other").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let keeper = SecretKeeper::new(SecretSource::file(link.clone())).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert!(keeper.changed().await);
    }

    #[test]
    fn there_is_no_keeper_without_a_first_secret() {
        let (_dir, path) = file_with("");
        assert!(SecretKeeper::new(SecretSource::file(path)).is_err());
    }

    #[test]
    fn a_secret_is_in_no_debug_output() {
        let source = SecretSource::Value(SecretString::from("s3cret"));
        assert!(!format!("{source:?}").contains("s3cret"));
    }

    #[test]
    fn a_secret_from_standard_input_is_checked_likewise() {
        assert_eq!(
            read_from("standard input", &b"s3cret\r\n"[..])
                .unwrap()
                .expose_secret(),
            "s3cret"
        );
        let empty = read_from("standard input", &b"\n"[..]).unwrap_err();
        assert_eq!(
            empty.to_string(),
            "the secret from standard input: it is empty"
        );
    }
}
