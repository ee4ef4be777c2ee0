//! An answer that ends every session it is sent in is given up, so that it cannot take its operator offline.

use std::time::{Duration, Instant};

use devnet::{agent::Agent, ollama::Ollama};

use super::*;

const BAD: &str = "the-bad-one";

/// Three answers that wait for a gateway which the second of them crashes, and the real program, for its log.
async fn with_three_answers_that_wait() -> (Gateway, Ollama, Agent, [Chat; 3]) {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let settings = [
        ("PIN_CLIENT_ID", CLIENT),
        ("PIN_API_SECRET", support::SECRET),
        ("PIN_SERVER_URL", &gateway.url()),
        ("PIN_OLLAMA_URL", &ollama.url()),
        ("PIN_NODE_ALIAS", "node-1"),
        // A node that is taken for one that fights over its id stays away for the longest backoff.
        ("PIN_RECONNECT_MIN", "10ms"),
        ("PIN_RECONNECT_MAX", "60s"),
        ("PIN_CONNECTS_PER_MINUTE", "0"),
    ];
    let program = settings.iter().fold(
        Agent::builder(env!("CARGO_BIN_EXE_pin-sidecar")),
        |program, (name, value)| program.env(name, *value),
    );
    let agent = program.start().await.unwrap();
    agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    ollama.pause_at(3);
    let chats = ["good-1", BAD, "good-2"].map(|id| gateway.chat_with_id(id, chat(id)));
    ollama.wait_for_chats(3).await;
    gateway.set_policy(|policy| policy.poison = Some(BAD.to_owned()));
    gateway.stop().await;
    gateway.wait_for_no_session().await;
    ollama.go_on();
    ollama.wait_until_idle().await;
    gateway.start_again().await.unwrap();
    (gateway, ollama, agent, chats)
}

#[tokio::test]
async fn it_is_dropped_after_three_sessions_and_the_others_are_delivered() {
    let began = Instant::now();
    let (gateway, _ollama, agent, mut chats) = with_three_answers_that_wait().await;
    let line = agent
        .wait_for_log(|line| line.contains(BAD) && line.contains("bytes"))
        .await;
    for good in [0, 2] {
        chats[good].outcome().await.result();
    }
    // It is there and stays.
    let mut after = loop {
        match gateway.try_chat(&chat("after")) {
            Some(chat) => break chat,
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    after.outcome().await.result();
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );

    let metrics = agent.get("/metrics").await.unwrap().text();
    assert!(
        metrics.contains("results_dropped_total{reason=\"rejected\"} 1\n"),
        "{metrics}"
    );
    let sent: Vec<_> = gateway
        .frames()
        .into_iter()
        .filter(|frame| frame.is_from_agent("INFERENCE_RESPONSE") && frame.request_id() == BAD)
        .collect();
    // Once among the others, by whom it might have been, and then alone.
    assert!((3..=4).contains(&sent.len()), "sent {} times", sent.len());
    // What was written is told by size and not by content.
    assert!(line.contains(&sent[0].bytes.len().to_string()), "{line}");
    assert!(!line.contains("content"), "{line}");
    assert!(gateway.books().altered().is_empty());
    assert_eq!(gateway.books().bills(), 3);
}
