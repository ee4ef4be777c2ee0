//! Signs of life: they come and go on time, whatever the chats do.

use std::time::Duration;

use devnet::{
    gateway::{Frame, Gateway},
    ollama::{CHAT, Fault},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    names, said,
    support::{MODEL, Net},
};

/// Takes every slot and every place to wait.
async fn busy(settings: &[(&str, &str)]) -> (Net, Vec<devnet::gateway::Chat>) {
    let full = [("PIN_CAPACITY", "2"), ("PIN_QUEUE", "1")];
    let net = Net::start(&[&full, settings].concat()).await;
    net.ollama.fail_always(CHAT, Fault::Hang { after: 1 });
    let chats = (0..3).map(|_| net.streamed("one")).collect();
    net.ollama.wait_for_chats(2).await;
    net.chat("one too many").outcome().await.error();
    (net, chats)
}

/// The middle one of the times from what the gateway sends to what the agent answers.
async fn median_answer(gateway: &Gateway, send: impl Fn(), asks: &str, answers: &str) -> Duration {
    let mut times = Vec::new();
    let mut seen = gateway.frames().len();
    for _ in 0..21 {
        send();
        let (_, asked) = gateway
            .wait_for_since(seen, |frame| frame.is_from_gateway(asks))
            .await;
        let answer = |frame: &Frame| frame.is_from_agent(answers) && frame.at >= asked.at;
        let (at, answered) = gateway.wait_for_since(seen, answer).await;
        times.push(answered.at - asked.at);
        seen = at + 1;
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_ping_is_answered_at_once_while_every_slot_is_taken_and_ollama_hangs() {
    let (net, _chats) = busy(&[]).await;
    let gateway = &net.gateway;
    let ping = || gateway.send(&json!({"type": "PING"}));
    let median = median_answer(gateway, ping, "PING", "PONG").await;
    assert!(median < Duration::from_millis(100), "PONG took {median:?}");
    let ping = || gateway.send_ping(b"are you there");
    let median = median_answer(gateway, ping, "ping", "pong").await;
    assert!(
        median < Duration::from_millis(100),
        "a WebSocket pong took {median:?}"
    );
    let pong = gateway.wait_for(|frame| frame.is_from_agent("pong")).await;
    assert_eq!(&pong.bytes[..], b"are you there");
}

#[tokio::test]
async fn a_ping_behind_a_flood_is_answered_before_the_flood_is_over() {
    let net = Net::start(&[]).await;
    for n in 0..50_000 {
        if n == 1000 {
            net.gateway.send(&json!({"type": "PING"}));
        }
        net.gateway
            .send(&json!({"type": "RESULT_ACK", "request_id": "nobody's"}));
    }
    net.gateway
        .send(&json!({"type": "TTS_REQUEST", "request_id": "last"}));
    net.gateway
        .wait_for(|frame| frame.is_from_agent("TTS_ERROR"))
        .await;
    let frames = net.gateway.frames();
    let place = |name: &str| {
        frames
            .iter()
            .position(|frame| frame.is_from_agent(name))
            .unwrap()
    };
    assert!(place("PONG") < place("TTS_ERROR"));
    let pong = frames[place("PONG")].at;
    let answered = frames[place("TTS_ERROR")].at - pong;
    assert!(
        answered > Duration::from_millis(20),
        "PONG only came {answered:?} before the end"
    );
}

#[tokio::test]
async fn heartbeats_keep_their_time_while_every_slot_is_taken_and_requests_pour_in() {
    const INTERVAL: Duration = Duration::from_millis(100);
    let (net, _chats) = busy(&[("PIN_HEARTBEAT_INTERVAL", "100ms")]).await;
    let gateway = &net.gateway;
    let mut seen = 0;
    for _ in 0..9 {
        seen = gateway
            .wait_for_since(seen, |frame| frame.is_from_agent("HEARTBEAT"))
            .await
            .0
            + 1;
        for _ in 0..50 {
            gateway.chat(json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}]}));
        }
    }
    let came_up = gateway
        .wait_for(|frame| frame.is_from_gateway("AUTH_SUCCESS"))
        .await
        .at;
    let beats: Vec<Instant> = gateway
        .frames()
        .iter()
        .filter(|frame| frame.is_from_agent("HEARTBEAT"))
        .map(|frame| frame.at)
        .collect();
    let mut previous = came_up;
    for (beat, n) in beats.into_iter().zip(1..) {
        assert!(beat - came_up >= INTERVAL * n, "heartbeat {n} came early");
        assert!(
            beat - previous < INTERVAL * 10,
            "heartbeat {n} came {:?} after the one before",
            beat - previous
        );
        previous = beat;
    }
}

#[tokio::test]
async fn a_heartbeat_tells_load_capacity_models_and_memory_and_goes_with_a_websocket_ping() {
    let settings = [
        ("PIN_HEARTBEAT_INTERVAL", "50ms"),
        ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
    ];
    let (net, _chats) = busy(&settings).await;
    let health = json!({"current_load": 3, "capacity": 2, "models": 1, "gpu_memory_used": 2_019_393_189_u64});
    let told = json!({"type": "HEARTBEAT", "health": health});
    let (at, heartbeat) = net
        .gateway
        .wait_for_since(0, |frame| frame.value == told)
        .await;
    let next = |frame: &Frame| {
        frame.connection == heartbeat.connection
            && (frame.is_from_agent("ping") || frame.is_from_agent("HEARTBEAT"))
    };
    let (_, next) = net.gateway.wait_for_since(at + 1, next).await;
    assert_eq!(next.name(), "ping");
}

#[tokio::test]
async fn the_models_are_told_again_with_every_fourth_heartbeat() {
    let net = Net::start(&[("PIN_HEARTBEAT_INTERVAL", "20ms")]).await;
    let mut seen = 0;
    for _ in 0..9 {
        seen = net
            .gateway
            .wait_for_since(seen, |frame| frame.is_from_agent("HEARTBEAT"))
            .await
            .0
            + 1;
    }
    let said = said(&net.gateway, 1);
    let introduction = ["AUTH", "REGISTER_NODE", "MODEL_LIST"];
    let beats = [
        "HEARTBEAT",
        "HEARTBEAT",
        "HEARTBEAT",
        "HEARTBEAT",
        "MODEL_LIST",
    ];
    assert_eq!(
        names(&said)[..14],
        [&introduction[..], &beats, &beats, &["HEARTBEAT"]].concat()
    );
}

#[tokio::test]
async fn the_round_trip_of_heartbeats_is_measured_whether_the_gateway_acknowledges_them_or_not() {
    for acknowledges in [true, false] {
        let net = Net::start(&[("PIN_HEARTBEAT_INTERVAL", "20ms")]).await;
        net.gateway
            .set_policy(|policy| policy.acknowledge_heartbeats = acknowledges);
        net.sidecar
            .wait_for_metric("heartbeat_rtt_seconds_count", |count| count >= 3.0)
            .await;
    }
}
