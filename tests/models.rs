//! Models follow Ollama: what it has is offered, what it loses is not, and it may come and go as it likes.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::HashSet;

use devnet::{
    gateway::{Frame, Gateway},
    ollama::{Fault, ModelShape, Ollama},
};
use serde_json::{Value, json};
use support::{CLIENT, DESKTOP, MODEL, Net, Sidecar, chat, gateway, ollama};

/// Ollama is looked at often.
const OFTEN: (&str, &str) = ("PIN_MODEL_REFRESH_INTERVAL", "50ms");

/// Waits until the gateway was told of these models, after what it has seen so far; gives the place to go on from.
async fn told(gateway: &Gateway, seen: usize, kind: &str, models: &[&str]) -> usize {
    let expected: HashSet<_> = models.iter().copied().collect();
    let tells =
        |frame: &Frame| frame.is_from_agent(kind) && listed(&frame.value["models"]) == expected;
    gateway.wait_for_since(seen, tells).await.0 + 1
}

fn listed(models: &Value) -> HashSet<&str> {
    models
        .as_array()
        .map(|models| models.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn able(capabilities: &[&'static str]) -> ModelShape {
    ModelShape {
        capabilities: capabilities.to_vec(),
        ..ModelShape::default()
    }
}

fn in_a_cloud() -> ModelShape {
    ModelShape {
        remote_host: Some("https://ollama.com".to_owned()),
        ..ModelShape::default()
    }
}

#[tokio::test]
async fn an_ollama_that_starts_after_the_sidecar_is_found() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.stop().await;
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
    // The session does not wait for it, but offers nothing.
    let seen = told(&gateway, 0, "MODEL_LIST", &[]).await;
    let pending = sidecar.wait_until_pending("Ollama does not answer").await;
    assert!(
        pending[0].contains("Start it, or correct PIN_OLLAMA_URL."),
        "{pending:?}"
    );
    assert_eq!(sidecar.metric("ollama_up").await, 0.0);
    let refused = gateway.chat(chat("one")).outcome().await;
    assert_eq!(
        refused.error(),
        "model_not_found: this node does not offer that model"
    );

    ollama.start_again().await.unwrap();
    told(&gateway, seen, "REGISTER_NODE", &[MODEL]).await;
    told(&gateway, seen, "MODEL_LIST", &[MODEL]).await;
    sidecar.wait_until_pending("").await;
    gateway.chat(chat("one")).outcome().await.result();
    assert_eq!(sidecar.metric("ollama_up").await, 1.0);
    assert_eq!(sidecar.metric("ollama_info{version=\"0.17.4\"}").await, 1.0);
    assert_eq!(gateway.sessions().ever, 1);
}

#[tokio::test]
async fn an_ollama_that_vanishes_is_told_and_one_that_comes_back_serves_again() {
    let net = Net::start(&[OFTEN]).await;
    let mut seen = net.gateway.frames().len();
    for _ in 0..3 {
        net.ollama.stop().await;
        seen = told(&net.gateway, seen, "MODEL_LIST", &[]).await;
        net.sidecar
            .wait_until_pending("Ollama does not answer")
            .await;
        assert_eq!(net.sidecar.metric("ollama_models").await, 0.0);
        net.ollama.start_again().await.unwrap();
        seen = told(&net.gateway, seen, "MODEL_LIST", &[MODEL]).await;
        net.sidecar.wait_until_pending("").await;
        net.chat("one").outcome().await.result();
    }
    assert_eq!(
        net.gateway.sessions().ever,
        1,
        "the session is not Ollama's business"
    );
}

#[tokio::test]
async fn an_ollama_that_vanishes_is_noticed_within_seconds_however_seldom_its_models_are_looked_at()
{
    let net = Net::start(&[("PIN_MODEL_REFRESH_INTERVAL", "1h")]).await;
    net.chat("one").outcome().await.result();
    let seen = net.gateway.frames().len();
    net.ollama.stop().await;
    // A chat that fails is as good a sign as any.
    net.chat("two").outcome().await.error();
    told(&net.gateway, seen, "MODEL_LIST", &[]).await;
    net.ollama.start_again().await.unwrap();
    told(&net.gateway, seen, "MODEL_LIST", &[MODEL]).await;
}

#[tokio::test]
async fn an_idle_node_notices_by_itself_that_ollama_is_gone() {
    let net = Net::start(&[("PIN_MODEL_REFRESH_INTERVAL", "1h")]).await;
    let seen = net.gateway.frames().len();
    net.ollama.stop().await;
    told(&net.gateway, seen, "MODEL_LIST", &[]).await;
    net.sidecar
        .wait_until_pending("Ollama does not answer")
        .await;
}

#[tokio::test]
async fn an_ollama_that_hangs_is_one_that_does_not_answer() {
    let net = Net::start(&[OFTEN, ("PIN_CONNECT_TIMEOUT", "200ms")]).await;
    let seen = net.gateway.frames().len();
    for path in ["/api/version", "/api/tags"] {
        net.ollama.fail_always(path, Fault::HangBeforeHeaders);
    }
    told(&net.gateway, seen, "MODEL_LIST", &[]).await;
    net.sidecar
        .wait_until_pending("Ollama does not answer")
        .await;
    net.ollama.clear_faults();
    net.sidecar.wait_until_pending("").await;
}

#[tokio::test]
async fn something_else_on_ollamas_port_is_told() {
    for fault in [
        Fault::answer(404, "text/plain", "404 page not found"),
        Fault::answer(200, "text/html", "<html>"),
        Fault::answer(200, "application/json", r#"["models"]"#),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        ollama.fail_always("/api/tags", fault);
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
        sidecar
            .wait_until_pending("Ollama does not list its models")
            .await;
        told(&gateway, 0, "MODEL_LIST", &[]).await;
        ollama.clear_faults();
        told(&gateway, 0, "MODEL_LIST", &[MODEL]).await;
    }
}

#[tokio::test]
async fn an_ollama_whose_chats_a_proxy_keeps_to_itself_is_not_offered_until_it_lets_them_through() {
    let net = Net::start(&[OFTEN]).await;
    net.ollama
        .fail_always("/api/chat", Fault::answer(302, "text/html", "<html>"));
    let failed = net.gateway.chat(chat("x")).outcome().await;
    assert_eq!(failed.error(), "backend: HTTP 302");
    let words = "What came from /api/chat is no model server's own answer (HTTP 302)";
    net.sidecar.wait_until_pending(words).await;
    let seen = told(&net.gateway, 0, "MODEL_LIST", &[]).await;
    net.ollama.clear_faults();
    told(&net.gateway, seen, "MODEL_LIST", &[MODEL]).await;
    net.gateway.chat(chat("x")).outcome().await.result();
}

#[tokio::test]
async fn a_model_of_a_cloud_to_which_ollama_is_not_signed_in_is_left_out_and_takes_no_other_with_it()
 {
    let net = Net::with(
        CLIENT,
        gateway().await,
        zoo().await,
        &[OFTEN, ("PIN_ALLOW_MODELS", "far-away,llama3.2")],
    )
    .await;
    let seen = told(
        &net.gateway,
        0,
        "MODEL_LIST",
        &["far-away:latest", "llama3.2:latest"],
    )
    .await;
    let refused = Fault::answer(401, "application/json", r#"{"error":"unauthorized"}"#);
    net.ollama
        .fail_always_for("/api/chat", "far-away:latest", refused);
    let ask = async |model| {
        let chat = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        net.gateway.chat(chat).outcome().await
    };
    assert_eq!(
        ask("far-away:latest").await.error(),
        "backend: unauthorized"
    );
    told(&net.gateway, seen, "MODEL_LIST", &["llama3.2:latest"]).await;
    ask("llama3.2").await.result();
}

#[tokio::test]
async fn a_model_that_is_pulled_or_removed_is_listed_and_registers_no_node_anew() {
    for client in [CLIENT, DESKTOP] {
        let net = Net::start_as(client, &[OFTEN]).await;
        let seen = net.gateway.frames().len();
        net.ollama.add_model("new:latest", ModelShape::default());
        let next = told(&net.gateway, seen, "MODEL_LIST", &[MODEL, "new:latest"]).await;
        net.ollama.remove_model("new");
        told(&net.gateway, next, "MODEL_LIST", &[MODEL]).await;
        let registrations = net
            .gateway
            .frames()
            .iter()
            .filter(|frame| frame.is_from_agent("REGISTER_NODE"))
            .count();
        assert_eq!(registrations, usize::from(client == CLIENT));
    }
}

#[tokio::test]
async fn nothing_is_told_while_nothing_changes() {
    let net = Net::start(&[OFTEN]).await;
    let looks = || {
        net.ollama
            .requests()
            .iter()
            .filter(|request| request.path == "/api/tags")
            .count()
    };
    while looks() < 10 {
        tokio::task::yield_now().await;
    }
    // What comes after the answer would have come after the looks, too.
    net.chat("one").outcome().await.result();
    let told = |kind: &str| {
        net.gateway
            .frames()
            .iter()
            .filter(|frame| frame.is_from_agent(kind))
            .count()
    };
    assert_eq!((told("REGISTER_NODE"), told("MODEL_LIST")), (1, 1));
    let described = net
        .ollama
        .requests()
        .iter()
        .filter(|request| request.path == "/api/show")
        .count();
    assert_eq!(described, 1, "a description is asked for once");
}

/// An Ollama with models of every kind.
async fn zoo() -> Ollama {
    Ollama::builder()
        .model("llama3.2:latest", ModelShape::default())
        .model("Qwen3:8b", able(&["completion", "thinking"]))
        .model("nomic-embed-text:latest", able(&["embedding"]))
        .model("minilm:latest", able(&["embedding"]))
        .model("gpt-oss:120b-cloud", in_a_cloud())
        .model("far-away:latest", in_a_cloud())
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn only_what_suits_and_is_allowed_is_offered() {
    const LLAMA: &str = "llama3.2:latest";
    const QWEN: &str = "Qwen3:8b";
    for (allow, deny, offered) in [
        ("", "", &[LLAMA, QWEN][..]),
        ("*", "", &[LLAMA, QWEN]),
        ("llama*", "", &[LLAMA]),
        ("LLAMA*, qwen3:*", "", &[LLAMA, QWEN]),
        ("qwen3:?b", "", &[QWEN]),
        ("*", "*:LATEST", &[QWEN]),
        ("llama3.2:latest,qwen3:8b", "llama*", &[QWEN]),
        // A glob never reaches what does not suit; its name in full does.
        (
            "*,nomic-embed-text:latest",
            "",
            &[LLAMA, QWEN, "nomic-embed-text:latest"],
        ),
        ("Nomic-Embed-Text:latest", "", &["nomic-embed-text:latest"]),
        ("nomic*,gpt-oss*,far*", "", &[]),
        (
            "gpt-oss:120b-cloud,far-away:latest",
            "",
            &["gpt-oss:120b-cloud", "far-away:latest"],
        ),
        ("*,gpt-oss:120b-cloud", "gpt*", &[LLAMA, QWEN]),
    ] {
        let (gateway, ollama) = (gateway().await, zoo().await);
        let settings = [("PIN_ALLOW_MODELS", allow), ("PIN_DENY_MODELS", deny)];
        let sidecar = Sidecar::start(DESKTOP, &gateway.url(), &ollama.url(), &settings);
        let (_, list) = gateway
            .wait_for_since(0, |frame| frame.is_from_agent("MODEL_LIST"))
            .await;
        let expected: HashSet<_> = offered.iter().copied().collect();
        assert_eq!(
            listed(&list.value["models"]),
            expected,
            "allow {allow:?}, deny {deny:?}"
        );
        if offered.is_empty() {
            let pending = sidecar.wait_until_pending("none that may be offered").await;
            assert!(
                pending[0].contains("Check PIN_ALLOW_MODELS and PIN_DENY_MODELS"),
                "{pending:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_ollama_without_models_is_told_apart_from_one_that_is_away() {
    let (gateway, ollama) = (gateway().await, Ollama::builder().start().await.unwrap());
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
    sidecar
        .wait_until_pending("Ollama has no model. Pull one, for example with: ollama pull llama3.2")
        .await;
    assert_eq!(sidecar.metric("ollama_up").await, 1.0);
    ollama.add_model(MODEL, ModelShape::default());
    sidecar.wait_until_pending("").await;
}

#[tokio::test]
async fn a_model_that_ollama_cannot_describe_is_left_out_until_it_can() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let broken = Fault::answer(500, "application/json", r#"{"error":"no such blob"}"#);
    ollama.fail_always("/api/show", broken);
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
    told(&gateway, 0, "MODEL_LIST", &[]).await;
    sidecar
        .wait_until_pending("does not say what they can do: it answers HTTP 500")
        .await;
    ollama.clear_faults();
    told(&gateway, 0, "MODEL_LIST", &[MODEL]).await;
    sidecar.wait_until_pending("").await;
}

#[tokio::test]
async fn a_model_that_is_denied_is_not_missed_because_ollama_cannot_describe_it() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let broken = Fault::answer(500, "application/json", r#"{"error":"no such blob"}"#);
    ollama.fail_always("/api/show", broken);
    let settings = [OFTEN, ("PIN_DENY_MODELS", MODEL)];
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    sidecar.wait_until_pending("none that may be offered").await;
}

#[tokio::test]
async fn one_model_that_cannot_be_described_does_not_take_the_others_with_it() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.add_model("second:latest", ModelShape::default());
    ollama.fail_next("/api/show", 1, Fault::HangBeforeHeaders);
    let settings = [OFTEN, ("PIN_CONNECT_TIMEOUT", "200ms")];
    let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &settings);
    let one = |frame: &Frame| {
        frame.is_from_agent("MODEL_LIST") && listed(&frame.value["models"]).len() == 1
    };
    let (seen, _) = gateway.wait_for_since(0, one).await;
    told(&gateway, seen, "MODEL_LIST", &[MODEL, "second:latest"]).await;
}

#[tokio::test]
async fn one_odd_entry_does_not_take_the_others_with_it() {
    let odd = json!({"models": [
        {"name": "llama3.2:latest", "size": null, "digest": null},
        {"name": null, "size": 1},
        {"name": "second:latest", "details": null},
    ]});
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.add_model("second:latest", ModelShape::default());
    let json = |body: &str| Fault::answer(200, "application/json", body);
    ollama.fail_always("/api/tags", json(&odd.to_string()));
    ollama.fail_always(
        "/api/ps",
        Fault::answer(404, "text/plain", "404 page not found"),
    );
    ollama.fail_always("/api/show", json(r#"{"model_info":null}"#));
    ollama.fail_always(
        "/api/version",
        Fault::answer(404, "text/plain", "404 page not found"),
    );
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
    told(&gateway, 0, "MODEL_LIST", &[MODEL, "second:latest"]).await;
    sidecar.wait_until_pending("").await;
    gateway.chat(chat("one")).outcome().await.result();
}

#[tokio::test]
async fn an_old_ollamas_model_that_only_embeds_is_not_offered() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let bert =
        json!({"details": {"family": "bert"}, "model_info": {"general.architecture": "bert"}});
    let bert = Fault::answer(200, "application/json", &bert.to_string());
    ollama.add_model("all-minilm:latest", ModelShape::default());
    ollama.fail_always_for("/api/show", "all-minilm:latest", bert);
    let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
    told(&gateway, 0, "MODEL_LIST", &[MODEL]).await;
}

#[tokio::test]
async fn an_ollama_whose_list_is_none_has_no_model() {
    for none in [r#"{"models":null}"#, r#"{"models":{}}"#, "null"] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        let none = Fault::answer(200, "application/json", none);
        ollama.fail_always("/api/tags", none);
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
        sidecar.wait_until_pending("Ollama has no model").await;
        assert_eq!(sidecar.metric("ollama_up").await, 1.0);
    }
}

#[tokio::test]
async fn an_ollama_that_does_not_tell_its_version_is_served() {
    for fault in [
        Fault::answer(500, "application/json", r#"{"error":"x"}"#),
        Fault::answer(401, "text/plain", "no"),
        Fault::answer(200, "text/plain", "garbage"),
        Fault::answer(200, "application/json", "null"),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        ollama.fail_always("/api/version", fault);
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
        told(&gateway, 0, "MODEL_LIST", &[MODEL]).await;
        sidecar.wait_until_pending("").await;
        let (_, status) = sidecar.get("/status").await;
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["backend"], json!({"up": true, "version": null}));
    }
}

#[tokio::test]
async fn one_name_that_is_no_text_takes_no_other_with_it() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let mut body = b"{\"models\":[{\"name\":\"caf\xe9:latest\"},{\"name\":\"".to_vec();
    body.extend_from_slice(MODEL.as_bytes());
    body.extend_from_slice(b"\"}]}");
    let odd = Fault::Answer {
        status: 200,
        headers: Vec::new(),
        body: body.into(),
    };
    ollama.fail_always("/api/tags", odd);
    let _sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &[OFTEN]);
    told(&gateway, 0, "MODEL_LIST", &[MODEL]).await;
}

#[tokio::test]
async fn status_lists_what_is_offered_and_what_is_in_memory() {
    let ollama = zoo().await;
    let net = Net::with(CLIENT, gateway().await, ollama, &[OFTEN]).await;
    net.chat("one").outcome().await.result();
    let loaded = net
        .sidecar
        .wait_for_metric("ollama_vram_bytes", |bytes| bytes > 0.0)
        .await;
    assert_eq!(loaded, f64::from(2_019_393_189_u32));
    let (_, status) = net.sidecar.get("/status").await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let mut models = status["models"].as_array().unwrap().clone();
    models.sort_by_key(|model| model["name"].to_string());
    assert_eq!(
        models,
        [
            json!({"name": "Qwen3:8b", "context_length": 8192, "loaded": false}),
            json!({"name": "llama3.2:latest", "context_length": 8192, "loaded": true}),
        ]
    );
    assert_eq!(status["backend"], json!({"up": true, "version": "0.17.4"}));
}
