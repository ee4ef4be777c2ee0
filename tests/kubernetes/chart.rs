//! The chart's life in a cluster: what the API takes of it, `helm test`, upgrades, the way back, and what is left.

use std::{path::Path, time::Instant};

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    namespace::{ACCOUNT, Namespace},
    pods::PATIENCE,
    release::{CHART, NAME, Release},
};

#[tokio::test]
async fn every_example_of_values_is_accepted_by_the_api() {
    let Some(cluster) = Cluster::find() else {
        return;
    };
    let namespace = Namespace::create(cluster, json!({})).await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).join("ci");
    let mut tried = 0;
    for example in examples.read_dir().unwrap() {
        let file = example.unwrap().path();
        // The test's pod wants an account that a dry run does not make.
        let render = format!(
            "template {NAME} {CHART} --skip-tests --values {}",
            file.display()
        );
        let manifests = namespace.helm(&render, None).await;
        let create = ["create", "--dry-run=server", "-f", "-"];
        namespace.kubectl_with(&create, &manifests).await;
        tried += 1;
    }
    assert!(tried > 5, "{tried}");
}

#[tokio::test]
async fn a_release_can_be_tested_upgraded_rolled_back_and_uninstalled_without_a_trace() {
    let enabled = json!({"enabled": true});
    let values = json!({
        "podDisruptionBudget": enabled, "networkPolicy": enabled, "podMonitor": enabled,
        "prometheusRule": enabled, "dashboard": enabled,
    });
    let Some((release, ollama, first)) = Release::with_stand_in(&values).await else {
        return;
    };
    let namespace = &release.namespace;
    namespace.helm(&format!("test {NAME}"), None).await;

    let reuse = format!("upgrade {NAME} {CHART} --reuse-values --set node.region=eu-west");
    namespace.helm(&reuse, None).await;
    let second = release.ready(&[&first]).await;
    assert_eq!(region(&second.object), Some("eu-west"));
    namespace.helm(&format!("rollback {NAME} 1"), None).await;
    let third = release.ready(&[&first, &second]).await;
    assert_eq!(region(&third.object), Some("global"));
    release.chat().await;

    ollama.stop().await;
    third.wait_until_pending("Ollama does not answer").await;
    let arguments = ["--namespace", &namespace.name, "test", NAME, "--logs"];
    let output = namespace.cluster.try_run("helm", &arguments, "").await;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(
        !output.status.success() && said.contains("Ollama does not answer"),
        "{said}"
    );
    // Until the next one succeeds, the pod of a failed test stays, also beyond the release.
    ollama.start_again().await.unwrap();
    third.wait_until_pending("").await;
    namespace.helm(&format!("test {NAME}"), None).await;

    // Not with Helm's own --wait, which at times takes what is still being deleted for an error.
    let uninstall = format!("uninstall {NAME} --cascade foreground");
    namespace.helm(&uninstall, None).await;
    release.pods.wait_for_end(&third).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = left(namespace).await;
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{left:?}");
    }
}

fn region(pod: &Value) -> Option<&str> {
    let env = pod["spec"]["containers"][0]["env"].as_array()?;
    let region = env
        .iter()
        .find(|variable| variable["name"] == "PIN_REGION")?;
    region["value"].as_str()
}

/// What is in a namespace that was not there before the release.
async fn left(namespace: &Namespace) -> Vec<String> {
    let kinds = "api-resources --namespaced --verbs=list --output=name";
    let kinds = namespace.kubectl(kinds).await;
    // Events are what happened, and what endpoints there were goes by itself.
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("event") && !kind.starts_with("endpoint"))
        .collect();
    let all = namespace
        .kubectl(&format!("get {} --output=name", kinds.join(",")))
        .await;
    let account = format!("secret/{ACCOUNT}");
    let not_ours = [
        &account,
        "serviceaccount/default",
        "configmap/kube-root-ca.crt",
    ];
    let ours = all.lines().filter(|name| !not_ours.contains(name));
    ours.map(str::to_owned).collect()
}
