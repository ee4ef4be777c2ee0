//! What operators rely on when they set something.

#![allow(clippy::unwrap_used)]

mod mistakes;
mod model_server;
mod properties;
mod proxy;
mod speech;

use std::{collections::HashSet, fs, net::IpAddr, os::unix::ffi::OsStringExt as _};

use secrecy::ExposeSecret as _;

use super::{
    field::Value as _,
    table::SETTINGS,
    value::{Interval, ListenAddr, Size, Timeout},
    *,
};
use crate::{
    protocol::{Generation, SignatureScheme},
    telemetry::LogFormat,
};

/// Variables as the process would find them.
type Vars = Vec<(OsString, OsString)>;

/// The least that one must set.
const LEAST: &[(&str, &str)] = &[("PIN_CLIENT_ID", "op_abc"), ("PIN_API_SECRET", "s3cret")];

fn vars(pairs: &[(&str, &str)]) -> Vars {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The least, with `more` in front of it: the first value of a name counts.
fn with(more: &[(&str, &str)]) -> Vars {
    vars(&[more, LEAST].concat())
}

/// Reads settings on a machine that has a hostname and no secret.
fn read(vars: Vars) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let surroundings = Surroundings {
        secret_files: vec!["/nowhere/pin_api_secret".into()],
        hostname_file: dir.path().join("hostname"),
    };
    fs::write(&surroundings.hostname_file, "gpu-box\n").unwrap();
    Config::from_env_in(&surroundings, vars)
}

/// The least that one must set, and `more`.
pub(crate) fn config(more: &[(&str, &str)]) -> Config {
    read(with(more)).unwrap()
}

fn errors(more: &[(&str, &str)]) -> Vec<String> {
    read(with(more))
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn two_settings_are_enough() {
    let config = config(&[]);
    assert_eq!(config.identity.client_id, "op_abc");
    assert_eq!(config.identity.generation, Generation::Operator);
    assert_eq!(config.identity.signature, SignatureScheme::Sha256);
    assert_eq!(
        config.identity.secret.read().unwrap().expose_secret(),
        "s3cret"
    );
    assert_eq!(
        config.gateway.url.to_string(),
        "wss://aiassist.net/api/v1/pin/ws"
    );
    assert_eq!(config.gateway.ca_file, None);
    assert_eq!(config.gateway.max_frame_bytes, 16 << 20);
    assert_eq!(config.gateway.user_agent, crate::transport::AGENT);
    assert_eq!(config.gateway.connects_per_minute, 9);
    assert_eq!(config.gateway.heartbeat_interval, Duration::from_secs(15));
    assert_eq!(config.node.alias, "gpu-box");
    assert_eq!(config.node.region, Region::Global);
    assert_eq!(
        config.node.price_per_thousand_tokens.as_json().get(),
        "0.001"
    );
    assert_eq!(config.backend.url.to_string(), "http://localhost:11434");
    assert!(config.backend.allow.matches("any:model") && !config.backend.deny.matches("any:model"));
    assert!(!config.policy.allow_hardware_options);
    assert_eq!((config.node.capacity, config.admission.queue), (4, 4));
    assert_eq!(config.job.request_timeout, Duration::from_secs(1800));
    assert_eq!(config.outbox.max_bytes, 32 << 20);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.log.format, None);
}

#[test]
fn every_setting_reaches_the_part_that_wants_it() {
    let config = config(&[
        ("PIN_CLIENT_ID", "pin_abc"),
        ("PIN_GENERATION", "2"),
        ("PIN_SERVER_URL", "http://pin.example"),
        ("PIN_USER_AGENT", "my node (a cellar)"),
        ("PIN_SIGNATURE", "hmac-sha256"),
        ("PIN_ALLOW_PLAINTEXT", "true"),
        ("PIN_TLS_CA_FILE", "/ca.pem"),
        ("PIN_OLLAMA_URL", "https://gpu.example/ollama"),
        ("PIN_CAPACITY", "7"),
        ("PIN_QUEUE", "0"),
        ("PIN_QUEUE_BYTES", "1KiB"),
        ("PIN_QUEUE_TIMEOUT", "1s"),
        ("PIN_NODE_ALIAS", "cellar"),
        ("PIN_REGION", "eu-west"),
        ("PIN_PRICE_PER_THOUSAND_TOKENS", "0.00100"),
        ("PIN_INTERVIEW_MODEL", "llama3"),
        ("PIN_TTS_URL", "http://gpu.example:8880/tts/v1/"),
        ("PIN_TTS_MODELS", "kokoro,tts-1"),
        ("PIN_TTS_VOICE", "af_bella"),
        ("PIN_TTS_MODEL_MAP", "Kokoro=hexgrad/Kokoro-82M"),
        ("PIN_PAYOUT_ADDRESS", "0xabc"),
        ("PIN_ALLOW_MODELS", "llama*"),
        ("PIN_DENY_MODELS", "llama2"),
        ("PIN_PULL_MODELS", "llama3.2, qwen3:8b"),
        ("PIN_PRELOAD_MODELS", "qwen3:8b,llama3.2"),
        ("PIN_MAX_CONTEXT", "8192"),
        ("PIN_MAX_OUTPUT_TOKENS", "512"),
        ("PIN_ALLOW_CONSUMER_HARDWARE_OPTIONS", "true"),
        ("PIN_MAX_FRAME_BYTES", "2MiB"),
        ("PIN_MAX_RESULT_BYTES", "3MiB"),
        ("PIN_OUTBOX_BYTES", "4MiB"),
        ("PIN_FIRST_TOKEN_TIMEOUT", "2s"),
        ("PIN_TOKEN_TIMEOUT", "3s"),
        ("PIN_REQUEST_TIMEOUT", "4s"),
        ("PIN_CONNECT_TIMEOUT", "5s"),
        ("PIN_RECONNECT_MIN", "6s"),
        ("PIN_RECONNECT_MAX", "7s"),
        ("PIN_CONNECTS_PER_MINUTE", "3"),
        ("PIN_RESULT_TTL", "13m"),
        ("PIN_ORPHAN_GRACE", "0s"),
        ("PIN_HEARTBEAT_INTERVAL", "8s"),
        ("PIN_HEARTBEAT_TIMEOUT", "9s"),
        ("PIN_MODEL_REFRESH_INTERVAL", "10s"),
        ("PIN_DRAIN_TIMEOUT", "0s"),
        ("PIN_LISTEN_ADDR", "[::]:9464"),
        ("PIN_LOG", "debug"),
        ("PIN_LOG_FORMAT", "json"),
    ]);
    let seconds = Duration::from_secs;
    assert_eq!(config.identity.generation, Generation::Operator);
    assert_eq!(config.identity.signature, SignatureScheme::HmacSha256);
    let gateway = &config.gateway;
    assert_eq!(gateway.url.origin().authority(), "pin.example");
    assert_eq!(gateway.ca_file.as_deref(), Some("/ca.pem".as_ref()));
    assert_eq!(
        (gateway.max_frame_bytes, gateway.connect_timeout),
        (2 << 20, seconds(5))
    );
    assert_eq!(
        (gateway.reconnect_min, gateway.reconnect_max),
        (seconds(6), seconds(7))
    );
    assert_eq!(
        (gateway.user_agent.as_bytes(), gateway.connects_per_minute),
        (&b"my node (a cellar)"[..], 3)
    );
    assert_eq!(
        (gateway.heartbeat_interval, gateway.heartbeat_timeout),
        (seconds(8), seconds(9))
    );
    let node = &config.node;
    assert_eq!(
        (node.alias.as_str(), node.region.as_str()),
        ("cellar", "eu-west")
    );
    assert_eq!(node.price_per_thousand_tokens.as_json().get(), "0.00100");
    assert!((node.price_per_thousand_tokens.as_f64() - 0.001).abs() < f64::EPSILON);
    assert_eq!(
        (
            node.interview_model.as_deref(),
            config.identity.payout_address.as_deref()
        ),
        (Some("llama3"), Some("0xabc"))
    );
    let backend = &config.backend;
    assert_eq!(backend.url.path("/api/tags"), "/ollama/api/tags");
    assert_eq!(
        (backend.connect_timeout, backend.refresh_interval),
        (seconds(5), seconds(10))
    );
    assert!(backend.allow.matches("llama3:latest") && backend.deny.matches("llama2:latest"));
    assert_eq!(backend.pull.join(" "), "llama3.2:latest qwen3:8b");
    assert_eq!(
        backend.preload.models.to_string(),
        "qwen3:8b,llama3.2:latest"
    );
    assert_eq!(
        (
            backend.preload.interview_model.as_deref(),
            backend.preload.patience
        ),
        (Some("llama3"), seconds(2))
    );
    assert_eq!(
        (config.policy.max_context, config.policy.max_output_tokens),
        (Some(8192), Some(512))
    );
    assert!(config.policy.allow_hardware_options);
    let speech = config.speech.as_ref().unwrap();
    assert_eq!(speech.url.path("/v1/models"), "/tts/v1/models");
    assert_eq!(speech.voice.as_deref(), Some("af_bella"));
    let models = speech.models.iter();
    let models: Vec<_> = models.map(|model| (&*model.name, &*model.served)).collect();
    let expected = [("tts:kokoro", "hexgrad/Kokoro-82M"), ("tts:tts-1", "tts-1")];
    assert_eq!(models, expected);
    assert_eq!(
        (speech.connect_timeout, speech.refresh_interval),
        (seconds(5), seconds(10))
    );
    let admission = &config.admission;
    assert_eq!(
        (node.capacity, admission.queue, admission.queue_bytes),
        (7, 0, 1024)
    );
    assert_eq!(admission.queue_timeout, seconds(1));
    let job = &config.job;
    assert_eq!(
        (
            job.first_token_timeout,
            job.token_timeout,
            job.request_timeout
        ),
        (seconds(2), seconds(3), seconds(4))
    );
    assert_eq!(
        (job.max_result_bytes, config.outbox.max_bytes),
        (3 << 20, 4 << 20)
    );
    assert_eq!(
        (config.outbox.result_ttl, job.orphan_grace),
        (seconds(13 * 60), Duration::ZERO)
    );
    assert_eq!(
        (config.drain_timeout, config.admin.listen.to_string()),
        (Duration::ZERO, "[::]:9464".to_owned())
    );
    assert!(
        config
            .log
            .filter
            .would_enable("pin_sidecar", &tracing::Level::DEBUG)
    );
    assert_eq!(config.log.format, Some(LogFormat::Json));
}

#[test]
fn blank_is_unset_everywhere() {
    let blank: Vars = SETTINGS
        .iter()
        .map(|setting| (setting.name.into(), " \t".into()))
        .collect();
    assert_eq!(
        read(blank).unwrap_err().to_string(),
        read(Vec::new()).unwrap_err().to_string()
    );
}

#[test]
fn a_model_may_be_named_with_the_registry_that_it_comes_from() {
    for name in ["library/llama3", "registry.ollama.ai/library/llama3"] {
        let config = config(&[
            ("PIN_DENY_MODELS", name),
            ("PIN_PULL_MODELS", name),
            ("PIN_PRELOAD_MODELS", name),
            ("PIN_INTERVIEW_MODEL", name),
        ]);
        assert!(config.backend.deny.matches("llama3:latest"));
        assert_eq!(config.backend.pull.join(","), "llama3:latest");
        assert_eq!(config.backend.preload.models.to_string(), "llama3:latest");
        assert_eq!(config.node.interview_model.as_deref(), Some("llama3"));
    }
    let tagged = [("PIN_INTERVIEW_MODEL", "library/llama3:latest")];
    let interviewed = config(&tagged).node.interview_model;
    assert_eq!(interviewed.as_deref(), Some("llama3:latest"));
}

#[test]
fn a_default_gives_way_to_what_was_set() {
    let gateway = config(&[
        ("PIN_RECONNECT_MAX", "200ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "3s"),
    ])
    .gateway;
    assert_eq!(gateway.reconnect_min, Duration::from_millis(200));
    assert_eq!(gateway.heartbeat_interval, Duration::from_secs(1));
    let gateway = config(&[("PIN_RECONNECT_MAX", "5m"), ("PIN_HEARTBEAT_TIMEOUT", "5m")]).gateway;
    assert_eq!(gateway.reconnect_min, Duration::from_millis(500));
    assert_eq!(gateway.heartbeat_interval, Duration::from_secs(15));
}

#[test]
fn a_gateway_without_encryption_is_fine_on_this_machine() {
    assert!(
        !config(&[("PIN_SERVER_URL", "ws://127.0.0.1:8080")])
            .gateway
            .url
            .origin()
            .tls()
    );
}

#[test]
fn the_generation_may_be_told() {
    assert_eq!(
        config(&[("PIN_CLIENT_ID", "pin_x")]).identity.generation,
        Generation::Desktop
    );
    assert_eq!(
        config(&[("PIN_CLIENT_ID", "x"), ("PIN_GENERATION", "1")])
            .identity
            .generation,
        Generation::Desktop
    );
}

#[test]
fn the_effective_settings_show_defaults_and_hide_what_is_private() {
    let config = config(&[
        ("PIN_PAYOUT_ADDRESS", "0xabc"),
        ("PIN_OLLAMA_URL", "http://ann:hunter2@gpu"),
    ]);
    let effective: Vec<_> = config.effective().collect();
    for shown in [
        ("PIN_CLIENT_ID", "op_abc"),
        ("PIN_GENERATION", "2"),
        ("PIN_API_SECRET", "[redacted]"),
        ("PIN_PAYOUT_ADDRESS", "[redacted]"),
        ("PIN_OLLAMA_URL", "http://…@gpu"),
        ("PIN_QUEUE", "4"),
        ("PIN_NODE_ALIAS", "gpu-box"),
        ("PIN_OUTBOX_BYTES", "32MiB"),
    ] {
        assert!(effective.contains(&shown), "{shown:?} in {effective:?}");
    }
    let debug = format!("{config:?} {:?}", config.identity.secret);
    for private in ["s3cret", "hunter2", "0xabc"] {
        assert!(!debug.contains(private), "{debug}");
    }
}

#[test]
fn a_health_check_reads_the_address_and_nothing_else() {
    let wrong = vars(&[
        ("PIN_NONSENSE", "x"),
        ("PIN_CAPACITY", "x"),
        ("PIN_LISTEN_ADDR", "[::1]:1"),
    ]);
    assert_eq!(listen_addr(wrong).unwrap().to_string(), "[::1]:1");
    assert_eq!(
        listen_addr(Vec::new()).unwrap().to_string(),
        "127.0.0.1:9464"
    );
    let told = listen_addr(vars(&[("PIN_LISTEN_ADDR", "9464")]))
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with("PIN_LISTEN_ADDR: \"9464\" is not an address"),
        "{told}"
    );
}

#[test]
fn the_table_has_each_setting_once_and_help_has_them_all() {
    let names: HashSet<_> = settings().map(|setting| setting.name).collect();
    assert_eq!(names.len(), SETTINGS.len());
    let help = help();
    for setting in settings() {
        assert!(
            help.contains(&format!("  {} [{}]\n", setting.name, setting.default)),
            "{}",
            setting.name
        );
    }
    let secret: Vec<_> = settings()
        .filter(|setting| setting.secret)
        .map(|setting| setting.name)
        .collect();
    assert_eq!(
        secret,
        [
            "PIN_API_SECRET",
            "PIN_BACKEND_API_KEY",
            "PIN_PAYOUT_ADDRESS",
            "PIN_ADMIN_TOKEN"
        ]
    );
}
