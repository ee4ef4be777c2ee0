//! A gateway that stops reading slows Ollama down; nothing is lost by it, and nothing times out.

use std::time::Duration;

use super::*;

/// Chats that are answered in some 4 MB each: one is more than the sockets on its way hold, and all together are more
/// than outbox and session take.
const CHATS: usize = 8;
const ANSWER: usize = 4_000_000;
const TOKEN: usize = 20_000;

/// At full speed the system would give the connections to Ollama buffers that hold an answer whole.
const TOKEN_DELAY: Duration = Duration::from_millis(10);

const SETTINGS: [(&str, &str); 6] = [
    ("PIN_CAPACITY", "20"),
    ("PIN_OUTBOX_BYTES", "4MiB"),
    ("PIN_MAX_RESULT_BYTES", "8MiB"),
    ("PIN_FIRST_TOKEN_TIMEOUT", "10s"),
    ("PIN_TOKEN_TIMEOUT", "1500ms"),
    ("PIN_MODEL_REFRESH_INTERVAL", "1h"),
];

/// How long an answer has to be stuck to be called so: longer than PIN_TOKEN_TIMEOUT.
const STUCK: Duration = Duration::from_secs(2);

/// All chats, with a gateway that reads nothing; Ollama cannot get rid of some answers when this returns.
async fn jammed() -> (Net, Vec<Chat>) {
    let ollama = ollama().await;
    // Else the sockets would hold what the test wants to see held back.
    ollama.set_behaviour(|behaviour| behaviour.send_buffer = Some(64 * 1024));
    let settings = [&QUICK[..], &SETTINGS].concat();
    let net = Net::with(CLIENT, gateway().await, ollama, &settings).await;
    net.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(TOKEN); ANSWER / TOKEN]);
        behaviour.token_delay = TOKEN_DELAY;
    });
    net.gateway.stop_reading();
    let chats: Vec<Chat> = (0..CHATS)
        .map(|n| ask_streamed(&net, &format!("chat-{n}")))
        .collect();
    net.ollama.wait_for_chats(CHATS).await;
    let stuck = || async {
        let requests = net.ollama.chat_requests();
        let stuck = requests
            .iter()
            .filter(|request| request.stalled_for() > STUCK);
        stuck.count()
    };
    support::poll(stuck, |stuck| *stuck >= 2).await;
    (net, chats)
}

#[tokio::test]
async fn ollama_is_slowed_and_then_everything_goes_on_without_a_timeout() {
    let (net, mut chats) = jammed().await;
    let held = net.sidecar.metric("outbox_bytes").await;
    // Answers have a place of their own; those that had ended by then are few.
    let ended = CHATS - net.ollama.chats().running;
    assert!(
        held <= ((4 << 20) + ended * (ANSWER + 4096)) as f64,
        "{held} bytes"
    );

    net.gateway.read_again();
    for chat in &mut chats {
        let outcome = chat.outcome().await;
        assert_eq!(outcome.text().len(), ANSWER);
        assert_eq!(outcome.streamed("content").len(), ANSWER);
    }
    wait_for_undelivered(&net, 0).await;
    let ids: Vec<String> = (0..CHATS).map(|n| format!("chat-{n}")).collect();
    assert_once(&net, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test]
async fn new_chats_are_refused_while_the_outbox_is_full_and_taken_again_when_it_is_not() {
    let (net, _network) = start(&[("PIN_CAPACITY", "4"), ("PIN_OUTBOX_BYTES", "64KiB")]).await;
    net.gateway.set_policy(proves_nothing);
    net.ollama
        .set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(70 * 1024)]));
    ask(&net, "one").outcome().await.result();
    let refused = ask(&net, "two").outcome().await;
    assert!(refused.error().starts_with("busy: "), "{}", refused.error());
    assert_eq!(runs(&net, "two"), 0);
    net.gateway.acknowledge("one");
    round_trip(&net.gateway).await;
    ask(&net, "two").outcome().await.result();
    // The first acknowledgement of an id is that of the first frame that ended a request of it, here the refusal.
    net.gateway.acknowledge("two");
    round_trip(&net.gateway).await;
    wait_for_undelivered(&net, 1).await;
    net.gateway.acknowledge("two");
    wait_for_undelivered(&net, 0).await;
}

#[tokio::test]
async fn what_is_cancelled_while_the_gateway_does_not_read_leaves_ollama_and_the_outbox() {
    let (net, chats) = jammed().await;
    for chat in &chats {
        net.gateway.cancel(chat.id());
    }
    net.ollama.wait_until_idle().await;
    net.gateway.read_again();
    round_trip(&net.gateway).await;
    net.sidecar
        .wait_for_metric("outbox_bytes", |bytes| bytes == 0.0)
        .await;
    wait_for_undelivered(&net, 0).await;
    ask(&net, "after").outcome().await.result();
}

#[tokio::test]
async fn a_session_that_is_given_up_over_it_loses_nothing() {
    let (net, mut chats) = jammed().await;
    net.gateway.drop_sessions();
    net.gateway.read_again();
    net.gateway.wait_for_session(2).await;
    for chat in &mut chats {
        assert_eq!(chat.outcome().await.text().len(), ANSWER);
    }
    wait_for_undelivered(&net, 0).await;
    let ids: Vec<String> = (0..CHATS).map(|n| format!("chat-{n}")).collect();
    assert_once(&net, &ids.iter().map(String::as_str).collect::<Vec<_>>());
}
