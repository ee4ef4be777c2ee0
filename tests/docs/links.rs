//! Every link of every Markdown file leads to a file that there is, and to a heading that there is; so does every page that
//! another file names, in a comment, an alert or the dashboard. Addresses elsewhere are not asked, only read.

use std::{fs, path::Path};

use hyper::Uri;
use percent_encoding::percent_decode_str;

use crate::{
    markdown::Page,
    repository::{files, is_markdown, root},
};

/// Where a page is named by its path from the root.
const NAMED_FROM_THE_ROOT: [&str; 3] = ["deploy/", "docs/", "helm/"];

/// What is wrong with the Markdown files beneath a directory, a line each.
fn broken_links(root: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files(root).iter().filter(|file| is_markdown(file)) {
        let page = Page::read(&fs::read_to_string(file).unwrap());
        let wrong = page.targets.iter().filter_map(|target| {
            let trouble = trouble_with(root, file, target)?;
            Some(format!("{target}: {trouble}"))
        });
        let name = file.strip_prefix(root).unwrap().display();
        let all = wrong.chain(page.unclear.iter().cloned());
        broken.extend(all.map(|trouble| format!("{name}: {trouble}")));
    }
    broken
}

/// What is wrong with a link in this file.
fn trouble_with(root: &Path, file: &Path, target: &str) -> Option<&'static str> {
    if target.contains(':') {
        let is_well_formed = target
            .parse()
            .is_ok_and(|uri: Uri| matches!(uri.scheme_str(), Some("http" | "https")));
        return (!is_well_formed).then_some("neither a path nor a URL");
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let path = percent_decode_str(path).decode_utf8().unwrap();
    let leads_to = match &*path {
        "" => file.to_owned(),
        path => file.parent().unwrap().join(path),
    };
    if path.starts_with('/') || !is_beneath(root, &leads_to) {
        return Some("no such file in the repository");
    }
    let anchor = anchor?;
    let has_anchor = is_markdown(&leads_to)
        && Page::read(&fs::read_to_string(leads_to).unwrap())
            .anchors
            .contains(anchor);
    (!has_anchor).then_some("no such heading")
}

fn is_beneath(root: &Path, path: &Path) -> bool {
    path.canonicalize()
        .is_ok_and(|path| path.starts_with(root.canonicalize().unwrap()))
}

/// What files that are no Markdown name and what is not there, a line each.
fn broken_mentions(root: &Path) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files(root).iter().filter(|file| !is_markdown(file)) {
        // What is no text names nothing.
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        let name = file.strip_prefix(root).unwrap().display();
        for mention in mentions(&text) {
            let trouble = trouble_with(root, &root.join("README.md"), mention);
            broken.extend(trouble.map(|trouble| format!("{name}: {mention}: {trouble}")));
        }
    }
    broken
}

/// Pages named by their path from the root, each with its anchor.
fn mentions(text: &str) -> impl Iterator<Item = &str> {
    let in_path = |c: char| c.is_ascii_alphanumeric() || "/._-#".contains(c);
    let words = text.split(move |c| !in_path(c));
    words
        .map(|word| word.trim_end_matches(['.', '#']))
        .filter(|word| {
            NAMED_FROM_THE_ROOT
                .iter()
                .any(|start| word.starts_with(start))
        })
        .filter(|word| word.ends_with(".md") || word.contains(".md#"))
}

#[test]
fn every_link_of_every_markdown_file_works() {
    let broken = broken_links(root());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_page_that_another_file_names_is_there() {
    let broken = broken_mentions(root());
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn alerts_and_dashboard_name_pages_by_which_they_are_found() {
    for file in [
        "deploy/prometheus/rules.yml",
        "deploy/grafana/dashboards/pin-sidecar.json",
    ] {
        let text = crate::repository::read(file);
        assert!(mentions(&text).count() > 0, "{file}");
    }
}

/// A page's path, which is not written out here, since that would name a page of this repository.
fn in_docs(page: &str) -> String {
    format!("docs/{page}")
}

/// A repository in which one file says what is given.
fn with(file: &str, text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let docs = dir.path().join("docs");
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("page.md"), "# Page\n\n## A part\n").unwrap();
    fs::write(dir.path().join("README.md"), "# Title\n").unwrap();
    fs::write(dir.path().join(file), text).unwrap();
    dir
}

#[test]
fn a_link_that_leads_nowhere_is_told() {
    for (target, told) in [
        ("page.md", None),
        ("page.md#a-part", None),
        ("../README.md#title", None),
        ("../docs", None),
        ("#here", None),
        ("https://example.org/a#b", None),
        ("gone.md", Some("no such file in the repository")),
        ("/docs/page.md", Some("no such file in the repository")),
        ("../..", Some("no such file in the repository")),
        ("page.md#another-part", Some("no such heading")),
        ("#there", Some("no such heading")),
        ("../docs#a-part", Some("no such heading")),
        ("https://", Some("neither a path nor a URL")),
        ("http:/example.org", Some("neither a path nor a URL")),
        ("htps://example.org", Some("neither a path nor a URL")),
    ] {
        let repository = with(&in_docs("here.md"), &format!("# Here\n\n[x]({target})\n"));
        let told: Vec<_> = told
            .map(|told| format!("{}: {target}: {told}", in_docs("here.md")))
            .into_iter()
            .collect();
        assert_eq!(broken_links(repository.path()), told, "{target}");
    }
}

#[test]
fn a_page_that_is_named_and_not_there_is_told() {
    let named = |page: &str| {
        let repository = with("rules.yml", &format!("# See {}.\n", in_docs(page)));
        broken_mentions(repository.path())
    };
    assert_eq!(named("page.md"), [""; 0]);
    assert_eq!(named("page.md#a-part"), [""; 0]);
    assert_eq!(
        named("gone.md"),
        [format!(
            "rules.yml: {}: no such file in the repository",
            in_docs("gone.md")
        )]
    );
    assert_eq!(
        named("page.md#gone"),
        [format!(
            "rules.yml: {}: no such heading",
            in_docs("page.md#gone")
        )]
    );
}
