//! Who reaches whom: the Service that finds pods, and the policy that lets nothing else through.

use serde_json::{Value, json};

use crate::chart::{Chart, Rendered};

fn policy(chart: &Chart, values: &Value) -> Value {
    let mut values = values.clone();
    values["networkPolicy"]["enabled"] = json!(true);
    chart.render(&values).one("NetworkPolicy")["spec"].clone()
}

/// The ports of each rule, UDP told apart.
fn ports(rules: &Value) -> Vec<Vec<String>> {
    let port = |port: &Value| match port["protocol"].as_str() {
        Some("UDP") => format!("{}/udp", port["port"]),
        _ => port["port"].to_string(),
    };
    let rules = rules.as_array().unwrap().iter();
    rules
        .map(|rule| rule["ports"].as_array().unwrap().iter().map(port).collect())
        .collect()
}

#[test]
fn the_service_finds_pods_that_are_not_ready_too() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({}));
    let service = &rendered.one("Service")["spec"];
    assert_eq!(service["clusterIP"], "None");
    assert_eq!(service["publishNotReadyAddresses"], true);
    assert_eq!(service["ports"][0]["targetPort"], 9464);
    assert_eq!(
        rendered.workload()["spec"]["serviceName"],
        rendered.one("Service")["metadata"]["name"]
    );
}

#[test]
fn whoever_selects_pods_selects_these_and_not_those_of_the_test() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({
        "podLabels": {"team": "gpus"},
        "podDisruptionBudget": {"enabled": true},
        "networkPolicy": {"enabled": true},
        "podMonitor": {"enabled": true},
    }));
    let selectors = [
        &rendered.workload()["spec"]["selector"]["matchLabels"],
        &rendered.one("Service")["spec"]["selector"],
        &rendered.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &rendered.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        &rendered.one("PodMonitor")["spec"]["selector"]["matchLabels"],
    ];
    let labels = &rendered.template()["metadata"]["labels"];
    let test = rendered
        .objects
        .iter()
        .find(|object| object["kind"] == "Pod")
        .unwrap();
    for selector in selectors {
        let selects = |labels: &Value| {
            let mut wanted = selector.as_object().unwrap().iter();
            wanted.all(|(name, value)| labels[name] == *value)
        };
        assert!(selects(labels), "{selector} does not select {labels}");
        assert!(
            !selects(&test["metadata"]["labels"]),
            "{selector} selects the test's pod"
        );
    }
}

#[test]
fn the_policy_lets_out_dns_and_the_gateway_and_in_only_scrapes_and_probes() {
    let Some(chart) = Chart::find() else { return };
    let policy = policy(chart, &json!({}));
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(ports(&policy["ingress"]), [["9464"]]);
    assert_eq!(
        ports(&policy["egress"]),
        [vec!["53/udp", "53"], vec!["443"]]
    );
}

#[test]
fn the_policy_knows_the_ports_that_urls_lead_to() {
    let Some(chart) = Chart::find() else { return };
    for (url, port) in [
        ("wss://gateway.example/ws", "443"),
        ("https://gateway.example:8443", "8443"),
        ("ws://user:pass@gateway.example/a:1/b", "80"),
        ("ws://[2001:db8::1]:9000/ws", "9000"),
        ("wss://[2001:db8::1]", "443"),
    ] {
        let policy = policy(
            chart,
            &json!({"gateway": {"url": url, "allowPlaintext": true}}),
        );
        assert_eq!(ports(&policy["egress"])[1], [port], "{url}");
    }
    let external = json!({"topology": "external", "ollama": {"url": "http://ollama:11434"}});
    let policy = policy(chart, &external);
    assert_eq!(ports(&policy["egress"])[2], ["11434"]);
}

#[test]
fn the_policy_lets_ollama_pull_only_where_it_is_to() {
    let Some(chart) = Chart::find() else { return };
    let gateway = json!({"gateway": {"url": "wss://gateway.example:8443"}});
    assert_eq!(ports(&policy(chart, &gateway)["egress"]).len(), 2);
    let mut pulling = gateway;
    pulling["models"] = json!({"pull": ["llama3.2"]});
    assert_eq!(ports(&policy(chart, &pulling)["egress"])[2], ["443"]);
}

#[test]
fn helm_test_is_let_in_beside_those_who_scrape() {
    let Some(chart) = Chart::find() else { return };
    let peer = json!({"namespaceSelector": {"matchLabels": {"a": "b"}}});
    let values = json!({"networkPolicy": {"enabled": true, "scrapeFrom": [peer]}});
    let rendered: Rendered = chart.render(&values);
    let from = &rendered.one("NetworkPolicy")["spec"]["ingress"][0]["from"];
    let test = rendered
        .objects
        .iter()
        .find(|object| object["kind"] == "Pod")
        .unwrap();
    let wanted = from[0]["podSelector"]["matchLabels"].as_object().unwrap();
    for (name, value) in wanted {
        assert_eq!(test["metadata"]["labels"][name], *value, "{name}");
    }
    assert_eq!(from[1], peer);
}

#[test]
fn a_gateway_that_is_away_keeps_no_machine_from_being_drained() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({"podDisruptionBudget": {"enabled": true}}));
    let budget = &rendered.one("PodDisruptionBudget")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
}
