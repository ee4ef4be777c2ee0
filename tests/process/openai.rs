//! What the log says of a server with OpenAI's interface, and what it never says.

use devnet::{
    agent::Signal,
    openai::{CHAT, Fault, MODELS, OpenAi},
};
use serde_json::json;

use crate::{
    program::{Net, program},
    support::gateway,
};

const KEY: &str = "Zebra-Key-of-a-server";
const PROMPT: &str = "Zebra-Prompt";

#[tokio::test]
async fn a_key_that_a_server_repeats_is_shown_nowhere() {
    let server = OpenAi::builder().model("tiny").start().await.unwrap();
    let words = json!({"error": {"message": format!("no such key: {KEY}")}}).to_string();
    let refused = || Fault::answer(401, "application/json", &words);
    server.fail_next(CHAT, 1, refused());
    let net = Net::with(
        gateway().await,
        program(),
        &[
            ("PIN_LOG", "trace"),
            ("PIN_LOG_FORMAT", "json"),
            ("PIN_API_MODE", "openai"),
            ("PIN_OLLAMA_URL", &server.url()),
            ("PIN_BACKEND_API_KEY", KEY),
            ("PIN_PRELOAD_MODELS", "tiny"),
            ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
        ],
    )
    .await;
    net.agent
        .wait_for_log(|line| line.contains("cannot be loaded") && line.contains("no such key"))
        .await;
    net.agent
        .wait_for_log(|line| line.contains("the model is loaded"))
        .await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    // In an answer's body, and instead of an answer.
    for fault in [Fault::answer(200, "application/json", &words), refused()] {
        server.fail_next(CHAT, 1, fault);
        let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": PROMPT}]});
        let outcome = net.gateway.chat(chat).outcome().await;
        assert_eq!(outcome.error(), "backend: no such key: …");
    }
    server.fail_next(MODELS, 1_000, refused());
    let mut pages = net.wait_until_pending("PIN_BACKEND_API_KEY").await;
    for path in ["/status", "/metrics"] {
        pages += &net.agent.get(path).await.unwrap().text();
    }
    net.agent.signal(Signal::TERM);
    net.agent.wait().await;
    let log = net.agent.log();
    let lines = log.iter().map(|line| line.as_str());
    for private in [KEY, PROMPT] {
        let shown = lines
            .clone()
            .chain(pages.lines())
            .find(|line| line.contains(private));
        assert_eq!(shown, None);
    }
}
