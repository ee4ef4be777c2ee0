//! The system's keyring (Secret Service: GNOME Keyring, KWallet), shared with the desktop client.
//!
//! Entries are found by the attributes `service` = `pin-client` and `username` = the client id. The Secret Service
//! ignores further attributes in a search, so entries that the desktop client or `secret-tool` made are found whatever
//! else they carry; and since there may then be several for one id, all of them are written and deleted together.
//!
//! Every function here blocks until the keyring answers, which may be until a person has unlocked it. The `keyring`
//! crate connects once for a process, at the first use: a session bus that comes later is not found without a restart.

use keyring::{Entry, Error};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::{
    Kind,
    error::{Problem, SecretError},
    file::from_bytes,
};

/// The service name that the desktop client uses.
const SERVICE: &str = "pin-client";

/// What an operator can do who has no secret in a keyring that works.
const WAYS: &str = "store it with `pin-sidecar secret set`, or set PIN_API_SECRET_FILE to the file that has it, or \
                    mount that file at /run/secrets/pin_api_secret, or set PIN_API_SECRET";

/// Reads the secret of a client id.
///
/// # Errors
/// There is no keyring or no such entry, or several entries differ.
pub fn get(client_id: &str) -> Result<SecretString, SecretError> {
    let mut found: Option<SecretString> = None;
    for entry in entries(client_id)? {
        let bytes = Zeroizing::new(
            entry
                .get_secret()
                .map_err(|error| told(client_id, &error))?,
        );
        let secret = from_bytes(&bytes, Kind::Secret).map_err(|problem| SecretError::Unfit {
            place: "the keyring",
            problem,
        })?;
        match &found {
            Some(other) if other.expose_secret() != secret.expose_secret() => {
                return Err(differing(client_id));
            }
            Some(_) | None => found = Some(secret),
        }
    }
    found.ok_or_else(|| told(client_id, &Error::NoEntry))
}

/// Stores the secret of a client id, in place of any that is there.
///
/// # Errors
/// There is no keyring, or it refuses.
pub fn set(client_id: &str, secret: &SecretString) -> Result<(), SecretError> {
    if secret.expose_secret().trim().is_empty() {
        return Err(SecretError::Unfit {
            place: "standard input",
            problem: Problem::Empty,
        });
    }
    for entry in entries(client_id)? {
        entry
            .set_secret(secret.expose_secret().as_bytes())
            .map_err(|error| told(client_id, &error))?;
    }
    Ok(())
}

/// Deletes the secret of a client id, wherever it came from.
///
/// # Errors
/// There is no keyring or no such entry.
pub fn delete(client_id: &str) -> Result<(), SecretError> {
    entries(client_id)?.iter().try_for_each(|entry| {
        entry
            .delete_credential()
            .map_err(|error| told(client_id, &error))
    })
}

/// What there is for a client id: all that match if there are several, else one that need not exist yet.
fn entries(client_id: &str) -> Result<Vec<Entry>, SecretError> {
    let entry = Entry::new(SERVICE, client_id).map_err(|error| told(client_id, &error))?;
    match entry.inner.get_credential() {
        Err(Error::Ambiguous(entries)) => {
            Ok(entries.into_iter().map(|inner| Entry { inner }).collect())
        }
        Err(Error::NoEntry) | Ok(_) => Ok(vec![entry]),
        Err(error) => Err(told(client_id, &error)),
    }
}

/// The error for people. An error's `Debug` may hold the secret's bytes, its `Display` does not.
fn told(client_id: &str, error: &Error) -> SecretError {
    SecretError::Keyring(match error {
        Error::NoEntry => format!("no secret for {client_id} (service {SERVICE}); {WAYS}"),
        Error::NoDefaultStore => match Entry::store_status() {
            Err(error) => format!("not reachable ({error}); {WAYS}"),
            Ok(()) => format!("not reachable; {WAYS}"),
        },
        other => other.to_string(),
    })
}

fn differing(client_id: &str) -> SecretError {
    SecretError::Keyring(format!(
        "several secrets for {client_id} (service {SERVICE}) that differ; store the right one with `pin-sidecar secret set`"
    ))
}
