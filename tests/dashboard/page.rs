//! The dashboard's file: what Grafana needs of each panel, and what a reader relies on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Grafana's grid.
const COLUMNS: u64 = 24;

/// A panel of the dashboard.
pub(crate) struct Panel(Value);

/// One of the expressions that a panel asks for.
pub(crate) struct Target {
    /// The panel's title and the query's letter.
    pub(crate) name: String,
    pub(crate) expr: String,
    /// Asked for now, rather than over a time.
    pub(crate) instant: bool,
}

pub(crate) fn file(path: &str) -> String {
    let path = format!("{ROOT}/deploy/{path}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&file("grafana/dashboards/pin-sidecar.json")).unwrap()
}

/// Every panel but the headings of rows.
pub(crate) fn panels() -> Vec<Panel> {
    let is_row = |panel: &Value| panel["type"] == "row";
    all(&dashboard())
        .into_iter()
        .filter(|panel| !is_row(panel))
        .map(Panel)
        .collect()
}

fn all(dashboard: &Value) -> Vec<Value> {
    dashboard["panels"].as_array().unwrap().clone()
}

impl Panel {
    pub(crate) fn title(&self) -> &str {
        self.0["title"].as_str().unwrap_or_default()
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        let target = |target: &Value| Target {
            name: format!("{} {}", self.title(), target["refId"].as_str().unwrap()),
            expr: target["expr"].as_str().unwrap().to_owned(),
            instant: target["instant"].as_bool().unwrap(),
        };
        self.0["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(target)
            .collect()
    }

    fn says(&self, pointer: &str) -> bool {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .is_some_and(|text| !text.trim().is_empty())
    }
}

#[test]
fn the_file_is_what_its_script_writes() {
    let check = Command::new("python3")
        .args(["deploy/grafana/make-dashboard", "--check"])
        .current_dir(ROOT)
        .output();
    let Ok(check) = check else {
        return devnet::skip_without("python3");
    };
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
}

#[test]
fn every_panel_says_what_it_is_what_is_normal_and_in_which_unit() {
    for panel in panels() {
        for field in ["/title", "/description", "/fieldConfig/defaults/unit"] {
            assert!(panel.says(field), "{field} is missing: {:?}", panel.title());
        }
    }
}

#[test]
fn ids_and_titles_are_unique() {
    let panels = all(&dashboard());
    for field in ["id", "title"] {
        let told: BTreeSet<_> = panels
            .iter()
            .map(|panel| panel[field].to_string())
            .collect();
        assert_eq!(told.len(), panels.len(), "two panels have one {field}");
    }
}

#[test]
fn panels_are_within_the_page_and_none_lies_on_another() {
    let mut taken = BTreeMap::new();
    for panel in all(&dashboard()) {
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        assert!(at("w") >= 1 && at("h") >= 1, "{panel}");
        assert!(at("x") + at("w") <= COLUMNS, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                if let Some(other) = taken.insert((x, y), panel["title"].clone()) {
                    panic!("{} lies on {other}", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn the_data_source_is_the_one_that_was_chosen() {
    let chosen = json!({"type": "prometheus", "uid": "${datasource}"});
    let dashboard = dashboard();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let asked = variables
        .iter()
        .filter(|variable| variable["type"] == "query");
    for asker in annotations.iter().chain(asked) {
        assert_eq!(asker["datasource"], chosen, "{}", asker["name"]);
    }
    for panel in panels() {
        assert_eq!(panel.0["datasource"], chosen, "{}", panel.title());
        for target in panel.0["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], chosen, "{}", panel.title());
        }
    }
}

#[test]
fn it_can_be_imported_anywhere_and_found_again() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "pin-sidecar");
    assert!(dashboard.get("__inputs").is_none() && dashboard.get("id").is_none());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    for variable in &variables[1..] {
        assert!(
            variable["multi"] == true && variable["includeAll"] == true,
            "{variable}"
        );
    }
}

#[test]
fn grafana_finds_it_and_its_data_source_where_compose_puts_them() {
    let source = file("grafana/provisioning/datasources/prometheus.yml");
    assert!(source.contains("url: http://prometheus:9090\n"));
    assert!(source.contains("uid: pin-prometheus\n"));
    let provider = file("grafana/provisioning/dashboards/pin-sidecar.yml");
    assert!(provider.contains("path: /var/lib/grafana/dashboards\n"));
}
