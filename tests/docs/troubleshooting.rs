//! The table of docs/troubleshooting.md is in alphabetical order, what it quotes is said somewhere, and what is said to an
//! operator who has something to do stands in it.

use std::fs;

use crate::{
    repository::{files, read, root},
    sources::sources,
};

/// What Docker, Kubernetes, Helm, the system and the gateway say. Everything else is said by this repository.
const SAID_BY_OTHERS: [&str; 20] = [
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
    "No such file or directory",
    "pod has unbound immediate PersistentVolumeClaims",
    "port is already allocated",
    "Readiness probe failed: HTTP probe failed with statuscode: 503",
    "references non-existent secret key: pin_api_secret",
    "Restarting (78)",
    "secret file …: Permission denied",
    "Timestamp …",
];

/// How a line of the log begins that tells of something wrong.
const LOGGED: [&str; 4] = ["warn!(", "error!(", "throttled!(warn", "throttled!(error"];

/// Where the sentences of `/readyz` and its warnings are made.
const SENTENCES: [&str; 4] = [
    "src/backend/",
    "src/link/",
    "src/overview.rs",
    "src/session/",
];

/// Whose errors end the start, or stand in those sentences.
const ERRORS: [&str; 4] = [
    "src/app.rs",
    "src/secret/error.rs",
    "src/transport/error.rs",
    "src/transport/tls.rs",
];

/// What is said to be done is done by itself, or the words stand in a sentence that has a row.
const NEEDS_NO_ROW: [&str; 31] = [
    // It was asked for.
    "a second signal: ending at once",
    "Drained: the process ends.",
    "The session was closed for shutdown.",
    // Around what has one.
    "no models to offer: {trouble}",
    "no session: {sentence}",
    "session down: {sentence}",
    "The gateway {gateway} cannot be used: {self}.",
    "but {why}. They may be loading",
    "{begun}: {error}. {correct} {setting}{helps}.",
    "the proxy {proxy} (HTTPS_PROXY) {trouble}",
    "PIN_TLS_CA_FILE {} {reason}",
    "PIN_TLS_CA_FILE {}: {source} ({facts}); {}",
    "secret file {}: {error} ({facts}); {}",
    "secret file {}: {problem} ({facts}); put the secret into it",
    "the secret from {place}: {problem}",
    "cannot be reached: {self}. It may not let this User-Agent",
    "keyring: {0}",
    "it cannot be read: {0}",
    // It cannot come of a URL.
    "cannot be asked for a host of this name",
    // Behind what has one.
    "Next attempt in {left} s",
    "{} Connecting now.",
    "It wants to see the node again at",
    "Redirects are not followed:",
    "Its log says more. Correct {setting}",
    "pass its answers on as they are, or correct {setting}.",
    "pass POST on to it.",
    "has no answer from it:",
    "must let chats pass without a page",
    "must wait for longer than a model takes",
    "own log says more",
    "Have a smaller model interviewed",
];

/// Those that tell what is missing from `.env`.
const COMPOSE_FILES: [&str; 3] = [
    "docker-compose.yml",
    "deploy/compose/openai.yml",
    "deploy/compose/openai-url.yml",
];

/// What an operator is told when something is wrong: warnings and errors in the log, sentences of `/readyz`, startup errors.
fn all_that_wants_a_row() -> Vec<String> {
    let mut told = Vec::new();
    for source in sources() {
        // A message stands behind its fields.
        let logged = LOGGED.iter().flat_map(|line| source.in_each(line));
        told.extend(logged.filter_map(|line| Some((*line.last()?).to_owned())));
        if SENTENCES.iter().any(|place| source.name.starts_with(place)) {
            let sentences = source.texts().filter(|text| is_sentence(text));
            told.extend(sentences.map(str::to_owned));
        }
        if ERRORS.contains(&&*source.name) {
            let errors = source.in_each("#[error(").into_iter();
            told.extend(errors.filter_map(|error| Some((*error.first()?).to_owned())));
        }
    }
    told
}

fn is_sentence(text: &str) -> bool {
    text.starts_with(|c: char| c.is_uppercase() || c == '{') && text.ends_with('.')
}

/// The first words that each row quotes.
fn quotes(page: &str) -> Vec<&str> {
    rows(page)
        .map(|row| row.split('`').next().unwrap())
        .collect()
}

/// All words that it quotes.
fn all_quotes(page: &str) -> Vec<&str> {
    let said = rows(page).map(|row| row.split(" | ").next().unwrap());
    said.flat_map(|said| said.split('`').step_by(2)).collect()
}

/// Each row behind its first backtick.
fn rows(page: &str) -> impl Iterator<Item = &str> {
    let (_, table) = page.split_once("\n| it says |").unwrap();
    table.lines().filter_map(|line| line.strip_prefix("| `"))
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

/// Whether a text has what a row quotes.
fn has(said: &str, quote: &str) -> bool {
    let mut parts = quote
        .split('…')
        .map(|part| part.trim_matches([' ', ':', '(', ')']));
    parts.all(|part| said.contains(part))
}

/// Whether it has all behind the last gap: what stands before that may be another's words.
fn has_end(said: &str, quote: &str) -> bool {
    /// In bytes: a shorter one is said of many things.
    const TELLING: usize = 10;
    let end = quote.rsplit('…').next().unwrap_or_default();
    let end = end.trim_matches([' ', ':', '(', ')']);
    quote.contains('…') && end.len() >= TELLING && said.contains(end)
}

/// What is quoted and said nowhere.
fn made_up<'a>(quotes: &[&'a str], said: &str) -> Vec<&'a str> {
    let ours = quotes
        .iter()
        .filter(|quote| !SAID_BY_OTHERS.contains(quote));
    ours.copied().filter(|quote| !has(said, quote)).collect()
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

#[test]
fn whoever_is_told_of_something_to_do_finds_it_in_the_table() {
    let page = read("docs/troubleshooting.md");
    let quotes = all_quotes(&page);
    let is_missing = |told: &&String| {
        let needs_none = NEEDS_NO_ROW.iter().any(|words| told.contains(words));
        let is_nothing_but_a_value = !told.contains(char::is_whitespace);
        let is_quoted = |quote: &&str| has(told, quote) || has_end(told, quote);
        !needs_none && !is_nothing_but_a_value && !quotes.iter().any(is_quoted)
    };
    let told = all_that_wants_a_row();
    assert!(told.len() > 50, "{told:#?}");
    let missing: Vec<_> = told.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "no row quotes {missing:#?}");
    for words in NEEDS_NO_ROW {
        assert!(
            told.iter().any(|told| told.contains(words)),
            "{words} is not said"
        );
    }
}
