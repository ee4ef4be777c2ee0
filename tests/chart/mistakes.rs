//! Mistakes that people make: each is refused before anything is installed, by a sentence that names the value.

use serde_json::{Value, json};

use crate::chart::{Chart, RELEASE};

/// What is wrong, as values, and words that Helm's answer must have.
fn mistakes() -> Vec<(Value, &'static [&'static str])> {
    let external = |more: Value| json!({"topology": "external", "ollama": more});
    let openai = |mut values: Value| {
        values["topology"] = json!("external");
        values["apiMode"] = json!("openai");
        values["ollama"] = json!({"url": "http://vllm:8000"});
        values
    };
    vec![
        // Names.
        (json!({"replica": 2}), &["'replica' not allowed"]),
        (
            json!({"ollama": {"imge": {}}}),
            &["/ollama", "'imge' not allowed"],
        ),
        (
            json!({"node": {"regoin": "us-east"}}),
            &["/node", "'regoin' not allowed"],
        ),
        (
            json!({"secret": {"existing": "x"}}),
            &["/secret", "'existing' not allowed"],
        ),
        (
            json!({"settings": {"PIN_TOKEN_TIMEOT": "9s"}}),
            &["/settings", "'PIN_TOKEN_TIMEOT'"],
        ),
        (
            json!({"settings": {"PIN_CAPACITY": 2}}),
            &["/settings", "'PIN_CAPACITY'"],
        ),
        (
            json!({"settings": {"PIN_API_SECRET": "x"}}),
            &["/settings", "'PIN_API_SECRET'"],
        ),
        (
            json!({"securityContext": {"runAsUsr": 1}}),
            &["/securityContext", "'runAsUsr'"],
        ),
        (
            json!({"resources": {"limit": {}}}),
            &["/resources", "'limit'"],
        ),
        (
            json!({"probes": {"livenes": false}}),
            &["/probes", "'livenes'"],
        ),
        (
            json!({"networkPolicy": {"scrapeFrom": [{"cidr": "10.0.0.0/8"}]}}),
            &["scrapeFrom/0", "'cidr'"],
        ),
        // Types and words.
        (
            json!({"topology": "beside"}),
            &["/topology", "'bundled', 'sidecar', 'external'"],
        ),
        (
            json!({"kind": "Job"}),
            &["/kind", "'StatefulSet', 'Deployment', 'DaemonSet'"],
        ),
        (json!({"replicas": "two"}), &["/replicas", "want integer"]),
        (json!({"capacity": 0}), &["/capacity", "minimum"]),
        (json!({"capacity": 2.5}), &["/capacity", "want integer"]),
        (
            json!({"drainTimeoutSeconds": "25s"}),
            &["/drainTimeoutSeconds", "want integer"],
        ),
        (
            json!({"settings": {"PIN_TOKEN_TIMEOUT": 15}}),
            &["PIN_TOKEN_TIMEOUT", "want string"],
        ),
        (
            json!({"settings": {"PIN_TOKEN_TIMEOUT": "15"}}),
            &["PIN_TOKEN_TIMEOUT", "(ms|s|m|h|d)"],
        ),
        (
            json!({"settings": {"PIN_OUTBOX_BYTES": "32Mi"}}),
            &["PIN_OUTBOX_BYTES", "i?B"],
        ),
        (
            json!({"settings": {"PIN_QUEUE_BYTES": "512 KiB"}}),
            &["PIN_QUEUE_BYTES", "i?B"],
        ),
        (
            json!({"node": {"region": "mars"}}),
            &["/node/region", "'us-east'"],
        ),
        (
            json!({"models": {"pull": "llama3.2"}}),
            &["/models/pull", "want array"],
        ),
        (
            json!({"models": {"pull": ["a,b"]}}),
            &["/models/pull/0", "a,b"],
        ),
        (
            json!({"image": {"tag": 1.5}}),
            &["/image/tag", "want string"],
        ),
        (
            json!({"image": {"digest": "e3b0"}}),
            &["/image/digest", "sha256"],
        ),
        (json!({"probes": {"liveness": true}}), &["/probes/liveness"]),
        (
            json!({"podAnnotations": {"a": 1}}),
            &["/podAnnotations/a", "want string"],
        ),
        // What has to be given.
        (json!({"clientId": ""}), &["/clientId", "pin|op"]),
        (json!({"clientId": "jane"}), &["/clientId", "'jane'"]),
        (external(json!({})), &["/ollama/url"]),
        (
            external(json!({"url": "ollama:11434"})),
            &["/ollama/url", "https?://"],
        ),
        (
            json!({"secret": {"existingSecret": ""}}),
            &["secret.existingSecret is not given"],
        ),
        (
            json!({"settings": {"PIN_ADMIN_HOSTS": "gpu.example"}}),
            &["settings.PIN_ADMIN_HOSTS", "admin.existingSecret"],
        ),
        // What does not go together.
        (
            json!({"secret": {"value": "x"}}),
            &["secret.existingSecret and secret.value are both given"],
        ),
        (
            json!({"terminationGracePeriodSeconds": 29}),
            &["terminationGracePeriodSeconds is 29", "take 30"],
        ),
        (
            json!({"terminationGracePeriodSeconds": 60, "drainTimeoutSeconds": 56}),
            &[
                "terminationGracePeriodSeconds is 60",
                "drainTimeoutSeconds 56",
            ],
        ),
        (
            json!({"node": {"alias": "a"}, "replicas": 2}),
            &["node.alias", "all 2 replicas"],
        ),
        (
            json!({"node": {"alias": "a"}, "kind": "DaemonSet", "ollama": {"persistence": {"enabled": false}}}),
            &["node.alias", "DaemonSet"],
        ),
        (
            json!({"kind": "DaemonSet"}),
            &["ollama.persistence", "share one claim"],
        ),
        (
            json!({"kind": "Deployment", "replicas": 2}),
            &["ollama.persistence", "ReadWriteMany"],
        ),
        (
            json!({"ollama": {"persistence": {"hostPath": "/models", "existingClaim": "models"}}}),
            &["ollama.persistence.hostPath and ollama.persistence.existingClaim"],
        ),
        (
            json!({"ollama": {"url": "http://ollama:11434"}}),
            &["ollama.url is for topology external"],
        ),
        (
            external(json!({"url": "http://ollama", "gpu": {"count": 1}})),
            &["ollama.gpu.count"],
        ),
        (
            json!({"apiMode": "vllm"}),
            &["/apiMode", "'ollama', 'openai'"],
        ),
        (
            json!({"backendKey": {"exisitingSecret": "x"}}),
            &["/backendKey", "'exisitingSecret' not allowed"],
        ),
        (
            json!({"apiMode": "openai"}),
            &["apiMode openai is for a server of your own", "bundled"],
        ),
        (
            openai(json!({"models": {"pull": ["llama3.2"]}})),
            &["models.pull: only Ollama pulls models"],
        ),
        (
            openai(json!({"settings": {"PIN_MAX_CONTEXT": 8192}})),
            &["settings.PIN_MAX_CONTEXT: only Ollama takes a context"],
        ),
        (
            openai(json!({"backendKey": {"existingSecret": "a", "value": "b"}})),
            &["backendKey.existingSecret and backendKey.value are both given"],
        ),
        (
            json!({"topology": "sidecar", "backendKey": {"value": "b"}}),
            &["backendKey is for topology external; with sidecar"],
        ),
        (
            json!({
                "topology": "external",
                "ollama": {"url": "http://user:password@ollama"},
                "backendKey": {"value": "b"},
            }),
            &["ollama.url has a user and password, and backendKey"],
        ),
        (
            json!({"gateway": {"url": "ws://gateway.example"}}),
            &["gateway.url is not encrypted", "gateway.allowPlaintext"],
        ),
        (
            json!({"gateway": {"url": "ws://notlocalhost:80"}}),
            &["gateway.url is not encrypted", "gateway.allowPlaintext"],
        ),
        (
            json!({"extraEnv": [{"name": "PIN_CAPACITY", "value": "1"}]}),
            &["extraEnv: PIN_CAPACITY is set already"],
        ),
        (
            json!({"ollama": {"env": [{"name": "OLLAMA_HOST", "value": "0.0.0.0"}]}}),
            &["ollama.env: OLLAMA_HOST is set already"],
        ),
        (
            json!({"podLabels": {"app.kubernetes.io/name": "mine"}}),
            &["podLabels: app.kubernetes.io/name"],
        ),
        (
            json!({"kind": "DaemonSet", "podDisruptionBudget": {"enabled": true}}),
            &["podDisruptionBudget.enabled", "DaemonSet"],
        ),
        (
            json!({"podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true}}),
            &["podMonitor.enabled and serviceMonitor.enabled"],
        ),
        (
            json!({"podDisruptionBudget": {"maxUnavailable": 1, "minAvailable": 1}}),
            &["podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable"],
        ),
    ]
}

#[test]
fn every_mistake_is_refused_by_a_sentence_that_names_the_value() {
    let Some(chart) = Chart::find() else { return };
    for (values, words) in mistakes() {
        let said = match chart.try_render(&values) {
            Err(said) => said,
            Ok(_) => panic!("{values} was taken"),
        };
        for word in words {
            assert!(said.contains(word), "{values}: {word:?} is not in {said}");
        }
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    let Some(chart) = Chart::find() else { return };
    let typos = json!({"replica": 2, "clientId": "jane"});
    let said = chart.try_render(&typos).unwrap_err();
    assert!(
        said.contains("'replica'") && said.contains("/clientId"),
        "{said}"
    );

    let contradictions = json!({"secret": {"value": "x"}, "terminationGracePeriodSeconds": 29});
    let said = chart.try_render(&contradictions).unwrap_err();
    assert!(
        said.contains("secret.value are both") && said.contains("is 29"),
        "{said}"
    );
}

#[test]
fn a_chart_without_values_says_what_it_needs() {
    let Some(chart) = Chart::find() else { return };
    let said = chart.template(RELEASE, &json!({})).unwrap_err();
    assert!(said.contains("/clientId"), "{said}");
}

/// Whether the sidecar itself takes a gateway without encryption.
fn sidecar_takes(url: &str) -> bool {
    let settings = [
        ("PIN_CLIENT_ID", "op_example"),
        ("PIN_API_SECRET", "not-a-real-secret"),
        ("PIN_NODE_ALIAS", "gpu"),
        ("PIN_SERVER_URL", url),
    ];
    let variables = settings.map(|(name, value)| (name.into(), value.into()));
    pin_sidecar::config::Config::from_env(variables).is_ok()
}

#[test]
fn plaintext_needs_no_permission_where_the_sidecar_wants_none() {
    let Some(chart) = Chart::find() else { return };
    for (url, is_here) in [
        ("ws://localhost:9000", true),
        ("ws://Localhost/x", true),
        ("ws://gateway.localhost.:9000", true),
        ("ws://localhost?token=x", true),
        ("http://127.0.0.1", true),
        ("ws://127.255.0.1:80/x", true),
        ("ws://[::1]:9000/ws", true),
        ("ws://[0:0:0:0:0:0:0:1]/x", true),
        ("ws://[::0:0001]/x", true),
        ("ws://[::ffff:127.0.0.1]/x", true),
        ("ws://[0:0:0:0:0:FFFF:7f00:1]/x", true),
        ("ws://127.1/x", false),
        ("ws://127.0.0.1.5/x", false),
        ("ws://127.0.0.256/x", false),
        ("ws://127.0.0.01/x", false),
        ("ws://127.0.0.1./x", false),
        ("ws://127.0.0.1.nip.io/x", false),
        ("ws://localhost.example/x", false),
        ("ws://[::2]/x", false),
        ("ws://[::127.0.0.1]/x", false),
        ("ws://[::ffff:128.0.0.1]/x", false),
        ("ws://[fe80::1]/x", false),
    ] {
        assert_eq!(sidecar_takes(url), is_here, "the sidecar: {url}");
        let chart_takes = chart.try_render(&json!({"gateway": {"url": url}})).is_ok();
        assert_eq!(chart_takes, is_here, "the chart: {url}");
    }
}

#[test]
fn a_kubernetes_without_native_sidecars_is_refused() {
    let Some(chart) = Chart::find() else { return };
    let values = json!({"clientId": "op_example", "secret": {"existingSecret": "pin-api-secret"}});
    let template = ["template", RELEASE, ".", "--kube-version=1.28.9", "-f", "-"];
    let refused = chart.helm(&template, &values.to_string());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains(">=1.29.0-0"),
        "{said}"
    );
}
