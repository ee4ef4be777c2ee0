//! `pin-sidecar pause`, `resume` and `status`, as a person, a cron job or a hook runs them.

use std::net::UdpSocket;

use serde_json::Value;

use crate::program::{Ended, Net, program, run, with, with_arguments};

async fn said(arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    run(with(with_arguments(program(), arguments), settings)).await
}

fn address(net: &Net) -> String {
    net.agent.url("").trim_start_matches("http://").to_owned()
}

#[tokio::test]
async fn a_node_is_paused_and_resumed_and_says_how_it_does() {
    let net = Net::start(&[]).await;
    let address = address(&net);
    // Whatever else is wrong with the settings of whoever asks.
    let own = [("PIN_LISTEN_ADDR", &*address), ("PIN_CAPACITY", "many")];
    let ended = said(&["status"], &own).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(
        ended.output.starts_with("Online: logged in"),
        "{}",
        ended.output
    );
    assert!(ended.output.contains("0 running of 4"), "{}", ended.output);
    let ended = said(&["pause", "--for", "1h 30m", "--json"], &own).await;
    let pause: Value = serde_json::from_str(&ended.output).unwrap();
    let seconds = |key: &str| pause[key].as_u64().unwrap();
    assert_eq!(seconds("until") - seconds("since"), 90 * 60);
    net.wait_until_pending("Paused until 20").await;
    let ended = said(&["pause"], &own).await;
    assert_eq!(ended.code, Some(0));
    let words = "Paused until somebody ends that, as it was asked to.";
    assert!(ended.output.starts_with(words), "{}", ended.output);
    let ended = said(&["resume"], &own).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    let ended = said(&["status", "--json"], &own).await;
    let status: Value = serde_json::from_str(&ended.output).unwrap();
    assert_eq!(status["pause"], Value::Null);
}

#[tokio::test]
async fn a_verb_that_cannot_be_obeyed_says_why() {
    let net = Net::start(&[]).await;
    let address = address(&net);
    let own = [("PIN_LISTEN_ADDR", &*address)];
    let ended = said(&["pause", "--for", "2"], &own).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.output.contains("`for` is a time with a unit"),
        "{}",
        ended.output
    );
    let nobody = [("PIN_LISTEN_ADDR", "127.0.0.1:1")];
    let ended = said(&["resume"], &nobody).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .output
            .contains("does a sidecar run there (PIN_LISTEN_ADDR)?"),
        "{}",
        ended.output
    );
    let ended = said(
        &[
            "resume",
            "--url",
            &net.gateway.url().replace("ws:", "http:"),
        ],
        &[],
    )
    .await;
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    let both = [("PIN_ADMIN_TOKEN", "one"), ("PIN_ADMIN_TOKEN_FILE", "/two")];
    let ended = said(&["resume"], &both).await;
    assert_eq!(ended.code, Some(78));
    assert!(
        ended.output.contains("keep one of them"),
        "{}",
        ended.output
    );
}

/// This machine's own address in its network, if it has one.
fn address_in_the_network() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it only finds the way.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then(|| address.to_string())
}

#[tokio::test]
async fn from_another_machine_the_token_opens_what_is_shut_without_it() {
    let Some(address) = address_in_the_network() else {
        return crate::program::skipped("a command from another machine", "there is no network");
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "t0ken\n").unwrap();
    let file = file.to_str().unwrap();
    let port = |net: &Net| net.agent.url("").rsplit(':').next().unwrap().to_owned();
    let everywhere = ("PIN_LISTEN_ADDR", "0.0.0.0:0");

    let shut = Net::start(&[everywhere]).await;
    let url = format!("http://{address}:{}", port(&shut));
    let ended = said(&["pause", "--url", &url], &[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.output.contains("HTTP 403") && ended.output.contains("PIN_ADMIN_TOKEN_FILE"),
        "{}",
        ended.output
    );

    let open = Net::start(&[everywhere, ("PIN_ADMIN_TOKEN_FILE", file)]).await;
    let url = format!("http://{address}:{}", port(&open));
    for (token, code, words) in [
        ("", 1, "Send the token"),
        ("wrong", 1, "This is not the token"),
        ("t0ken", 0, "Paus"),
    ] {
        let ended = said(&["pause", "--url", &url], &[("PIN_ADMIN_TOKEN", token)]).await;
        assert_eq!(ended.code, Some(code), "{}", ended.output);
        assert!(ended.output.contains(words), "{}", ended.output);
    }
    // A token that was replaced counts at once.
    std::fs::write(file, "new0ne\n").unwrap();
    let ended = said(&["resume", "--url", &url], &[("PIN_ADMIN_TOKEN", "new0ne")]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let log = open.agent.log();
    let says = |words: &str| log.iter().any(|line| line.contains(words));
    assert!(says("a wrong admin token was brought"), "{log:#?}");
    assert!(!says("t0ken") && !says("new0ne"), "{log:#?}");
}
