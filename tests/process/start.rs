//! Starting: beside others, on any address, soon, and small.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    program::{Net, between, event, memory_kib, program, with},
    support::{self, gateway, ollama},
};

/// For a debug build on a busy machine; the release build's budget is an order of magnitude below.
const START: Duration = Duration::from_millis(200);
const IDLE_KIB: u64 = 20 << 10;

#[tokio::test]
async fn it_is_logged_in_soon_and_needs_little_memory() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let mut quickest = Duration::MAX;
    let mut resident = 0;
    // The quickest of a few tells what the program needs, the others what the machine did meanwhile.
    for session in 1..=5 {
        let began = Instant::now();
        let agent = between(program(), &gateway, &ollama).start().await.unwrap();
        gateway.wait_for_session(session).await;
        quickest = quickest.min(began.elapsed());
        agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
        resident = memory_kib(&agent, "VmRSS");
    }
    println!("start to logged in: {quickest:?}; resident when idle: {resident} KiB");
    assert!(quickest < START, "{quickest:?}");
    assert!(resident < IDLE_KIB, "{resident} KiB");
}

#[tokio::test]
async fn two_run_beside_each_other() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let start = |client, alias| {
        with(
            between(program().argument("run"), &gateway, &ollama),
            &[("PIN_CLIENT_ID", client), ("PIN_NODE_ALIAS", alias)],
        )
        .start()
    };
    let first = start(support::CLIENT, "one").await.unwrap();
    let second = start(support::DESKTOP, "two").await.unwrap();
    for agent in [&first, &second] {
        agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    }
    gateway.wait_for_session(2).await;
    assert_ne!(first.url("/"), second.url("/"));
}

#[tokio::test]
async fn port_0_for_everybody_is_a_port_that_the_log_names() {
    let net = Net::with(
        gateway().await,
        program(),
        &[("PIN_LISTEN_ADDR", "[::]:0"), ("PIN_LOG_FORMAT", "json")],
    )
    .await;
    let line = net
        .agent
        .wait_for_log(|line| line.contains("probes and metrics are answered"))
        .await;
    let address: SocketAddr = event(&line)["address"].as_str().unwrap().parse().unwrap();
    let local = format!("127.0.0.1:{}", address.port()).parse().unwrap();
    assert_eq!(support::get(local, "/healthz").await.0, 200);
}
