//! What passes through a proxy that does its work, and what does not go through it.

use std::time::Duration;

use devnet::{
    gateway::Gateway,
    proxy::{ConnectProxy, Reply},
};
use pin_sidecar::{
    config::{Config, Surroundings},
    relay::World,
    transport::Endpoint,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    Certificate, ELSEWHERE, NAME, QUICK, at,
    support::{CLIENT, Net, SECRET, Sidecar, chat, gateway, ollama},
    url,
};

/// `ann:p@ss`, in a URL and in a header.
const IN_URL: &str = "ann:p%40ss";
const IN_HEADER: &str = "Basic YW5uOnBAc3M=";

async fn answers(gateway: &Gateway, sidecar: &Sidecar) {
    gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    gateway.chat(chat("one")).outcome().await.result();
    assert_eq!(sidecar.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_gateway_that_only_the_proxy_can_resolve_gets_its_chats_answered() {
    let certificate = Certificate::make();
    let (gateway, ollama) = (certificate.gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    let through = url(&proxy);
    let settings = [
        ("HTTPS_PROXY", through.as_str()),
        ("PIN_TLS_CA_FILE", certificate.file()),
    ];
    let (there, model_server) = (
        at("wss", NAME, gateway.addr()),
        at("http", ELSEWHERE, ollama.addr()),
    );
    let sidecar = Sidecar::start(CLIENT, &there, &model_server, &settings);
    answers(&gateway, &sidecar).await;

    let asked = proxy.asked();
    let authority = format!("{NAME}:{}", gateway.addr().port());
    assert_eq!(
        asked.len(),
        1,
        "Ollama is never asked for through it: {asked:?}"
    );
    assert_eq!(asked[0].authority, authority);
    assert_eq!(asked[0].host.as_deref(), Some(authority.as_str()));
    assert_eq!(asked[0].authorization, None);
}

#[tokio::test]
async fn a_proxy_that_wants_user_and_password_gets_them() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    proxy.insist_on(IN_HEADER);
    let with_password = format!("http://{IN_URL}@{}", proxy.addr());
    let settings = [
        ("https_proxy", with_password.as_str()),
        ("PIN_ALLOW_PLAINTEXT", "true"),
    ];
    let there = at("ws", NAME, gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    answers(&gateway, &sidecar).await;
    assert_eq!(proxy.asked()[0].authorization.as_deref(), Some(IN_HEADER));
}

#[tokio::test]
async fn the_way_to_the_proxy_may_be_encrypted_too() {
    let certificate = Certificate::make();
    let (gateway, ollama) = (certificate.gateway().await, ollama().await);
    let proxy = ConnectProxy::start_encrypted(gateway.addr(), certificate.config.clone()).unwrap();
    let encrypted = format!("https://{}", proxy.addr());
    let settings = [
        ("HTTPS_PROXY", encrypted.as_str()),
        ("PIN_TLS_CA_FILE", certificate.file()),
    ];
    let there = at("wss", NAME, gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    answers(&gateway, &sidecar).await;
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn heartbeats_pass_and_a_proxy_that_restarts_costs_no_answer() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    let through = url(&proxy);
    let settings = [
        ("HTTPS_PROXY", through.as_str()),
        ("PIN_ALLOW_PLAINTEXT", "true"),
        ("PIN_HEARTBEAT_INTERVAL", "50ms"),
    ];
    let settings = [&QUICK[..], &settings].concat();
    let there = at("ws", NAME, gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    answers(&gateway, &sidecar).await;
    let mut seen = 0;
    for _ in 0..3 {
        let heartbeat = gateway.wait_for_since(seen, |frame| frame.is_from_agent("HEARTBEAT"));
        seen = heartbeat.await.0 + 1;
    }

    proxy.stop().await;
    sidecar
        .wait_until_pending(&format!("the proxy {} (HTTPS_PROXY)", proxy.addr()))
        .await;
    proxy.start_again().unwrap();
    gateway.wait_for_session(2).await;
    sidecar.wait_until_pending("").await;
    gateway.chat(chat("two")).outcome().await.result();
}

#[tokio::test]
async fn whom_no_proxy_names_is_reached_directly() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    let through = url(&proxy);
    let settings = [
        ("HTTPS_PROXY", through.as_str()),
        ("NO_PROXY", "example.com,0.0.0.0/8"),
        ("PIN_ALLOW_PLAINTEXT", "true"),
    ];
    let there = at("ws", ELSEWHERE, gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    answers(&gateway, &sidecar).await;
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
}

#[tokio::test]
async fn a_gateway_on_this_machine_needs_no_exception() {
    let unused = ConnectProxy::start(([127, 0, 0, 1], 1).into()).unwrap();
    let net = Net::start(&[("HTTPS_PROXY", &url(&unused))]).await;
    net.chat("one").outcome().await.result();
    assert!(unused.asked().is_empty(), "{:?}", unused.asked());
}

#[tokio::test]
async fn what_comes_together_with_the_proxys_answer_is_not_lost() {
    let beyond = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = ConnectProxy::start(beyond.local_addr().unwrap()).unwrap();
    proxy.reply_with(Reply::TunnelWithGreeting);
    let vars = [
        ("PIN_CLIENT_ID", CLIENT),
        ("PIN_API_SECRET", SECRET),
        ("PIN_NODE_ALIAS", "node-1"),
        ("HTTPS_PROXY", &url(&proxy)),
    ]
    .map(|(name, value)| (name.into(), value.into()));
    let config = Config::from_env_in(&Surroundings::default(), vars).unwrap();
    let endpoint = Endpoint {
        host: NAME.into(),
        port: 1,
        tls: false,
    };
    let world = World::real(&config).unwrap();
    let greet = async {
        let (mut peer, _) = beyond.accept().await.unwrap();
        peer.write_all(b"hello").await.unwrap();
        peer
    };
    let (dialled, mut peer) = tokio::join!(world.gateway.dial(&endpoint), greet);
    let mut tunnel = dialled.unwrap();
    let mut greeting = [0; 5];
    let read = tokio::time::timeout(Duration::from_secs(60), tunnel.read_exact(&mut greeting));
    read.await.unwrap().unwrap();
    assert_eq!(&greeting, b"hello");
    tunnel.write_all(b"and back").await.unwrap();
    tunnel.flush().await.unwrap();
    peer.read_exact(&mut [0; 8]).await.unwrap();
    drop(tunnel);
    assert_eq!(
        peer.read(&mut [0]).await.unwrap_or(0),
        0,
        "its end passes, too"
    );
}
