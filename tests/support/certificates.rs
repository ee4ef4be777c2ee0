//! Certificates of every kind, and a gateway that shows them.

#![allow(unreachable_pub, clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use devnet::gateway::Gateway;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair,
};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::support::{CLIENT, SECRET};

/// The name that all of them are for, unless they say otherwise.
pub const HERE: &str = "localhost";

/// A certificate, its key, and what it may sign with.
pub struct Made {
    pub certificate: Certificate,
    pub params: CertificateParams,
    pub key: KeyPair,
}

pub fn params(called: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new([HERE.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, called);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

pub fn made(params: CertificateParams, signer: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = match signer {
        Some(signer) => {
            let issuer = Issuer::from_params(&signer.params, &signer.key);
            params.signed_by(&key, &issuer).unwrap()
        }
        None => params.self_signed(&key).unwrap(),
    };
    Made {
        certificate,
        params,
        key,
    }
}

pub async fn gateway(chain: &[&Made]) -> Gateway {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(chain[0].key.serialize_der()));
    let chain = chain.iter().map(|made| made.certificate.der().clone());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Vec<CertificateDer<'static>>>(), key)
        .unwrap();
    let builder = Gateway::builder().secret(CLIENT, SECRET);
    builder.tls(Arc::new(config)).start().await.unwrap()
}
