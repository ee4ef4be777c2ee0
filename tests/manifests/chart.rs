//! The three ways to run a node are the chart's: made from it, and the same but for what is listed in `differences/`.

use std::process::Command;

use crate::tools::{Copied, Tool, expect_success, read, repository};

const TOPOLOGIES: [&str; 3] = ["bundled", "sidecar", "external"];

/// What the chart is told, so that it says what the manifests say.
fn values(topology: &str) -> String {
    let own = match topology {
        "external" => " --set ollama.url=http://ollama:11434",
        _ => "",
    };
    format!("--set topology={topology},clientId=op_yours,secret.existingSecret=pin-sidecar{own}")
}

/// The chart's manifests with the listed differences put into them.
fn from_chart(copied: &Copied, topology: &str, more_values: &str) -> String {
    let chart = repository("helm/pin-sidecar");
    let values = values(topology);
    let rendered = Tool::Helm.run(&format!(
        "template pin-sidecar {} --skip-tests {values} {more_values}",
        chart.display()
    ));
    let settings = copied.read(&format!("{topology}/settings.env"));
    let differences = read(&format!("tests/manifests/differences/{topology}.yaml"));
    copied.write("of-the-chart/chart.yaml", &rendered);
    copied.write("of-the-chart/settings.env", &settings);
    copied.write("of-the-chart/kustomization.yaml", &differences);
    copied.kustomize("of-the-chart")
}

/// Takes the comment signs away from an offer in a kustomization, which is what its reader does.
fn accept(copied: &Copied, file: &str, offer: &str) {
    let text = copied.read(file);
    let commented: String = offer.lines().map(|line| format!("# {line}\n")).collect();
    assert!(text.contains(&commented), "{file} offers no\n{commented}");
    copied.write(file, &text.replace(&commented, &format!("{offer}\n")));
}

#[test]
fn the_manifests_are_what_render_makes_of_the_chart() {
    if !Tool::Helm.is_there() {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    expect_success(Command::new(repository("deploy/kubernetes/render")).arg(made.path()));
    for topology in TOPOLOGIES {
        let file = format!("{topology}/pin-sidecar.yaml");
        let now = std::fs::read_to_string(made.path().join(&file)).unwrap();
        assert!(
            now == read(&format!("deploy/kubernetes/{file}")),
            "{file} is not what the chart gives: run deploy/kubernetes/render"
        );
    }
}

#[test]
fn without_helm_a_node_is_the_same_but_for_what_is_listed() {
    if !Tool::Helm.is_there() || !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    for topology in TOPOLOGIES {
        assert_eq!(
            copied.kustomize(topology),
            from_chart(&copied, topology, ""),
            "{topology}"
        );
    }
}

#[test]
fn gpus_and_more_nodes_are_the_lines_that_the_kustomization_offers() {
    if !Tool::Helm.is_there() || !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    for topology in ["bundled", "sidecar"] {
        let file = format!("{topology}/kustomization.yaml");
        accept(&copied, &file, "components:\n  - gpu");
        accept(
            &copied,
            &file,
            "replicas:\n  - name: pin-sidecar\n    count: 4",
        );
        assert_eq!(
            copied.kustomize(topology),
            from_chart(&copied, topology, "--set ollama.gpu.count=1,replicas=4"),
            "{topology}"
        );
    }
}

#[test]
fn every_minor_of_kubernetes_from_1_29_takes_what_is_applied() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let Some(tools) = std::env::var_os("CHART_TOOLS") else {
        devnet::skip_without("kubernetes-validate (CHART_TOOLS)");
        return;
    };
    let copied = Copied::new();
    let mut validate = Command::new(tools);
    validate.arg("validate");
    let examples = [
        "examples/existing-ollama",
        "examples/vllm",
        "examples/llama-server",
    ];
    for directory in TOPOLOGIES.iter().chain(&examples) {
        let file = format!("rendered/{}.yaml", directory.replace('/', "-"));
        copied.write(&file, &copied.kustomize(directory));
        validate.arg(copied.path(&file));
    }
    for kind in ["deployment", "statefulset"] {
        validate.arg(repository("tests/manifests/expected").join(format!("{kind}.yaml")));
    }
    expect_success(&mut validate);
}

#[test]
fn a_kustomization_of_ones_own_changes_settings_and_names_without_touching_the_files() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    let readme = copied.read("README.md");
    let (_, from_resources) = readme.split_once("```yaml\nresources:\n").unwrap();
    let (own, _) = from_resources.split_once("```").unwrap();
    let own = format!("resources:\n{own}").replace("../deploy/kubernetes/", "../");
    copied.write("own/kustomization.yaml", &own);

    let rendered = copied.kustomize("own");
    for wanted in [
        "PIN_CLIENT_ID: op_yours",
        "PIN_CAPACITY: \"4\"",
        "name: berlin-pin-sidecar\n",
        "serviceName: berlin-pin-sidecar",
        "nvidia.com/gpu: 1",
        "secretName: pin-sidecar\n",
    ] {
        assert!(rendered.contains(wanted), "{wanted} is not in\n{rendered}");
    }
}
