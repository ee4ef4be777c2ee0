//! Why a TLS handshake failed, in words that name the cause and what helps against that one. The texts do not name the
//! other end.

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use webpki::EndEntityCert;

/// Nobody who is trusted has signed a server's certificate: what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untrusted {
    /// It signed itself.
    SelfSigned,
    /// It came alone.
    WithoutIntermediates,
    /// It came with others, of which none is trusted.
    OfAnotherAuthority,
}

impl Untrusted {
    fn of(certificate: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Self {
        let is_own_issuer = EndEntityCert::try_from(certificate)
            .is_ok_and(|certificate| certificate.issuer() == certificate.subject());
        if is_own_issuer {
            Self::SelfSigned
        } else if intermediates.is_empty() {
            Self::WithoutIntermediates
        } else {
            Self::OfAnotherAuthority
        }
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfSigned => {
                "its certificate is self-signed and not trusted (UnknownIssuer); if it is the right one, name that in \
                 PIN_TLS_CA_FILE"
            }
            Self::WithoutIntermediates => {
                "its certificate came without the intermediate one that signed it, or is of a private authority \
                 (UnknownIssuer); have the server send the whole chain (fullchain.pem), or, if the authority is a private \
                 one, name that in PIN_TLS_CA_FILE"
            }
            Self::OfAnotherAuthority => {
                "its certificate is of an authority that is not trusted (UnknownIssuer); if it is a private one, or a \
                 proxy's that looks into TLS, name that in PIN_TLS_CA_FILE"
            }
        })
    }
}

impl Error for Untrusted {}

/// Verifies as rustls does, and tells more of what is not trusted.
#[derive(Debug)]
pub(super) struct TellingVerifier(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for TellingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                let untrusted = Untrusted::of(end_entity, intermediates);
                CertificateError::Other(OtherError(Arc::new(untrusted))).into()
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a failed handshake is told as.
pub(super) fn explain(error: &io::Error) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(error)) => of_certificate(error),
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("{error}; check host and port, and whether TLS is spoken there")
        }
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection in the middle; check host and port, and whether TLS is spoken there"
                .to_owned()
        }
        None => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(OtherError(other)) if is_authority(other.as_ref()) => {
            "its certificate is an authority's own (CA:TRUE), which signs others and cannot be a server's, in \
             PIN_TLS_CA_FILE or not; give the server one that is not (openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE ...), or one that this authority has signed"
                .to_owned()
        }
        CertificateError::Other(OtherError(other)) => other.to_string(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; have it renewed, or correct this machine's clock"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; correct this machine's clock".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name than it was reached by; check the host, or have that name put into \
             the certificate (subjectAltName)"
                .to_owned()
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}

fn is_authority(error: &(dyn Error + 'static)) -> bool {
    matches!(
        error.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}
