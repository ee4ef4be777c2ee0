//! The end of a container, and its log until then.

use std::time::Duration;

use devnet::gateway::Chat;

use crate::{
    docker::{Container, IMAGE},
    lab,
    node::{HARDENED, Node},
    support::{CLIENT, SECRET, chat},
};

const CHATS: usize = 4;

#[tokio::test]
async fn docker_stop_lets_running_chats_finish_and_loses_none() {
    if !lab::enter() {
        return;
    }
    let node = Node::start(&HARDENED, &[]).await;
    node.ollama.pause_at(3);
    let mut chats: Vec<Chat> = (0..CHATS)
        .map(|n| {
            node.gateway
                .chat_with_id(&format!("chat-{n}"), chat("why is the sky blue"))
        })
        .collect();
    node.ollama.wait_for_chats(CHATS).await;
    let stopped = node.container.stop(35);
    let answered = async {
        node.container.wait_until_pending("Draining").await;
        node.ollama.go_on();
        for chat in &mut chats {
            chat.outcome().await.result();
        }
    };
    tokio::join!(stopped, answered);
    assert_eq!(node.container.exit_code().await, 0);
    let books = node.gateway.books();
    assert_eq!(books.bills(), CHATS);
    for n in 0..CHATS {
        assert_eq!(
            books.deliveries(&format!("chat-{n}")).responses,
            1,
            "chat-{n}"
        );
    }
}

#[tokio::test]
async fn an_idle_container_stops_long_before_docker_would_kill_it() {
    if !lab::enter() {
        return;
    }
    let node = Node::start(&[], &[]).await;
    let began = std::time::Instant::now();
    node.container.stop(35).await;
    let took = began.elapsed();
    println!("stopped in {took:?}");
    // A killed one would take the 35 s, and have 137 for its exit code.
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(node.container.exit_code().await, 0);
}

#[tokio::test]
async fn its_log_is_one_json_object_a_line_and_has_no_secret() {
    if !lab::enter() {
        return;
    }
    let node = Node::start(&[], &[("PIN_LOG", "debug")]).await;
    node.gateway
        .chat(chat("why is the sky blue"))
        .outcome()
        .await
        .result();
    node.container.stop(35).await;
    let events = node.container.events().await;
    assert!(
        events.iter().all(|event| event["level"].is_string()),
        "{events:?}"
    );
    let log = node.container.log().await;
    assert!(!log.contains(SECRET) && !log.contains("sky"), "{log}");
}

#[tokio::test]
async fn wrong_settings_end_it_with_78_and_all_of_them_are_in_its_log() {
    if !lab::enter() {
        return;
    }
    let client = format!("PIN_CLIENT_ID={CLIENT}");
    let options = [
        "--env",
        &client,
        "--env",
        "PIN_CAPACTY=4",
        "--env",
        "PIN_DRAIN_TIMEOUT=25",
    ];
    let container = Container::run(&options, IMAGE, &[]).await;
    assert_eq!(container.exit_code().await, 78);
    let log = container.log().await;
    for word in [
        "PIN_CAPACTY",
        "PIN_CAPACITY",
        "PIN_DRAIN_TIMEOUT",
        "PIN_API_SECRET",
    ] {
        assert!(log.contains(word), "{word} is not in {log}");
    }
}
