//! What replaces pods, and how: a restart costs running chats their place, and a new alias costs the node its standing.

use serde_json::{Value, json};

use crate::chart::{Chart, NAME};

/// Values as each kind and topology wants them.
fn kind(kind: &str, replicas: u64) -> Value {
    let external = json!({"kind": kind, "replicas": replicas, "topology": "external"});
    let mut values = external;
    values["ollama"] = json!({"url": "http://ollama:11434"});
    values
}

#[test]
fn the_alias_lasts_as_long_as_the_kind_allows() {
    let Some(chart) = Chart::find() else { return };
    let field = |path: &str| json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}});
    for (values, alias) in [
        (json!({}), field("metadata.name")),
        (json!({"replicas": 3}), field("metadata.name")),
        (json!({"kind": "Deployment"}), json!(NAME)),
        (kind("", 1), json!(NAME)),
        (kind("Deployment", 2), field("metadata.name")),
        (kind("DaemonSet", 1), field("spec.nodeName")),
        (json!({"node": {"alias": "my-gpu"}}), json!("my-gpu")),
    ] {
        let rendered = chart.render(&values);
        assert_eq!(
            *rendered.variable("pin-sidecar", "PIN_NODE_ALIAS"),
            alias,
            "{values}"
        );
    }
}

#[test]
fn no_two_pods_of_one_alias_or_one_gpu_are_there_at_once() {
    let Some(chart) = Chart::find() else { return };
    let gpus = json!({
        "kind": "Deployment", "replicas": 2,
        "ollama": {"gpu": {"count": 1}, "persistence": {"enabled": false}},
    });
    for (values, strategy) in [
        (json!({"kind": "Deployment"}), "Recreate"),
        (kind("", 1), "Recreate"),
        (gpus, "Recreate"),
        (kind("Deployment", 2), "RollingUpdate"),
    ] {
        let rendered = chart.render(&values);
        assert_eq!(
            rendered.workload()["spec"]["strategy"]["type"],
            strategy,
            "{values}"
        );
    }
    let machines = chart.render(&kind("DaemonSet", 1));
    let update = &machines.workload()["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(*update, json!({"maxUnavailable": 1, "maxSurge": 0}));
    assert!(machines.workload()["spec"]["replicas"].is_null());
    let given = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "5%"}});
    for (of, field) in [("DaemonSet", "updateStrategy"), ("Deployment", "strategy")] {
        let mut values = kind(of, 2);
        values["updateStrategy"] = given.clone();
        assert_eq!(
            chart.render(&values).workload()["spec"][field],
            given,
            "{of}"
        );
    }
}

#[test]
fn a_statefulset_that_never_became_ready_can_be_mended() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({}));
    assert_eq!(
        rendered.workload()["spec"]["podManagementPolicy"],
        "Parallel"
    );
}

#[test]
fn pods_are_replaced_when_something_changes_that_they_need() {
    let Some(chart) = Chart::find() else { return };
    let before = chart.render(&json!({}));
    for needed in [
        json!({"capacity": 5}),
        json!({"clientId": "op_other"}),
        json!({"models": {"pull": ["llama3.2"]}}),
        json!({"settings": {"PIN_LOG": "debug"}}),
        json!({"drainTimeoutSeconds": 26}),
        json!({"image": {"tag": "next"}}),
        json!({"ollama": {"image": {"tag": "0.17.5"}}}),
        json!({"secret": {"key": "other"}}),
        json!({"admin": {"existingSecret": "pin-admin-token"}}),
    ] {
        let after = chart.render(&needed);
        assert_ne!(after.template(), before.template(), "{needed}");
    }
}

#[test]
fn pods_stay_when_something_changes_that_they_do_not_need() {
    let Some(chart) = Chart::find() else { return };
    let before = chart.render(&json!({}));
    let not_needed = json!({
        "replicas": 3,
        "podDisruptionBudget": {"enabled": true},
        "networkPolicy": {"enabled": true},
        "podMonitor": {"enabled": true},
        "prometheusRule": {"enabled": true},
        "dashboard": {"enabled": true},
        "serviceAccount": {"annotations": {"a": "b"}},
        "ollama": {"persistence": {"whenDeleted": "Delete"}},
    });
    let after = chart.render(&not_needed);
    assert_eq!(after.template(), before.template());
}

#[test]
fn a_new_version_of_the_chart_alone_changes_neither_pods_nor_what_may_never_change() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({"image": {"tag": "0.1.0"}}));
    let spec = &rendered.workload()["spec"];
    for part in [
        rendered.template(),
        &spec["volumeClaimTemplates"],
        &spec["selector"],
    ] {
        let text = part.to_string();
        assert!(!text.contains("helm.sh/chart"), "{text}");
        assert!(!text.contains("app.kubernetes.io/version"), "{text}");
    }
}

#[test]
fn a_secret_of_the_charts_own_restarts_the_pods_when_it_changes_and_another_never_does() {
    let Some(chart) = Chart::find() else { return };
    let checksum = |secret: Value| {
        let rendered = chart.render(&json!({ "secret": secret }));
        let annotations = &rendered.template()["metadata"]["annotations"];
        (annotations["checksum/secret"].clone(), rendered)
    };
    let own = |value: &str| checksum(json!({"existingSecret": "", "value": value}));
    let ((one, rendered), (same, _), (other, _)) = (own("one"), own("one"), own("other"));
    assert!(one.is_string() && one == same && one != other);
    assert_eq!(rendered.one("Secret")["data"]["pin_api_secret"], "b25l");
    assert!(!rendered.template().to_string().contains("b25l"));
    let (none, rendered) = checksum(json!({"existingSecret": "mine"}));
    assert!(none.is_null() && rendered.all("Secret").is_empty());
}
