//! The login: who it is for, how it is signed, and what becomes of one that is refused.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use devnet::{
    gateway::{Gateway, Login, Signature},
    ollama::{CHAT, Fault},
};
use pin_sidecar::clock::WallClock;
use serde_json::json;

use crate::{
    names, next_attempt, quick, said,
    support::{CLIENT, DESKTOP, MODEL, Net, SECRET, Sidecar, chat, gateway, ollama},
};

#[tokio::test]
async fn an_operator_daemon_tells_its_wallet_then_its_node_then_its_models() {
    let net = Net::start(&[
        ("PIN_PAYOUT_ADDRESS", "0xabc"),
        ("PIN_REGION", "eu-central"),
        ("PIN_PRICE_PER_THOUSAND_TOKENS", "0.002"),
        ("PIN_INTERVIEW_MODEL", "llama3.2"),
        ("PIN_PRELOAD_MODELS", "none"),
        ("PIN_CAPACITY", "3"),
    ])
    .await;
    let said = said(&net.gateway, 1);
    assert_eq!(
        names(&said),
        ["AUTH", "UPDATE_WALLET", "REGISTER_NODE", "MODEL_LIST"]
    );
    assert_eq!(
        said[1].value,
        json!({"type": "UPDATE_WALLET", "payout_address": "0xabc"})
    );
    assert_eq!(
        said[2].value,
        json!({
            "type": "REGISTER_NODE", "alias": "node-1", "models": [MODEL], "capacity": 3, "region": "eu-central",
            "pricePerThousandTokens": 0.002, "interviewModel": "llama3.2", "apiMode": "ollama",
        })
    );
    assert_eq!(
        said[3].value,
        json!({"type": "MODEL_LIST", "models": [MODEL]})
    );
    assert_eq!(net.sidecar.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_desktop_client_tells_its_models_alone() {
    let net = Net::start_as(DESKTOP, &[]).await;
    let said = said(&net.gateway, 1);
    assert_eq!(names(&said), ["AUTH", "MODEL_LIST"]);
    assert_eq!(
        said[1].value,
        json!({"type": "MODEL_LIST", "models": [MODEL]})
    );
    assert_eq!(net.sidecar.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn both_generations_log_in_with_either_signature() {
    for (setting, signature) in [
        ("sha256", Signature::Sha256),
        ("hmac-sha256", Signature::HmacSha256),
    ] {
        for client in [CLIENT, DESKTOP] {
            let gateway = Gateway::builder()
                .secret(client, SECRET)
                .signature(signature)
                .start()
                .await
                .unwrap();
            let net = Net::with(
                client,
                gateway,
                ollama().await,
                &[("PIN_SIGNATURE", setting)],
            )
            .await;
            let auth = &said(&net.gateway, 1)[0].value;
            assert_eq!(auth["client_id"], client);
            let timestamp = auth["timestamp"].as_str().unwrap();
            assert_eq!(auth["signature"], signature.sign(client, timestamp, SECRET));
        }
    }
}

#[tokio::test]
async fn a_node_whose_alias_is_taken_is_shown_under_the_one_that_it_got() {
    let gateway = Gateway::builder()
        .secret(CLIENT, SECRET)
        .taken_alias("node-1")
        .start()
        .await
        .unwrap();
    let net = Net::with(CLIENT, gateway, ollama().await, &[]).await;
    let shown = r#"node_info{alias="node-1-a",node_id="node_1",pin_region="global"}"#;
    // The metric is there once the acknowledgement has come, and a chat comes after it.
    net.chat("one").outcome().await.result();
    assert_eq!(net.sidecar.metric(shown).await, 1.0);
    let (_, metrics) = net.sidecar.get("/metrics").await;
    assert_eq!(metrics.matches("node_info{").count(), 1, "{metrics}");
}

/// A clock that goes only when it is told.
struct Clock(AtomicU64);

impl WallClock for Clock {
    fn unix_seconds(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn every_login_is_signed_anew() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let clock = Arc::new(Clock(AtomicU64::new(now)));
    let known = Arc::clone(&clock) as Arc<dyn WallClock>;
    let _sidecar = Sidecar::start_by(known, CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    for login in 1..=3 {
        gateway.wait_for_session(login).await;
        clock.0.fetch_add(7, Ordering::Relaxed);
        gateway.drop_sessions();
    }
    let frames = gateway.frames();
    let logins = frames
        .iter()
        .filter(|frame| frame.is_from_agent("AUTH"))
        .take(3);
    let timestamps: Vec<u64> = logins
        .map(|auth| auth.value["timestamp"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(timestamps, [now, now + 7, now + 14]);
}

/// All timers are the system's steady ones; the wall clock is only told to others.
#[tokio::test]
async fn a_clock_that_jumps_disturbs_no_session_and_the_next_login_is_signed_by_it() {
    const BEAT: Duration = Duration::from_millis(20);
    let settings = quick(&[
        ("PIN_HEARTBEAT_INTERVAL", "20ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "10s"),
        ("PIN_TOKEN_TIMEOUT", "10s"),
    ]);
    let (gateway, ollama) = (gateway().await, ollama().await);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let clock = Arc::new(Clock(AtomicU64::new(now)));
    let known = Arc::clone(&clock) as Arc<dyn WallClock>;
    let sidecar = Sidecar::start_by(known, CLIENT, &gateway.url(), &ollama.url(), &settings);
    gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    ollama.fail_next(CHAT, 1, Fault::Hang { after: 2 });
    let running = gateway.chat(chat("one"));
    ollama.wait_for_chats(1).await;

    let day = 24 * 3600;
    for jumped in [now + day, 0, 2 * now, now - day] {
        clock.0.store(jumped, Ordering::Relaxed);
        let mut seen = gateway.frames().len();
        let began = Instant::now();
        for _ in 0..4 {
            let (at, _) = gateway
                .wait_for_since(seen, |frame| frame.is_from_agent("HEARTBEAT"))
                .await;
            seen = at + 1;
        }
        // The first one may have been due at once.
        assert!(
            began.elapsed() >= 2 * BEAT,
            "heartbeats that try to catch up"
        );
        gateway.chat(chat("two")).outcome().await.result();
        assert_eq!(sidecar.get("/status").await.0, 200);
        assert_eq!(sidecar.get("/readyz").await.0, 200);
    }
    assert_eq!(gateway.sessions().ever, 1);
    assert_eq!(ollama.chats().running, 1, "a time-out has struck");
    gateway.cancel(running.id());
    ollama.wait_until_idle().await;

    gateway.set_policy(|policy| policy.clock_ahead = -day.cast_signed());
    gateway.drop_sessions();
    gateway.wait_for_session(2).await;
    let auth = &said(&gateway, 2)[0].value;
    assert_eq!(auth["timestamp"], (now - day).to_string());
}

#[tokio::test]
async fn a_clock_that_jumps_while_an_answer_waits_for_its_gateway_loses_nothing() {
    const YEAR: u64 = 366 * 24 * 3600;
    let (gateway, ollama) = (gateway().await, ollama().await);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let clock = Arc::new(Clock(AtomicU64::new(now)));
    let known = Arc::clone(&clock) as Arc<dyn WallClock>;
    let _sidecar = Sidecar::start_by(known, CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    gateway
        .wait_for(|frame| frame.is_from_agent("MODEL_LIST"))
        .await;
    ollama.set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(10));
    let mut running = gateway.chat(chat("one"));
    ollama.wait_for_chats(1).await;
    gateway.stop().await;
    clock.0.store(now + YEAR, Ordering::Relaxed);
    ollama.wait_until_idle().await;
    clock.0.store(now - YEAR, Ordering::Relaxed);
    gateway.set_policy(|policy| policy.clock_ahead = -YEAR.cast_signed());
    gateway.start_again().await.unwrap();
    running.outcome().await.result();
    assert_eq!(ollama.chats().ever, 1);
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_and_not_tried_again_for_a_minute() {
    let gateway = gateway().await;
    gateway.set_policy(|policy| policy.clock_ahead = 600);
    let ollama = ollama().await;
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &quick(&[]));
    let pending = sidecar.wait_until_pending("Next attempt").await;
    let told = "The gateway refused the login (Timestamp outside window). Check PIN_CLIENT_ID, the secret and this \
                machine's clock.";
    assert!(pending[0].starts_with(told), "{pending:?}");
    let wait = next_attempt(&pending);
    // A minute, give or take a fifth; up to two seconds of it may be over.
    assert!((46..=72).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(
        sidecar
            .metric("connect_failures_total{reason=\"auth\"}")
            .await,
        1.0
    );
    assert_eq!(gateway.sessions().ever, 0);
}

#[tokio::test]
async fn a_refused_secret_is_tried_again_as_soon_as_its_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, "wrong\n").unwrap();
    let (gateway, ollama) = (gateway().await, ollama().await);
    let settings = quick(&[("PIN_API_SECRET_FILE", file.to_str().unwrap())]);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    let pending = sidecar.wait_until_pending("Next attempt").await;
    assert!(
        pending[0].contains("refused the login (Invalid signature)"),
        "{pending:?}"
    );
    assert!(
        next_attempt(&pending) >= Duration::from_secs(46),
        "{pending:?}"
    );

    let changed = Instant::now();
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    gateway.wait_for_session(1).await;
    assert!(
        changed.elapsed() < Duration::from_secs(10),
        "{:?}",
        changed.elapsed()
    );
    assert_eq!(sidecar.metric("connect_attempts_total").await, 2.0);
    sidecar.wait_until_pending("").await;
}

#[tokio::test]
async fn a_login_that_is_refused_before_it_begins_is_told_and_tried_again_when_the_secret_changes()
{
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| {
        policy.login = Login::Http {
            status: 403,
            retry_after: None,
            body: String::new(),
        }
    });
    let settings = quick(&[("PIN_API_SECRET_FILE", file.to_str().unwrap())]);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    let pending = sidecar
        .wait_until_pending("refused the login (HTTP 403)")
        .await;
    assert!(
        next_attempt(&pending) >= Duration::from_secs(46),
        "{pending:?}"
    );
    gateway.set_policy(|policy| policy.login = Login::Check);
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    gateway.wait_for_session(1).await;
}

#[tokio::test]
async fn a_secret_whose_file_is_gone_is_still_good_and_readyz_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let settings = quick(&[("PIN_API_SECRET_FILE", file.to_str().unwrap())]);
    let net = Net::with(CLIENT, gateway().await, ollama().await, &settings).await;
    fs::remove_file(&file).unwrap();
    net.gateway.drop_sessions();
    net.gateway.wait_for_session(2).await;
    let (_, readyz) = net.sidecar.get("/readyz").await;
    assert!(
        readyz.contains("The last good secret is in use: "),
        "{readyz}"
    );
    assert!(!readyz.contains(SECRET), "{readyz}");
}
