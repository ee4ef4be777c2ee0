//! Gateways that cannot be reached, or not quite: what `/readyz` says, and that a session comes as soon as it can.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use devnet::gateway::{Gateway, Login};
use tokio::time::{Instant, sleep};

use crate::{
    QUICK, next_attempt, quick,
    support::{CLIENT, Counts, Net, SECRET, Sidecar, chat, gateway, ollama, self_signed},
    wire,
};

/// How much later may be.
const SOON: Duration = Duration::from_millis(500);

/// A gateway that speaks TLS with a certificate of its own, which comes as PEM.
async fn encrypted_gateway() -> (Gateway, String) {
    let (tls, pem) = self_signed(&["localhost"]);
    let gateway = Gateway::builder()
        .secret(CLIENT, SECRET)
        .tls(tls)
        .start()
        .await
        .unwrap();
    (gateway, pem)
}

#[tokio::test]
async fn a_gateway_with_a_certificate_of_ones_own_authority_is_trusted_through_a_setting() {
    let (gateway, certificate) = encrypted_gateway().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, certificate).unwrap();
    let settings = [("PIN_TLS_CA_FILE", file.to_str().unwrap())];
    let net = Net::with(CLIENT, gateway, ollama().await, &settings).await;
    net.chat("one").outcome().await.result();
    assert_eq!(net.sidecar.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_and_readyz_says_what_to_do() {
    let (gateway, _) = encrypted_gateway().await;
    let ollama = ollama().await;
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    let pending = sidecar.wait_until_pending("TLS failed").await;
    assert!(pending[0].contains("UnknownIssuer"), "{pending:?}");
    assert!(
        pending[0].contains("name that in PIN_TLS_CA_FILE"),
        "{pending:?}"
    );
    assert!(
        sidecar
            .metric("connect_failures_total{reason=\"tls\"}")
            .await
            >= 1.0
    );
    assert_eq!(gateway.sessions().ever, 0);
}

#[tokio::test]
async fn a_name_that_has_no_address_is_told() {
    let ollama = ollama().await;
    // No label of a name is that long, so that no name server has to be asked.
    let url = format!("wss://{}.invalid", "x".repeat(64));
    let sidecar = Sidecar::start(CLIENT, &url, &ollama.url(), &quick(&[]));
    let pending = sidecar
        .wait_until_pending("its name cannot be resolved")
        .await;
    assert!(
        pending[0].contains("check the name and this machine's DNS"),
        "{pending:?}"
    );
    assert!(
        sidecar
            .metric("connect_failures_total{reason=\"dns\"}")
            .await
            >= 1.0
    );
    assert_eq!(sidecar.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_yet_is_waited_for() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.stop().await;
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    let pending = sidecar.wait_until_pending("nothing listens there").await;
    assert!(
        pending[0].contains(&gateway.addr().to_string()),
        "{pending:?}"
    );
    assert!(
        sidecar
            .metric("connect_failures_total{reason=\"tcp\"}")
            .await
            >= 1.0
    );
    assert_eq!(sidecar.get("/readyz").await.0, 503);
    assert_eq!(sidecar.get("/healthz").await.0, 200);

    gateway.start_again().await.unwrap();
    gateway.wait_for_session(1).await;
    sidecar.wait_until_pending("").await;
}

#[tokio::test]
async fn a_gateway_that_hangs_is_given_up_after_the_connect_timeout() {
    for (hangs, told) in [
        (
            Login::HangUpgrade,
            "the WebSocket upgrade took longer than 100ms",
        ),
        (
            Login::Hang,
            "the answer to the login took longer than 100ms",
        ),
        (
            Login::NeverRead,
            "the answer to the login took longer than 100ms",
        ),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        gateway.set_policy(|policy| policy.login = hangs);
        let settings = quick(&[("PIN_CONNECT_TIMEOUT", "100ms")]);
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
        sidecar.wait_until_pending(told).await;
        assert!(
            sidecar
                .metric("connect_failures_total{reason=\"timeout\"}")
                .await
                >= 1.0
        );

        gateway.set_policy(|policy| policy.login = Login::Check);
        gateway.wait_for_session(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_hangs_has_the_connect_timeout_for_each_step() {
    const TIMED_OUT: &str = "connect_failures_total{reason=\"timeout\"}";
    let limit = Duration::from_secs(10);
    for hangs in [Login::HangUpgrade, Login::Hang, Login::NeverRead] {
        let settings = quick(&[("PIN_CONNECT_TIMEOUT", "10s")]);
        let (net, _wire) = wire::begin(&settings, |policy| policy.login = hangs);
        sleep(limit - Duration::from_millis(100)).await;
        assert_eq!(net.sidecar.metric(TIMED_OUT).await, 0.0);
        sleep(SOON).await;
        assert_eq!(net.sidecar.metric(TIMED_OUT).await, 1.0);
    }
}

#[tokio::test]
async fn a_gateway_that_resets_at_login_is_tried_again() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| policy.login = Login::Reset);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    sidecar
        .wait_until_pending("did not answer the login: the connection broke")
        .await;
    gateway.set_policy(|policy| policy.login = Login::Check);
    gateway.wait_for_session(1).await;
}

#[tokio::test]
async fn an_address_that_is_no_gateway_is_told() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| policy.login = http(404, None));
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    sidecar
        .wait_until_pending(
            "it answered HTTP 404 instead of opening a session; check PIN_SERVER_URL",
        )
        .await;
    assert!(
        sidecar
            .metric("connect_failures_total{reason=\"http\"}")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn an_edge_that_lets_nobody_through_is_told_and_is_no_refused_login() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| {
        policy.login = Login::Http {
            status: 403,
            retry_after: None,
            body: "error code: 1010".to_owned(),
        }
    });
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    let pending = sidecar.wait_until_pending("Cloudflare").await;
    assert!(pending[0].contains("PIN_USER_AGENT"), "{pending:?}");
    let failures = |reason| format!("connect_failures_total{{reason=\"{reason}\"}}");
    sidecar
        .wait_for_metric(&failures("http"), |count| count >= 2.0)
        .await;
    assert_eq!(sidecar.metric(&failures("auth")).await, 0.0);
    gateway.set_policy(|policy| policy.login = Login::Check);
    gateway.wait_for_session(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_names_a_time_is_left_alone_for_that_long() {
    let wanted = Duration::from_secs(50);
    let (net, _wire) = wire::begin(&QUICK, |policy| policy.login = http(503, Some("50")));
    let began = Instant::now();
    net.sidecar
        .wait_for_metric("connect_failures_total{reason=\"http\"}", |count| {
            count == 1.0
        })
        .await;
    net.gateway.set_policy(|policy| policy.login = Login::Check);
    net.gateway.wait_for_session(1).await;
    let waited = began.elapsed();
    // Up to a tenth more, so that not all nodes come at once.
    assert!(
        waited >= wanted && waited < wanted.mul_f64(1.1) + SOON,
        "{waited:?}"
    );
    assert_eq!(net.sidecar.metric("connect_attempts_total").await, 2.0);
}

#[tokio::test]
async fn a_gateway_may_name_a_date_and_its_own_clock_is_what_counts() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    // Whatever the time is here, there it is an hour later, and half an hour to go.
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600 + 1800));
    gateway.set_policy(|policy| {
        policy.clock_ahead = 3600;
        policy.login = http(503, Some(&date));
    });
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    let wait = next_attempt(&sidecar.wait_until_pending("Next attempt").await);
    assert!((1780..=1980).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn no_gateway_keeps_a_node_away_for_more_than_an_hour() {
    for retry_after in ["86400", "99999999999999999999999"] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        gateway.set_policy(|policy| policy.login = http(429, Some(retry_after)));
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
        let wait = next_attempt(&sidecar.wait_until_pending("Next attempt").await);
        assert!((3590..=3960).contains(&wait.as_secs()), "{wait:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_restarts_is_found_again_and_serves() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
    for session in 2..=4 {
        net.gateway.stop().await;
        net.sidecar.wait_until_pending("gateway").await;
        net.gateway.start_again().await.unwrap();
        net.gateway.wait_for_session(session).await;
        net.gateway.chat(chat("one")).outcome().await.result();
    }
    assert_eq!(net.gateway.sessions().most, 1, "never two sessions at once");
    net.sidecar.wait_until_pending("").await;
}

fn http(status: u16, retry_after: Option<&str>) -> Login {
    Login::Http {
        status,
        retry_after: retry_after.map(str::to_owned),
        body: "no".to_owned(),
    }
}
