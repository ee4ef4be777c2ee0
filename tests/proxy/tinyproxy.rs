//! The same with a proxy that others wrote. Where tinyproxy is not installed these tests say so and pass, unless
//! `FORBID_SKIPS` is set.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    Certificate, ELSEWHERE, at,
    support::{CLIENT, Sidecar, chat, ollama, poll},
};

/// A running tinyproxy; it ends when this is dropped.
struct Tinyproxy {
    addr: SocketAddr,
    process: Child,
    _folder: TempDir,
    /// Bound and never listening: it keeps the port from everybody who wants any.
    _port: TcpSocket,
}

impl Tinyproxy {
    /// One with these lines in its configuration; `None` where there is no such program.
    async fn start(configuration: &str) -> Option<Self> {
        let mut version = Command::new("tinyproxy");
        if version.arg("-v").stdout(Stdio::null()).status().is_err() {
            devnet::skip_without("tinyproxy");
            return None;
        }
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = port.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tinyproxy.conf");
        let necessary = format!("Port {}\nListen 127.0.0.1\nTimeout 600\n", addr.port());
        fs::write(&file, necessary + configuration).unwrap();
        let process = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self {
            addr,
            process,
            _folder: folder,
            _port: port,
        };
        // It cannot tell when it listens.
        poll(
            || async { TcpStream::connect(addr).await.is_ok() },
            |open| *open,
        )
        .await;
        Some(proxy)
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn chats_pass_through_tinyproxy() {
    passes_through("", "").await;
}

#[tokio::test]
async fn chats_pass_through_a_tinyproxy_that_wants_a_password() {
    passes_through("BasicAuth ann Zebra1\n", "ann:Zebra1@").await;
}

async fn passes_through(configuration: &str, credentials: &str) {
    let Some(proxy) = Tinyproxy::start(configuration).await else {
        return;
    };
    let certificate = Certificate::make();
    let (gateway, ollama) = (certificate.gateway().await, ollama().await);
    let through = format!("http://{credentials}{}", proxy.addr);
    let settings = [
        ("HTTPS_PROXY", through.as_str()),
        ("PIN_TLS_CA_FILE", certificate.file()),
    ];
    let there = at("wss", ELSEWHERE, gateway.addr());
    let mut sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    gateway.wait_for_session(1).await;
    gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    gateway.chat(chat("one")).outcome().await.result();
    assert_eq!(sidecar.get("/readyz").await.0, 200);
    sidecar.begin_drain();
    gateway.wait_for_no_session().await;
    sidecar.drained().await;
}

#[tokio::test]
async fn what_tinyproxy_refuses_is_told_as_what_it_is() {
    let ours = "BasicAuth ann Zebra1\nConnectPort 1\n";
    let Some(proxy) = Tinyproxy::start(ours).await else {
        return;
    };
    let ollama = ollama().await;
    for (credentials, gateway, words) in [
        (
            "",
            "wss://gateway.test",
            "wants a user and password (HTTP 40",
        ),
        (
            "ann:wrong@",
            "wss://gateway.test",
            "refuses the user and password in HTTPS_PROXY (HTTP 40",
        ),
        (
            "ann:Zebra1@",
            "wss://gateway.test",
            "forbids this connection (HTTP 403)",
        ),
        (
            "ann:Zebra1@",
            "wss://0.0.0.0:1",
            "did not get through to the gateway (HTTP 50",
        ),
    ] {
        let through = format!("http://{credentials}{}", proxy.addr);
        let settings = [("HTTPS_PROXY", through.as_str())];
        let sidecar = Sidecar::start(CLIENT, gateway, &ollama.url(), &settings);
        let pending = sidecar.wait_until_pending(words).await;
        assert!(!pending[0].contains("Zebra"), "{pending:?}");
    }
}
