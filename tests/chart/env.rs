//! What the chart sets is what the sidecar reads: names, defaults and values are compared with the product's own.

use std::{collections::BTreeSet, ffi::OsString, fs};

use pin_sidecar::config::{Config, Fallback, Surroundings, settings};
use serde_json::{Map, Value, json};

use crate::chart::{Chart, DIRECTORY, Rendered, examples, one_document, versions};

/// Those that neither a value nor `settings` has: secrets are files, and where to listen is the image's affair.
const NOT_FOR_OPERATORS: [&str; 4] = [
    "PIN_API_SECRET",
    "PIN_ADMIN_TOKEN",
    "PIN_BACKEND_API_KEY",
    "PIN_LISTEN_ADDR",
];

/// Every value that becomes a setting, each with one that is not its default, but for those of an OpenAI-compatible server.
fn values_with_a_setting_of_their_own() -> Value {
    json!({
        "clientId": "pin_other",
        "admin": {"existingSecret": "pin-admin-token"},
        "node": {
            "alias": "my-gpu",
            "region": "eu-west",
            "pricePerThousandTokens": 0.002,
            "payoutAddress": "0xabc",
            "interviewModel": "llama3.2",
        },
        "gateway": {"url": "ws://gateway.example:8080", "allowPlaintext": true},
        "capacity": 1_000_000,
        "models": {"pull": ["a", "b:1"], "preload": ["b:1", "a"], "allow": ["*", "c?"], "deny": ["d"]},
        "drainTimeoutSeconds": 600,
        "topology": "external",
        "ollama": {"url": "http://user:password@ollama:11434/base"},
    })
}

/// The values that go with one.
fn values_of_an_openai_server() -> Value {
    json!({
        "topology": "external",
        "apiMode": "openai",
        "ollama": {"url": "http://vllm:8000/v1"},
        "backendKey": {"existingSecret": "vllm", "key": "api-key"},
    })
}

/// The variables that the sidecar's container has by name and value. Those from elsewhere get a stand-in.
fn variables(rendered: &Rendered) -> Vec<(String, String)> {
    let env = rendered.container("pin-sidecar")["env"].as_array().unwrap();
    let name = |variable: &Value| variable["name"].as_str().unwrap().to_owned();
    let value = |variable: &Value| variable["value"].as_str().unwrap_or("stand-in").to_owned();
    env.iter()
        .map(|variable| (name(variable), value(variable)))
        .collect()
}

/// Reads the variables as the sidecar does, with the secrets where this machine has one.
fn read(rendered: &Rendered) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    fs::write(&secret, "not-a-real-secret").unwrap();
    let variables = variables(rendered).into_iter().map(|(name, value)| {
        let value = match name.as_str() {
            "PIN_API_SECRET_FILE" | "PIN_ADMIN_TOKEN_FILE" | "PIN_BACKEND_API_KEY_FILE" => {
                secret.clone().into_os_string()
            }
            _ => OsString::from(value),
        };
        (OsString::from(name), value)
    });
    Config::from_env_in(&Surroundings::default(), variables).map_err(|errors| errors.to_string())
}

/// The settings that the schema lets `settings` have.
fn allowed_settings() -> BTreeSet<String> {
    let schema = fs::read_to_string(format!("{DIRECTORY}/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let allowed = schema["properties"]["settings"]["properties"].as_object();
    allowed.unwrap().keys().cloned().collect()
}

#[test]
fn every_setting_of_the_product_is_either_a_value_or_allowed_in_settings() {
    let Some(chart) = Chart::find() else { return };
    let given = [
        values_with_a_setting_of_their_own(),
        values_of_an_openai_server(),
    ];
    let of_their_own = given
        .iter()
        .flat_map(|values| variables(&chart.render(values)));
    let of_their_own: BTreeSet<String> = of_their_own.map(|(name, _)| name).collect();
    let allowed = allowed_settings();

    let twice: Vec<_> = allowed.intersection(&of_their_own).collect();
    assert!(
        twice.is_empty(),
        "these have a value of their own: {twice:?}"
    );
    let known = NOT_FOR_OPERATORS.map(str::to_owned).into_iter();
    let known: BTreeSet<String> = known.chain(allowed).chain(of_their_own).collect();
    let wanted: BTreeSet<String> = settings().map(|setting| setting.name.to_owned()).collect();
    assert_eq!(known, wanted, "values.schema.json, or templates/_env.tpl");
}

#[test]
fn the_sidecar_takes_what_every_example_gives_it() {
    let Some(chart) = Chart::find() else { return };
    for example in examples() {
        let rendered = chart.render_example(&example);
        if let Err(errors) = read(&rendered) {
            // The proxy's address is in a Secret.
            assert!(errors.contains("HTTPS_PROXY"), "{}: {errors}", example.name);
            assert_eq!(errors.lines().count(), 1, "{}: {errors}", example.name);
        }
    }
}

#[test]
fn every_value_reaches_the_setting_that_it_is_for() {
    let Some(chart) = Chart::find() else { return };
    let config = read(&chart.render(&values_with_a_setting_of_their_own())).unwrap();
    let effective: Map<String, Value> = config
        .effective()
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect();
    for (name, value) in [
        ("PIN_CLIENT_ID", "pin_other"),
        ("PIN_NODE_ALIAS", "my-gpu"),
        ("PIN_REGION", "eu-west"),
        ("PIN_PRICE_PER_THOUSAND_TOKENS", "0.002"),
        ("PIN_INTERVIEW_MODEL", "llama3.2"),
        ("PIN_SERVER_URL", "ws://gateway.example:8080/api/v1/pin/ws"),
        ("PIN_ALLOW_PLAINTEXT", "true"),
        ("PIN_CAPACITY", "1000000"),
        ("PIN_PULL_MODELS", "a:latest,b:1"),
        ("PIN_PRELOAD_MODELS", "b:1,a:latest"),
        ("PIN_ALLOW_MODELS", "*,c?"),
        ("PIN_DENY_MODELS", "d"),
        ("PIN_DRAIN_TIMEOUT", "10m"),
    ] {
        assert_eq!(effective[name], value, "{name}");
    }
    let url = effective["PIN_OLLAMA_URL"].as_str().unwrap();
    assert!(url.ends_with("@ollama:11434/base"), "{url}");
}

#[test]
fn the_sidecar_speaks_openai_to_the_server_and_with_the_key_that_the_values_name() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&values_of_an_openai_server());
    let config = read(&rendered).unwrap();
    let effective: Vec<_> = config.effective().collect();
    assert!(effective.contains(&("PIN_API_MODE", "openai")));
    let file = rendered.variable("pin-sidecar", "PIN_BACKEND_API_KEY_FILE");
    assert_eq!(*file, "/run/secrets/pin-sidecar-backend/api-key");
    let without = chart.render(&json!({})).text;
    for word in ["PIN_API_MODE", "BACKEND", "backend"] {
        assert!(!without.contains(word), "{word} without an OpenAI server");
    }
}

#[test]
fn a_blank_setting_is_as_good_as_none() {
    let Some(chart) = Chart::find() else { return };
    let without = chart.render(&json!({})).text;
    let all = allowed_settings().into_iter();
    let blank: Map<String, Value> = all.map(|name| (name, json!(""))).collect();
    let with = chart.render(&json!({"settings": blank})).text;
    assert_eq!(with, without);
}

#[test]
fn settings_pass_as_they_are_written() {
    let Some(chart) = Chart::find() else { return };
    let written = json!({
        "PIN_GENERATION": 2,
        "PIN_QUEUE": 0,
        "PIN_OUTBOX_BYTES": 67_108_864,
        "PIN_QUEUE_BYTES": "8MiB",
        "PIN_ALLOW_CONSUMER_HARDWARE_OPTIONS": true,
        "PIN_ORPHAN_GRACE": "0s",
        "PIN_REQUEST_TIMEOUT": "1h 30m",
        "NO_PROXY": "10.0.0.0/8,.svc",
    });
    let config = read(&chart.render(&json!({"settings": written}))).unwrap();
    let effective: Vec<_> = config.effective().collect();
    for expected in [
        ("PIN_GENERATION", "2"),
        ("PIN_QUEUE", "0"),
        ("PIN_OUTBOX_BYTES", "64MiB"),
        ("PIN_QUEUE_BYTES", "8MiB"),
        ("PIN_ALLOW_CONSUMER_HARDWARE_OPTIONS", "true"),
        ("PIN_ORPHAN_GRACE", "0s"),
        ("PIN_REQUEST_TIMEOUT", "1h 30m"),
    ] {
        assert!(
            effective.contains(&expected),
            "{expected:?} is not in {effective:?}"
        );
    }
}

#[test]
fn the_charts_defaults_are_the_products_own() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({}));
    let of_the_machine = ["PIN_OLLAMA_URL"];
    for (name, value) in variables(&rendered) {
        let setting = settings().find(|setting| setting.name == name).unwrap();
        if let (Fallback::Value(default), false) =
            (setting.default, of_the_machine.contains(&setting.name))
        {
            assert_eq!(value, default, "{name}");
        }
    }
    let defaults = settings().filter_map(|setting| match setting.default {
        Fallback::Value(default) => Some((setting.name, default)),
        Fallback::Required | Fallback::FoundOut(_) | Fallback::Unset => None,
    });
    let rendered = variables(&rendered);
    let own = |name: &str| {
        let set = rendered.iter().any(|(set, _)| set == name);
        let unset = [
            "PIN_API_MODE",
            "PIN_SERVER_URL",
            "PIN_ALLOW_PLAINTEXT",
            "PIN_ALLOW_MODELS",
            "PIN_PRELOAD_MODELS",
            "PIN_LISTEN_ADDR",
        ];
        set || unset.contains(&name)
    };
    let written: Map<String, Value> = defaults
        .filter(|(name, _)| !own(name))
        .map(|(name, default)| (name.to_owned(), json!(default)))
        .collect();
    // Whoever writes a default down is told no mistake.
    chart.render(&json!({"settings": written}));
}

#[test]
fn one_number_is_the_capacity_of_both() {
    let Some(chart) = Chart::find() else { return };
    let rendered = chart.render(&json!({"capacity": 7}));
    assert_eq!(rendered.variable("pin-sidecar", "PIN_CAPACITY"), "7");
    assert_eq!(rendered.variable("ollama", "OLLAMA_NUM_PARALLEL"), "7");
}

#[test]
fn every_value_has_its_default_where_an_older_release_has_none() {
    // `helm upgrade --reuse-values` from a chart that did not know them: then they are not there at all.
    let Some(chart) = Chart::find() else { return };
    let values = fs::read_to_string(format!("{DIRECTORY}/values.yaml")).unwrap();
    let Value::Object(values) = one_document(&values) else {
        panic!()
    };
    let required = ["clientId", "secret"];
    let optional = values
        .keys()
        .filter(|name| !required.contains(&name.as_str()));
    let nothing = optional.map(|name| (name.clone(), Value::Null)).collect();
    let bare = chart.render(&Value::Object(nothing));
    assert_eq!(bare.variable("pin-sidecar", "PIN_CAPACITY"), "4");
    assert_eq!(bare.pod()["terminationGracePeriodSeconds"], 35);
    let image = bare.container("pin-sidecar")["image"].as_str().unwrap();
    assert_eq!(image, format!("pin-sidecar:{}", versions().1));
    let inner = values
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_object()?)));
    for (name, value) in inner.filter(|(name, _)| *name != "secret") {
        let nothing: Map<_, _> = value
            .keys()
            .map(|name| (name.clone(), Value::Null))
            .collect();
        chart.render(&json!({ name: nothing }));
    }
}
