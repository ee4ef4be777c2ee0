//! What is said of a gateway's certificate that is not trusted: the cause, and what helps against that one.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::{fs, time::Duration};

use devnet::gateway::Gateway;
use pin_sidecar::transport::{Dial as _, Endpoint, Resolver, TcpDialer, Trust};
use rcgen::{CertificateParams, date_time_ymd};

use certificates::{HERE, Made, gateway, made, params};
use support::{CLIENT, Sidecar, ollama};

const QUICK: [(&str, &str); 2] = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "20ms")];

/// What a sidecar says that trusts these, too.
async fn told(gateway: &Gateway, trusted: &[&Made]) -> String {
    let ollama = ollama().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let pem: String = trusted.iter().map(|made| made.certificate.pem()).collect();
    fs::write(&file, pem).unwrap();
    let mut settings = QUICK.to_vec();
    if !trusted.is_empty() {
        settings.push(("PIN_TLS_CA_FILE", file.to_str().unwrap()));
    }
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    sidecar.wait_until_pending("TLS failed").await.remove(0)
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_with_its_cause_and_what_helps() {
    let root = made(params("root", true), None);
    let middle = made(params("middle", true), Some(&root));
    let leaf = || made(params("gateway", false), Some(&middle));
    let alone = made(params("gateway", false), None);
    let alone_before = made(params("gateway", false), None);
    let root_before = made(params("root", true), None);
    let direct = made(params("gateway", false), Some(&root));
    let mut old = params("gateway", false);
    (old.not_before, old.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    let mut early = params("gateway", false);
    (early.not_before, early.not_after) = (date_time_ymd(2101, 1, 1), date_time_ymd(2102, 1, 1));
    let elsewhere = CertificateParams::new(["elsewhere.test".to_owned()]).unwrap();
    let leaf_alone = leaf();
    let leaf_with = leaf();
    let old = made(old, Some(&root));
    let early = made(early, Some(&root));
    let elsewhere = made(elsewhere, Some(&root));
    for (chain, trusted, words) in [
        (&[&root][..], &[&root][..], "an authority's own (CA:TRUE)"),
        (&[&alone], &[], "is self-signed and not trusted"),
        (
            &[&leaf_alone],
            &[&root],
            "without the intermediate one that signed it",
        ),
        (
            &[&leaf_with, &middle],
            &[],
            "of an authority that is not trusted",
        ),
        (&[&alone], &[&alone_before], "is signed by another key"),
        (&[&direct], &[&root_before], "is signed by another key"),
        (
            &[&leaf_with, &middle],
            &[&leaf_with],
            "name the certificate of the authority that signed it",
        ),
        (&[&old], &[&root], "has expired"),
        (&[&early], &[&root], "is not valid yet"),
        (&[&elsewhere], &[&root], "is for another name"),
    ] {
        let told = told(&gateway(chain).await, trusted).await;
        assert!(told.contains(words), "{told}");
        assert!(!told.contains("elsewhere.test"), "{told}");
    }
}

#[tokio::test]
async fn a_chain_that_is_sent_whole_and_a_named_certificate_without_ca_are_trusted() {
    let root = made(params("root", true), None);
    let middle = made(params("middle", true), Some(&root));
    let leaf = made(params("gateway", false), Some(&middle));
    let alone = made(params("alone", false), None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    for (chain, trusted) in [(&[&leaf, &middle][..], &root), (&[&alone][..], &alone)] {
        fs::write(&file, trusted.certificate.pem()).unwrap();
        let (gateway, ollama) = (gateway(chain).await, ollama().await);
        let settings = [("PIN_TLS_CA_FILE", file.to_str().unwrap())];
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
        sidecar.wait_until_pending("").await;
    }
}

#[tokio::test]
async fn a_file_of_roots_that_is_replaced_is_trusted_at_the_next_connection_and_the_last_good_one_is_kept()
 {
    let (first, second) = (
        made(params("first", false), None),
        made(params("second", false), None),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, first.certificate.pem()).unwrap();
    let trust = Trust::with_file(Some(&file)).unwrap();
    let dialer = TcpDialer::new(trust, Resolver::default(), Duration::from_secs(30));
    let (old, new) = (gateway(&[&first]).await, gateway(&[&second]).await);
    assert!(reaches(&dialer, &old).await && !reaches(&dialer, &new).await);
    assert_eq!(dialer.trouble(), None);

    fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
    assert!(reaches(&dialer, &old).await);
    assert!(dialer.trouble().unwrap().contains("begins in line 1"));
    fs::remove_file(&file).unwrap();
    assert!(reaches(&dialer, &old).await);
    assert!(dialer.trouble().unwrap().contains("No such file"));

    fs::write(&file, second.certificate.pem()).unwrap();
    assert!(reaches(&dialer, &new).await && !reaches(&dialer, &old).await);
    assert_eq!(dialer.trouble(), None);
}

async fn reaches(dialer: &TcpDialer, gateway: &Gateway) -> bool {
    let endpoint = Endpoint {
        host: HERE.to_owned(),
        port: gateway.addr().port(),
        tls: true,
    };
    dialer.dial(&endpoint).await.is_ok()
}

#[tokio::test]
async fn roots_that_can_no_longer_be_read_are_told_in_readyz_and_the_session_comes_back_all_the_same()
 {
    let alone = made(params("alone", false), None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, alone.certificate.pem()).unwrap();
    let (gateway, ollama) = (gateway(&[&alone]).await, ollama().await);
    let mut settings = QUICK.to_vec();
    settings.push(("PIN_TLS_CA_FILE", file.to_str().unwrap()));
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    gateway.wait_for_session(1).await;
    fs::write(&file, "nothing").unwrap();
    gateway.drop_sessions();
    gateway.wait_for_session(2).await;
    let (_, ready) = sidecar.get("/readyz").await;
    let told = "The last good root certificates are in use: PIN_TLS_CA_FILE";
    assert!(ready.contains(told), "{ready}");
}
