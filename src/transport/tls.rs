//! Whom TLS trusts: Mozilla's roots, which are inside the binary so that an empty image suffices, and the operator's own.
//!
//! Invariant: a file of extra roots is taken as a whole or not at all.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, client::WebPkiServerVerifier};

use super::{pem, tls_error::TellingVerifier};
use crate::file_access::{FileFacts, open_regular, read_at_most};

/// The largest file of extra roots, in bytes: Mozilla's whole list has a quarter of that.
const LARGEST: usize = 1024 * 1024;

/// The file of extra roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error(
        "PIN_TLS_CA_FILE {}: {source} ({facts}); {}",
        path.display(),
        facts.advice(source, Some("PIN_TLS_CA_FILE"))
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who may read it.
        facts: FileFacts,
        /// Why.
        source: io::Error,
    },
    /// It is no file, or holds something else than certificates, or a certificate that cannot be a root.
    #[error("PIN_TLS_CA_FILE {} {reason}", path.display())]
    NotCertificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
}

/// The TLS settings for everybody that is dialled.
///
/// # Errors
/// The file of extra roots is unreadable, too large or none, has no certificate, or a part that cannot be read as one.
pub fn client_config(extra_roots: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    match extra_roots {
        Some(path) => trusting(path, &read_roots(path)?),
        None => Ok(config(built_in())),
    }
}

/// What the file of extra roots holds.
pub(super) fn read_roots(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Unreadable {
        path: path.to_owned(),
        facts: FileFacts::of(path),
        source,
    };
    let unfit = |reason: &str| TlsError::NotCertificates {
        path: path.to_owned(),
        reason: format!("{reason}; name a file that has the certificates in PEM"),
    };
    let file = open_regular(path).map_err(unreadable)?;
    let file = file.ok_or_else(|| unfit("is not a regular file"))?;
    let mut text = Vec::new();
    if read_at_most(LARGEST, file, &mut text).map_err(unreadable)? {
        Ok(text)
    } else {
        Err(unfit("is larger than 1 MiB"))
    }
}

/// The settings that trust what the file holds, too. `path` names it in errors.
pub(super) fn trusting(path: &Path, text: &[u8]) -> Result<Arc<ClientConfig>, TlsError> {
    let bad = |reason| TlsError::NotCertificates {
        path: path.to_owned(),
        reason,
    };
    let mut roots = built_in();
    for certificate in pem::certificates(text).map_err(bad)? {
        let line = certificate.line;
        roots.add(certificate.der).map_err(|_| {
            bad(format!(
                "has a certificate in line {line} that cannot be a root: its content is not that of an X.509 certificate"
            ))
        })?;
    }
    Ok(config(roots))
}

fn built_in() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .expect("there are built-in roots, and no revocation lists");
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves TLS 1.2 and 1.3")
        // As dangerous as what it wraps: it only tells more of a refusal.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TellingVerifier { verifier, roots }))
        .with_no_client_auth();
    Arc::new(config)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_no_file_of_certificates_or_has_no_end_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large.pem");
        fs::File::create(&large)
            .unwrap()
            .set_len(LARGEST as u64 + 1)
            .unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for (file, told) in [
            (Path::new("/dev/zero"), "is not a regular file"),
            (folder.path(), "is not a regular file"),
            (&pipe, "is not a regular file"),
            (&large, "is larger than 1 MiB"),
        ] {
            let refusal = client_config(Some(file)).unwrap_err().to_string();
            let began = format!("PIN_TLS_CA_FILE {} {told}; name", file.display());
            assert!(refusal.starts_with(&began), "{refusal}");
        }
        let missing = client_config(Some(&folder.path().join("missing")));
        let missing = missing.unwrap_err().to_string();
        let helps =
            "the file is missing: create it, see that it is mounted, or correct PIN_TLS_CA_FILE";
        assert!(missing.ends_with(helps), "{missing}");
    }
}
