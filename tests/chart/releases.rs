//! What things are called, whatever the release is, and what Helm says once it is installed.

use serde_json::{Value, json};

use crate::chart::{Chart, NAME, versions};

fn values() -> Value {
    json!({"clientId": "op_example", "secret": {"value": "not-a-real-secret"}})
}

#[test]
fn everything_is_called_after_the_release() {
    let Some(chart) = Chart::find() else { return };
    for (release, overrides, name) in [
        ("gpu", json!({}), NAME),
        ("pin-sidecar", json!({}), "pin-sidecar"),
        ("my-pin-sidecar", json!({}), "my-pin-sidecar"),
        ("gpu", json!({"nameOverride": "pin"}), "gpu-pin"),
        ("gpu", json!({"fullnameOverride": "farm"}), "farm"),
    ] {
        let mut values = values();
        values
            .as_object_mut()
            .unwrap()
            .extend(overrides.as_object().unwrap().clone());
        let rendered = chart.template(release, &values).unwrap();
        for object in &rendered.objects {
            let called = object["metadata"]["name"].as_str().unwrap();
            assert!(
                called == name || called == format!("{name}-test"),
                "{called} is not {name}"
            );
            assert_eq!(object["metadata"]["namespace"], "nodes");
        }
    }
}

#[test]
fn the_longest_release_name_leaves_room_for_what_kubernetes_appends() {
    let Some(chart) = Chart::find() else { return };
    let release = "r".repeat(53);
    let rendered = chart.template(&release, &values()).unwrap();
    let name = rendered.workload()["metadata"]["name"].as_str().unwrap();
    // A label has 63 characters, and the pods' has the name, a dash and a hash of ten.
    assert!(name.len() <= 52, "{name}");
    let labels = rendered.template()["metadata"]["labels"]
        .as_object()
        .unwrap();
    assert!(
        labels
            .values()
            .all(|value| value.as_str().unwrap().len() <= 63)
    );
}

#[test]
fn every_object_says_what_it_is_part_of() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.template("gpu", &values()).unwrap();
    let (chart, product) = versions();
    for object in &rendered.objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "pin-sidecar");
        assert_eq!(labels["app.kubernetes.io/instance"], "gpu");
        assert_eq!(labels["app.kubernetes.io/version"], product);
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm");
        assert_eq!(labels["helm.sh/chart"], format!("pin-sidecar-{chart}"));
        assert!(labels["app.kubernetes.io/component"].is_string());
    }
}

/// What Helm prints after an installation, without one. Helm 3 wants a cluster even for that.
fn notes(chart: &Chart, values: &Value) -> String {
    let mut all = values.clone();
    all["clientId"] = json!("op_example");
    all["secret"] = all
        .get("secret")
        .cloned()
        .unwrap_or(json!({"existingSecret": "s"}));
    let install = [
        "install",
        "gpu",
        ".",
        "-n",
        "nodes",
        "--dry-run=client",
        "-f",
        "-",
    ];
    let output = chart.helm(&install, &all.to_string());
    let said = String::from_utf8_lossy(&output.stdout);
    let notes = said
        .split_once("NOTES:")
        .unwrap_or_else(|| panic!("{output:?}"));
    notes.1.to_owned()
}

#[test]
fn the_notes_say_how_to_see_that_it_works() {
    let Some(chart) = Chart::find() else { return };
    let notes = notes(chart, &json!({}));
    for line in [
        "kubectl -n nodes rollout status statefulset/gpu-pin-sidecar",
        "helm -n nodes test gpu",
        "kubectl -n nodes exec gpu-pin-sidecar-0 -c ollama -- ollama pull",
    ] {
        assert!(notes.contains(line), "{line} is not in {notes}");
    }
    assert!(!notes.contains("WARNING"), "{notes}");
}

#[test]
fn the_notes_warn_of_what_costs_money_or_surprises() {
    let Some(chart) = Chart::find() else { return };
    let fleet = json!({
        "topology": "external", "replicas": 2, "ollama": {"url": "http://ollama:11434"},
    });
    let lost = json!({"ollama": {"persistence": {"enabled": false}}});
    let told = json!({"secret": {"value": "x"}});
    for (values, words) in [
        (fleet, "each new name is a new node"),
        (lost, "models are lost with the pod"),
        (told, "in Helm's record of this release"),
    ] {
        let notes = notes(chart, &values);
        assert!(notes.contains(words), "{values}: {notes}");
    }
}
