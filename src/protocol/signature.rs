//! The proof of who logs in. The secret itself never leaves this machine.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// How a login is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureScheme {
    /// `sha256hex(client_id ‖ timestamp ‖ sha256hex(secret))`: what gateways check today.
    Sha256,
    /// `HMAC-SHA256(secret, client_id ‖ timestamp)`: what the specification names.
    HmacSha256,
}

/// The signature of a login at `timestamp` (Unix seconds, in decimal), in lower-case hex.
pub fn sign(scheme: SignatureScheme, client_id: &str, timestamp: &str, secret: &str) -> String {
    match scheme {
        SignatureScheme::Sha256 => {
            let hashed_secret = zeroize::Zeroizing::new(hex(&Sha256::digest(secret)));
            let hash = Sha256::new()
                .chain_update(client_id)
                .chain_update(timestamp)
                .chain_update(hashed_secret.as_str());
            hex(&hash.finalize())
        }
        SignatureScheme::HmacSha256 => {
            let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
                unreachable!("HMAC takes keys of any length");
            };
            hex(&mac
                .chain_update(client_id)
                .chain_update(timestamp)
                .finalize()
                .into_bytes())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_match_the_vectors_of_the_protocol() {
        let signed = |scheme| sign(scheme, "op_abc", "1704499200", "s3cret");
        assert_eq!(
            signed(SignatureScheme::Sha256),
            "d41f3b3e2c354c6848fcb0005e6089998a61eb09de0850e2f56c105484c411d4"
        );
        assert_eq!(
            signed(SignatureScheme::HmacSha256),
            "0237b45f23250a3e46a54a08775dd9d11204621242c8dd91b4a8e6ce8c90eb2d"
        );
    }
}
