//! Topology `external`: pin-sidecar alone, and an Ollama that has a pod and a Service of its own.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    chats::TWENTY,
    cluster::Cluster,
    ends::{assert_exit_code, lose_no_chat},
    namespace::Namespace,
    node,
    pods::Pod,
    release::{Release, gateway, ollama_resources},
};

/// The Service's name, which the sidecar is told, as short as it is.
const OLLAMA: &str = "models";

#[tokio::test]
async fn an_external_node_loses_no_chat_however_its_pod_ends() {
    let Some((release, pod)) = install().await else {
        return;
    };
    release.chat().await;
    // A deleted pod and the next one are there at once, and push each other out.
    release
        .gateway
        .set_policy(|policy| policy.one_session_each = true);
    let (_, gone) = lose_no_chat(&release, pod, "deployment").await;
    for states in gone {
        assert_exit_code(states.last().unwrap());
    }
    // Delivered twice it may be, where a session was pushed out; but the same, and answered once.
    let books = release.gateway.books();
    assert_eq!(books.altered(), [""; 0]);
    let log = release.namespace.kubectl(&format!("logs {OLLAMA}")).await;
    let generations = log.matches("\"/api/chat\"").count();
    assert_eq!(generations, books.bills(), "{log}");
}

#[tokio::test]
async fn an_external_sidecar_stays_while_its_ollama_hangs_or_is_killed() {
    let Some((release, pod)) = install().await else {
        return;
    };
    let ollama = release.ollama.as_deref().unwrap();
    node::signal(ollama, "ollama", "STOP").await;
    pod.wait_until_pending("Ollama does not answer").await;
    node::signal(ollama, "ollama", "CONT").await;
    pod.wait_until_pending("").await;
    release.chat().await;
    release.ollama_runs_out_of_memory(&pod).await;
    let pods = release.pods.newest();
    let pod = pods.iter().find(|now| now.uid() == pod.uid()).unwrap();
    assert_eq!(pod.restarts("pin-sidecar"), 0);
    assert_eq!(release.gateway.sessions().ever, 1);
    release.books_are_right();
}

/// The release, which knows Ollama's pod, and its own.
async fn install() -> Option<(Release, Arc<Pod>)> {
    let cluster = Cluster::find()?;
    let namespace = Namespace::create(cluster, json!({})).await;
    namespace.create_objects(&ollama(&namespace.name)).await;
    let url = format!("http://{OLLAMA}:11434");
    let values = json!({
        "topology": "external", "ollama": {"url": url},
        // The longest that one stays away which was pushed out.
        "settings": {"PIN_RECONNECT_MAX": "5s"},
        // In Ollama's log a load looks like a chat, and those are counted.
        "models": {"preload": ["none"]},
    });
    let mut release = Release::begin(namespace, gateway().await, &values).await;
    let pod = release.ready(&[]).await;
    let ollama = release
        .pods
        .wait_for("Ollama's pod", |pod| pod.name() == OLLAMA && pod.is_ready())
        .await;
    release.ollama = Some(ollama);
    Some((release, pod))
}

fn ollama(namespace: &str) -> [Value; 2] {
    let labels = json!({"run": OLLAMA});
    let container = json!({
        "name": "ollama", "image": "ollama-tiny:0.17.4", "resources": ollama_resources(),
        "startupProbe": {"exec": {"command": ["ollama", "list"]}, "periodSeconds": 1, "failureThreshold": 120},
        "env": [{"name": "OLLAMA_NUM_PARALLEL", "value": TWENTY.to_string()}],
    });
    let metadata = json!({"name": OLLAMA, "namespace": namespace, "labels": labels});
    [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 11434}]}}),
    ]
}
