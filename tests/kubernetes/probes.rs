//! Which probes restart what: none does anything about an outage elsewhere.

use std::time::Duration;

use serde_json::json;

use crate::{node, release::Release};

/// Longer than the probes below are patient.
const OUTAGE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_outage_of_the_gateway_restarts_nothing_and_a_frozen_sidecar_is_restarted() {
    let probe = |path: &str, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "http-metrics"},
            "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": failures,
        })
    };
    let values = json!({
        "probes": {"liveness": probe("/healthz", 3), "readiness": probe("/readyz", 1)},
        "settings": {"PIN_RECONNECT_MAX": "1s"},
        // Kubernetes waits so long for a frozen one, and ten seconds more.
        "drainTimeoutSeconds": 1,
    });
    let Some((release, _ollama, pod)) = Release::with_stand_in(&values).await else {
        return;
    };
    release.gateway.stop().await;
    let ready = |pod: &crate::pods::Pod| pod.condition("Ready") == "True";
    release
        .pods
        .wait_for("the pod to be unready", |now| {
            now.uid() == pod.uid() && !ready(now)
        })
        .await;
    pod.wait_until_pending("nothing listens there").await;
    tokio::time::sleep(OUTAGE).await;
    release.gateway.start_again().await.unwrap();
    let pod = release.ready(&[]).await;
    assert_eq!(pod.restarts("pin-sidecar"), 0);
    release.chat().await;

    node::signal(&pod, "pin-sidecar", "STOP").await;
    release
        .pods
        .wait_for("a restart of the sidecar", |now| {
            now.restarts("pin-sidecar") == 1 && ready(now)
        })
        .await;
    release.gateway.wait_for_session(3).await;
}
