//! A process that does not run for a while: stopped by a debugger or a job control, or on a machine that slept.

use std::time::Duration;

use devnet::{agent::Signal, gateway::ChatEvent};
use serde_json::json;

use crate::{program::Net, support::chat};

#[tokio::test]
async fn what_ollama_said_while_it_was_stopped_is_answered_whichever_limit_is_over() {
    for limit in ["PIN_TOKEN_TIMEOUT", "PIN_REQUEST_TIMEOUT"] {
        let net = Net::start(&[(limit, "1s")]).await;
        net.ollama.set_behaviour(|behaviour| {
            behaviour.tokens = 300;
            behaviour.token_delay = Duration::from_millis(5);
        });
        let mut payload = chat("why is the sky blue");
        payload["stream"] = json!(true);
        let mut chat = net.gateway.chat(payload);
        assert!(matches!(chat.next().await, ChatEvent::Chunk(_)));
        net.agent.signal(Signal::STOP);
        // What remains takes Ollama longer than the limit, and is more than is read at once.
        net.ollama.wait_until_idle().await;
        net.agent.signal(Signal::CONT);
        chat.outcome().await.result();
    }
}
