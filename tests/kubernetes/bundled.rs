//! Topology `bundled`: Ollama is the native sidecar, pin-sidecar the main container, which so ends first.

use serde_json::json;

use crate::{
    ends::{assert_order, lose_no_chat},
    node,
    release::Release,
};

#[tokio::test]
async fn a_bundled_node_loses_no_chat_however_its_pod_ends() {
    let Some((release, pod)) = Release::install(&json!({})).await else {
        return;
    };
    release.chat().await;
    let (_, gone) = lose_no_chat(&release, pod, "statefulset").await;
    for states in gone {
        assert_order(&states, "ollama", "pin-sidecar");
    }
    release.books_are_right();
}

#[tokio::test]
async fn a_bundled_sidecar_stays_while_its_ollama_hangs_or_is_killed() {
    let Some((release, pod)) = Release::install(&json!({})).await else {
        return;
    };
    node::signal(&pod, "ollama", "STOP").await;
    pod.wait_until_pending("Ollama does not answer").await;
    node::signal(&pod, "ollama", "CONT").await;
    pod.wait_until_pending("").await;
    release.chat().await;
    let pod = release.ollama_runs_out_of_memory(&pod).await;
    assert_eq!(pod.restarts("ollama"), 1);
    assert_eq!(pod.restarts("pin-sidecar"), 0);
    release.books_are_right();
}
