//! How an agent proves that it knows its secret. Pure.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What the gateway expects in the `signature` of `AUTH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    /// `sha256hex(client_id ‖ timestamp ‖ sha256hex(api_secret))`, what gateways check today.
    #[default]
    Sha256,
    /// `HMAC-SHA256(api_secret, client_id ‖ timestamp)`, what the specification names.
    HmacSha256,
}

impl Signature {
    /// The signature of a login, in lower-case hex.
    pub fn sign(self, client_id: &str, timestamp: &str, secret: &str) -> String {
        match self {
            Self::Sha256 => sha256(&[client_id, timestamp, &sha256(&[secret])]),
            Self::HmacSha256 => hmac_sha256(secret, &[client_id, timestamp]),
        }
    }
}

fn sha256(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    hex(&digest.finalize())
}

fn hmac_sha256(key: &str, parts: &[&str]) -> String {
    #[allow(clippy::expect_used)]
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_protocols_vector() {
        let sign = |signature: Signature| signature.sign("op_abc", "1704499200", "s3cret");
        assert_eq!(
            sign(Signature::Sha256),
            "d41f3b3e2c354c6848fcb0005e6089998a61eb09de0850e2f56c105484c411d4"
        );
        assert_eq!(
            sign(Signature::HmacSha256),
            "0237b45f23250a3e46a54a08775dd9d11204621242c8dd91b4a8e6ce8c90eb2d"
        );
    }
}
