//! Links that break, fall silent or jam, and gateways that close: noticed in time, and never two sessions at once.

use std::time::Duration;

use devnet::{
    gateway::{Chat, Login, Policy},
    network::Proxy,
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    next_attempt, quick,
    support::{CLIENT, Counts, Net, Sidecar, gateway, ollama},
    wire,
};

const INTERVAL: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(45);
const BEATS: [(&str, &str); 2] = [
    ("PIN_HEARTBEAT_INTERVAL", "15s"),
    ("PIN_HEARTBEAT_TIMEOUT", "45s"),
];

/// After a fight it would come back in ten minutes.
const SLOW_AFTER_A_FIGHT: [(&str, &str); 2] =
    [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "10m")];

/// How much sooner or later may be.
const NEARLY: Duration = Duration::from_millis(100);

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
async fn a_link_that_falls_silent_is_given_up_and_replaced() {
    let silence = [
        ("PIN_HEARTBEAT_INTERVAL", "100ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "400ms"),
    ];
    let (net, network) = through_a_network(&quick(&silence)).await;
    net.gateway
        .wait_for(|frame| frame.is_from_agent("HEARTBEAT"))
        .await;
    network.stall();
    net.sidecar
        .wait_for_metric(SILENT, |count| count == 1.0)
        .await;
    net.sidecar
        .wait_until_pending("silent for PIN_HEARTBEAT_TIMEOUT")
        .await;

    network.mend().await.unwrap();
    net.gateway.wait_for_session(2).await;
    net.chat("one").outcome().await.result();
    assert_eq!(net.gateway.sessions().most, 1);
    net.sidecar.wait_until_pending("").await;
}

const SILENT: &str = "disconnects_total{reason=\"silent\"}";
const STUCK: &str = "disconnects_total{reason=\"stuck\"}";

#[tokio::test(start_paused = true)]
async fn a_link_is_given_up_when_nothing_has_come_for_as_long_as_that_may_be() {
    let (net, wire) = wire::start(&BEATS).await;
    let acknowledged = net
        .gateway
        .wait_for(|frame| frame.is_from_gateway("HEARTBEAT_ACK"))
        .await
        .at;
    sleep(Duration::from_secs(1)).await;
    wire.stall();
    sleep_until(acknowledged + TIMEOUT - NEARLY).await;
    assert_eq!(net.sidecar.metric(SILENT).await, 0.0);
    sleep_until(acknowledged + TIMEOUT + NEARLY).await;
    assert_eq!(net.sidecar.metric(SILENT).await, 1.0);
}

/// A gateway of this kind keeps its session.
async fn is_not_silent(gateway: impl FnOnce(&mut Policy)) {
    let (net, _wire) = wire::begin(&BEATS, |policy| {
        policy.acknowledge_heartbeats = false;
        policy.acknowledge_models = false;
        policy.acknowledge_registrations = false;
        gateway(policy);
    });
    net.gateway.wait_for_session(1).await;
    sleep(TIMEOUT * 10).await;
    assert_eq!(net.gateway.sessions().ever, 1);
    assert_eq!(net.sidecar.metric("session_up").await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_says_nothing_of_itself_is_not_silent_while_it_answers_pings() {
    is_not_silent(|_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_answers_nothing_is_not_silent_while_it_asks() {
    is_not_silent(|policy| {
        policy.answer_pings = false;
        policy.ping_every = Some(TIMEOUT - NEARLY);
    })
    .await;
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
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &SLOW_AFTER_A_FIGHT);
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
async fn a_gateway_whose_codes_say_that_it_restarts_is_not_taken_for_a_fight_over_the_id() {
    for code in [1001, 1011, 1012, 1013] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        let reason = String::new();
        gateway.set_policy(|policy| policy.login = Login::Close { code, reason });
        let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &SLOW_AFTER_A_FIGHT);
        gateway.wait_for_session(5).await;
    }
}

#[tokio::test]
async fn links_that_break_are_not_taken_for_a_fight_over_the_id() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &SLOW_AFTER_A_FIGHT);
    for session in 1..=5 {
        gateway.wait_for_session(session).await;
        gateway.drop_sessions();
    }
}

#[tokio::test]
async fn while_the_limit_of_attempts_holds_the_next_one_back_readyz_says_so() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let settings = quick(&[("PIN_CONNECTS_PER_MINUTE", "1")]);
    let net = Net::with(CLIENT, gateway, ollama, &settings).await;
    net.gateway.drop_sessions();
    let pending = net
        .sidecar
        .wait_until_pending("as PIN_CONNECTS_PER_MINUTE allows")
        .await;
    assert!(
        pending[0].starts_with("The connection to the gateway broke"),
        "{pending:?}"
    );
    let wait = next_attempt(&pending);
    assert!((50..=61).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn a_gateway_that_closes_after_a_failed_interview_is_not_taken_for_a_fight_over_the_id() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &SLOW_AFTER_A_FIGHT);
    for session in 1..=4 {
        gateway.wait_for_session(session).await;
        gateway.send(&json!({"type": "INTERVIEW_FAILED", "reason": "too slow"}));
        gateway.close_sessions(1000, "");
        gateway.wait_for_no_session().await;
    }
    gateway.wait_for_session(5).await;
}

#[tokio::test]
async fn after_a_failed_interview_the_node_stays_away_as_it_was_told_and_says_so() {
    let net = Net::with(CLIENT, gateway().await, ollama().await, &quick(&[])).await;
    net.gateway.send(
        &json!({"type": "INTERVIEW_FAILED", "reason": "too slow", "retry_after_seconds": 60}),
    );
    // The complaint alone does not end the session.
    net.chat("one").outcome().await.result();
    net.gateway.close_sessions(1000, "");
    net.sidecar
        .wait_until_pending("asked to stay away for a while")
        .await;
    assert_eq!(
        net.sidecar
            .metric("disconnects_total{reason=\"retry_after\"}")
            .await,
        1.0
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_told_to_stay_away_comes_back_when_the_time_is_over() {
    let (net, _wire) = wire::start(&quick(&[])).await;
    let away = Duration::from_secs(60);
    net.gateway.send(
        &json!({"type": "INTERVIEW_FAILED", "reason": "too slow", "retry_after_seconds": 60}),
    );
    // It counts from the close.
    sleep(Duration::from_secs(20)).await;
    net.gateway.close_sessions(1000, "");
    let closed = Instant::now();
    sleep_until(closed + away - Duration::from_millis(1)).await;
    assert_eq!(net.sidecar.metric("connect_attempts_total").await, 1.0);
    net.gateway.wait_for_session(2).await;
    // Up to a tenth more, so that not all nodes come at once.
    let waited = closed.elapsed();
    assert!(waited < away.mul_f64(1.1) + NEARLY, "{waited:?}");
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
fn flood<S>(net: &Net<S>, chats: usize) -> Vec<Chat> {
    net.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(10_000); 90]);
    });
    (0..chats).map(|_| net.streamed("one")).collect()
}

/// Chunks of 9 MB: the outbox takes 1, the sockets between some 4.
const FLOOD: usize = 10;

/// Chunks of 7 MB: the outbox takes 1, and on the way of each chat some half is under way.
const FLOOD_ON_WIRE: usize = 8;
const FLOODED: [(&str, &str); 4] = [
    ("PIN_CAPACITY", "10"),
    ("PIN_OUTBOX_BYTES", "1MiB"),
    ("PIN_MAX_RESULT_BYTES", "1MiB"),
    ("PIN_TOKEN_TIMEOUT", "10s"),
];

#[tokio::test(start_paused = true)]
async fn a_gateway_that_takes_nothing_slows_ollama_down_instead_of_filling_memory() {
    let (net, _wire) = wire::start(&[&FLOODED[..], &BEATS].concat()).await;
    net.gateway.stop_reading();
    let mut chats = flood(&net, FLOOD_ON_WIRE);
    // Longer than PIN_TOKEN_TIMEOUT, which must not run while it is us who do not read; not so long that the session is
    // given up over it.
    let long = TIMEOUT - Duration::from_secs(5);
    sleep(long).await;
    let requests = net.ollama.chat_requests();
    let slowed = requests
        .iter()
        .filter(|request| request.stalled_for() > long - Duration::from_secs(1));
    let slowed = slowed.count();
    assert!(slowed >= 2, "only {slowed} chats are held up");
    // The last place but one for a chunk is taken: whoever has more has to wait.
    let held = net.sidecar.metric("outbox_bytes").await;
    let bound = f64::from(1024 * 1024);
    assert!(held > bound - 2.0 * 11_000.0, "{held}");
    // Answers have a place of their own; those that had ended by then are few.
    let running = net.sidecar.metric("requests_running").await;
    let finished = FLOOD_ON_WIRE as f64 - running;
    assert!(held <= bound * (1.0 + finished), "{held}");

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
        ("PIN_HEARTBEAT_INTERVAL", "100ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "1s"),
    ];
    let settings = quick(&[&FLOODED[..], &stuck].concat());
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    net.gateway
        .set_policy(|policy| policy.ping_every = Some(Duration::from_millis(50)));
    net.gateway.stop_reading();
    let _chats = flood(&net, FLOOD);
    net.sidecar
        .wait_for_metric(STUCK, |count| count == 1.0)
        .await;

    net.gateway.read_again();
    net.gateway.wait_for_session(2).await;
    net.ollama.wait_until_idle().await;
    net.sidecar.wait_until_pending("").await;
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_may_wait_for_a_gateway_that_takes_nothing_as_long_as_silence_may_last() {
    let (net, _wire) = wire::start(&[&FLOODED[..], &BEATS].concat()).await;
    let up = Instant::now();
    net.gateway
        .set_policy(|policy| policy.ping_every = Some(Duration::from_secs(1)));
    net.gateway.stop_reading();
    let _chats = flood(&net, FLOOD_ON_WIRE);
    let due = up + INTERVAL + TIMEOUT;
    sleep_until(due - NEARLY).await;
    assert_eq!(net.sidecar.metric(STUCK).await, 0.0);
    sleep_until(due + NEARLY).await;
    assert_eq!(net.sidecar.metric(STUCK).await, 1.0);
}
