//! What holds for every answer holds for a clip: it is made once, kept until it is proven, and stopped when nobody wants
//! it.

use std::time::Duration;

use devnet::{gateway::Deliveries, network::Proxy};
use pin_sidecar::relay::Outcome;
use tokio::time::Instant;

use super::{support::round_trip, *};

/// A sidecar that speaks, through a network that can be broken.
async fn start(settings: &[(&str, &str)]) -> (Speaking, Proxy) {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let speech = SpeechServer::start().await.unwrap();
    let network = Proxy::start(gateway.addr()).await.unwrap();
    let url = speech.url();
    let quick = [
        ("PIN_TTS_URL", url.as_str()),
        ("PIN_RECONNECT_MIN", "10ms"),
        ("PIN_RECONNECT_MAX", "50ms"),
    ];
    let settings = [&quick, &MODELS[..], settings].concat();
    let sidecar = Sidecar::start(
        CLIENT,
        &gateway.url_at(network.addr()),
        &ollama.url(),
        &settings,
    );
    let net = Net {
        gateway,
        ollama,
        sidecar,
    };
    let speaking = Speaking { net, speech };
    speaking.wait_for_list("tts:tts-1").await;
    (speaking, network)
}

fn ask(speaking: &Speaking, id: &str) -> Chat {
    speaking.net.gateway.speech_with_id(id, speech(id))
}

async fn go_away(speaking: &Speaking, network: &Proxy) {
    network.cut().await;
    speaking.net.gateway.wait_for_no_session().await;
    let is_down = |up: f64| up == 0.0;
    speaking
        .net
        .sidecar
        .wait_for_metric("session_up", is_down)
        .await;
}

async fn come_back(speaking: &Speaking, network: &Proxy) {
    network.mend().await.unwrap();
    speaking.net.gateway.wait_for_session(2).await;
}

#[tokio::test]
async fn a_cancel_closes_the_request_at_once_and_nothing_more_is_heard_of_it() {
    let (speaking, _network) = start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    let gateway = &speaking.net.gateway;
    for fault in [Fault::HangBeforeHeaders, Fault::Hang { after: 3 }] {
        let before = speaking.speech.chats().ever;
        speaking.speech.fail_next(SPEECH, 1, fault);
        let _running = ask(&speaking, "one");
        speaking.speech.wait_for_chats(before + 1).await;
        let told = Instant::now();
        gateway.cancel("one");
        speaking.speech.wait_until_idle().await;
        let took = told.elapsed();
        assert!(took < Duration::from_millis(250), "{took:?}");
        // The slot is free.
        ask(&speaking, "two").outcome().await.result();
    }
    assert_eq!(gateway.books().deliveries("one"), Deliveries::default());
    assert_eq!(
        speaking
            .net
            .sidecar
            .metric("cancelled_requests_total")
            .await,
        2.0
    );
    let left = speaking.speech.requests();
    let left = left.iter().filter(|request| request.left_at().is_some());
    assert_eq!(left.count(), 2);
}

#[tokio::test]
async fn a_repeated_request_is_spoken_once_and_answered_each_time() {
    let (speaking, _network) = start(&[]).await;
    speaking.speech.pause_at(0);
    let mut first = ask(&speaking, "one");
    speaking.speech.wait_for_chats(1).await;
    let _repeat = ask(&speaking, "one");
    round_trip(&speaking.net.gateway).await;
    speaking.speech.go_on();
    let first = first.outcome().await;
    let again = ask(&speaking, "one").outcome().await;
    assert_eq!(first.frame.bytes, again.frame.bytes);
    assert_eq!(speaking.speech.chats().ever, 1);
    assert_eq!(
        speaking
            .net
            .sidecar
            .metric("duplicate_requests_total")
            .await,
        2.0
    );
    assert!(speaking.net.gateway.books().altered().is_empty());
}

#[tokio::test]
async fn a_clip_whose_session_was_lost_comes_with_the_next_one_and_is_spoken_once() {
    let (speaking, network) = start(&[]).await;
    speaking.speech.pause_at(0);
    let mut asked = ask(&speaking, "one");
    speaking.speech.wait_for_chats(1).await;
    go_away(&speaking, &network).await;
    speaking.speech.go_on();
    let kept = |answers: f64| answers == 1.0;
    speaking
        .net
        .sidecar
        .wait_for_metric("undelivered_results", kept)
        .await;
    come_back(&speaking, &network).await;
    let result = asked.outcome().await;
    assert_eq!(result.result()["model"], "kokoro");
    let delivered = |answers: f64| answers == 0.0;
    speaking
        .net
        .sidecar
        .wait_for_metric("undelivered_results", delivered)
        .await;
    assert_eq!(speaking.speech.chats().ever, 1);
}

#[tokio::test]
async fn speech_whose_session_stays_away_is_given_up_as_a_chat_is() {
    let (speaking, network) = start(&[("PIN_ORPHAN_GRACE", "50ms")]).await;
    speaking.speech.pause_at(0);
    let mut asked = ask(&speaking, "one");
    speaking.speech.wait_for_chats(1).await;
    go_away(&speaking, &network).await;
    speaking.speech.wait_until_idle().await;
    come_back(&speaking, &network).await;
    let error = asked.outcome().await;
    assert_eq!(
        error.error(),
        "orphaned: the session was down for longer than 50ms"
    );
    assert!(error.frame.is_from_agent("TTS_ERROR"));
}

#[tokio::test]
async fn a_drain_lets_running_speech_finish_and_answers_what_waits() {
    let (mut speaking, _network) = start(&[("PIN_CAPACITY", "1")]).await;
    speaking.speech.pause_at(0);
    let mut running = ask(&speaking, "running");
    speaking.speech.wait_for_chats(1).await;
    let mut waiting = ask(&speaking, "waiting");
    round_trip(&speaking.net.gateway).await;
    speaking.net.sidecar.begin_drain();
    assert_eq!(
        waiting.outcome().await.error(),
        "draining: this node is shutting down"
    );
    speaking.speech.go_on();
    running.outcome().await.result();
    assert_eq!(speaking.net.sidecar.drained().await, Outcome::Drained);
}

#[tokio::test]
async fn speech_that_outlasts_a_drain_is_answered_as_such() {
    let (speaking, _network) = start(&[("PIN_DRAIN_TIMEOUT", "50ms")]).await;
    speaking.speech.pause_at(0);
    let mut running = ask(&speaking, "running");
    speaking.speech.wait_for_chats(1).await;
    let gateway = speaking.net.gateway;
    let ended = tokio::spawn(speaking.net.sidecar.drain());
    assert_eq!(
        running.outcome().await.error(),
        "draining: this node is shutting down"
    );
    assert_eq!(ended.await.unwrap(), Outcome::Drained);
    drop(gateway);
}
