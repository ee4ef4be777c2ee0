//! The alerts of `deploy/prometheus/` are those that operators are promised, ask for metrics that there are, and lead to
//! their section of `deploy/RUNBOOK.md`; what they do is tested by Prometheus' own `promtool`.
//!
//! The rules are read line by line, as they are laid out: one that is laid out otherwise fails here.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use devnet::promtool;
use pin_sidecar::{
    config::settings,
    label::Label,
    protocol::Code,
    telemetry::{BackendMetrics, DropReason, Metrics},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What sites route and silence by, so they are never renamed.
const ALERTS: [&str; 14] = [
    "PinSidecarDown",
    "SessionDown",
    "AuthRejected",
    "Reconnecting",
    "SessionStale",
    "OllamaDown",
    "NoModels",
    "HighErrorRatio",
    "SlowFirstToken",
    "DecodeBelowFloor",
    "Saturated",
    "QualityTierFailed",
    "ResultsDropped",
    "ConfigReloadFailed",
];

/// Codes that cost the operator nothing that he could mend.
const NOBODYS_FAULT: [Code; 5] = [
    Code::Draining,
    Code::Invalid,
    Code::ModelNotFound,
    Code::Rejected,
    Code::Duplicate,
];

/// Reasons for which an answer goes that nobody wants any more.
const NO_LOSS: [DropReason; 2] = [DropReason::Cancelled, DropReason::Superseded];

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join("deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

fn unit_tests() -> Vec<PathBuf> {
    let files = fs::read_dir(path("prometheus/tests")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// The text's items: each begins with a line that begins so, and goes to the next one. Comments are left out.
fn items<'a>(text: &'a str, beginnings: &[&str]) -> Vec<Vec<&'a str>> {
    let mut items: Vec<Vec<_>> = Vec::new();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    for line in lines {
        if beginnings
            .iter()
            .any(|beginning| line.starts_with(beginning))
        {
            items.push(Vec::new());
        }
        if let Some(item) = items.last_mut() {
            item.push(line);
        }
    }
    items
}

/// A rule, or whatever else has `key: value` on lines of its own.
struct Rule<'a>(Vec<&'a str>);

impl Rule<'_> {
    /// The value of a key, on one line; empty where there is no such key.
    fn value(&self, key: &str) -> String {
        let key = format!("{key}: ");
        let is_key = |line: &&str| line.trim_start_matches([' ', '-']).starts_with(&key);
        let Some(at) = self.0.iter().position(is_key) else {
            return String::new();
        };
        let (_, value) = self.0[at].split_once(": ").unwrap();
        if !["|", ">-"].contains(&value) {
            return value.trim_matches('"').to_owned();
        }
        let indent = |line: &str| line.len() - line.trim_start().len();
        let below = self.0[at + 1..].iter();
        let block = below.take_while(|line| indent(line) > indent(self.0[at]));
        block.map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

fn rules(text: &str) -> Vec<Rule<'_>> {
    let items = items(text, &["      - alert: ", "      - record: "]);
    items.into_iter().map(Rule).collect()
}

fn alerts(text: &str) -> Vec<Rule<'_>> {
    let rules = rules(text).into_iter();
    rules
        .filter(|rule| !rule.value("alert").is_empty())
        .collect()
}

/// What is quoted like this in a text, between `open` and `close`.
fn quoted<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let after = text.split(open).skip(1);
    after
        .filter_map(|rest| Some(rest.split_once(close)?.0))
        .collect()
}

/// The words of a text that begin so and go on with what names are made of.
fn words<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !in_word(c));
    words.filter(|word| word.starts_with(prefix)).collect()
}

/// The metric that a series is of: a histogram has three kinds.
fn metric(series: &str) -> &str {
    let kinds = ["_bucket", "_sum", "_count"];
    let of_histogram = kinds.iter().find_map(|kind| series.strip_suffix(kind));
    of_histogram
        .filter(|name| Metrics::NAMES.contains(name))
        .unwrap_or(series)
}

/// `name{label="value"}` and `name{label=~"one|other"}`, each value by itself.
fn matchers(expr: &str) -> BTreeSet<(&str, &str, &str)> {
    let mut found = BTreeSet::new();
    for name in words(expr, "pin_sidecar_") {
        for matcher in quoted(expr, &format!("{name}{{"), "}") {
            let (label, values) = matcher.split_once('=').unwrap();
            let values = values.trim_matches(['~', '"']).split('|');
            found.extend(values.map(|value| (name, label.trim_end_matches('!'), value)));
        }
    }
    found
}

/// The reasons that an alert's own expression asks for.
fn reasons_of(alert: &str) -> BTreeSet<String> {
    let text = read("prometheus/rules.yml");
    let rules = rules(&text);
    let rule = rules.iter().find(|rule| rule.value("alert") == alert);
    let expr = rule.unwrap().value("expr");
    let selectors: BTreeSet<_> = quoted(&expr, "{reason", "}").into_iter().collect();
    assert_eq!(selectors.len(), 1, "{alert} does not always mean the same");
    let matchers = matchers(&expr).into_iter();
    matchers
        .filter(|(_, label, _)| *label == "reason")
        .map(|(_, _, value)| value.to_owned())
        .collect()
}

fn all_words<L: Label>(labels: &[L]) -> BTreeSet<String> {
    let words = labels.iter().map(|label| label.as_str().to_owned());
    words.collect()
}

#[test]
fn prometheus_takes_its_configuration_and_the_rules_beside_it() {
    promtool::run(&["check", "config"], &[path("prometheus/prometheus.yml")]);
    promtool::run(&["check", "rules"], &[path("prometheus/rules.yml")]);
    let configuration = read("prometheus/prometheus.yml");
    for needed in [
        "  - rules.yml",
        "job_name: pin-sidecar",
        "- pin-sidecar:9464",
    ] {
        assert!(configuration.contains(needed), "{needed}");
    }
}

#[test]
fn alerts_fire_for_their_cause_and_stay_quiet_for_others() {
    promtool::run(&["test", "rules"], &unit_tests());
}

#[test]
fn the_alerts_are_those_that_operators_are_promised() {
    let text = read("prometheus/rules.yml");
    let names: Vec<_> = alerts(&text)
        .iter()
        .map(|rule| rule.value("alert"))
        .collect();
    assert_eq!(names, ALERTS);
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_to_read_on() {
    let (text, runbook) = (read("prometheus/rules.yml"), read("RUNBOOK.md"));
    for alert in alerts(&text) {
        let name = alert.value("alert");
        let severity = alert.value("severity");
        assert!(
            ["critical", "warning"].contains(&severity.as_str()),
            "{name}"
        );
        for key in ["for", "summary", "description"] {
            assert!(!alert.value(key).is_empty(), "{name} has no {key}");
        }
        let anchor = format!("deploy/RUNBOOK.md#{}", name.to_lowercase());
        assert_eq!(alert.value("runbook"), anchor);
        assert!(runbook.contains(&format!("\n## {name}\n")), "{name}");
        for template in quoted(&alert.0.concat(), "{{ ", "}}") {
            let plain = ["$labels.", "$value "]
                .iter()
                .any(|start| template.starts_with(start));
            assert!(
                plain,
                "{name}: {template} is more than Helm and Prometheus agree on"
            );
        }
    }
}

#[test]
fn every_section_of_the_runbook_is_about_an_alert() {
    let runbook = read("RUNBOOK.md");
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("## "));
    let sections: Vec<_> = headings.skip(1).collect();
    assert_eq!(sections, ALERTS);
}

#[test]
fn every_alert_is_tested_firing_and_quiet() {
    let files: Vec<_> = unit_tests()
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let groups = files.iter().flat_map(|file| items(file, &["  - name: "]));
    let groups: Vec<_> = groups.map(|group| group.join("\n")).collect();
    for alert in ALERTS {
        let of = |what: &str| {
            let beginning = format!("  - name: {alert} {what} ");
            let found = groups.iter().find(|group| group.starts_with(&beginning));
            found.unwrap_or_else(|| panic!("there is no test that {alert} {what}"))
        };
        let (firing, quiet) = (of("fires"), of("stays quiet"));
        let expectation = format!("- alertname: {alert}\n");
        let mut told = firing.split(&expectation).skip(1);
        assert!(
            told.any(|told| told.contains("exp_alerts:")),
            "{alert} is not expected to fire"
        );
        assert!(
            !quiet.contains("exp_alerts:"),
            "{alert} is not expected to be quiet"
        );
    }
}

#[test]
fn rules_ask_for_metrics_and_labels_that_there_are() {
    let text = read("prometheus/rules.yml");
    let exprs: String = rules(&text).iter().map(|rule| rule.value("expr")).collect();
    assert_eq!(no_metrics(&exprs), [""; 0]);

    // Of a node, since there are none of a model server before one is asked.
    let metrics = Arc::new(Metrics::new());
    let _ = BackendMetrics::new(&metrics, "gpu", "openai");
    let rendered = metrics.render();
    for (name, label, value) in matchers(&exprs) {
        let beginning = format!("{name}{{");
        let matcher = format!("{label}=\"{value}\"");
        let is_asked_for = |line: &str| line.starts_with(&beginning) && line.contains(&matcher);
        assert!(
            rendered.lines().any(is_asked_for),
            "{name} has no series with {matcher}"
        );
    }
}

/// What a text takes for metrics of the sidecar and are none.
fn no_metrics(text: &str) -> Vec<&str> {
    let series = words(text, "pin_sidecar_").into_iter();
    series
        .filter(|series| !Metrics::NAMES.contains(&metric(series)))
        .collect()
}

#[test]
fn rules_use_only_what_other_rules_record() {
    let text = read("prometheus/rules.yml");
    let rules = rules(&text);
    let recorded: BTreeSet<_> = rules.iter().map(|rule| rule.value("record")).collect();
    for rule in &rules {
        for name in words(&rule.value("expr"), "instance:") {
            assert!(recorded.contains(name), "nothing records {name}");
        }
    }
}

#[test]
fn every_code_of_a_failure_is_alerted_on_or_is_nobodys_fault() {
    let (failed, turned_away) = (reasons_of("HighErrorRatio"), reasons_of("Saturated"));
    assert!(failed.is_disjoint(&turned_away));
    let alerted: BTreeSet<_> = failed.union(&turned_away).cloned().collect();
    let nobodys = all_words(&NOBODYS_FAULT);
    assert!(alerted.is_disjoint(&nobodys));
    let all: BTreeSet<_> = alerted.union(&nobodys).cloned().collect();
    assert_eq!(all, all_words(Code::ALL));
}

#[test]
fn every_reason_to_drop_an_answer_is_alerted_on_or_is_no_loss() {
    let lost = reasons_of("ResultsDropped");
    let no_loss = all_words(&NO_LOSS);
    assert!(lost.is_disjoint(&no_loss));
    let all: BTreeSet<_> = lost.union(&no_loss).cloned().collect();
    assert_eq!(all, all_words(DropReason::ALL));
}

#[test]
fn the_runbook_names_settings_and_metrics_that_there_are() {
    let runbook = read("RUNBOOK.md");
    let settings: BTreeSet<_> = settings().map(|setting| setting.name).collect();
    let named = words(&runbook, "PIN_");
    let unknown: Vec<_> = named.difference(&settings).collect();
    assert!(unknown.is_empty(), "there are no settings {unknown:?}");
    assert_eq!(no_metrics(&runbook), [""; 0]);
}

#[test]
fn the_runbook_quotes_the_log_as_it_is_written() {
    let runbook = read("RUNBOOK.md");
    let quotes = quoted(&runbook, "`\"", "\"`");
    assert!(!quotes.is_empty());
    let source = source(&Path::new(ROOT).join("src"));
    for words in quotes {
        // A sentence may follow in the same text.
        let (line, more) = (format!("\"{words}\""), format!("\"{words}: "));
        let told = source.contains(&line) || source.contains(&more);
        assert!(told, "nothing logs {words:?}");
    }
}

/// All of our code, for its texts.
fn source(folder: &Path) -> String {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let texts = entries.map(|entry| {
        if entry.is_dir() {
            source(&entry)
        } else {
            fs::read_to_string(entry).unwrap()
        }
    });
    texts.collect()
}
