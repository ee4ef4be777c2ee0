//! What things are called, whatever the release is, and what Helm says once it is installed.

use std::fs;

use serde_json::{Value, json};

use crate::chart::{Chart, NAME, OLDEST, versions};

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
        // What may be a release's name, and cannot be a Service's.
        ("gpu-0.1", json!({}), "gpu-0-1-pin-sidecar"),
        ("4090", json!({}), "pin-4090-pin-sidecar"),
        ("4.pin-sidecar", json!({}), "pin-4-pin-sidecar"),
        ("gpu", json!({"nameOverride": "v1.5"}), "gpu-v1-5"),
        ("gpu", json!({"fullnameOverride": "4.gpus"}), "pin-4-gpus"),
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

/// RFC 1035, as Kubernetes wants the name of a Service.
fn is_name_of_a_service(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase();
    name.len() <= 63
        && name.starts_with(letter)
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| letter(c) || c.is_ascii_digit() || c == '-')
}

/// As Kubernetes wants a label's value.
fn is_value_of_a_label(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    value.len() <= 63
        && value.starts_with(plain)
        && value.ends_with(plain)
        && value.chars().all(|c| plain(c) || "-_.".contains(c))
}

#[test]
fn wherever_a_long_name_is_cut_what_is_left_is_a_name() {
    let Some(chart) = Chart::find() else { return };
    let mut cut = Vec::new();
    for at in 50..53 {
        for end in ["-x", ".x", ".-x", "-.x"] {
            cut.push(format!("{}{end}{}", "r".repeat(at - 1), "y".repeat(20)));
        }
    }
    for name in &cut {
        for overridden in ["nameOverride", "fullnameOverride"] {
            let mut values = values();
            values[overridden] = json!(name);
            let rendered = chart.template("gpu", &values).unwrap();
            for object in &rendered.objects {
                let called = object["metadata"]["name"].as_str().unwrap();
                assert!(is_name_of_a_service(called), "{name}: {called}");
                for value in object["metadata"]["labels"].as_object().unwrap().values() {
                    let value = value.as_str().unwrap();
                    assert!(is_value_of_a_label(value), "{name}: {value}");
                }
            }
        }
    }
}

/// A chart of somebody's that has this one as a dependency.
fn umbrella(chart: &Chart, alias: &str) -> tempfile::TempDir {
    let umbrella = tempfile::tempdir().unwrap();
    let charts = umbrella.path().join("charts");
    fs::create_dir(&charts).unwrap();
    let place = charts.to_str().unwrap();
    let packed = chart.helm(&["package", ".", "--destination", place], "");
    assert!(packed.status.success(), "{packed:?}");
    let (version, called) = (
        versions().0,
        if alias.is_empty() {
            "pin-sidecar"
        } else {
            alias
        },
    );
    let alias = if alias.is_empty() {
        String::new()
    } else {
        format!("\n    alias: {alias}")
    };
    let about = format!(
        "apiVersion: v2\nname: farm\nversion: 1.0.0\ndependencies:\n  - name: pin-sidecar\n    version: {version}\n    \
         repository: \"\"\n    condition: {called}.enabled{alias}\n"
    );
    fs::write(umbrella.path().join("Chart.yaml"), about).unwrap();
    umbrella
}

#[test]
fn another_chart_has_it_as_a_dependency_under_any_alias_with_a_condition_and_global_values() {
    let Some(chart) = Chart::find() else { return };
    for (alias, name) in [
        ("", "gpu-pin-sidecar"),
        ("Rig_4090", "gpu-rig-4090"),
        ("_rig_", "gpu-rig"),
    ] {
        let umbrella = umbrella(chart, alias);
        let called = if alias.is_empty() {
            "pin-sidecar"
        } else {
            alias
        };
        let place = umbrella.path().to_str().unwrap();
        let template = ["template", "gpu", place, OLDEST, "-f", "-"];
        let mut values = json!({
            "global": {"imageRegistry": "registry.example", "storageClass": "fast"},
            called: values(),
        });
        values[called]["enabled"] = json!(true);
        let output = chart.helm(&template, &values.to_string());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains(&format!("  name: {name}\n")),
            "{name}: {text}"
        );

        let off = json!({called: {"enabled": false}});
        let output = chart.helm(&template, &off.to_string());
        assert!(output.status.success(), "{output:?}");
        assert!(!String::from_utf8(output.stdout).unwrap().contains("kind:"));
    }
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
