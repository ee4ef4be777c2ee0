//! Which requests load a model anew and what keeps it loaded, by Ollama's own count of its loads.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::{
    Net, payload,
    server::{Real, Server, cases, script},
    support::{CLIENT, DESKTOP, poll},
};

/// Ollama is looked at often.
const OFTEN: (&str, &str) = ("PIN_MODEL_REFRESH_INTERVAL", "50ms");

/// Nothing is loaded before it is asked for.
const COLD: (&str, &str) = ("PIN_PRELOAD_MODELS", "none");

const PRELOADED: (&str, &str) = ("PIN_PRELOAD_MODELS", "Tiny");

/// Longer than Ollama keeps a model by itself, less than it is asked to.
const KEPT: Duration = Duration::from_secs(20 * 60);

cases! {
    a_consumers_context_is_loaded_once_and_stays
    an_operators_context_is_loaded_once
    a_model_that_was_thrown_out_comes_back_with_its_context
    a_preloaded_model_is_loaded_once_and_kept
    a_preloaded_model_is_loaded_again_after_a_restart
    a_preloaded_model_that_was_thrown_out_stays_out_until_a_chat_loads_it
}

/// A chat that asks for this context. Gives the model's context and how often it has been loaded then.
async fn chat(net: &Net, num_ctx: Option<u64>) -> (u64, usize) {
    let mut payload = payload(1);
    if let Some(num_ctx) = num_ctx {
        payload["options"]["num_ctx"] = json!(num_ctx);
    }
    net.ask(payload).await.result();
    state(net).await
}

async fn state(net: &Net) -> (u64, usize) {
    let loaded = net.server.loaded().await;
    (
        loaded[0]["context_length"].as_u64().unwrap_or(0),
        net.server.loads(),
    )
}

/// Whether the model is to stay for longer than Ollama would keep it by itself.
fn is_kept(loaded: &Value) -> bool {
    let expires = loaded[0]["expires_at"].as_str().unwrap_or_default();
    // Ollama writes the time of its zone, which is UTC for one that a test starts.
    let expires = humantime::parse_rfc3339(expires);
    expires.is_ok_and(|expires| expires > SystemTime::now() + KEPT)
}

async fn a_consumers_context_is_loaded_once_and_stays(server: Server) {
    let net = Net::start(CLIENT, server, &[COLD]).await;
    for (asked, then) in [
        (Some(1024), (1024, 1)),
        (None, (1024, 1)),
        (Some(512), (1024, 1)),
        (Some(16), (1024, 1)),
        (Some(1536), (1536, 2)),
        (None, (1536, 2)),
        (Some(1024), (1536, 2)),
        // More than the model was made for.
        (Some(100_000), (2048, 3)),
        (Some(9_000), (2048, 3)),
        (None, (2048, 3)),
    ] {
        assert_eq!(chat(&net, asked).await, then, "{asked:?}");
    }
}

async fn an_operators_context_is_loaded_once(server: Server) {
    let settings = [("PIN_MAX_CONTEXT", "512"), PRELOADED, OFTEN];
    let net = Net::start(DESKTOP, server, &settings).await;
    poll(|| state(&net), |state| *state == (512, 1)).await;
    for asked in [None, Some(100), Some(1024), Some(100_000)] {
        assert_eq!(chat(&net, asked).await, (512, 1), "{asked:?}");
    }
}

async fn a_model_that_was_thrown_out_comes_back_with_its_context(server: Server) {
    let net = Net::start(CLIENT, server, &[COLD]).await;
    assert_eq!(chat(&net, Some(1024)).await, (1024, 1));
    net.server.stop_model().await;
    assert_eq!(chat(&net, None).await, (1024, 2));
    assert_eq!(chat(&net, Some(600)).await, (1024, 2));
}

async fn a_preloaded_model_is_loaded_once_and_kept(server: Server) {
    let net = Net::start(CLIENT, server, &[PRELOADED, OFTEN]).await;
    poll(|| net.server.loaded(), is_kept).await;
    assert_eq!(chat(&net, None).await.1, 1);
    assert!(is_kept(&net.server.loaded().await));
    // A chat that loads it anew keeps it, too.
    assert_eq!(chat(&net, Some(1024)).await, (1024, 2));
    assert!(is_kept(&net.server.loaded().await));
}

async fn a_preloaded_model_is_loaded_again_after_a_restart(server: Server) {
    let Net {
        gateway,
        sidecar,
        server,
    } = Net::start(CLIENT, server, &[PRELOADED]).await;
    poll(|| server.loaded(), is_kept).await;
    sidecar
        .wait_for_status(|status| status["models"][0]["loaded"] == true)
        .await;
    let server = server.restart().await;
    poll(|| server.loaded(), is_kept).await;
    drop((gateway, sidecar));
}

async fn a_preloaded_model_that_was_thrown_out_stays_out_until_a_chat_loads_it(server: Server) {
    let net = Net::start(CLIENT, server, &[PRELOADED, OFTEN]).await;
    poll(|| net.server.loaded(), is_kept).await;
    net.server.stop_model().await;
    let before = net.server.looks();
    poll(
        || async { net.server.looks() },
        |looks| *looks >= before + 5,
    )
    .await;
    assert_eq!(net.server.loaded().await, json!([]));
    chat(&net, None).await;
    assert!(is_kept(&net.server.loaded().await));
    assert_eq!(net.server.loads(), 2);
}

/// Ollama would give every model more than this one was made for: what it was asked for and what it gave are two numbers.
async fn a_context_that_ollama_lowers_by_itself_loads_nothing_anew(server: Server) {
    let net = Net::start(CLIENT, server, &[PRELOADED, OFTEN]).await;
    poll(|| net.server.loaded(), is_kept).await;
    for (asked, then) in [
        (None, (2048, 1)),
        (None, (2048, 1)),
        (Some(4096), (2048, 2)),
        (None, (2048, 2)),
        (Some(1024), (2048, 2)),
    ] {
        assert_eq!(chat(&net, asked).await, then, "{asked:?}");
    }
}

const DEFAULT_CONTEXT: u64 = 8192;

#[tokio::test]
async fn a_context_that_the_stand_in_lowers_by_itself_loads_nothing_anew() {
    let server = Server::stand_in().await;
    if let Server::StandIn(ollama) = &server {
        ollama.set_behaviour(|behaviour| behaviour.context_length = DEFAULT_CONTEXT);
    }
    a_context_that_ollama_lowers_by_itself_loads_nothing_anew(server).await;
}

#[tokio::test]
async fn a_context_that_a_real_ollama_lowers_by_itself_loads_nothing_anew() {
    let Some(script) = script() else { return };
    let real = Real::reserve(script).with("OLLAMA_CONTEXT_LENGTH", DEFAULT_CONTEXT.to_string());
    let server = Server::Real(real.up().await);
    a_context_that_ollama_lowers_by_itself_loads_nothing_anew(server).await;
}
