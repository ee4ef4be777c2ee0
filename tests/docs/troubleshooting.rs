//! The table of docs/troubleshooting.md is in alphabetical order, and what it quotes is said somewhere.

use std::fs;

use crate::repository::{files, read, root};

/// What Docker, Kubernetes, Helm, the system and the gateway say. Everything else is said by this repository.
const SAID_BY_OTHERS: [&str; 19] = [
    "additional properties '…' not allowed",
    "address already in use",
    "bind source path does not exist: …/secrets/pin_api_secret",
    "clientId",
    "configmap \"pin-sidecar\" not found",
    "could not select device driver \"nvidia\"",
    "couldn't find key PIN_NODE_ALIAS",
    "ErrImagePull",
    "Exit Code: 78",
    "Insufficient nvidia.com/gpu",
    "Invalid signature",
    "MountVolume.SetUp failed",
    "pod has unbound immediate PersistentVolumeClaims",
    "port is already allocated",
    "Readiness probe failed: HTTP probe failed with statuscode: 503",
    "references non-existent secret key: pin_api_secret",
    "Restarting (78)",
    "secret file …: Permission denied",
    "Timestamp …",
];

/// Those that tell what is missing from `.env`.
const COMPOSE_FILES: [&str; 3] = [
    "docker-compose.yml",
    "deploy/compose/openai.yml",
    "deploy/compose/openai-url.yml",
];

/// The first words that each row quotes.
fn quotes(page: &str) -> Vec<&str> {
    let (_, table) = page.split_once("\n| it says |").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap()).collect()
}

/// What one looks for, in a list in alphabetical order.
fn key(quote: &str) -> String {
    let quote = quote.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    quote.to_lowercase()
}

/// All that this repository can say, with texts over several lines in one.
fn all_that_is_said() -> String {
    let sources = ["src", "helm/pin-sidecar/templates"];
    let sources = sources.iter().flat_map(|place| files(&root().join(place)));
    let sources: String = sources
        .map(|file| fs::read_to_string(file).unwrap())
        .chain(COMPOSE_FILES.map(read))
        .collect();
    let mut joined = String::new();
    for part in sources.split("\\\n") {
        joined.push_str(part.trim_start_matches(' '));
    }
    joined
}

/// What is quoted and said nowhere.
fn made_up<'a>(quotes: &[&'a str], said: &str) -> Vec<&'a str> {
    let is_said = |quote: &str| {
        let parts = quote
            .split('…')
            .map(|part| part.trim_matches([' ', ':', '(', ')']));
        parts.into_iter().all(|part| said.contains(part))
    };
    let ours = quotes
        .iter()
        .filter(|quote| !SAID_BY_OTHERS.contains(quote));
    ours.copied().filter(|quote| !is_said(quote)).collect()
}

#[test]
fn it_is_in_alphabetical_order() {
    let page = read("docs/troubleshooting.md");
    let quotes = quotes(&page);
    assert!(quotes.len() > 50, "{quotes:?}");
    for pair in quotes.windows(2) {
        assert!(key(pair[0]) <= key(pair[1]), "{pair:?}");
    }
}

#[test]
fn what_it_quotes_is_said() {
    let page = read("docs/troubleshooting.md");
    let quotes = quotes(&page);
    assert_eq!(made_up(&quotes, &all_that_is_said()), [""; 0]);
    for words in SAID_BY_OTHERS {
        assert!(quotes.contains(&words), "{words} is not in the table");
    }
    let made = ["Ollama has no model", "pulling … has succeeded"];
    assert_eq!(made_up(&made, &all_that_is_said()), [made[1]]);
}
