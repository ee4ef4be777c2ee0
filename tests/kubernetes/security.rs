//! What Kubernetes' own rules say of the pods, and what pods get from it without having asked.

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    namespace::Namespace,
    node,
    pods::Pods,
    release::{NAME, Release, gateway, rendered, values},
};

fn restricted() -> Value {
    json!({"pod-security.kubernetes.io/enforce": "restricted"})
}

#[tokio::test]
async fn an_external_node_runs_under_pod_security_restricted_without_a_token() {
    let Some(cluster) = Cluster::find() else {
        return;
    };
    let namespace = Namespace::create(cluster, restricted()).await;
    let (release, _ollama) = Release::begin_with_stand_in(namespace, &json!({})).await;
    let pod = release.ready(&[]).await;
    release.chat().await;
    assert_eq!(pod.object["spec"]["automountServiceAccountToken"], false);
    let token = "var/run/secrets/kubernetes.io";
    assert!(!node::has_file(&pod, NAME, token));
    // The look itself works.
    assert!(node::has_file(
        &pod,
        NAME,
        "run/secrets/pin-sidecar/pin_api_secret"
    ));
}

#[tokio::test]
async fn the_sidecars_own_container_is_admitted_under_restricted_in_every_topology() {
    let Some(cluster) = Cluster::find() else {
        return;
    };
    let namespace = Namespace::create(cluster, restricted()).await;
    let gateway = gateway().await;
    for topology in ["bundled", "sidecar"] {
        let values = values(&gateway, &json!({"topology": topology}));
        let pod = pod_of_the_sidecar_alone(&namespace, &values).await;
        let create = ["create", "--dry-run=server", "-f", "-"];
        namespace.kubectl_with(&create, &pod.to_string()).await;
    }
}

#[tokio::test]
async fn a_service_called_as_the_sidecar_is_does_not_break_its_pod() {
    let Some(cluster) = Cluster::find() else {
        return;
    };
    let namespace = Namespace::create(cluster, json!({})).await;
    let service = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace.name},
            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "metrics", "port": 9464}]}})
    };
    namespace
        .create_objects(&[service("pin-sidecar"), service("pin-gateway")])
        .await;
    let gateway = gateway().await;
    let values = values(&gateway, &json!({}));
    let mut pod = pod_of_the_sidecar_alone(&namespace, &values).await;
    pod["spec"]["enableServiceLinks"] = json!(true);
    let pods = Pods::watch(&namespace);
    namespace.create_objects(&[pod]).await;
    gateway.wait_for_session(1).await;
    let pod = pods.wait_for("the pod", |pod| pod.name() == "alone").await;
    assert_eq!(pod.restarts(NAME), 0);
}

/// The pod that the chart makes, without Ollama and what is made for it.
async fn pod_of_the_sidecar_alone(namespace: &Namespace, values: &Value) -> Value {
    let objects = rendered(namespace, values).await;
    let is_workload = |object: &&Value| object["kind"] == "StatefulSet";
    let workload = objects.iter().find(is_workload).unwrap();
    let mut spec = workload["spec"]["template"]["spec"].clone();
    let kinds = ["initContainers", "containers"];
    let all = kinds.iter().filter_map(|kind| spec[kind].as_array());
    let mut own: Vec<Value> = all
        .flatten()
        .filter(|one| one["name"] == NAME)
        .cloned()
        .collect();
    own[0].as_object_mut().unwrap().remove("restartPolicy");
    spec.as_object_mut().unwrap().remove("initContainers");
    spec["containers"] = json!(own);
    spec["serviceAccountName"] = json!("default");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "namespace": namespace.name}, "spec": spec})
}
