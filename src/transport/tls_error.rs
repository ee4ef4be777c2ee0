//! Why a TLS handshake failed, in words that name the cause and what helps against that one. The texts do not name the
//! other end.

use std::{error::Error, fmt, io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use webpki::EndEntityCert;

/// What helps where something else than TLS has come.
const IS_IT_TLS: &str = "check host and port, and whether TLS is spoken there; if not, write http:// (for a gateway ws://)";

/// What we speak.
const OURS: &str = "this side speaks TLS 1.2 and 1.3 with the ciphers of today (ECDHE with AES-GCM or ChaCha20-Poly1305), and \
                    the server must speak one of these, too";

/// Nobody who is trusted has signed a server's certificate: what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untrusted {
    /// It signed itself.
    SelfSigned,
    /// It came alone.
    WithoutIntermediates,
    /// It came with others, of which none is trusted.
    OfAnotherAuthority,
    /// It is itself among the trusted, where the one that signed it should be.
    NamedInsteadOfItsAuthority,
    /// Who is trusted has the name of who signed it, and another key.
    SignedByAnotherKey,
}

impl Untrusted {
    fn of(
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        trusted: &RootCertStore,
    ) -> Self {
        let certificate = EndEntityCert::try_from(certificate).ok();
        let certificate = certificate.as_ref();
        let is_own_issuer =
            certificate.is_some_and(|certificate| certificate.issuer() == certificate.subject());
        let is_named = certificate.is_some_and(|certificate| {
            let mut names = trusted.roots.iter().map(|root| root.subject.as_ref());
            names.any(|name| name == certificate.subject())
        });
        if is_own_issuer {
            Self::SelfSigned
        } else if is_named {
            Self::NamedInsteadOfItsAuthority
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
            Self::NamedInsteadOfItsAuthority => {
                "PIN_TLS_CA_FILE has its own certificate, which another has signed (UnknownIssuer); name the certificate of \
                 the authority that signed it instead"
            }
            Self::SignedByAnotherKey => {
                "its certificate is signed by another key than that of the certificate of the same name that is trusted \
                 (BadSignature); PIN_TLS_CA_FILE has an older one, or another authority's: put the present one there"
            }
        })
    }
}

impl Error for Untrusted {}

/// Verifies as rustls does, and tells more of what is not trusted.
#[derive(Debug)]
pub(super) struct TellingVerifier {
    pub(super) verifier: Arc<WebPkiServerVerifier>,
    /// Whom it trusts.
    pub(super) roots: Arc<RootCertStore>,
}

impl ServerCertVerifier for TellingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        verified.map_err(|error| {
            let rustls::Error::InvalidCertificate(flaw) = &error else {
                return error;
            };
            let untrusted = match flaw {
                CertificateError::UnknownIssuer => {
                    Untrusted::of(end_entity, intermediates, &self.roots)
                }
                // The other one is a key of another kind.
                CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                    Untrusted::SignedByAnotherKey
                }
                _ => return error,
            };
            CertificateError::Other(OtherError(Arc::new(untrusted))).into()
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// What a failed handshake is told as, and what helps.
pub(super) fn explain(error: &io::Error) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(error)) => of_certificate(error),
        Some(rustls::Error::InvalidMessage(flaw)) => {
            format!("what came is not TLS ({flaw:?}); {IS_IT_TLS}")
        }
        Some(rustls::Error::AlertReceived(alert)) => of_alert(*alert),
        Some(rustls::Error::PeerIncompatible(flaw)) => {
            format!("it speaks TLS in a way that is not taken ({flaw:?}); {OURS}")
        }
        Some(error) => format!("{error}; the server's own log may say more"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("it closed the connection in the middle; {IS_IT_TLS}")
        }
        None => format!("the connection broke ({error}); {IS_IT_TLS}"),
    }
}

/// What it refuses of what it was offered.
fn of_alert(alert: AlertDescription) -> String {
    let helps = match alert {
        AlertDescription::ProtocolVersion
        | AlertDescription::HandshakeFailure
        | AlertDescription::InsufficientSecurity => OURS,
        AlertDescription::UnrecognisedName => {
            "it serves no such name; check the host, or have the server serve that name"
        }
        AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::BadCertificate
        | AlertDescription::AccessDenied => {
            "it may want a client's certificate, of which the sidecar has none; have it do without"
        }
        _ => "its own log may say why",
    };
    format!("it refuses the handshake ({alert:?}); {helps}")
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Other(OtherError(other)) if is(other, &webpki::Error::CaUsedAsEndEntity) => {
            "its certificate is an authority's own (CA:TRUE), which signs others and cannot be a server's, in \
             PIN_TLS_CA_FILE or not; give the server one that is not (openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE ...), or one that this authority has signed"
                .to_owned()
        }
        CertificateError::Other(OtherError(other))
            if is(other, &webpki::Error::UnsupportedCertVersion) =>
        {
            "its certificate is of an old version of X.509 (UnsupportedCertVersion), which has no room for the names that it \
             is for; have one of version 3 made (openssl req -x509 -addext subjectAltName=DNS:NAME ...)"
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
        other => format!(
            "its certificate cannot be used: {other}; give the server another one, for the name by which it is reached"
        ),
    }
}

fn is(error: &Arc<dyn Error + Send + Sync>, known: &webpki::Error) -> bool {
    error.downcast_ref::<webpki::Error>() == Some(known)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::transport::pem;

    fn told(error: rustls::Error) -> String {
        explain(&io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn a_handshake_that_is_refused_is_told_with_what_both_sides_must_speak() {
        for alert in [
            AlertDescription::ProtocolVersion,
            AlertDescription::HandshakeFailure,
        ] {
            let told = told(rustls::Error::AlertReceived(alert));
            assert!(
                told.starts_with(&format!("it refuses the handshake ({alert:?}); ")),
                "{told}"
            );
            assert!(told.contains("TLS 1.2 and 1.3"), "{told}");
        }
        let old = rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13;
        let told = told(old.into());
        assert!(told.contains("TLS 1.2 and 1.3"), "{told}");
    }

    #[test]
    fn a_server_that_speaks_plain_http_is_told_with_the_scheme_to_write() {
        let told = told(rustls::Error::InvalidMessage(
            rustls::InvalidMessage::InvalidContentType,
        ));
        assert!(
            told.starts_with("what came is not TLS (InvalidContentType); "),
            "{told}"
        );
        assert!(told.contains("write http://"), "{told}");
        let hung_up = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(explain(&hung_up).contains("write http://"));
    }

    /// Self-signed by `openssl x509 -req -signkey`, which makes version 1 where it is given no extensions.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBJTCBywIUVrw15Hjw+dXp1qf+XAeMyEKikngwCgYIKoZIzj0EAwIwFDESMBAG\n\
        A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzE5MzQwOVoYDzIxMjYxMTAzMTkzNDA5\n\
        WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
        AATbFb9NNbvFsKdhdJhFNRZGntbkvcEwZET7su/2oJsRxfJHLpfz+fTKIm+M7WJL\n\
        h4B3nhSeS4YdOL9XC5V2RdMeMAoGCCqGSM49BAMCA0kAMEYCIQC2akFi17K54dnA\n\
        OURbMMMXLvcwDuqG+Y6tT7NFfmk3gQIhANihXlf8hKM0NySR/aHloomAm3NoRDeY\n\
        z0Gi28KqI0AI\n\
        -----END CERTIFICATE-----";

    #[test]
    fn a_certificate_of_the_first_version_is_told_with_what_helps() {
        let certificate = pem::certificates(VERSION_1.as_bytes()).unwrap().remove(0);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der.clone()).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build();
        let verifier = TellingVerifier {
            verifier: verifier.unwrap(),
            roots,
        };
        let name = ServerName::try_from("localhost").unwrap();
        let now = UnixTime::now();
        let error = verifier
            .verify_server_cert(&certificate.der, &[], &name, &[], now)
            .unwrap_err();
        let told = explain(&io::Error::other(error));
        assert!(
            told.starts_with("its certificate is of an old version of X.509"),
            "{told}"
        );
        assert!(told.contains("-addext subjectAltName"), "{told}");
    }
}
