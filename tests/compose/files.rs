//! The files as Compose reads them, without starting anything.

use crate::{
    lab::{GENERATIONS, Lab},
    stack::Stack,
};

/// What docs/docker.md names besides docker-compose.yml alone.
const OVERLAYS: [&str; 7] = [
    "gpu",
    "monitoring",
    "host-ollama",
    "openai",
    "openai-url",
    "admin-token",
    "demo",
];

fn of(overlays: &[&str]) -> String {
    let overlays = overlays
        .iter()
        .map(|name| format!(" -f deploy/compose/{name}.yml"));
    format!("-f docker-compose.yml{}", overlays.collect::<String>())
}

#[test]
fn every_combination_that_the_page_names_is_taken_without_a_word() {
    let Some(lab) = Lab::find() else { return };
    let alone = OVERLAYS.map(|name| of(&[name]));
    let together = [
        of(&[]),
        of(&["gpu", "monitoring"]),
        of(&["host-ollama", "monitoring"]),
        of(&["gpu", "monitoring", "admin-token"]),
        of(&["demo", "monitoring"]),
        of(&["demo", "host-ollama"]),
        of(&["openai", "openai-gpu", "monitoring"]),
        of(&["openai-url", "backend-key"]),
        of(&["host-ollama", "backend-key"]),
    ];
    for generation in GENERATIONS {
        for files in alone.iter().chain(&together) {
            let stack = Stack::new(lab, generation, files);
            stack.fill_in();
            stack.name_a_model_server();
            let said = stack.compose("config -q");
            assert!(said.success, "{generation}, {files}: {}", said.stderr);
            assert_eq!(said.stderr, "", "{generation}, {files}");
        }
    }
}

#[test]
fn one_number_in_env_is_the_capacity_of_both() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "").with("PIN_CAPACITY", "7");
        stack.fill_in();
        let config = stack.compose_well("config").replace(['"', '\''], "");
        for line in ["OLLAMA_NUM_PARALLEL: 7", "PIN_CAPACITY: 7"] {
            assert!(config.contains(line), "{generation}: {config}");
        }
    }
}

#[test]
fn the_token_comes_beside_the_secret_and_not_in_its_place() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, &of(&["admin-token"]));
        stack.fill_in();
        let config = stack.compose_well("config");
        for words in [
            "PIN_ADMIN_TOKEN_FILE: /run/secrets/pin_admin_token",
            "source: pin_admin_token",
            "source: pin_api_secret",
        ] {
            assert!(config.contains(words), "{generation}, {words}: {config}");
        }
    }
}

#[test]
fn a_llama_server_stands_in_ollamas_place_with_the_sidecars_capacity() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, &of(&["openai"])).with("PIN_CAPACITY", "7");
        stack.fill_in();
        stack.name_a_model_server();
        let config = stack.compose_well("config").replace(['"', '\''], "");
        for line in [
            "PIN_API_MODE: openai",
            "PIN_OLLAMA_URL: http://model-server:8080",
            "scale: 0",
        ] {
            assert!(config.contains(line), "{generation}, {line}: {config}");
        }
        let words: Vec<_> = config
            .lines()
            .map(|line| line.trim_start_matches([' ', '-']))
            .collect();
        // The generations indent differently and leave out other dashes.
        for pair in [
            ["model", "/models/model.gguf"],
            ["alias", "my-model"],
            ["parallel", "7"],
        ] {
            let is_there = words.windows(2).any(|two| two == pair);
            assert!(is_there, "{generation}, {pair:?}: {config}");
        }
    }
}

#[test]
fn a_server_elsewhere_is_asked_at_the_url_in_env_with_the_key_beside_the_secret() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, &of(&["openai-url", "backend-key"]));
        stack.fill_in();
        stack.name_a_model_server();
        let config = stack.compose_well("config");
        for words in [
            "PIN_API_MODE: openai",
            "PIN_OLLAMA_URL: http://host.docker.internal:8000",
            "PIN_BACKEND_API_KEY_FILE: /run/secrets/pin_backend_api_key",
            "source: pin_backend_api_key",
            "source: pin_api_secret",
        ] {
            assert!(config.contains(words), "{generation}, {words}: {config}");
        }
    }
}

#[test]
fn overlays_may_be_named_in_env_once_and_for_all() {
    let Some(lab) = Lab::find() else { return };
    for generation in GENERATIONS {
        let stack = Stack::new(lab, generation, "");
        stack.fill_in();
        stack.append(
            ".env",
            "COMPOSE_FILE=docker-compose.yml:deploy/compose/gpu.yml:deploy/compose/monitoring.yml",
        );
        let services = stack.compose_well("config --services");
        assert!(services.contains("grafana"), "{generation}: {services}");
        assert!(stack.compose_well("config").contains("driver: nvidia"));
    }
}
