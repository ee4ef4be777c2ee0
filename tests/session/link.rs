//! Links that break, fall silent or jam, and gateways that close: noticed in time, and never two sessions at once.

use std::time::{Duration, Instant};

use devnet::{
    gateway::{Chat, Login},
    network::Proxy,
};
use serde_json::json;

use crate::{
    next_attempt, quick,
    support::{CLIENT, Net, Sidecar, gateway, ollama},
};

/// Generous: a machine may be busy with other things.
const SOON: Duration = Duration::from_secs(5);

/// A sidecar that is logged in through a network that can be broken.
async fn through_a_network(settings: &[(&str, &str)]) -> (Net, Proxy) {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let network = Proxy::start(gateway.addr()).await.unwrap();
    let sidecar = Sidecar::start(
        CLIENT,
        &gateway.url_at(network.addr()),
        &ollama.url(),
        settings,
    );
    gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    (
        Net {
            gateway,
            ollama,
            sidecar,
        },
        network,
    )
}

#[tokio::test]
async fn a_link_that_falls_silent_is_given_up_in_time_and_replaced() {
    let silence = [
        ("PIN_HEARTBEAT_INTERVAL", "100ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "400ms"),
    ];
    let (net, network) = through_a_network(&quick(&silence)).await;
    net.gateway
        .wait_for(|frame| frame.is_from_agent("HEARTBEAT"))
        .await;
    network.stall();
    let stalled = Instant::now();
    net.sidecar
        .wait_for_metric("disconnects_total{reason=\"silent\"}", |count| count == 1.0)
        .await;
    // What came last came at most one interval before.
    let noticed = stalled.elapsed();
    assert!(
        noticed >= Duration::from_millis(250) && noticed < SOON,
        "{noticed:?}"
    );
    net.sidecar
        .wait_until_pending("silent for PIN_HEARTBEAT_TIMEOUT")
        .await;

    network.mend().await.unwrap();
    net.gateway.wait_for_session(2).await;
    net.chat("one").outcome().await.result();
    assert_eq!(net.gateway.sessions().most, 1);
    net.sidecar.wait_until_pending("").await;
}

#[tokio::test]
async fn a_gateway_that_says_nothing_of_itself_is_not_silent_while_it_answers_pings() {
    let silence = [
        ("PIN_HEARTBEAT_INTERVAL", "50ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "1s"),
    ];
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&silence)).await;
    net.gateway.set_policy(|policy| {
        policy.acknowledge_heartbeats = false;
        policy.acknowledge_models = false;
        policy.acknowledge_registrations = false;
    });
    let began = Instant::now();
    let mut seen = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        seen = net
            .gateway
            .wait_for_since(seen, |frame| frame.is_from_agent("HEARTBEAT"))
            .await
            .0
            + 1;
    }
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test]
async fn a_network_that_is_cut_is_told_and_the_session_comes_back_with_it() {
    let (net, network) = through_a_network(&quick(&[])).await;
    for session in 2..=3 {
        network.cut().await;
        net.sidecar
            .wait_until_pending("nothing listens there")
            .await;
        network.mend().await.unwrap();
        net.gateway.wait_for_session(session).await;
        net.chat("one").outcome().await.result();
    }
    assert_eq!(net.gateway.sessions().most, 1);
    assert_eq!(
        net.sidecar
            .metric("disconnects_total{reason=\"reset\"}")
            .await,
        2.0
    );
}

#[tokio::test]
async fn however_often_sessions_break_there_are_never_two() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
    for session in 2..=12 {
        net.gateway.drop_sessions();
        net.gateway.wait_for_session(session).await;
    }
    assert_eq!(net.gateway.sessions().most, 1);
    assert_eq!(net.gateway.sessions().ever, 12);
}

#[tokio::test]
async fn a_close_is_answered_before_the_link_is_left() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
    net.gateway.close_sessions(1012, "restart");
    let close = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("close"))
        .await;
    assert_eq!(close.value["code"], 1012);
    net.gateway.wait_for_session(2).await;
    assert_eq!(
        net.sidecar
            .metric("disconnects_total{reason=\"closed\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn a_gateway_that_closes_three_young_sessions_is_left_alone_and_readyz_says_why_that_may_be()
{
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| {
        policy.login = Login::Close {
            code: 1000,
            reason: String::new(),
        }
    });
    let settings = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "10m")];
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    let pending = sidecar
        .wait_until_pending("another agent may be using this client id")
        .await;
    let wait = next_attempt(&pending);
    assert!((590..=600).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(gateway.sessions().ever, 3);
}

#[tokio::test]
async fn a_gateway_that_says_why_it_closes_is_not_taken_for_a_fight_over_the_id() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| {
        policy.login = Login::Close {
            code: 1012,
            reason: "restarting".to_owned(),
        }
    });
    let settings = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "10ms")];
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    gateway.wait_for_session(6).await;
    let pending = sidecar.pending().await;
    assert!(
        !pending
            .iter()
            .any(|reason| reason.contains("another agent")),
        "{pending:?}"
    );
}

#[tokio::test]
async fn a_gateway_that_closes_after_a_failed_interview_is_not_taken_for_a_fight_over_the_id() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let settings = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "10m")];
    let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    for session in 1..=4 {
        gateway.wait_for_session(session).await;
        gateway.send(&json!({"type": "INTERVIEW_FAILED", "reason": "too slow"}));
        gateway.close_sessions(1000, "");
        gateway.wait_for_no_session().await;
    }
    // After a fight it would come back in ten minutes.
    gateway.wait_for_session(5).await;
}

#[tokio::test]
async fn after_a_failed_interview_the_node_stays_away_for_as_long_as_it_was_told() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
    net.gateway
        .send(&json!({"type": "INTERVIEW_FAILED", "reason": "too slow", "retry_after_seconds": 1}));
    // The complaint alone does not end the session.
    net.chat("one").outcome().await.result();
    let closed = Instant::now();
    net.gateway.close_sessions(1000, "");
    net.sidecar
        .wait_until_pending("asked to stay away for a while")
        .await;
    net.gateway.wait_for_session(2).await;
    assert!(
        closed.elapsed() >= Duration::from_secs(1),
        "{:?}",
        closed.elapsed()
    );
    assert_eq!(
        net.sidecar
            .metric("disconnects_total{reason=\"retry_after\"}")
            .await,
        1.0
    );
    assert_eq!(net.sidecar.metric("connect_attempts_total").await, 2.0);
}

#[tokio::test]
async fn no_time_that_a_gateway_names_is_too_long_to_count_with() {
    for seconds in ["1e18", "1e999", "18446744073709551615", "3601", "1e-9"] {
        let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
        net.gateway.send_text(&format!(
            r#"{{"type":"INTERVIEW_FAILED","retry_after_seconds":{seconds}}}"#
        ));
        net.chat("one").outcome().await.result();
        net.gateway.close_sessions(1000, "");
        if seconds == "1e-9" {
            net.gateway.wait_for_session(2).await;
            continue;
        }
        let pending = net.sidecar.wait_until_pending("Next attempt").await;
        let wait = next_attempt(&pending);
        // An hour, and up to a tenth more; a few seconds of it may be over.
        assert!((3590..=3960).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(net.sidecar.get("/status").await.0, 200);
    }
}

/// As many streamed chats, each of about 900 KB, at once.
fn flood(net: &Net, chats: usize) -> Vec<Chat> {
    net.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(10_000); 90]);
    });
    (0..chats).map(|_| net.streamed("one")).collect()
}

/// Chunks of 9 MB: the outbox takes 1, the sockets between some 4.
const FLOOD: usize = 10;
const FLOODED: [(&str, &str); 4] = [
    ("PIN_CAPACITY", "10"),
    ("PIN_OUTBOX_BYTES", "1MiB"),
    ("PIN_MAX_RESULT_BYTES", "1MiB"),
    ("PIN_TOKEN_TIMEOUT", "300ms"),
];

#[tokio::test]
async fn a_gateway_that_takes_nothing_slows_ollama_down_instead_of_filling_memory() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &FLOODED).await;
    net.gateway.stop_reading();
    let mut chats = flood(&net, FLOOD);
    // The last place but one for a chunk is taken: whoever has more has to wait.
    let full = f64::from(1024 * 1024 - 2 * 11_000);
    net.sidecar
        .wait_for_metric("outbox_bytes", |bytes| bytes > full)
        .await;
    // Longer than PIN_TOKEN_TIMEOUT, which must not run while it is us who do not read.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let running = net.sidecar.metric("requests_running").await;
    assert!(running >= 2.0, "only {running} chats wait");
    let held = net.sidecar.metric("outbox_bytes").await;
    // Answers have a place of their own; those that had ended by then are few.
    let finished = FLOOD as f64 - running;
    assert!(held <= f64::from(1024 * 1024) * (1.0 + finished), "{held}");

    net.gateway.read_again();
    for chat in &mut chats {
        let outcome = chat.outcome().await;
        assert_eq!(outcome.text().len(), 900_000);
        assert_eq!(outcome.streamed("content").len(), 900_000);
    }
    assert_eq!(net.gateway.sessions().ever, 1);
    net.sidecar
        .wait_for_metric("outbox_bytes", |bytes| bytes == 0.0)
        .await;
}

#[tokio::test]
async fn a_gateway_that_takes_nothing_is_given_up_though_it_still_talks() {
    let stuck = [
        ("PIN_HEARTBEAT_INTERVAL", "200ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "2s"),
    ];
    let settings = quick(&[&FLOODED[..], &stuck].concat());
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    net.gateway
        .set_policy(|policy| policy.ping_every = Some(Duration::from_millis(50)));
    net.gateway.stop_reading();
    let _chats = flood(&net, FLOOD);
    let began = Instant::now();
    net.sidecar
        .wait_for_metric("disconnects_total{reason=\"stuck\"}", |count| count == 1.0)
        .await;
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(began.elapsed() < SOON * 2, "{:?}", began.elapsed());

    net.gateway.read_again();
    net.gateway.wait_for_session(2).await;
    net.ollama.wait_until_idle().await;
    net.sidecar.wait_until_pending("").await;
}
