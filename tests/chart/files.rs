//! What the chart carries besides its templates: the alerts and the dashboard of `deploy/`, and a README made from its
//! values. The first two are copies, since not everything that fetches a chart takes links along.

use std::{env, fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::chart::{Chart, DIRECTORY, NAME, OLDEST, one_document, versions};

fn deployed(path: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("deploy")
            .join(path),
    )
    .unwrap()
}

/// Everything that is only there when asked for.
fn observers() -> Value {
    json!({
        "podMonitor": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "dashboard": {"enabled": true},
    })
}

#[test]
fn the_alerts_are_those_of_deploy() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&observers());
    let rules = one_document(&deployed("prometheus/rules.yml"));
    assert_eq!(rendered.one("PrometheusRule")["spec"], rules);
}

#[test]
fn the_dashboard_is_that_of_deploy_byte_for_byte_where_grafana_looks_for_it() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&observers());
    let found = rendered.one("ConfigMap");
    assert_eq!(found["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard = deployed("grafana/dashboards/pin-sidecar.json");
    assert_eq!(
        found["data"]["pin-sidecar.json"].as_str().unwrap(),
        dashboard
    );
}

/// The files of the chart that are kept in `deploy/`, and where.
const COPIES: &[(&str, &str)] = &[
    ("rules.yml", "prometheus/rules.yml"),
    ("dashboard.json", "grafana/dashboards/pin-sidecar.json"),
];

#[test]
fn a_chart_taken_from_git_without_its_links_is_whole() {
    fn assert_no_links(directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            assert!(!path.is_symlink(), "{} is a link", path.display());
            if path.is_dir() {
                assert_no_links(&path);
            }
        }
    }
    assert_no_links(Path::new(DIRECTORY));
    for (copy, original) in COPIES {
        let copy = Path::new(DIRECTORY).join("files").join(copy);
        assert!(
            fs::read_to_string(&copy).unwrap() == deployed(original),
            "run: cp deploy/{original} {}",
            copy.display()
        );
    }
}

#[test]
fn a_file_that_was_lost_or_cut_or_came_as_the_text_of_a_link_is_an_error_and_not_an_empty_object() {
    let Some(chart) = Chart::find() else { return };
    for (copy, original) in COPIES {
        let whole = deployed(original);
        // In the middle of a text, which ends neither JSON nor YAML.
        let cut = &whole[..whole.rfind('"').unwrap()];
        for came_as in ["", &format!("../../../deploy/{original}"), cut] {
            let fetched = tempfile::tempdir().unwrap();
            copy_all(Path::new(DIRECTORY), fetched.path());
            fs::write(fetched.path().join("files").join(copy), came_as).unwrap();
            let mut values = observers();
            values["clientId"] = json!("op_example");
            values["secret"] = json!({"existingSecret": "pin-api-secret"});
            let place = fetched.path().to_str().unwrap();
            let template = ["template", "x", place, OLDEST, "-f", "-"];
            let output = chart.helm(&template, &values.to_string());
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{copy}");
            assert!(
                said.contains(&format!("files/{copy} of this chart is missing")),
                "{said}"
            );
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_packed_chart_is_whole() {
    let Some(chart) = Chart::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let packed = chart.helm(&["package", ".", "--destination", place], "");
    assert!(packed.status.success(), "{packed:?}");
    let archive = directory
        .path()
        .join(format!("pin-sidecar-{}.tgz", versions().0));
    let template = [
        "template",
        "x",
        archive.to_str().unwrap(),
        OLDEST,
        "-f",
        "-",
    ];
    let mut values = observers();
    values["clientId"] = json!("op_example");
    values["secret"] = json!({"existingSecret": "pin-api-secret"});
    let rendered = chart.helm(&template, &values.to_string());
    let rendered = String::from_utf8(rendered.stdout).unwrap();
    for part in ["kind: PrometheusRule", "alert: PinSidecarDown", "\"uid\":"] {
        assert!(rendered.contains(part), "{part} is not in {rendered}");
    }
}

#[test]
fn nothing_watches_and_nothing_is_limited_unless_asked_for() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({}));
    let kinds: Vec<_> = rendered
        .objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["ServiceAccount", "Service", "StatefulSet", "Pod"]);
}

#[test]
fn whatever_the_release_is_called_the_alerts_know_the_job() {
    let Some(chart) = Chart::find() else { return };
    for (overrides, job) in [
        (json!({}), format!("nodes/{NAME}")),
        (
            json!({"fullnameOverride": "farm"}),
            "nodes/pin-sidecar-farm".to_owned(),
        ),
        (
            json!({"nameOverride": "pin"}),
            "nodes/pin-sidecar-gpu-pin".to_owned(),
        ),
    ] {
        for (monitor, kind, endpoints) in [
            ("podMonitor", "PodMonitor", "podMetricsEndpoints"),
            ("serviceMonitor", "ServiceMonitor", "endpoints"),
        ] {
            let mut values = overrides.clone();
            values[monitor] = json!({"enabled": true, "labels": {"release": "prometheus"}});
            let rendered = chart.render(&values);
            let found = rendered.one(kind);
            let endpoint = &found["spec"][endpoints][0];
            assert_eq!(found["metadata"]["labels"]["release"], "prometheus");
            assert_eq!(endpoint["port"], "http-metrics");
            assert_eq!(endpoint["relabelings"][0]["targetLabel"], "job");
            assert_eq!(endpoint["relabelings"][0]["replacement"], job);
        }
    }
}

#[test]
fn the_charts_version_of_the_product_is_this_one() {
    assert_eq!(versions().1, env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_charts_readme_is_what_its_values_say() {
    let Some(tools) = env::var_os("CHART_TOOLS") else {
        devnet::skip_without("helm-docs (CHART_TOOLS)");
        return;
    };
    let difference = Command::new(tools)
        .args(["docs", "--check"])
        .output()
        .unwrap();
    assert!(
        difference.status.success(),
        "run tools/chart-tools docs:\n{}{}",
        String::from_utf8_lossy(&difference.stdout),
        String::from_utf8_lossy(&difference.stderr)
    );
}
