//! Proxies that do not lead to the gateway: what `/readyz` says, and that the session comes once they do.

use std::time::Duration;

use devnet::proxy::{ConnectProxy, Reply};

use crate::{
    NAME, QUICK, at,
    support::{CLIENT, Sidecar, gateway, ollama},
};

const PASSWORD: &str = "Zebra";

/// What a sidecar with these settings says of a proxy that it cannot use; it has no session yet.
async fn told(sidecar: &Sidecar, words: &str) -> String {
    let pending = sidecar.wait_until_pending(words).await;
    let failures = sidecar
        .metric("connect_failures_total{reason=\"proxy\"}")
        .await;
    assert!(failures >= 1.0, "{pending:?}");
    for path in ["/readyz", "/status", "/metrics"] {
        let (_, shown) = sidecar.get(path).await;
        assert!(
            !shown.contains(PASSWORD) && !shown.contains("Basic "),
            "{shown}"
        );
    }
    assert_eq!(sidecar.get("/healthz").await.0, 200);
    pending.into_iter().next().unwrap()
}

#[tokio::test]
async fn each_way_in_which_a_proxy_fails_has_its_sentence_and_passes_by_itself() {
    for (reply, words) in [
        (
            Reply::Status(403),
            "forbids this connection (HTTP 403); have it allow CONNECT",
        ),
        (
            Reply::Status(407),
            "refuses the user and password in HTTPS_PROXY (HTTP 407)",
        ),
        (
            Reply::Status(502),
            "did not get through to the gateway (HTTP 502); check PIN_SERVER_URL",
        ),
        (
            Reply::Status(504),
            "did not get through to the gateway (HTTP 504)",
        ),
        (
            Reply::Status(405),
            "answered CONNECT with HTTP 405; check that HTTPS_PROXY leads to a proxy",
        ),
        (Reply::Status(302), "answered CONNECT with HTTP 302"),
        (
            Reply::Garbage,
            "does not answer as an HTTP proxy; check scheme and port in HTTPS_PROXY",
        ),
        (Reply::Endless, "does not answer as an HTTP proxy"),
        (Reply::HangUp, "closed the connection without an answer"),
        (Reply::Half, "did not answer CONNECT within 1s"),
        (Reply::Silence, "did not answer CONNECT within 1s"),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        let proxy = ConnectProxy::start(gateway.addr()).unwrap();
        proxy.reply_with(reply);
        let limit = match reply {
            Reply::Half | Reply::Silence => "1s",
            _ => "1h",
        };
        let with_password = format!("http://ann:{PASSWORD}@{}", proxy.addr());
        let settings = [
            ("HTTPS_PROXY", with_password.as_str()),
            ("PIN_ALLOW_PLAINTEXT", "true"),
            ("PIN_CONNECT_TIMEOUT", limit),
        ];
        let settings = [&QUICK[..], &settings].concat();
        let there = at("ws", NAME, gateway.addr());
        let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
        let sentence = told(&sidecar, words).await;
        let blamed = format!(
            "The gateway {NAME}:{} cannot be used: the proxy {} (HTTPS_PROXY) {words}",
            gateway.addr().port(),
            proxy.addr()
        );
        assert!(sentence.starts_with(&blamed), "{reply:?}: {sentence}");
        assert_eq!(gateway.sessions().ever, 0);

        proxy.reply_with(Reply::Tunnel);
        gateway.wait_for_session(1).await;
        sidecar.wait_until_pending("").await;
    }
}

#[tokio::test]
async fn a_proxy_that_wants_a_password_and_has_got_none_is_told_from_one_that_refuses_it() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    proxy.insist_on("Basic eA==");
    let bare = proxy.addr().to_string();
    let settings = [
        ("HTTPS_PROXY", bare.as_str()),
        ("PIN_ALLOW_PLAINTEXT", "true"),
    ];
    let there = at("ws", NAME, gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    let sentence = told(&sidecar, "wants a user and password (HTTP 407)").await;
    assert!(
        sentence.contains("HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_not_mistaken_for_the_gateway() {
    let ollama = ollama().await;
    let gone = ConnectProxy::start(([127, 0, 0, 1], 1).into()).unwrap();
    gone.stop().await;
    // No label of a name is that long, so that no name server has to be asked.
    let nameless = format!("{}.invalid:3128", "x".repeat(64));
    for (proxy, words) in [
        (
            gone.addr().to_string(),
            "cannot be used: nothing listens there (connection refused)",
        ),
        (nameless, "cannot be used: its name cannot be resolved"),
        (
            format!("https://{}", ollama.addr()),
            "cannot be used: TLS failed",
        ),
    ] {
        let settings = [("HTTPS_PROXY", proxy.as_str())];
        let sidecar = Sidecar::start(CLIENT, "wss://gateway.test", &ollama.url(), &settings);
        let sentence = told(&sidecar, words).await;
        let place = proxy.trim_start_matches("https://");
        let blamed = format!("the proxy {place} (HTTPS_PROXY) {words}");
        assert!(sentence.contains(&blamed), "{sentence}");
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_proxy_that_is_silent() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    proxy.reply_with(Reply::Silence);
    let through = proxy.addr().to_string();
    let settings = [
        ("HTTPS_PROXY", through.as_str()),
        ("PIN_ALLOW_PLAINTEXT", "true"),
        ("PIN_CONNECT_TIMEOUT", "1h"),
    ];
    let there = at("ws", NAME, gateway.addr());
    let sidecar = Sidecar::start(CLIENT, &there, &ollama.url(), &settings);
    proxy.wait_until_asked().await;
    let drained = tokio::time::timeout(Duration::from_secs(60), sidecar.drain());
    drained.await.unwrap();
}
