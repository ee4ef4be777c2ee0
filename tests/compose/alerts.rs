//! Prometheus with the repository's own configuration, and two alerts for real. Grafana is a stand-in where the real one
//! cannot be had: of it only what Compose gives it is looked at.

use std::time::Duration;

use serde_json::Value;

use crate::{
    lab::{Lab, wait_for},
    stack::{READY_LIMIT, Stack},
};

/// Both alerts, which a test has to wait for in real time: their `for` is two minutes.
const ALERTS: [&str; 2] = ["OllamaDown", "SessionDown"];

/// More than their `for`, with a scrape and an evaluation before it.
const ALERT_LIMIT: Duration = Duration::from_secs(600);

/// The names of the alerts that fire.
fn firing(stack: &Stack) -> Result<Vec<String>, String> {
    let alerts = stack.get("prometheus", "/api/v1/alerts")?;
    let alerts = alerts["data"]["alerts"].as_array().cloned();
    let firing = alerts
        .unwrap_or_default()
        .into_iter()
        .filter(|alert| alert["state"] == "firing")
        .filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()));
    Ok(firing.collect())
}

fn wait_until_alerting(stack: &Stack, wanted: bool) {
    wait_for(
        &format!("{ALERTS:?} to fire: {wanted}"),
        ALERT_LIMIT,
        || {
            let firing = firing(stack)?;
            let as_wanted = ALERTS
                .iter()
                .all(|name| firing.iter().any(|one| one == name) == wanted);
            if as_wanted {
                Ok(())
            } else {
                Err(format!("{firing:?}"))
            }
        },
    );
}

fn wait_until_scraped(stack: &Stack) {
    wait_for("the sidecar to be scraped", READY_LIMIT, || {
        let targets = stack.get("prometheus", "/api/v1/targets")?;
        let target = &targets["data"]["activeTargets"][0];
        if target["health"] == "up" {
            Ok(())
        } else {
            Err(target.to_string())
        }
    });
}

#[test]
fn a_lost_session_and_a_lost_ollama_alert_and_stop_alerting_when_both_are_back() {
    let Some(lab) = Lab::find() else { return };
    let stack = Stack::demo(lab, "v2", "-f deploy/compose/monitoring.yml");
    stack.compose_well("up -d");
    stack.wait_until_ready();
    wait_until_scraped(&stack);
    let rules = stack.get("prometheus", "/api/v1/rules").unwrap();
    let groups = rules["data"]["groups"].as_array().map_or(0, Vec::len);
    assert!(groups > 0, "no rules are loaded: {rules}");
    assert_eq!(
        firing(&stack).unwrap(),
        [""; 0],
        "before anything is broken"
    );

    stack.post("/gateway/stop").unwrap();
    stack.compose_well("stop ollama");
    wait_until_alerting(&stack, true);

    stack.post("/gateway/start").unwrap();
    stack.compose_well("start ollama");
    wait_until_alerting(&stack, false);
    stack.wait_until_ready();
}

#[test]
fn grafana_has_its_data_source_and_its_dashboard_and_may_write_where_it_must() {
    let Some(lab) = Lab::find() else { return };
    for generation in crate::lab::GENERATIONS {
        let stack = Stack::demo(lab, generation, "-f deploy/compose/monitoring.yml");
        stack.compose_well("up -d --no-deps grafana prometheus");
        wait_for("Grafana", READY_LIMIT, || {
            stack.get("grafana", "/api/health")
        });
        for file in [
            "/etc/grafana/provisioning/datasources",
            "/etc/grafana/provisioning/dashboards",
            "/var/lib/grafana/dashboards/pin-sidecar.json",
        ] {
            stack.compose_well(&format!("exec -T grafana test -r {file}"));
        }
        stack.compose_well("exec -T grafana touch /var/lib/grafana/grafana.db /tmp/any");
        assert!(!stack.compose("exec -T grafana touch /etc/any").success);
        wait_for("Prometheus", READY_LIMIT, || {
            match stack.get("prometheus", "/api/v1/status/runtimeinfo")?["status"] {
                Value::String(ref status) if status == "success" => Ok(()),
                ref other => Err(other.to_string()),
            }
        });
    }
}
