//! The sidecar in the pod of an Ollama that is there already. What people have: fixtures/; what becomes of it: expected/.

use crate::tools::{Copied, Tool, read};

/// The kinds that there is a patch for, which are the names of its files, of fixtures and of what is expected.
const KINDS: [&str; 2] = ["deployment", "statefulset"];

/// What is put into pods.
const COMPONENT: &str = "components/pin-sidecar";

/// As a person does it who has kustomize.
fn by_kustomize(copied: &Copied, kind: &str) -> String {
    let theirs = read(&format!("tests/manifests/fixtures/{kind}.yaml"));
    copied.write("theirs/ollama.yaml", &theirs);
    copied.write(
        "theirs/kustomization.yaml",
        &format!("resources: [ollama.yaml]\ncomponents: [../{COMPONENT}]\n"),
    );
    copied.kustomize("theirs")
}

/// As a person does it who has `kubectl patch` and another name, without a cluster.
fn by_kubectl_patch(copied: &Copied, kind: &str) -> String {
    let theirs = read(&format!("tests/manifests/fixtures/{kind}.yaml"));
    let name = theirs
        .lines()
        .find_map(|line| line.strip_prefix("  name: "));
    let patch = copied.read(&format!("{COMPONENT}/{kind}.yaml"));
    let renamed = patch.replacen(
        "\n  name: ollama\n",
        &format!("\n  name: {}\n", name.unwrap()),
        1,
    );
    copied.write("patched/theirs.yaml", &theirs);
    copied.write("patched/patch.yaml", &renamed);
    let patched = Tool::Kubectl.run(&format!(
        "patch --local --type strategic -o yaml -f {} --patch-file {}",
        copied.path("patched/theirs.yaml").display(),
        copied.path("patched/patch.yaml").display()
    ));
    copied.write("patched/ollama.yaml", &patched);
    copied.write("patched/kustomization.yaml", "resources: [ollama.yaml]\n");
    copied.kustomize("patched")
}

/// The lines from the one that is `first` to the one that is `last`, less the first one's indentation.
fn block(text: &str, first: &str, last: &str) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != first);
    let head = lines
        .next()
        .unwrap_or_else(|| panic!("no {first} in\n{text}"));
    let indentation = head.len() - head.trim_start().len();
    let mut block = vec![head];
    for line in lines {
        block.push(line);
        if line.trim() == last {
            break;
        }
    }
    let block = block
        .iter()
        .map(|line| line.get(indentation..).unwrap_or(""));
    block.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_ollama_that_is_there_gets_the_sidecar_and_keeps_what_is_its_own() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    for kind in KINDS {
        let expected = read(&format!("tests/manifests/expected/{kind}.yaml"));
        assert_eq!(by_kustomize(&copied, kind), expected, "{kind}");
    }
}

#[test]
fn kubectl_patch_does_with_the_same_file_what_kustomize_does() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    for kind in KINDS {
        assert_eq!(
            by_kubectl_patch(&copied, kind),
            by_kustomize(&copied, kind),
            "{kind}"
        );
    }
}

#[test]
fn the_patch_with_other_names_fits_a_vllm_that_is_there() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    let renamed = |text: &str| {
        let lines = text
            .lines()
            .map(|line| match line.strip_suffix("name: ollama") {
                Some(before) => format!("{before}name: vllm\n"),
                None => format!("{line}\n"),
            });
        lines.collect::<String>()
    };
    let theirs = copied.read("examples/existing-ollama/ollama.yaml");
    copied.write("patched/theirs.yaml", &renamed(&theirs));
    let patch = copied.read(&format!("{COMPONENT}/deployment.yaml"));
    copied.write("patched/patch.yaml", &renamed(&patch));
    let patched = Tool::Kubectl.run(&format!(
        "patch --local --type strategic -o yaml -f {} --patch-file {}",
        copied.path("patched/theirs.yaml").display(),
        copied.path("patched/patch.yaml").display()
    ));
    // Were a name left, the hook would be a second container's.
    assert_eq!(patched.matches("preStop:").count(), 1, "{patched}");
    assert_eq!(patched.matches("image: ").count(), 2, "{patched}");
    assert!(!patched.contains("name: ollama\n"), "{patched}");
}

#[test]
fn the_patch_has_the_container_and_the_hook_that_the_chart_has() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let copied = Copied::new();
    let chart = copied.kustomize("sidecar");
    for kind in KINDS {
        let patched = by_kustomize(&copied, kind);
        for (first, last) in [
            ("livenessProbe:", "name: pin-sidecar"),
            ("ports:", "terminationMessagePolicy: FallbackToLogsOnError"),
            ("preStop:", "&& cat <&3 >/dev/null'"),
        ] {
            let of_sidecar = |text: &str| {
                let (_, from_there) = text.split_once("configMapRef:").unwrap();
                let place = if first == "preStop:" {
                    text
                } else {
                    from_there
                };
                block(place, first, last)
            };
            assert_eq!(of_sidecar(&patched), of_sidecar(&chart), "{kind}");
        }
    }
}

#[test]
fn the_patches_differ_only_in_how_a_node_gets_its_name_and_how_pods_are_replaced() {
    let [deployment, statefulset] = KINDS
        .map(|kind| read(&format!("deploy/kubernetes/{COMPONENT}/{kind}.yaml")))
        .map(|patch| {
            let (_, pod) = patch.split_once("\n  template:\n").unwrap();
            let (before, from_alias) = pod.split_once("            # The node's name").unwrap();
            let (_, after) = from_alias.split_once("            # A directory").unwrap();
            (before.to_owned(), after.to_owned())
        });
    assert_eq!(deployment, statefulset);
}

#[test]
fn the_values_for_the_ollama_chart_have_the_same_sidecar() {
    let values = read("deploy/kubernetes/examples/ollama-chart-values.yaml");
    let patch = read(&format!("deploy/kubernetes/{COMPONENT}/deployment.yaml"));
    for (first, last) in [
        ("- name: PIN_API_SECRET_FILE", "failureThreshold: 60"),
        ("livenessProbe:", "failureThreshold: 3"),
        ("resources:", "cpu: 50m"),
        ("runAsNonRoot: true", "readOnly: true"),
        ("preStop:", "cat <&3 >/dev/null"),
    ] {
        assert_eq!(block(&values, first, last), block(&patch, first, last));
    }
}

#[test]
fn the_example_is_settings_and_two_lines_beside_what_somebody_has() {
    if !Tool::Kubectl.is_there() {
        return;
    }
    let rendered = Copied::new().kustomize("examples/existing-ollama");
    for wanted in ["PIN_CLIENT_ID: op_yours", "- name: PIN_API_SECRET_FILE"] {
        assert!(rendered.contains(wanted), "{wanted} is not in\n{rendered}");
    }
}
