//! The settings of a model server that is no Ollama.

use std::fs;

use super::*;

fn errors_with_openai(more: (&str, &str)) -> Vec<String> {
    errors(&[("PIN_API_MODE", "openai"), more])
}

#[test]
fn ollama_is_the_model_server_unless_another_is_named() {
    assert_eq!(config(&[]).backend.mode, ApiMode::Ollama);
    let other = config(&[("PIN_API_MODE", "openai"), ("PIN_NODE_ALIAS", "gpu")]);
    assert_eq!(other.backend.mode, ApiMode::OpenAi);
    assert_eq!(other.backend.node, "gpu");
    let wrong = errors(&[("PIN_API_MODE", "vllm")]);
    let told = r#"PIN_API_MODE: "vllm" is not one of: ollama, openai"#;
    assert_eq!(wrong, [told]);
}

#[test]
fn the_version_at_the_end_of_a_base_url_may_be_written_or_not() {
    for (written, path) in [
        ("http://h:8000", "/v1/models"),
        ("http://h:8000/v1", "/v1/models"),
        ("http://h:8000/v1/", "/v1/models"),
        ("http://h:8000/llm/v1", "/llm/v1/models"),
        ("http://h:8000/llm", "/llm/v1/models"),
        ("http://h:8000/myv1", "/myv1/v1/models"),
    ] {
        let url = config(&[("PIN_OLLAMA_URL", written)]).backend.url;
        assert_eq!(url.without_version().path("/v1/models"), path, "{written}");
    }
}

#[test]
fn the_url_of_one_endpoint_is_refused_with_what_to_leave_out() {
    for (mode, written, end) in [
        (
            "openai",
            "http://h/v1/chat/completions",
            "/chat/completions",
        ),
        ("openai", "http://h/chat/completions/", "/chat/completions"),
        ("openai", "http://h/v1/models", "/v1/models"),
        ("ollama", "http://h/api/chat", "/api/chat"),
        ("ollama", "http://h/gpu/api/tags", "/api/tags"),
    ] {
        let told = errors(&[("PIN_API_MODE", mode), ("PIN_OLLAMA_URL", written)]);
        assert_eq!(told.len(), 1, "{told:?}");
        let words = format!("ends with {end}, which the sidecar adds by itself; leave that out");
        assert!(told[0].starts_with("PIN_OLLAMA_URL: "), "{told:?}");
        assert!(told[0].ends_with(&words), "{told:?}");
    }
    for (mode, base) in [
        ("openai", "http://h/models"),
        ("openai", "http://h/api/chat"),
        ("ollama", "http://h/api"),
    ] {
        config(&[("PIN_API_MODE", mode), ("PIN_OLLAMA_URL", base)]);
    }
}

#[test]
fn the_key_comes_from_the_environment_or_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "sk-from-file\n").unwrap();
    for (name, value, key) in [
        ("PIN_BACKEND_API_KEY", "sk-given", "sk-given"),
        (
            "PIN_BACKEND_API_KEY_FILE",
            file.to_str().unwrap(),
            "sk-from-file",
        ),
    ] {
        let config = config(&[(name, value)]);
        let source = config.backend.key.clone().unwrap();
        assert_eq!(source.read().unwrap().expose_secret(), key);
        assert!(!format!("{config:?}").contains("sk-"), "{name}");
    }
    assert!(config(&[]).backend.key.is_none());
}

#[test]
fn a_key_that_cannot_be_used_stops_the_start() {
    let missing = errors(&[("PIN_BACKEND_API_KEY_FILE", "/no/such/key")]);
    assert!(
        missing[0].contains("PIN_BACKEND_API_KEY_FILE"),
        "{missing:?}"
    );
    assert!(missing[0].contains("/no/such/key"), "{missing:?}");
    let twice = errors(&[
        ("PIN_BACKEND_API_KEY", "a"),
        ("PIN_BACKEND_API_KEY_FILE", "/b"),
    ]);
    assert!(twice[0].contains("keep one of them"), "{twice:?}");
    let url = ("PIN_OLLAMA_URL", "http://ann:pw@h");
    let both = errors(&[("PIN_BACKEND_API_KEY", "a"), url]);
    assert!(
        both[0].starts_with("PIN_OLLAMA_URL: has a user"),
        "{both:?}"
    );
}

#[test]
fn a_model_that_its_server_does_not_list_may_be_named_by_its_path() {
    let named = [
        ("PIN_API_MODE", "openai"),
        ("PIN_ALLOW_MODELS", "/models/Tiny,own/other,q*"),
    ];
    let allow = config(&named).backend.allow;
    let names: Vec<_> = allow.full_names().collect();
    assert_eq!(names, ["/models/Tiny", "own/other"]);
    assert!(allow.names_in_full("tiny") && !allow.matches("models"));
    for wrong in ["/", "/models/*", "/models/t y"] {
        let told = errors_with_openai(("PIN_ALLOW_MODELS", wrong));
        assert_eq!(told.len(), 1, "{wrong}");
    }
    let told = errors(&[("PIN_ALLOW_MODELS", "/models/tiny")]);
    assert!(told[0].contains("no model of Ollama's"), "{told:?}");
}

#[test]
fn what_only_ollama_has_is_not_set_in_vain() {
    for (name, value) in [("PIN_PULL_MODELS", "llama3.2"), ("PIN_MAX_CONTEXT", "4096")] {
        let told = errors_with_openai((name, value));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(name) && told[0].contains("only Ollama"),
            "{told:?}"
        );
    }
}
