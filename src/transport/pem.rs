//! Certificates in a PEM file, as people put one together: several files joined, with or without a newline between, with
//! byte order marks, with text around.
//!
//! Invariant: either every certificate that the file has is given, or an error that says in words what is wrong, and in
//! which line. None is passed over.

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// What follows a file's certificates around, such as keys, is none of ours; these would have been one.
const UNREADABLE_KINDS: [(&str, &str); 5] = [
    (
        "TRUSTED CERTIFICATE",
        "is one of OpenSSL's own kind; write it as `openssl x509` does without -trustout",
    ),
    ("CERTIFICATE REQUEST", "is a request for a certificate"),
    ("NEW CERTIFICATE REQUEST", "is a request for a certificate"),
    (
        "PKCS7",
        "is a PKCS #7 bundle; write it as `openssl pkcs7 -print_certs` does",
    ),
    (
        "CMS",
        "is a CMS bundle; write it as `openssl pkcs7 -print_certs` does",
    ),
];

/// A certificate, and the line in which it begins, from 1.
pub(super) struct Certificate {
    pub(super) line: usize,
    pub(super) der: CertificateDer<'static>,
}

/// All certificates of a file; at least one.
///
/// # Errors
/// What is wrong with it, as a sentence that goes on where the file's name ends.
pub(super) fn certificates(file: &[u8]) -> Result<Vec<Certificate>, String> {
    if file.starts_with(b"\xff\xfe") || file.starts_with(b"\xfe\xff") {
        return Err("is UTF-16 text; save it as UTF-8".to_owned());
    }
    if file.starts_with(b"\x30\x82") {
        return Err(
            "is DER; write it as PEM: openssl x509 -inform der -in FILE -out FILE.pem".to_owned(),
        );
    }
    // Comments may be in any encoding.
    let text = String::from_utf8_lossy(file);
    let mut found = Vec::new();
    let mut rest = text.as_ref();
    while let Some(begin) = rest.find(BEGIN) {
        no_remains(&text, &rest[..begin])?;
        rest = section(&text, &rest[begin..], &mut found)?;
    }
    no_remains(&text, rest)?;
    if found.is_empty() {
        return Err("has no certificate".to_owned());
    }
    Ok(found)
}

/// Reads the section that `rest` begins with, and gives what follows it.
fn section<'a>(text: &str, rest: &'a str, found: &mut Vec<Certificate>) -> Result<&'a str, String> {
    let line = line_of(text, rest);
    let broken =
        |what: &str| format!("has a part that begins in line {line} and cannot be read: it {what}");
    let after_begin = &rest[BEGIN.len()..];
    let (kind, body) = after_begin
        .split_once(DASHES)
        .filter(|(kind, _)| !kind.contains('\n'))
        .ok_or_else(|| broken("lacks the dashes behind its first words"))?;
    let (body, after) = body
        .split_once(&format!("{END}{kind}{DASHES}"))
        .filter(|(body, _)| !body.contains(BEGIN))
        .ok_or_else(|| broken(&format!("has no line {END}{kind}{DASHES}")))?;
    if let Some((_, why)) = UNREADABLE_KINDS.iter().find(|(known, _)| *known == kind) {
        return Err(broken(why));
    }
    if matches!(kind, "CERTIFICATE" | "X509 CERTIFICATE") {
        let base64: String = body.split_whitespace().collect();
        let der = BASE64.decode(base64.as_bytes());
        let der = der.map_err(|_| broken("is not Base64 throughout"))?;
        found.push(Certificate {
            line,
            der: der.into(),
        });
    }
    Ok(after)
}

/// Refuses what is left of a certificate between others: half a marker.
fn no_remains(text: &str, between: &str) -> Result<(), String> {
    let remains = ["CERTIFICATE-", END, "-BEGIN "];
    let place = remains.iter().find_map(|part| between.find(part));
    match place {
        Some(place) => Err(format!(
            "has the remains of a certificate in line {}: each begins with {BEGIN}CERTIFICATE{DASHES} and ends with \
             {END}CERTIFICATE{DASHES}",
            line_of(text, &between[place..])
        )),
        None => Ok(()),
    }
}

/// The line in which a part of the text begins.
fn line_of(text: &str, part: &str) -> usize {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    1 + text[..offset].matches('\n').count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pem(name: &str) -> String {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        made.cert.pem().replace("\r\n", "\n")
    }

    fn count(text: &str) -> usize {
        certificates(text.as_bytes()).unwrap().len()
    }

    fn refusal(text: &[u8]) -> String {
        certificates(text).err().unwrap()
    }

    #[test]
    fn every_certificate_of_a_bundle_is_read_however_it_was_joined() {
        let (one, other) = (pem("one"), pem("other"));
        let without_newline = one.trim_end();
        for bundle in [
            format!("{one}{other}"),
            format!("{without_newline}{other}"),
            format!("\u{feff}{one}\u{feff}{other}"),
            format!("\u{feff}{without_newline}\u{feff}{other}"),
            format!("# one\n{one}\n# other, and ===--- lines ---\n{other}# end"),
            format!("{one}{other}").replace('\n', "\r\n"),
            format!("{one}{other}").replace('\n', "\r"),
            format!("  {}", format!("{one}{other}").replace('\n', "\n  ")),
            format!("{one}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{other}"),
            format!("{one}{}", other.replace("CERTIFICATE", "X509 CERTIFICATE")),
        ] {
            assert_eq!(count(&bundle), 2, "{bundle}");
        }
    }

    #[test]
    fn a_bundle_of_which_a_part_cannot_be_read_is_an_error_that_says_where() {
        let (one, other) = (pem("one"), pem("other"));
        let line = one.lines().count() + 1;
        let last = line + other.lines().count() - 1;
        let end = "-----END CERTIFICATE-----";
        for (second, told) in [
            (
                other.replace(end, ""),
                format!("begins in line {line} and cannot be read: it has no line"),
            ),
            (
                other.replacen("-----B", "----B", 1),
                format!("the remains of a certificate in line {line}"),
            ),
            (
                other.replacen("-----BEGIN", "", 1),
                format!("the remains of a certificate in line {line}"),
            ),
            (
                other.replacen("-----BEGIN CERTIFICATE-----", "", 1),
                format!("the remains of a certificate in line {last}"),
            ),
            (
                other.replacen("MII", "M!I", 1),
                format!("begins in line {line} and cannot be read: it is not Base64"),
            ),
            (
                other.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
                format!("begins in line {line} and cannot be read: it is one of OpenSSL's"),
            ),
            (
                other.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
                "it is a request".to_owned(),
            ),
        ] {
            for bundle in [format!("{one}{second}"), format!("{one}{second}{one}")] {
                let refusal = refusal(bundle.as_bytes());
                assert!(refusal.contains(&told), "{told}: {refusal}");
            }
        }
    }

    #[test]
    fn what_is_no_pem_at_all_is_told_by_its_kind() {
        for (file, told) in [
            (&b""[..], "has no certificate"),
            (b"hello", "has no certificate"),
            (b"\xff\xfe-\0-\0", "is UTF-16 text"),
            (b"\x30\x82\x01\x0a", "is DER"),
            (b"-----BEGIN CERT", "lacks the dashes"),
        ] {
            assert!(refusal(file).contains(told), "{}", refusal(file));
        }
    }
}
