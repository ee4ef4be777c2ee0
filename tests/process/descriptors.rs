//! A process that has no file descriptor left: it waits until there are some again, and ends for nobody.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use devnet::agent::{Agent, Signal};
use serde_json::json;

use crate::{
    program::{Net, PROGRAM, ends_with, with_arguments},
    support::{chat, gateway, poll},
};

/// Descriptors that it may have: more than it needs, fewer than its probes may take.
const LIMIT: &str = "48";

/// More connections than that, and no more than the system keeps for it until they are accepted.
const HOGS: usize = 100;

async fn net() -> Net {
    let limited = with_arguments(
        Agent::builder("sh"),
        &["-c", r#"ulimit -n "$1" && exec "$0""#, PROGRAM, LIMIT],
    );
    let settings = [
        ("PIN_RECONNECT_MIN", "10ms"),
        ("PIN_RECONNECT_MAX", "50ms"),
        ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
    ];
    let net = Net::with(gateway().await, limited, &settings).await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    net
}

fn admin(net: &Net) -> SocketAddr {
    net.agent
        .url("")
        .trim_start_matches("http://")
        .parse()
        .unwrap()
}

/// Takes every descriptor that there is.
async fn hog(net: &Net) -> Vec<TcpStream> {
    let hogs = (0..HOGS)
        .map(|_| TcpStream::connect(admin(net)).unwrap())
        .collect();
    net.agent
        .wait_for_log(|line| line.contains("probes and scrapes cannot connect"))
        .await;
    hogs
}

/// Asks on a connection that is open already.
fn ask(probe: &mut TcpStream, path: &str) -> String {
    probe.set_read_timeout(Some(devnet::PATIENCE)).unwrap();
    write!(probe, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = [0; 64 * 1024];
    let read = probe.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

async fn is_well_again(net: &Net) {
    poll(
        || async {
            net.agent
                .get("/healthz")
                .await
                .map_or(0, |answer| answer.status)
        },
        |status| *status == 200,
    )
    .await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    net.gateway
        .chat(chat("afterwards"))
        .outcome()
        .await
        .result();
    net.agent.signal(Signal::TERM);
    ends_with(&net.agent, 0).await;
}

#[tokio::test]
async fn without_descriptors_the_session_lives_and_probes_are_answered_again_once_there_are_some() {
    let net = net().await;
    let mut probe = TcpStream::connect(admin(&net)).unwrap();
    assert!(ask(&mut probe, "/healthz").starts_with("HTTP/1.1 200 "));
    let hogs = hog(&net).await;

    net.gateway.send(&json!({"type": "PING"}));
    net.gateway
        .wait_for(|frame| frame.is_from_agent("PONG"))
        .await;
    // Whether there is a connection to Ollama left is luck; an answer is not.
    let mut chats: Vec<_> = (0..4)
        .map(|_| net.gateway.chat(chat("meanwhile")))
        .collect();
    for chat in &mut chats {
        chat.outcome().await;
    }
    for path in ["/healthz", "/metrics", "/status"] {
        assert!(ask(&mut probe, path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert_eq!(net.gateway.sessions().ever, 1);

    drop((hogs, probe));
    is_well_again(&net).await;
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test]
async fn a_session_that_breaks_without_descriptors_comes_back_and_brings_what_it_owes() {
    let net = net().await;
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(20));
    let mut running = net.gateway.chat(chat("one"));
    net.ollama.wait_for_chats(1).await;
    let hogs = hog(&net).await;
    net.gateway.drop_sessions();
    // Meanwhile there are a few attempts that must fail, or one that finds the session's own descriptor.
    net.ollama.wait_until_idle().await;
    assert_eq!(net.agent.exit_status(), None, "{:#?}", net.agent.log());
    drop(hogs);
    running.outcome().await.result();
    assert_eq!(net.ollama.chats().ever, 1);
    is_well_again(&net).await;
}

#[tokio::test]
async fn without_descriptors_it_can_still_be_stopped() {
    let net = net().await;
    let _hogs = hog(&net).await;
    net.agent.signal(Signal::TERM);
    let status = net.agent.wait_for(Duration::from_secs(2)).await;
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(0),
        "{:#?}",
        net.agent.log()
    );
}
