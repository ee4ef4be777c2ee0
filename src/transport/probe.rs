//! What a way to somebody looks like while it is gone, step by step, for whoever wants to show it. Dialers and the upgrade
//! note it as they go.
//!
//! Invariant: it changes nothing of what is done, and holds the last finding of each kind, however often one is made.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConnection, ProtocolVersion,
    pki_types::{CertificateDer, UnixTime},
};
use tokio::time::Instant;
use webpki::{EndEntityCert, KeyUsage};

/// Later than any certificate is valid, in Unix seconds: none has more than the year 9999 (RFC 5280, section 4.1.2.5).
const AFTER_ALL: Duration = Duration::from_secs(253_402_300_800);

/// Notes what is found. Its clones are one; nobody looks at the default.
#[derive(Clone, Debug, Default)]
pub struct Probe(Option<Arc<Mutex<Findings>>>);

/// What was found, each with when.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The addresses of whom was dialled: of the proxy, where there is one.
    pub addresses: Option<(Instant, Vec<SocketAddr>)>,
    /// The address that took a connection.
    pub connected: Option<(Instant, SocketAddr)>,
    /// The proxy has opened a tunnel.
    pub tunnelled: Option<Instant>,
    /// TLS is spoken, with the last that was spoken to.
    pub secured: Option<(Instant, TlsFindings)>,
    /// The gateway has answered the request for a session.
    pub answered: Option<Instant>,
    /// What its `Date` said then, and our own clock, both in Unix seconds.
    pub clocks: Option<(u64, u64)>,
}

/// What a TLS handshake has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFindings {
    /// The name that was asked for (SNI); `None` for an address, which is not sent.
    pub server_name: Option<String>,
    /// The protocol's version, such as `TLS 1.3`.
    pub version: &'static str,
    /// The application protocol (ALPN) that was agreed on, if one was.
    pub alpn: Option<String>,
    /// How many certificates came.
    pub chain: usize,
    /// The last moment at which the server's own one is valid.
    pub not_after: Option<SystemTime>,
}

impl Probe {
    /// One that is looked at.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Notes something. `note` is not called where nobody looks.
    pub fn note(&self, note: impl FnOnce(&mut Findings)) {
        if let Some(findings) = &self.0 {
            note(&mut findings.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What was found so far.
    pub fn findings(&self) -> Findings {
        let findings = self.0.as_ref();
        findings
            .map(|findings| {
                findings
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
            .unwrap_or_default()
    }
}

impl TlsFindings {
    /// What a connection shows whose handshake is done. `server_name`: whom it was asked for.
    pub(super) fn of(connection: &ClientConnection, server_name: Option<String>) -> Self {
        let chain = connection.peer_certificates().unwrap_or_default();
        let alpn = connection.alpn_protocol();
        Self {
            server_name,
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
                // We offer no other.
                _ => "TLS",
            },
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
            chain: chain.len(),
            not_after: chain.first().and_then(not_after),
        }
    }
}

/// Until when a certificate is valid. webpki keeps that to itself, save in what it says of one that has expired: and after
/// all time each has. It looks at that first, before anything else could be wrong.
fn not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let then = UnixTime::since_unix_epoch(AFTER_ALL);
    let usage = KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], then, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_found_whatever_else_it_is() {
        let key = KeyPair::generate().unwrap();
        for year in [2001, 2049, 2050, 9998] {
            let mut params = CertificateParams::new(["gateway.test".to_owned()]).unwrap();
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(year, 12, 31);
            let made = params.self_signed(&key).unwrap();
            let found = not_after(made.der()).unwrap();
            let shown = humantime::format_rfc3339_seconds(found).to_string();
            assert_eq!(shown, format!("{year}-12-31T00:00:00Z"));
        }
        assert_eq!(not_after(&CertificateDer::from(vec![0x30, 0])), None);
    }

    #[test]
    fn nothing_is_noted_where_nobody_looks() {
        Probe::default().note(|_| unreachable!());
        let probe = Probe::new();
        probe
            .clone()
            .note(|found| found.tunnelled = Some(Instant::now()));
        assert!(probe.findings().tunnelled.is_some());
    }
}
