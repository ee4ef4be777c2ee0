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
use tokio_rustls::rustls::ServerConfig;

use support::{CLIENT, SECRET, self_signed};

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
        let (config, pem) = self_signed(&[NAME, ELSEWHERE, "127.0.0.1"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, pem).unwrap();
        Self {
            config,
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
