//! What operators rely on when they set something.

#![allow(clippy::unwrap_used)]

mod model_server;
mod speech;

use std::{collections::HashSet, fs, net::IpAddr, os::unix::ffi::OsStringExt as _};

use proptest::prelude::*;
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
fn every_mistake_is_told_at_once_with_its_value_and_what_is_allowed() {
    let told = errors(&[
        ("PIN_HEARTBEAT_INTERVAL", "15"),
        ("PIN_CAPACITY", "0"),
        ("PIN_REGION", "mars"),
        ("PIN_ALLOW_PLAINTEXT", "yes"),
        ("PIN_MAX_FRAME_BYTES", "16apples"),
        ("PIN_OUTBOX_BYTES", "1B"),
        ("PIN_OLLAMA_URL", "ann:hunter2@localhost:11434"),
        ("PIN_PRICE_PER_THOUSAND_TOKENS", "-1"),
        ("PIN_TOKEN_TIMEOUT", "0s"),
        ("PIN_LISTEN_ADDR", ":9464"),
        ("PIN_LOG", "inof"),
        ("PIN_CAPACTY", "hunter2"),
    ]);
    assert_eq!(
        told,
        [
            r#"PIN_ALLOW_PLAINTEXT: "yes" is not one of: true, false"#,
            r#"PIN_OLLAMA_URL: "…@localhost:11434" has no scheme; write http://…@localhost:11434"#,
            r#"PIN_CAPACITY: "0" is not a whole number from 1 to 1000000"#,
            r#"PIN_REGION: "mars" is not one of: us-east, us-west, eu-west, eu-central, asia-pacific, global"#,
            r#"PIN_PRICE_PER_THOUSAND_TOKENS: "-1" is not a price; write a number that is not negative, such as 0.001"#,
            r#"PIN_MAX_FRAME_BYTES: "16apples" is not a size; write one such as 16MiB, 512KiB or 1048576"#,
            r#"PIN_OUTBOX_BYTES: "1B" is out of range; write a size from 1KiB to 2GiB"#,
            r#"PIN_TOKEN_TIMEOUT: "0s" is zero; write a longer duration"#,
            r#"PIN_HEARTBEAT_INTERVAL: "15" has no unit; write a duration such as 15s, 500ms or 5m"#,
            r#"PIN_LISTEN_ADDR: ":9464" is not an address; write IP:PORT, such as 127.0.0.1:9464 or [::]:9464"#,
            "PIN_LOG: \"inof\" is not a log filter; write a level (off, error, warn, info, debug, trace) or a list such \
             as info,pin_sidecar::session=debug",
            "PIN_CAPACTY: there is no such setting; the nearest is PIN_CAPACITY",
        ]
    );
}

#[test]
fn what_is_required_is_asked_for() {
    let told = read(Vec::new()).unwrap_err().to_string();
    assert!(
        told.starts_with("PIN_CLIENT_ID: required, and there is no default: the id to log in as"),
        "{told}"
    );
    assert!(
        told.contains("no secret: set PIN_API_SECRET_FILE"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 2);
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
fn nothing_around_a_value_is_trimmed_and_what_may_have_put_it_there_is_said() {
    let (at_end, at_beginning) = ("has a blank at its end", "has a blank at its beginning");
    let line_ends = "(U+000D); type the value anew, as one line of plain text; a file with Windows line ends (CRLF)";
    let control =
        |code| format!("has an invisible character in it (U+{code}); type the value anew");
    for (name, value, told) in [
        ("PIN_PAYOUT_ADDRESS", "0xabc\r", line_ends.to_owned()),
        ("PIN_CLIENT_ID", "op_x\r", line_ends.to_owned()),
        ("PIN_NODE_ALIAS", "node\r\n", line_ends.to_owned()),
        ("PIN_API_SECRET", "s3cret\r", line_ends.to_owned()),
        ("PIN_API_SECRET", "s3cret\n", control("000A")),
        ("PIN_DENY_MODELS", "private:*\n", control("000A")),
        ("PIN_PAYOUT_ADDRESS", "\t0xabc", control("0009")),
        ("PIN_PULL_MODELS", "a\t,b", control("0009")),
        (
            "PIN_TOKEN_TIMEOUT",
            "5s\u{a0}",
            format!("{at_end} (U+00A0)"),
        ),
        (
            "PIN_TOKEN_TIMEOUT",
            "1h\u{a0}5s",
            "has a blank in it".to_owned(),
        ),
        (
            "PIN_ALLOW_MODELS",
            "a,\u{a0}b",
            "has a blank in it".to_owned(),
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "\u{a0}0xabc",
            format!("{at_beginning} (U+00A0)"),
        ),
        (
            "PIN_DRAIN_TIMEOUT",
            " 9s",
            format!("{at_beginning} (U+0020)"),
        ),
        ("PIN_ALLOW_MODELS", "a, b ", format!("{at_end} (U+0020)")),
        ("PIN_NODE_ALIAS", "my node ", format!("{at_end} (U+0020)")),
        ("PIN_LOG", " debug", format!("{at_beginning} (U+0020)")),
        ("PIN_TLS_CA_FILE", "/ca.pem ", format!("{at_end} (U+0020)")),
    ] {
        let errors = errors(&[(name, value)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("{name}: ")), "{errors:?}");
        assert!(errors[0].contains(&told), "{value:?}: {errors:?}");
        for private in ["0xabc", "s3cret"] {
            assert!(!errors[0].contains(private), "{errors:?}");
        }
    }
}

#[test]
fn a_value_that_is_not_text_is_told_and_other_programs_variables_are_not_looked_at() {
    let bytes = || OsString::from_vec(vec![0xff]);
    let mut vars = with(&[]);
    vars.push((bytes(), bytes()));
    vars.push(("PATH".into(), bytes()));
    vars.push(("PIN_X_PORT".into(), bytes()));
    assert!(read(vars.clone()).is_ok());
    vars.push(("PIN_REGION".into(), bytes()));
    assert_eq!(
        read(vars).unwrap_err().to_string(),
        "PIN_REGION: the value is not UTF-8 text"
    );
}

#[test]
fn quotes_blanks_and_comments_are_told_and_no_part_of_a_value() {
    let blank = "has a blank in it; write the value alone";
    let quotes = "has quotes around it; write it without them";
    for (name, value, told) in [
        ("PIN_DENY_MODELS", "\"private:*\"", quotes),
        ("PIN_DENY_MODELS", "private:* # mine", blank),
        ("PIN_ALLOW_MODELS", "'*'", quotes),
        ("PIN_NODE_ALIAS", "\"gpu\"", quotes),
        ("PIN_USER_AGENT", "'curl/8'", quotes),
        ("PIN_TLS_CA_FILE", "\"/ca.pem\"", quotes),
        ("PIN_LOG", "\"debug\"", quotes),
        ("PIN_CAPACITY", "'4'", quotes),
        ("PIN_CAPACITY", "4 # two GPUs", blank),
        ("PIN_REGION", "global # yet", blank),
        ("PIN_OLLAMA_URL", "\"http://ollama\"", quotes),
        ("PIN_OLLAMA_URL", "http://ollama # beside it", blank),
        ("PIN_SERVER_URL", "wss://pin.example #main", blank),
        ("PIN_CLIENT_ID", "op_abc # main", blank),
        ("PIN_QUEUE_TIMEOUT", "15s # short", blank),
        ("PIN_QUEUE_TIMEOUT", "15 s", blank),
        ("PIN_QUEUE_BYTES", "16 MiB", blank),
        ("PIN_LISTEN_ADDR", "[::]:9464 # all", blank),
        ("PIN_INTERVIEW_MODEL", "llama3 # best", blank),
        ("PIN_PULL_MODELS", "llama3.2 qwen3:8b", blank),
        ("PIN_PAYOUT_ADDRESS", "0xabc # main", "has a blank in it"),
        ("PIN_PAYOUT_ADDRESS", "'0xabc'", "has quotes around it"),
        (
            "PIN_PAYOUT_ADDRESS",
            "0xabc#main",
            "has a character in it that no wallet has",
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "0x\u{200b}abc",
            "has an invisible character in it (U+200B)",
        ),
        (
            "PIN_NODE_ALIAS",
            "\u{feff}gpu",
            "has an invisible character in it (U+FEFF)",
        ),
        (
            "PIN_NODE_ALIAS",
            "gpu\u{3164}",
            "has an invisible character in it (U+3164)",
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "0xabc\u{fe0f}",
            "has an invisible character in it (U+FE0F)",
        ),
        (
            "PIN_OLLAMA_URL",
            "http://ollama\u{200d}",
            "has an invisible character in it (U+200D)",
        ),
        (
            "PIN_TLS_CA_FILE",
            "/ca\u{7}.pem",
            "has an invisible character in it (U+0007)",
        ),
        ("PIN_API_SECRET", "s3cret ", "it has a blank at its end"),
        ("PIN_API_SECRET", "\"s3cret\"", "it has quotes around it"),
    ] {
        let errors = errors(&[(name, value)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(&format!("{name}: ")), "{errors:?}");
        assert!(errors[0].contains(told), "{value}: {errors:?}");
        for private in ["0xabc", "s3cret"] {
            assert!(!errors[0].contains(private), "{errors:?}");
        }
    }
    for alias in [
        "my gpu #1 \u{1f468}\u{200d}\u{1f680}\u{fe0f}",
        "\"a\" and \"b\"",
        "'n' Haus'",
    ] {
        assert_eq!(config(&[("PIN_NODE_ALIAS", alias)]).node.alias, alias);
    }
    let job = config(&[("PIN_REQUEST_TIMEOUT", "1h 30m")]).job;
    assert_eq!(job.request_timeout, Duration::from_secs(5400));
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
fn variables_of_other_programs_are_judged_only_where_they_would_be_used() {
    let socks = ("HTTPS_PROXY", "socks5://ann:Zebra@proxy:1080");
    let here = ("PIN_SERVER_URL", "ws://localhost:1");
    let unused = config(&[socks, here, ("NO_PROXY", "10.*,<local>")]);
    assert_eq!(
        (unused.gateway.proxy.is_none(), unused.skipped()),
        (true, None)
    );
    assert!(!format!("{unused:?}").contains("Zebra"));
    let excepted = config(&[socks, ("NO_PROXY", "<local>,aiassist.net")]);
    assert!(excepted.gateway.proxy.is_none());
    let used = config(&[("HTTPS_PROXY", "proxy:3128"), ("NO_PROXY", "10.*")]);
    assert!(
        used.skipped()
            .unwrap()
            .starts_with("NO_PROXY: \"10.*\" not understood")
    );
    let mut bytes = with(&[here]);
    bytes.push(("HTTPS_PROXY".into(), OsString::from_vec(vec![0xff])));
    bytes.push(("NO_PROXY".into(), OsString::from_vec(vec![0xff])));
    assert!(read(bytes).is_ok());
}

#[test]
fn a_user_agent_that_no_header_can_have_is_refused() {
    for (written, shown) in [
        (
            "pin\u{7f}sidecar",
            r#""pin\u{7f}sidecar" has an invisible character in it (U+007F)"#,
        ),
        (
            "pin\r\nX-Admin: yes",
            r#""pin\r\nX-Admin: yes" has an invisible character in it (U+000D)"#,
        ),
        (
            "pin\tsidecar",
            r#""pin\tsidecar" has an invisible character in it (U+0009)"#,
        ),
        (
            "pìn-sidecar",
            r#""pìn-sidecar" cannot be sent in an HTTP header; write printable ASCII, such as pin-sidecar/0.1"#,
        ),
    ] {
        let errors = errors(&[("PIN_USER_AGENT", written)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].starts_with(&format!("PIN_USER_AGENT: {shown}")),
            "{errors:?}"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    for (settings, told) in [
        (
            &[("PIN_RECONNECT_MIN", "61s")][..],
            "PIN_RECONNECT_MIN: 1m 1s is more than PIN_RECONNECT_MAX, which is 1m",
        ),
        (
            &[("PIN_HEARTBEAT_INTERVAL", "45s")],
            "PIN_HEARTBEAT_INTERVAL: 45s is not less than PIN_HEARTBEAT_TIMEOUT, which is 45s",
        ),
        (
            &[("PIN_SERVER_URL", "ws://pin.example")],
            "PIN_SERVER_URL: ws://pin.example/api/v1/pin/ws is not encrypted and not on this machine; write wss:// or \
             https://, or set PIN_ALLOW_PLAINTEXT=true if nobody can listen in between",
        ),
        (
            &[("PIN_API_SECRET_FILE", "/f")],
            "PIN_API_SECRET: set, and PIN_API_SECRET_FILE too; keep one of them",
        ),
        (
            &[("PIN_CLIENT_ID", "abc")],
            "PIN_GENERATION: \"abc\" (PIN_CLIENT_ID) does not tell it, since it begins with neither pin_ nor op_; write \
             1 for pin_ (desktop client) or 2 for op_ (operator daemon)",
        ),
    ] {
        assert_eq!(errors(settings), [told]);
    }
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
fn a_secret_file_that_cannot_be_read_stops_the_start() {
    let told = read(vars(&[
        ("PIN_CLIENT_ID", "op_abc"),
        ("PIN_API_SECRET_FILE", "/nowhere/secret"),
    ]));
    let told = told.unwrap_err().to_string();
    assert!(
        told.starts_with("secret file /nowhere/secret: No such file"),
        "{told}"
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
fn the_proxys_variables_may_be_in_lower_case_which_goes_first() {
    let proxy = |more: &[(&str, &str)]| {
        let proxy = config(more).gateway.proxy;
        proxy.map(|proxy| proxy.to_string())
    };
    let (upper, lower) = (("HTTPS_PROXY", "upper:1"), ("https_proxy", "lower:2"));
    assert_eq!(proxy(&[]), None);
    assert_eq!(proxy(&[upper]).unwrap(), "http://upper:1");
    assert_eq!(proxy(&[upper, lower]).unwrap(), "http://lower:2");
    assert_eq!(
        proxy(&[upper, ("https_proxy", " ")]).unwrap(),
        "http://upper:1"
    );
    assert_eq!(proxy(&[("HTTPS_PROXY", "")]), None);
    for others in ["Https_Proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        assert_eq!(proxy(&[(others, "other:3")]), None, "{others}");
    }
    assert_eq!(proxy(&[upper, ("NO_PROXY", "aiassist.net")]), None);
    assert_eq!(proxy(&[upper, ("no_proxy", "*")]), None);
    assert_eq!(
        proxy(&[upper, ("NO_PROXY", "*"), ("no_proxy", "a.b")]).unwrap(),
        "http://upper:1"
    );
    assert_eq!(
        proxy(&[upper, ("pin_server_url", "ws://localhost")]).unwrap(),
        "http://upper:1"
    );
    assert_eq!(
        proxy(&[upper, ("PIN_SERVER_URL", "ws://localhost:1")]),
        None
    );
}

#[test]
fn a_wrong_proxy_is_told_with_the_other_mistakes_and_without_its_password() {
    let told = errors(&[
        ("https_proxy", "socks5://ann:Zebra@proxy:1080"),
        ("NO_PROXY", "10.0.0.0/33"),
        ("PIN_HTTPS_PROXY", "http://ann:Zebra@proxy:3128"),
    ]);
    assert_eq!(
        told,
        [
            "HTTPS_PROXY: \"socks5://…@proxy:1080\" has another scheme than those allowed: http://, https://",
            "PIN_HTTPS_PROXY: there is no such setting; the nearest is HTTPS_PROXY",
        ]
    );
}

#[test]
fn the_proxys_password_is_not_among_the_effective_settings() {
    let config = config(&[
        ("HTTPS_PROXY", "http://ann:Zebra@proxy:3128"),
        ("NO_PROXY", " example.com, .local "),
    ]);
    let effective: Vec<_> = config.effective().collect();
    assert!(effective.contains(&("HTTPS_PROXY", "http://…@proxy:3128")));
    assert!(effective.contains(&("NO_PROXY", "example.com, .local")));
    let shown = format!("{config:?} {:?}", config.gateway);
    assert!(
        !shown.contains("Zebra") && !shown.contains("ann"),
        "{shown}"
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

proptest! {
    #[test]
    fn a_duration_is_read_back_as_it_is_shown(millis in 1..=366 * 24 * 3_600_000_u64) {
        let time = Timeout::parse(&format!("{millis}ms")).unwrap();
        prop_assert_eq!(time.0, Duration::from_millis(millis));
        prop_assert_eq!(Timeout::parse(&time.to_string()).unwrap(), time);
    }

    #[test]
    fn a_size_is_read_back_as_it_is_shown(bytes in 0..=2_usize << 30, shift in 0..30_u32) {
        let size = Size::<0>::parse(&(bytes >> shift << shift).to_string()).unwrap();
        prop_assert_eq!(Size::<0>::parse(&size.to_string()).unwrap(), size);
    }

    #[test]
    fn a_number_alone_is_never_a_duration(number in "[0-9]{1,30}(\\.[0-9]{1,9})?") {
        prop_assert!(Interval::parse(&number).is_err());
    }

    #[test]
    fn a_price_keeps_its_digits(price in "(0|[1-9][0-9]{0,6})(\\.[0-9]{1,12})?") {
        let parsed = Price::parse(&price).unwrap();
        prop_assert_eq!(parsed.as_json().get(), price);
    }

    #[test]
    fn no_value_of_any_setting_panics(values in proptest::collection::vec(".*|[0-9]{1,40}[a-zA-Z]{0,3}", SETTINGS.len())) {
        let vars = SETTINGS.iter().zip(values).filter(|(setting, _)| setting.name != "PIN_API_SECRET_FILE");
        let _ = read(vars.map(|(setting, value)| (setting.name.into(), value.into())).collect());
    }

    #[test]
    fn no_variable_name_panics(name in "PIN_.*", value in ".*") {
        let _ = read(vec![(name.into(), value.into())]);
    }

    #[test]
    fn whatever_duration_is_accepted_is_read_back_as_it_is_shown(
        text in "([0-9]{1,7} ?(ns|us|ms|msec|s|sec|m|min|h|hr|d|days|w|M|y|years) ?){1,4}",
    ) {
        if let Ok(time) = Timeout::parse(&text) {
            prop_assert_eq!(Timeout::parse(&time.to_string()).unwrap(), time);
        }
    }

    #[test]
    fn whatever_size_is_accepted_is_read_back_as_it_is_shown(
        text in "[0-9]{1,10}(\\.[0-9]{1,3})? ?([kKmMgG]?i?[bB]?)",
    ) {
        if let Ok(size) = Size::<0>::parse(&text) {
            prop_assert_eq!(Size::<0>::parse(&size.to_string()).unwrap(), size);
        }
    }

    #[test]
    fn an_address_to_listen_on_is_read_back_as_it_is_shown(ip: IpAddr, port: u16) {
        let address = SocketAddr::from((ip, port));
        let shown = ListenAddr::parse(&address.to_string()).unwrap();
        prop_assert_eq!(shown.0, address);
        prop_assert_eq!(ListenAddr::parse(&shown.to_string()).unwrap().0, address);
    }

    #[test]
    fn a_refusal_names_the_setting_and_what_was_written(text in "[a-z]{1,8}[!?;]{1,3}") {
        for name in [
            "PIN_CONNECT_TIMEOUT", "PIN_MAX_FRAME_BYTES", "PIN_CAPACITY", "PIN_LISTEN_ADDR", "PIN_SERVER_URL",
            "PIN_OLLAMA_URL", "PIN_REGION", "PIN_ALLOW_PLAINTEXT", "PIN_PRICE_PER_THOUSAND_TOKENS",
        ] {
            let error = read(vars(&[LEAST, &[(name, &text)]].concat())).unwrap_err().to_string();
            prop_assert!(error.starts_with(&format!("{name}: \"{text}\" ")), "{}", error);
            prop_assert_eq!(error.lines().count(), 1, "{}", error);
        }
    }
}
