//! The dashboard's expressions: each parses, asks for metrics that there are, and only for the nodes that were chosen.

use std::{collections::BTreeSet, fs};

use pin_sidecar::telemetry::Metrics;
use serde_json::json;

use crate::page::{Target, dashboard, panels};

/// What Prometheus adds by itself.
const OF_PROMETHEUS: [&str; 3] = ["up", "scrape_duration_seconds", "ALERTS"];

/// Metrics that the dashboard leaves out, and why.
const LEFT_OUT: [(&str, &str); 3] = [
    ("pin_sidecar_ollama_up", "as backend_up"),
    ("pin_sidecar_ollama_models", "as backend_models"),
    ("pin_sidecar_ollama_info", "as backend_info"),
];

/// An expression with Grafana's variables filled in, for scrapes that are a second apart.
pub(crate) fn filled_in(expr: &str, instance: &str) -> String {
    expr.replace("$__rate_interval", "30s")
        .replace("$__range", "300s")
        .replace("$job", "pin-sidecar")
        .replace("$instance", instance)
}

/// Every expression of panels and annotations.
fn targets() -> Vec<Target> {
    let dashboard = dashboard();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let marks = annotations.iter().map(|annotation| Target {
        name: annotation["name"].as_str().unwrap().to_owned(),
        expr: annotation["expr"].as_str().unwrap().to_owned(),
        instant: false,
    });
    let panels = panels();
    let asked = panels.iter().flat_map(|panel| panel.targets());
    asked.chain(marks).collect()
}

/// A metric's name and its matchers, wherever there is `name{matchers}`.
fn selectors(expr: &str) -> Vec<(&str, &str)> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let opened = expr.match_indices('{').map(|(at, _)| at);
    let selectors = opened.map(|at| {
        let before = &expr[..at];
        let name = before.trim_end_matches(in_name).len();
        let (matchers, _) = expr[at + 1..]
            .split_once('}')
            .expect("a brace is not closed");
        (&before[name..], matchers)
    });
    selectors.collect()
}

/// The metric that a series is of: a histogram has three kinds.
fn metric(series: &str) -> &str {
    let kinds = ["_bucket", "_sum", "_count"];
    let of_histogram = kinds.iter().find_map(|kind| series.strip_suffix(kind));
    of_histogram
        .filter(|name| Metrics::NAMES.contains(name))
        .unwrap_or(series)
}

/// The names of the process's metrics.
fn of_process() -> BTreeSet<String> {
    let text = Metrics::new().render();
    let names = text.lines().filter_map(|line| {
        let name = line.strip_prefix("# TYPE ")?.split(' ').next()?;
        name.starts_with("process_").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn every_metric_that_is_asked_for_exists() {
    let of_process = of_process();
    for target in targets() {
        for (series, _) in selectors(&target.expr) {
            let name = metric(series);
            assert!(
                Metrics::NAMES.contains(&name)
                    || of_process.contains(name)
                    || OF_PROMETHEUS.contains(&name),
                "{} asks for {series}, which does not exist",
                target.name
            );
        }
    }
}

#[test]
fn every_metric_of_the_sidecar_is_on_the_dashboard() {
    let targets = targets();
    let shown: BTreeSet<_> = targets
        .iter()
        .flat_map(|target| selectors(&target.expr))
        .map(|(series, _)| metric(series))
        .collect();
    let left_out: BTreeSet<_> = LEFT_OUT.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = Metrics::NAMES
        .iter()
        .filter(|name| shown.contains(*name) == left_out.contains(*name))
        .collect();
    assert!(
        missing.is_empty(),
        "not shown, or shown and left out: {missing:?}"
    );
}

#[test]
fn every_question_is_about_the_chosen_nodes_and_no_others() {
    for target in targets() {
        let selectors = selectors(&target.expr);
        assert!(!selectors.is_empty(), "{} asks for nothing", target.name);
        // A metric without braces would be asked for of everybody.
        let ours = |(name, _): &&(&str, &str)| name.starts_with("pin_sidecar_");
        let chosen = selectors.iter().filter(ours).count();
        let words = target.expr.matches("pin_sidecar_").count();
        assert_eq!(words, chosen, "{}", target.name);
        for (series, matchers) in selectors {
            for filter in [r#"job=~"$job""#, r#"instance=~"$instance"#] {
                assert!(
                    matchers.contains(filter),
                    "{}: {series} lacks {filter}",
                    target.name
                );
            }
        }
    }
}

#[test]
fn rates_are_over_grafanas_own_interval() {
    for target in targets() {
        for window in target.expr.split("rate(").skip(1) {
            let window = window.split(['[', ']']).nth(1).unwrap();
            assert_eq!(window, "$__rate_interval", "{}", target.name);
        }
    }
}

#[test]
fn every_expression_parses() {
    let rules: Vec<_> = targets()
        .iter()
        .enumerate()
        .map(|(number, target)| {
            json!({"record": format!("dashboard:question_{number}"),
                   "labels": {"asked_by": target.name},
                   "expr": filled_in(&target.expr, ".+")})
        })
        .collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("questions.yml");
    // JSON is YAML.
    fs::write(&file, groups.to_string()).unwrap();
    devnet::promtool::run(&["check", "rules"], &[file]);
}

#[test]
fn a_selector_is_its_name_and_its_matchers() {
    assert_eq!(
        selectors(r#"sum by (a) (rate(one{b="c"}[5m])) / (two_sum{d="e"} > 0)"#),
        [("one", r#"b="c""#), ("two_sum", r#"d="e""#)]
    );
    assert_eq!(
        metric("pin_sidecar_time_to_first_token_seconds_bucket"),
        "pin_sidecar_time_to_first_token_seconds"
    );
}
