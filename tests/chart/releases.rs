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

/// What YAML takes for a number, a truth, a time or nothing, where it stands without quotes.
const NO_TEXT_TO_YAML: [&str; 10] = [
    "4090",
    "1e3",
    "0x10",
    "0o17",
    "4.90",
    "true",
    "on",
    "n",
    "null",
    "2024-01-01",
];

/// Everything that people name, called the same.
fn everything_called(name: &str) -> Value {
    json!({
        "clientId": "op_example",
        "nameOverride": name,
        "fullnameOverride": name,
        "secret": {"existingSecret": name, "key": name},
        "admin": {"existingSecret": name, "key": name},
        "serviceAccount": {"name": name},
        "priorityClassName": name,
        "runtimeClassName": name,
        "image": {"repository": name, "tag": "30"},
        "ollama": {"host": "[::1]", "persistence": {"existingClaim": name}},
        "podMonitor": {"enabled": true},
        "networkPolicy": {"enabled": true},
    })
}

#[test]
fn names_that_yaml_would_take_for_numbers_or_truths_stay_names() {
    let Some(chart) = Chart::find() else { return };
    for name in NO_TEXT_TO_YAML {
        let rendered = chart.template(name, &everything_called(name)).unwrap();
        for object in &rendered.objects {
            assert!(object["metadata"]["name"].is_string(), "{object}");
            for (label, value) in object["metadata"]["labels"].as_object().unwrap() {
                assert!(value.is_string(), "{name}: {label}");
            }
        }
        let labels = &rendered.template()["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], name);
        assert_eq!(labels["app.kubernetes.io/instance"], name);
        let pod = rendered.pod();
        assert_eq!(pod["serviceAccountName"], name);
        assert_eq!(pod["priorityClassName"], name);
        assert_eq!(pod["runtimeClassName"], name);
        let volumes = &pod["volumes"];
        for secret in [&volumes[0]["secret"], &volumes[1]["secret"]] {
            assert_eq!(secret["secretName"], name);
            assert_eq!(secret["items"][0]["key"], name);
        }
        assert_eq!(volumes[2]["persistentVolumeClaim"]["claimName"], name);
        let image = &rendered.container("pin-sidecar")["image"];
        assert_eq!(image, &json!(format!("{name}:30")));
        let host = rendered.variable("ollama", "OLLAMA_HOST");
        assert_eq!(host, "[::1]:11434");
    }
}

#[test]
fn a_namespace_and_a_secrets_key_may_be_numbers() {
    let Some(chart) = Chart::find() else { return };
    let mut values = values();
    values["secret"]["key"] = json!("123");
    let template = ["template", "gpu", ".", "-n", "4090", OLDEST, "-f", "-"];
    let output = chart.helm(&template, &values.to_string());
    let text = String::from_utf8(output.stdout).unwrap();
    let namespaces = text
        .lines()
        .filter(|line| line.trim_start().starts_with("namespace:"));
    for namespace in namespaces {
        assert_eq!(namespace.trim(), "namespace: \"4090\"");
    }
    let rendered = chart.template("gpu", &values).unwrap();
    assert!(rendered.one("Secret")["data"]["123"].is_string());
}

#[test]
fn kubernetes_takes_what_has_numbers_and_truths_for_names() {
    let Some(chart) = Chart::find() else { return };
    let Some(tools) = std::env::var_os("CHART_TOOLS") else {
        devnet::skip_without("kubernetes-validate (CHART_TOOLS)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let files = ["4090", "true", "2024-01-01"].map(|name| {
        let file = directory.path().join(name);
        let rendered = chart.template(name, &everything_called(name)).unwrap();
        // A PodMonitor is no kind of Kubernetes' own.
        fs::write(&file, rendered.text).unwrap();
        file
    });
    let validated = std::process::Command::new(tools)
        .arg("validate")
        .args(files)
        .output();
    let validated = validated.unwrap();
    let said = String::from_utf8_lossy(&validated.stdout);
    assert!(validated.status.success(), "{said}");
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
            text.contains(&format!("  name: {name:?}\n")),
            "{name}: {text}"
        );

        // A chart may name them and leave them blank.
        values["global"] = Value::Null;
        values[called]["enabled"] = Value::Null;
        let output = chart.helm(&template, &values.to_string());
        assert!(output.status.success(), "{output:?}");

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
