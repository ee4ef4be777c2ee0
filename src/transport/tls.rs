//! Whom TLS trusts: Mozilla's roots, which are inside the binary so that an empty image suffices, and the operator's own.
//!
//! Invariant: a file of extra roots is taken as a whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, client::WebPkiServerVerifier};

use super::{pem, tls_error::TellingVerifier};
use crate::file_access::FileFacts;

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
    /// It holds something else than certificates, or a certificate that cannot be a root.
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
/// The file of extra roots is unreadable, has no certificate, or a part that cannot be read as one.
pub fn client_config(extra_roots: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    match extra_roots {
        Some(path) => trusting(path, &read_roots(path)?),
        None => Ok(config(built_in())),
    }
}

/// What the file of extra roots holds.
pub(super) fn read_roots(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        facts: FileFacts::of(path),
        source,
    })
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
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("there are built-in roots, and no revocation lists");
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves TLS 1.2 and 1.3")
        // As dangerous as what it wraps: it only tells more of a refusal.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TellingVerifier(verifier)))
        .with_no_client_auth();
    Arc::new(config)
}
