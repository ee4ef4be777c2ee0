//! Topology `sidecar`: pin-sidecar is the native sidecar of Ollama, whose `preStop` hook has it drain.

use serde_json::json;

use crate::{
    ends::{assert_order, lose_no_chat},
    release::Release,
};

/// How it is asked for, with a liveness probe of Ollama's that can be made to fail.
fn values() -> serde_json::Value {
    let liveness = json!({
        "exec": {"command": ["bash", "-c", "test ! -e /tmp/restart"]},
        "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10,
    });
    json!({"topology": "sidecar", "ollama": {"probes": {"liveness": liveness}}})
}

#[tokio::test]
async fn a_sidecar_of_ollama_loses_no_chat_however_their_pod_ends() {
    let Some((release, pod)) = Release::install(&values()).await else {
        return;
    };
    release.chat().await;
    let (_, gone) = lose_no_chat(&release, pod, "statefulset").await;
    for states in gone {
        assert_order(&states, "pin-sidecar", "ollama");
    }
    release.books_are_right();
}

#[tokio::test]
async fn a_sidecar_of_ollama_serves_again_after_a_restart_of_ollama_alone() {
    let Some((release, pod)) = Release::install(&values()).await else {
        return;
    };
    let touch = format!(
        "exec {} --container ollama -- bash -c >/tmp/restart",
        pod.name()
    );
    let restart = release.namespace.kubectl(&touch);
    release.answers_all_while(&pod, restart).await;
    let again = release
        .pods
        .wait_for("Ollama's restart", |now| {
            let ollama = now.container("ollama");
            now.uid() == pod.uid() && ollama["restartCount"] == 1 && ollama["started"] == true
        })
        .await;
    again.wait_until_pending("").await;
    release.chat().await;
    assert_eq!(release.gateway.sessions().ever, 2);

    let pod = release.ollama_runs_out_of_memory(&again).await;
    assert_eq!(pod.restarts("pin-sidecar"), 0);
    release.books_are_right();
}
