//! A gateway that is reached through an HTTP proxy, over real sockets: devnet's, which fails on demand, and tinyproxy.

#![allow(clippy::unwrap_used, missing_docs)]

mod failing;
#[path = "../support/mod.rs"]
mod support;
mod tinyproxy;
mod tunnel;

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use devnet::{gateway::Gateway, proxy::ConnectProxy};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use support::{CLIENT, SECRET};

/// A name that only the proxy can resolve.
const NAME: &str = "gateway.test";

/// Who is somewhere else as far as the sidecar knows, and here as far as Linux does: it connects to this machine.
const ELSEWHERE: &str = "0.0.0.0";

const QUICK: [(&str, &str); 2] = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];

/// A certificate for [`NAME`], [`ELSEWHERE`] and loopback, and the file that makes it trusted.
struct Certificate {
    config: Arc<ServerConfig>,
    file: PathBuf,
    _folder: TempDir,
}

impl Certificate {
    fn make() -> Self {
        let names = [NAME, ELSEWHERE, "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, made.cert.pem()).unwrap();
        Self {
            config: Arc::new(config),
            file,
            _folder: folder,
        }
    }

    fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }

    async fn gateway(&self) -> Gateway {
        Gateway::builder()
            .secret(CLIENT, SECRET)
            .tls(Arc::clone(&self.config))
            .start()
            .await
            .unwrap()
    }
}

/// How a proxy is named in a setting.
fn url(proxy: &ConnectProxy) -> String {
    format!("http://{}", proxy.addr())
}

/// A URL with the port of somebody who is here.
fn at(scheme: &str, host: &str, here: SocketAddr) -> String {
    format!("{scheme}://{host}:{}", here.port())
}
