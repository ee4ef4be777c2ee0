//! The worked examples with vLLM and llama-server: what their pods are, and that the sidecar takes what it is told there.

use std::{ffi::OsString, fs};

use pin_sidecar::config::{Config, Surroundings};

use crate::tools::{Copied, Tool};

/// An example of a model server in the sidecar's pod: its directory and container, and where that listens.
struct Example {
    name: &'static str,
    port: u16,
    /// The arguments by which it listens for the pod alone.
    listens: &'static str,
    /// Those by which it takes as many chats as the sidecar.
    capacity: &'static str,
}

const EXAMPLES: [Example; 2] = [
    Example {
        name: "vllm",
        port: 8000,
        listens: "        - --host=127.0.0.1\n        - --port=8000\n",
        capacity: "        - --max-num-seqs=$(PIN_CAPACITY)\n",
    },
    Example {
        name: "llama-server",
        port: 8080,
        listens: "        - --host\n        - 127.0.0.1\n        - --port\n        - \"8080\"\n",
        capacity: "        - --parallel\n        - $(PIN_CAPACITY)\n",
    },
];

/// What `kubectl apply -k` would apply of each, where there is a kubectl.
fn rendered() -> Option<Vec<(Example, String)>> {
    if !Tool::Kubectl.is_there() {
        return None;
    }
    let copied = Copied::new();
    let rendered = EXAMPLES.map(|example| {
        let objects = copied.kustomize(&format!("examples/{}", example.name));
        (example, objects)
    });
    Some(rendered.into())
}

/// The list of a pod's containers under this key, as the text that kustomize sorts by key: up to the next key of the pod.
fn containers<'a>(rendered: &'a str, list: &str) -> &'a str {
    let (_, from) = rendered.split_once(&format!("\n      {list}:\n")).unwrap();
    let is_next =
        |line: &str| line.starts_with("      ") && line[6..].starts_with(char::is_alphabetic);
    let end: usize = from
        .split_inclusive('\n')
        .take_while(|line| !is_next(line))
        .map(str::len)
        .sum();
    &from[..end]
}

/// The names in a list of containers.
fn names(containers: &str) -> Vec<&str> {
    let names = containers
        .lines()
        .filter_map(|line| line.strip_prefix("        name: "));
    names.collect()
}

/// The ConfigMap's settings and the container's own variables that have a value, as the container has them.
fn settings(rendered: &str) -> Vec<(OsString, OsString)> {
    let (_, data) = rendered.split_once("\ndata:\n").unwrap();
    let data = data.lines().map_while(|line| line.strip_prefix("  "));
    let pair = |name: &str, value: &str| (name.into(), value.trim_matches('"').into());
    let mut settings: Vec<_> = data
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| pair(name, value))
        .collect();
    let own: Vec<&str> = containers(rendered, "containers").lines().collect();
    for lines in own.windows(2) {
        let name = lines[0]
            .trim_start_matches([' ', '-'])
            .strip_prefix("name: PIN_");
        let value = lines[1].trim_start().strip_prefix("value: ");
        if let (Some(name), Some(value)) = (name, value) {
            settings.push(pair(&format!("PIN_{name}"), value));
        }
    }
    settings
}

#[test]
fn the_model_server_starts_before_the_sidecar_and_ends_after_it() {
    for (example, rendered) in rendered().into_iter().flatten() {
        let before = containers(&rendered, "initContainers");
        assert_eq!(names(before), [example.name]);
        assert!(
            before.contains("        restartPolicy: Always\n"),
            "{before}"
        );
        assert_eq!(names(containers(&rendered, "containers")), ["pin-sidecar"]);
        assert!(rendered.contains("terminationGracePeriodSeconds: 35\n"));
        assert!(!rendered.contains("ollama/ollama"), "{rendered}");
    }
}

#[test]
fn it_is_the_pods_own_has_a_gpu_and_is_asked_where_it_listens_whether_it_has_loaded() {
    for (example, rendered) in rendered().into_iter().flatten() {
        let server = containers(&rendered, "initContainers");
        let health = format!("- http://127.0.0.1:{}/health\n", example.port);
        assert_eq!(server.matches(&health).count(), 2, "{server}");
        for words in [
            example.listens,
            "nvidia.com/gpu: 1\n",
            "startupProbe:\n",
            "livenessProbe:\n",
        ] {
            assert!(server.contains(words), "{words} is not in\n{server}");
        }
        assert!(!server.contains("latest"), "{server}");
    }
}

#[test]
fn one_number_is_the_capacity_of_the_sidecar_and_the_model_server() {
    for (example, rendered) in rendered().into_iter().flatten() {
        let server = containers(&rendered, "initContainers");
        assert!(server.contains(example.capacity), "{server}");
        assert!(server.contains("key: PIN_CAPACITY\n"), "{server}");
        assert!(rendered.contains("  PIN_CAPACITY: \"4\"\n"));
    }
}

#[test]
fn the_sidecar_takes_its_settings_and_speaks_openai_to_the_model_server() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "not-a-real-secret").unwrap();
    for (example, rendered) in rendered().into_iter().flatten() {
        let mut variables = settings(&rendered);
        variables.retain(|(name, _)| name != "PIN_API_SECRET_FILE");
        variables.push(("PIN_API_SECRET_FILE".into(), secret.clone().into()));
        // The pod's name.
        variables.push(("PIN_NODE_ALIAS".into(), "pin-sidecar-0".into()));
        let config = Config::from_env_in(&Surroundings::default(), variables);
        let config = config.unwrap_or_else(|errors| panic!("{}: {errors}", example.name));
        let effective: Vec<_> = config.effective().collect();
        let url = format!("http://127.0.0.1:{}", example.port);
        for wanted in [
            ("PIN_API_MODE", "openai"),
            ("PIN_OLLAMA_URL", url.as_str()),
            ("PIN_CLIENT_ID", "op_yours"),
            ("PIN_CAPACITY", "4"),
        ] {
            assert!(effective.contains(&wanted), "{wanted:?}: {effective:?}");
        }
    }
}
