//! What is wrong with the settings. Every mistake is found in one go, and each is told with the variable's name, its
//! value unless it may be a secret, and what is allowed instead.

use std::fmt;

use crate::secret::SecretError;

/// A value that was refused: the sentence that follows the variable's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl Invalid {
    /// A refusal that does not show the value.
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// A refusal that shows the value, quoted, in front of `reason`.
    pub(super) fn value(text: &str, reason: impl fmt::Display) -> Self {
        Self(format!("{:?} {reason}", without_credentials(text)))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hides what may be `user:password@`, in well-formed URLs and in broken ones: everything up to the last `@`, save
/// a scheme. It rather hides too much than a part of a password that was not percent-encoded, and one may have a
/// `://` in it.
pub(super) fn without_credentials(text: &str) -> String {
    let Some((credentials, rest)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match credentials.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => format!("{scheme}://…@{rest}"),
        Some(_) | None => format!("…@{rest}"),
    }
}

/// As RFC 3986 spells one; a colon in it would mean that user and password stand there.
fn is_scheme(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-'))
}

/// One mistake in the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value of a setting is not one that it takes, or does not go with another setting.
    #[error("{name}: {reason}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What is wrong and what is allowed.
        reason: Invalid,
    },
    /// A setting without a default is not there.
    #[error("{name}: required, and there is no default: {help}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it means.
        help: &'static str,
    },
    /// A variable begins with `PIN_` and is no setting. Its value is not shown: it may be a misspelt secret.
    #[error("{name}: there is no such setting; the nearest is {nearest}")]
    Unknown {
        /// The variable as it was found.
        name: String,
        /// The most similar setting.
        nearest: &'static str,
    },
    /// The value of a `PIN_` variable is not UTF-8.
    #[error("{name}: the value is not UTF-8 text")]
    NotUtf8 {
        /// The variable.
        name: String,
    },
    /// The client's secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes, in the order of the settings' table; unknown variables come last.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl From<Vec<ConfigError>> for ConfigErrors {
    fn from(errors: Vec<ConfigError>) -> Self {
        Self(errors)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
