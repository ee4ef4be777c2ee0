//! Every file in `ci/`: what its first line says can be installed.

use std::{env, fs, process::Command};

use crate::chart::{Chart, OLDEST, examples};

#[test]
fn helm_finds_nothing_to_say_about_any_example() {
    let Some(chart) = Chart::find() else { return };
    for example in examples() {
        let path = example.path.to_str().unwrap();
        let linted = chart.helm(&["lint", "--strict", ".", OLDEST, "-f", path], "");
        let said = String::from_utf8_lossy(&linted.stdout);
        assert!(linted.status.success(), "{}: {said}", example.name);
        assert!(!said.contains("[WARNING]"), "{}: {said}", example.name);
    }
}

#[test]
fn every_minor_of_kubernetes_from_1_29_takes_every_example() {
    let Some(chart) = Chart::find() else { return };
    let Some(tools) = env::var_os("CHART_TOOLS") else {
        devnet::skip_without("kubernetes-validate (CHART_TOOLS)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let files = examples().into_iter().map(|example| {
        let file = directory.path().join(&example.name);
        fs::write(&file, chart.render_example(&example).text).unwrap();
        file
    });
    let validated = Command::new(tools).arg("validate").args(files).output();
    let validated = validated.unwrap();
    assert!(
        validated.status.success(),
        "{}{}",
        String::from_utf8_lossy(&validated.stdout),
        String::from_utf8_lossy(&validated.stderr)
    );
}

#[test]
fn helm_test_asks_in_a_pod_that_every_namespace_admits() {
    let Some(chart) = Chart::find() else { return };
    for example in examples() {
        let rendered = chart.render_example(&example);
        let hook = rendered
            .objects
            .iter()
            .find(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "test");
        let pod = &hook.unwrap()["spec"];
        let container = &pod["containers"][0];
        let service = rendered.one("Service")["metadata"]["name"]
            .as_str()
            .unwrap();
        assert_eq!(container["args"][3], format!("http://{service}:9464"));
        assert_eq!(pod["automountServiceAccountToken"], false);
        crate::pods::assert_restricted(container);
    }
}
