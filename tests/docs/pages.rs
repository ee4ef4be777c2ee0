//! README is a page, from which every other page is found, and what pages name is there.

use std::{collections::BTreeSet, path::Path};

use pin_sidecar::{config::settings, label::Label, protocol::Code};

use crate::{
    markdown::Page,
    repository::{files, is_markdown, read, root},
};

/// In bytes: what one reads in a minute or two.
const README_AT_MOST: usize = 7_000;

/// What Kubernetes might set, as docs/settings.md tells of.
const NO_SETTING: &str = "PIN_GATEWAY_SERVICE_HOST";

/// README, and every page of docs/, by its path from the root.
fn pages() -> Vec<String> {
    let docs = files(&root().join("docs"));
    let docs = docs.iter().filter(|file| is_markdown(file));
    let relative = |file: &Path| file.strip_prefix(root()).unwrap().display().to_string();
    let docs = docs.map(|file| relative(file));
    docs.chain(["README.md".to_owned()]).collect()
}

/// Words that begin like this one.
fn words<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !in_word(c));
    words
        .filter(|word| word.len() > beginning.len() && word.starts_with(beginning))
        .collect()
}

#[test]
fn readme_is_one_page() {
    let bytes = read("README.md").len();
    assert!(
        bytes <= README_AT_MOST,
        "README.md has {bytes} bytes, more than {README_AT_MOST}: say it in a page of docs/"
    );
}

#[test]
fn every_page_is_found_from_readme() {
    let linked = Page::read(&read("README.md")).targets;
    for page in pages().iter().filter(|page| *page != "README.md") {
        assert!(linked.contains(page), "README.md has no link to {page}");
    }
}

#[test]
fn every_page_says_in_one_sentence_what_it_is_for() {
    for page in pages().iter().filter(|page| *page != "README.md") {
        let text = read(page);
        let mut blocks = text.split("\n\n");
        assert!(blocks.next().unwrap().starts_with("# "), "{page}");
        let sentence = blocks.next().unwrap().replace('\n', " ");
        let is_one = sentence.ends_with('.') && sentence.matches(". ").count() == 0;
        assert!(is_one, "{page} begins with {sentence:?}");
    }
}

#[test]
fn pages_name_settings_that_there_are() {
    let mut known: BTreeSet<_> = settings().map(|setting| setting.name).collect();
    let compose = read("docker-compose.yml");
    known.extend(words(&compose, "PIN_"));
    known.insert(NO_SETTING);
    for page in pages() {
        let text = read(&page);
        let named = words(&text, "PIN_");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(
            unknown.is_empty(),
            "{page}: there are no settings {unknown:?}"
        );
    }
}

#[test]
fn the_page_about_delivery_lists_every_error_code() {
    let page = read("docs/delivery.md");
    let (_, section) = page.split_once("\n## Error codes\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: Vec<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let all: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(listed, all);
}
