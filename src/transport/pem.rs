//! Certificates in a PEM file, as people put one together: several files joined, with or without a newline between, with
//! byte order marks, with text around.
//!
//! Invariant: either every certificate that the file has is given, or an error that says in words what is wrong, and in
//! which line. None is passed over: text between certificates is a comment only if nothing in it looks like what was one.

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// How the kinds of parts end that follow a file's certificates around and are none of ours.
const KINDS_OF_OTHERS: [&str; 3] = ["KEY", "PARAMETERS", "CRL"];

/// From so many letters on a line of Base64 is no word: PEM has 64 in a line.
const BASE64_LINE: usize = 32;

/// How the Base64 of nearly every certificate begins, and from how many letters on such a line is one's.
const BASE64_BEGIN: (&str, usize) = ("MII", 16);

/// These would have been certificates.
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
    } else if !KINDS_OF_OTHERS.iter().any(|end| kind.ends_with(end)) {
        let name: String = kind.chars().take(40).collect();
        return Err(broken(&format!(
            "is called {name:?}; write CERTIFICATE if it is one, else leave it out"
        )));
    }
    Ok(after)
}

/// Refuses what is left of a certificate between others.
fn no_remains(text: &str, between: &str) -> Result<(), String> {
    for line in between.split(['\n', '\r']) {
        let number = line_of(text, line);
        if line.contains(is_binary) {
            return Err(format!(
                "has bytes in line {number} that are no text; write a certificate in DER as PEM: openssl x509 -inform der \
                 -in FILE -out FILE.pem"
            ));
        }
        if is_broken_marker(line) || is_base64(line) {
            return Err(format!(
                "has the remains of a certificate in line {number}: each begins with {BEGIN}CERTIFICATE{DASHES} and ends \
                 with {END}CERTIFICATE{DASHES}"
            ));
        }
    }
    Ok(())
}

/// DER has these everywhere, and no comment has: control characters, save those of editors and of old systems.
fn is_binary(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\t' | '\u{b}' | '\u{c}' | '\u{1a}')
}

/// Half a marker, one in lower case, or one whose dashes a word processor has made prettier.
fn is_broken_marker(line: &str) -> bool {
    let has_one_of = |line: &str, parts: &[&str]| parts.iter().any(|part| line.contains(part));
    if has_one_of(line, &["CERTIFICATE-", END, "-BEGIN "]) {
        return true;
    }
    if line.trim_start().starts_with('#') {
        return false;
    }
    let simple = |c: char| {
        if is_dash(c) {
            '-'
        } else {
            c.to_ascii_lowercase()
        }
    };
    let line: String = line.chars().map(simple).collect();
    let parts = [
        "--begin ",
        "--end ",
        "certificate--",
        "-begin certificate",
        "-end certificate",
    ];
    let bare = line.trim_matches(['-', ' ', '\t']);
    has_one_of(&line, &parts) || matches!(bare, "begin certificate" | "end certificate")
}

/// What a dash is written as, or has become.
fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{ad}' | '\u{2010}'
            ..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
    )
}

/// A line of a certificate's body. One that is hexadecimal throughout is a fingerprint.
fn is_base64(line: &str) -> bool {
    let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let line = line.trim_end_matches('=');
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let (begin, length) = BASE64_BEGIN;
    let is_long = line.len() >= BASE64_LINE || line.len() >= length && line.starts_with(begin);
    is_long && line.bytes().all(is_letter) && !line.bytes().all(|byte| byte.is_ascii_hexdigit())
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
                format!("the remains of a certificate in line {}", line + 1),
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
    fn what_was_a_certificate_and_lost_its_markers_is_never_passed_over() {
        let (one, other) = (pem("one"), pem("other"));
        let line = one.lines().count() + 1;
        let body: Vec<_> = other
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        for second in [
            body.join("\n"),
            body[1..].join("\n"),
            body.join(""),
            format!("  {}", body.join("\n  ")),
            body[0][..20].to_owned(),
            other.to_lowercase(),
            other.replace("-----", "\u{2014}\u{2013}"),
            other.replace("-----", "\u{2014}"),
            other.replace("-----", "- - - "),
            other.replace("-----", ""),
        ] {
            for bundle in [format!("{one}{second}"), format!("{one}{second}\n{one}")] {
                let told = format!("the remains of a certificate in line {line}: each begins");
                let refusal = refusal(bundle.as_bytes());
                assert!(refusal.contains(&told), "{bundle}: {refusal}");
            }
        }
        for kind in ["certificate", " CERTIFICATE", "CERTFICATE", "CERTIFICATE "] {
            let second = other.replace(begin, &format!("-----BEGIN {kind}-----"));
            let second = second.replace(end, &format!("-----END {kind}-----"));
            let refusal = refusal(format!("{one}{second}").as_bytes());
            let told = format!("begins in line {line} and cannot be read: it is called {kind:?}");
            assert!(refusal.contains(&told), "{refusal}");
        }
        let der = certificates(other.as_bytes()).unwrap().remove(0).der;
        for bundle in [
            [one.as_bytes(), &der].concat(),
            [one.as_bytes(), &der, one.as_bytes()].concat(),
        ] {
            let refusal = refusal(&bundle);
            assert!(refusal.contains("that are no text"), "{refusal}");
            assert!(refusal.contains(&format!("in line {line}")), "{refusal}");
        }
    }

    #[test]
    fn what_bundles_have_around_their_certificates_is_no_mistake() {
        let (one, other) = (pem("one"), pem("other"));
        for between in [
            "GlobalSign Root CA\n==================\n",
            "##\n## Bundle of CA Root Certificates\n## Certificate data from Mozilla as of: Tue\n##\n\n",
            "# SHA256 Fingerprint: eb:d4:10:40:e4:bb:3e\n# MIIDdTCCAl2gAwIBAgILBAAAAAABFUtaw5QwDQYJ\n",
            "Certificate:\n    Data:\n        Version: 3 (0x2)\n            Modulus:\n                00:da:0e:e6:99:8d:ce\n",
            "        Signature Value:\n            d6:73:e7:7c:4f:76:d0:8d\n",
            "Certificate chain\n 0 s:CN = gateway\n   i:CN = middle\n---\nServer certificate\n",
            "subject=/C=BE/O=GlobalSign/CN=GlobalSignRootCertificateAuthority\nissuer=\n",
            "Bag Attributes\n    localKeyID: 54 69 6D 65\n    friendlyName: a certificate-based front-end \n",
            "4bb1a03c1e8ad4de20d05e66fc53fe1a50882c78db2852cae474cdf2c0ffee00\n",
            "MIIT\nCommScope_Public_Trust_ECC_Root-01\nTelekom\u{2013}Root \u{e4}\n\u{1a}",
            "-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n",
            "-----BEGIN X509 CRL-----\nBggq\n-----END X509 CRL-----\n",
        ] {
            assert_eq!(
                count(&format!("{between}{one}{between}{other}{between}")),
                2,
                "{between}"
            );
        }
        let latin = [one.as_bytes(), b"# Autorit\xe9 \x96\n", other.as_bytes()].concat();
        assert_eq!(certificates(&latin).unwrap().len(), 2);
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
