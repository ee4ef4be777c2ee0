//! What a server is told of who asks, and how it is kept out of what the server says.
//!
//! Invariants: it is in no `Debug`, and in no text that went through [`Credentials::hide_in`], in whichever form programs write
//! it: as it is, in base64 (RFC 4648, both alphabets, padded or not), and either of them percent-encoded. The forms are worked
//! out once, and their memory is overwritten.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD};
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What is shorter may be a word of its own, in bytes.
const SHORTEST: usize = 6;

/// What goes before a token.
const SCHEME: &str = "Bearer ";

/// What stands for what is hidden.
const HIDDEN: &str = "…";

/// A token, or a user and password; by default nothing.
#[derive(Default)]
pub struct Credentials {
    authorization: Option<HeaderValue>,
    /// The longest first, since some are parts of others. Those in base64 have no padding.
    secrets: Vec<Zeroizing<Vec<u8>>>,
}

impl Credentials {
    /// A user and password (RFC 7617), as the value of a header that has them.
    pub fn basic(authorization: &str) -> Self {
        let encoded = authorization.strip_prefix("Basic ").unwrap_or_default();
        let pair = BASE64.decode(encoded.as_bytes()).unwrap_or_default();
        let pair = Zeroizing::new(pair);
        let password = pair.iter().position(|byte| *byte == b':');
        let password = password.map_or(&[][..], |colon| &pair[colon + 1..]);
        let mut secrets = in_base64(&pair).to_vec();
        // Who it is alone is no secret.
        if !password.is_empty() {
            secrets.push(pair.clone());
            secrets.push(Zeroizing::new(password.to_vec()));
            secrets.extend(in_base64(password));
        }
        Self::new(authorization, secrets)
    }

    /// A token (RFC 6750).
    pub fn bearer(token: &SecretString) -> Self {
        let token = token.expose_secret();
        let authorization = Zeroizing::new(format!("{SCHEME}{token}"));
        let mut secrets = in_base64(token.as_bytes()).to_vec();
        // As the password of nobody, which some take a token for.
        let password = Zeroizing::new(format!(":{token}"));
        secrets.extend(in_base64(password.as_bytes()));
        secrets.push(Zeroizing::new(token.as_bytes().to_vec()));
        Self::new(&authorization, secrets)
    }

    /// Whether this is that token, so that nothing is to be worked out anew.
    pub(super) fn is_bearer(&self, token: &SecretString) -> bool {
        let said = self.authorization.as_ref().map(HeaderValue::as_bytes);
        let said = said.and_then(|said| said.strip_prefix(SCHEME.as_bytes()));
        said == Some(token.expose_secret().as_bytes())
    }

    fn new(authorization: &str, mut secrets: Vec<Zeroizing<Vec<u8>>>) -> Self {
        // URLs and secrets are one line of text, which every header can have.
        let mut authorization = HeaderValue::from_bytes(authorization.as_bytes()).ok();
        if let Some(authorization) = &mut authorization {
            authorization.set_sensitive(true);
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self {
            authorization,
            secrets,
        }
    }

    /// The value of the `Authorization` header. Secret.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The first `max` bytes of a text, and a character's more, less these credentials: none that ends beyond them leaves its
    /// beginning.
    #[must_use]
    pub fn hide_in(&self, text: &str, max: usize) -> String {
        let mut shown = String::with_capacity(text.len().min(max));
        let mut rest = text;
        while text.len() - rest.len() < max
            && let Some(c) = rest.chars().next()
        {
            if let Some(len) = self.secret_at(rest) {
                shown.push_str(HIDDEN);
                rest = &rest[len..];
            } else {
                shown.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        shown
    }

    /// How long the secret is that the text begins with.
    fn secret_at(&self, text: &str) -> Option<usize> {
        let len = |secret: &Zeroizing<Vec<u8>>| {
            let as_it_is = text.as_bytes().starts_with(secret).then_some(secret.len());
            let len = as_it_is.or_else(|| percent_encoded_len(secret, text))?;
            // A password need not be text.
            text.is_char_boundary(len).then_some(len)
        };
        let len = self.secrets.iter().find_map(len)?;
        Some(len + padding_len(&text[len..]))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

fn in_base64(bytes: &[u8]) -> [Zeroizing<Vec<u8>>; 2] {
    [BASE64_NOPAD, BASE64URL_NOPAD].map(|base64| Zeroizing::new(base64.encode(bytes).into_bytes()))
}

/// How long the text's beginning is that says these bytes, any of them percent-encoded (RFC 3986; in forms a blank is a `+`).
fn percent_encoded_len(secret: &[u8], text: &str) -> Option<usize> {
    let text = text.as_bytes();
    let mut len = 0;
    for byte in secret {
        let (said, said_in) = match text.get(len..)? {
            [b'%', high, low, ..] => {
                let [high, low] = [high, low].map(|digit| char::from(*digit).to_digit(16));
                high.zip(low)
                    .map_or((u32::from(b'%'), 1), |(high, low)| (high << 4 | low, 3))
            }
            [b'+', ..] if *byte == b' ' => (u32::from(b' '), 1),
            [plain, ..] => (u32::from(*plain), 1),
            [] => return None,
        };
        if said != u32::from(*byte) {
            return None;
        }
        len += said_in;
    }
    Some(len)
}

/// How long the padding of base64 is that the text begins with.
fn padding_len(text: &str) -> usize {
    let mut rest = text;
    let pads = ["=", "%3D", "%3d"];
    while let Some(behind) = pads.iter().find_map(|pad| rest.strip_prefix(pad)) {
        rest = behind;
    }
    text.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn basic(pair: &[u8]) -> Credentials {
        Credentials::basic(&format!("Basic {}", BASE64.encode(pair)))
    }

    fn bearer(token: &str) -> Credentials {
        Credentials::bearer(&SecretString::from(token))
    }

    fn hidden(credentials: &Credentials, text: &str) -> String {
        credentials.hide_in(text, usize::MAX)
    }

    /// What programs make of a secret.
    fn forms(secret: &str) -> Vec<String> {
        let [padded, url_safe] = [BASE64, BASE64URL].map(|base64| base64.encode(secret.as_bytes()));
        let without = |padded: &str| padded.trim_end_matches('=').to_owned();
        let plain = [
            secret.to_owned(),
            without(&padded),
            without(&url_safe),
            padded,
            url_safe,
        ];
        let encode = |plain: &String| {
            let upper = utf8_percent_encode(plain, NON_ALPHANUMERIC).to_string();
            let mut is_hex = 0_u8;
            let lower = upper.chars().map(|c| {
                is_hex = if c == '%' {
                    2
                } else {
                    is_hex.saturating_sub(1)
                };
                if is_hex > 0 || c.is_ascii_digit() {
                    c.to_ascii_lowercase()
                } else {
                    c
                }
            });
            [lower.collect(), upper]
        };
        let encoded: Vec<_> = plain.iter().flat_map(encode).collect();
        plain.into_iter().chain(encoded).collect()
    }

    #[test]
    fn a_token_is_hidden_in_every_form_that_a_server_may_write_it_in() {
        for token in ["sk-PRIV/+a=b&c", "abcdef", "%41%42%43", "ключ-7", "x?~>>?"] {
            let credentials = bearer(token);
            for form in forms(token)
                .into_iter()
                .chain(forms(&format!(":{token}")).split_off(1))
            {
                let shown = hidden(&credentials, &format!("bad key '{form}', wanted another"));
                assert!(shown.ends_with("…', wanted another"), "{form}: {shown}");
                assert!(
                    shown.len() <= "bad key '…', wanted another".len() + ":%3A".len(),
                    "{form}: {shown}"
                );
            }
        }
    }

    #[test]
    fn a_password_is_hidden_with_its_user_and_without_and_a_user_alone_is_shown() {
        let password = "pa/SSsec+w rd";
        let credentials = basic(format!("opname:{password}").as_bytes());
        for form in forms(&format!("opname:{password}")) {
            assert_eq!(hidden(&credentials, &format!("<{form}>")), "<…>", "{form}");
        }
        for form in forms(password) {
            let shown = hidden(&credentials, &format!("opname <{form}>"));
            assert_eq!(shown, "opname <…>", "{form}");
        }
        assert_eq!(
            hidden(&credentials, "pa%2FSSsec%2Bw+rd"),
            "…",
            "as in a form"
        );
        let nobody = basic(b"operator:");
        assert_eq!(hidden(&nobody, "operator: b3BlcmF0b3I6"), "operator: …");
    }

    #[test]
    fn short_words_and_what_has_no_credentials_stay_as_they_are() {
        for credentials in [basic(b"me:it"), bearer("it")] {
            assert_eq!(
                hidden(&credentials, "it is me: so it is"),
                "it is me: so it is"
            );
        }
        assert_eq!(
            hidden(&basic(b"opname:it"), "it is b3BuYW1lOml0"),
            "it is …"
        );
        assert_eq!(hidden(&Credentials::default(), "a = b"), "a = b");
        assert_eq!(
            hidden(&bearer("abcdef"), "abcde%6 %ZZabcde ✂"),
            "abcde%6 %ZZabcde ✂"
        );
    }

    #[test]
    fn a_password_that_is_no_text_cuts_no_character() {
        let credentials = basic(b"me:secret\xc3");
        assert_eq!(hidden(&credentials, "secretä secret%C3"), "secretä …");
    }

    proptest! {
        #[test]
        fn what_is_asked_with_is_in_no_text(
            token in "[!-~]{6,40}", before in "[ -~]{0,20}", after in "[ -~]{0,20}",
        ) {
            let credentials = bearer(&token);
            for form in forms(&token) {
                let shown = hidden(&credentials, &format!("{before} {form} {after}"));
                prop_assert!(!shown.contains(&form), "{}", shown);
            }
        }
    }
}
