//! A node that its owner wants to stay away for a while, in virtual time where that is long.

use std::time::Duration;

use devnet::{
    http,
    ollama::{ModelShape, Ollama},
};
use pin_sidecar::{admin::Connecting, relay::Outcome};
use tokio::time::{Instant, sleep};

use crate::{
    support::{CLIENT, MODEL, Net, gateway, poll},
    wire,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How much later may be.
const SOON: Duration = Duration::from_secs(2);

const PRELOADED: [(&str, &str); 1] = [("PIN_PRELOAD_MODELS", MODEL)];

async fn is_loaded(ollama: &Ollama, wanted: bool) {
    poll(
        || async { ollama.is_loaded(MODEL) },
        |is_loaded| *is_loaded == wanted,
    )
    .await;
}

async fn post(net: &Net, path: &str) -> u16 {
    let url = format!("http://{}{path}", net.sidecar.admin);
    http::post(&url, "").await.unwrap().status
}

#[tokio::test(start_paused = true)]
async fn a_pause_frees_the_gpu_ends_by_its_time_and_has_the_model_loaded_again() {
    let (net, _wire) = wire::start(&PRELOADED).await;
    is_loaded(&net.ollama, true).await;
    let began = Instant::now();
    assert!(net.sidecar.service.pause(Some(HOUR)).is_some());
    net.gateway.wait_for_no_session().await;
    is_loaded(&net.ollama, false).await;
    let loads = net.ollama.loads(MODEL);
    sleep(HOUR - SOON).await;
    net.gateway.wait_for_session(2).await;
    let away = began.elapsed();
    assert!(away >= HOUR && away < HOUR + SOON, "{away:?}");
    is_loaded(&net.ollama, true).await;
    assert_eq!(net.ollama.loads(MODEL), loads + 1);
    net.chat("one").outcome().await.result();
}

#[tokio::test(start_paused = true)]
async fn no_restart_of_ollama_ends_a_pause_and_nothing_is_loaded_meanwhile() {
    let (net, _wire) = wire::start(&PRELOADED).await;
    is_loaded(&net.ollama, true).await;
    assert!(net.sidecar.service.pause(None).is_some());
    is_loaded(&net.ollama, false).await;
    net.sidecar.to_ollama.cut();
    sleep(Duration::from_millis(500)).await;
    net.sidecar.to_ollama.mend();
    sleep(HOUR).await;
    assert_eq!(net.gateway.sessions().ever, 1);
    assert!(!net.ollama.is_loaded(MODEL));
    assert_eq!(net.sidecar.service.reopen(), Connecting::Now);
    net.gateway.wait_for_session(2).await;
    is_loaded(&net.ollama, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_while_a_node_is_drained_frees_the_gpu_as_well() {
    let (net, _wire) = wire::start(&PRELOADED).await;
    is_loaded(&net.ollama, true).await;
    net.sidecar.service.request_drain().await;
    assert!(net.ollama.is_loaded(MODEL), "a drain alone leaves it");
    assert!(net.sidecar.service.pause(None).is_some());
    is_loaded(&net.ollama, false).await;
}

#[tokio::test]
async fn what_runs_when_a_pause_is_asked_for_is_answered_and_the_pause_says_so_until_it_ends() {
    let ollama = Ollama::builder().model(MODEL, ModelShape::default());
    let ollama = ollama.start().await.unwrap();
    ollama.pause_at(2);
    let net = Net::with(CLIENT, gateway().await, ollama, &[]).await;
    let mut running = net.chat("one");
    net.ollama.wait_for_chats(1).await;
    assert_eq!(post(&net, "/session/disconnect").await, 200);
    net.sidecar
        .wait_until_pending("Pausing: running chats finish")
        .await;
    net.ollama.go_on();
    running.outcome().await.result();
    net.sidecar
        .wait_until_pending("Paused until somebody ends that")
        .await;
    assert_eq!(post(&net, "/session/connect").await, 200);
    net.sidecar.wait_until_pending("").await;
    assert_eq!(post(&net, "/session/disconnect?for=1h").await, 200);
    net.gateway.wait_for_no_session().await;
    assert_eq!(net.sidecar.drain().await, Outcome::Drained);
}
