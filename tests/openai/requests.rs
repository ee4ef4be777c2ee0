//! What goes up.

use devnet::openai::{OpenAi, Refuses, Style, lists, spoken};
use serde_json::{Value, json};

use crate::{
    Net, STYLES, server,
    support::{CLIENT, DESKTOP},
};

/// What has a server load, unload or fetch something, or is its operator's to say.
const OPERATORS: [&str; 21] = [
    "ttl",
    "lora",
    "lora_path",
    "adapters",
    "draft_model",
    "id_slot",
    "cache_prompt",
    "sse_ping_interval",
    "timings_per_token",
    "chat_template",
    "chat_template_kwargs",
    "priority",
    "kv_transfer_params",
    "session_params",
    "echo",
    "min_tokens",
    "ignore_eos",
    "user",
    "store",
    "metadata",
    "keep_alive",
];

#[tokio::test]
async fn what_nobody_has_to_touch_reaches_the_server_byte_for_byte() {
    let net = Net::start().await;
    let payload = r#"{ "zeta":[1e300, 12345678901234567890123],"model":"tiny","messages":[{"role":"user","content":"\u00e9 \ud83d\ude00","new":{"b":1,"a":2}}],"temperature":0.50,"stream":false }"#;
    net.gateway.chat_with_text(payload).outcome().await.result();
    let sent = net.server.chat_requests()[0].clone();
    assert_eq!(
        String::from_utf8_lossy(&sent.body),
        r#"{"zeta":[1e300, 12345678901234567890123],"model":"tiny","messages":[{"role":"user","content":"\u00e9 \ud83d\ude00","new":{"b":1,"a":2}}],"temperature":0.50,"stream":true,"stream_options":{"include_usage":true}}"#
    );
    assert_eq!(sent.headers["content-type"], "application/json");
    assert_eq!(sent.headers["content-length"], sent.body.len().to_string());
    for absent in ["transfer-encoding", "expect", "authorization"] {
        assert!(!sent.headers.contains_key(absent), "{absent}");
    }
}

#[tokio::test]
async fn every_chat_streams_with_usage_whatever_the_consumer_wants() {
    let net = Net::start().await;
    for more in [
        json!({}),
        json!({"stream": false}),
        json!({"stream": true}),
        json!({"stream": true, "stream_options": {"include_usage": false}}),
        json!({"stream_options": null}),
    ] {
        let outcome = net.ask(&more).await;
        assert_eq!(outcome.chunks.is_empty(), more["stream"] != true, "{more}");
        assert_eq!(net.asked()["stream"], true);
        assert_eq!(
            net.asked()["stream_options"],
            json!({"include_usage": true})
        );
        assert_eq!(outcome.result()["usage"]["completion_tokens"], 24);
    }
}

#[tokio::test]
async fn the_smaller_limit_goes_up_as_max_tokens() {
    let net = Net::start().await;
    for (more, limit) in [
        (json!({"max_tokens": 5}), json!(5)),
        (json!({"max_completion_tokens": 6}), json!(6)),
        (
            json!({"max_tokens": 7, "max_completion_tokens": 4}),
            json!(4),
        ),
        (
            json!({"max_tokens": 3, "max_completion_tokens": 9}),
            json!(3),
        ),
        (json!({"max_tokens": 8, "n_predict": 2}), json!(2)),
        (json!({}), json!(null)),
    ] {
        let outcome = net.ask(&more).await;
        let asked = net.asked();
        assert_eq!(asked["max_tokens"], limit, "{more}");
        for absent in ["max_completion_tokens", "n_predict"] {
            assert_eq!(asked.get(absent), None, "{more}");
        }
        let tokens = limit.as_u64().unwrap_or(24);
        assert_eq!(outcome.result()["usage"]["completion_tokens"], tokens);
        let reason = if limit.is_null() { "stop" } else { "length" };
        assert_eq!(outcome.result()["choices"][0]["finish_reason"], reason);
    }
}

#[tokio::test]
async fn the_operators_limit_holds_by_each_name_that_servers_know() {
    let settings = [("PIN_MAX_OUTPUT_TOKENS", "4")];
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &settings).await;
    for more in [
        json!({}),
        json!({"max_tokens": 9}),
        json!({"max_completion_tokens": 9}),
        json!({"n_predict": 9}),
        json!({"n_predict": -1}),
        json!({"max_tokens": 0}),
    ] {
        let outcome = net.ask(&more).await;
        assert_eq!(outcome.result()["usage"]["completion_tokens"], 4, "{more}");
    }
}

#[tokio::test]
async fn more_than_one_answer_is_refused_and_nobody_is_asked() {
    let net = Net::start().await;
    for more in [json!({"n": 2}), json!({"best_of": 3}), json!({"n": "2"})] {
        let outcome = net.ask(&more).await;
        assert!(
            outcome.error().starts_with("invalid: "),
            "{}",
            outcome.error()
        );
    }
    assert_eq!(net.server.chats().ever, 0);
    net.ask(&json!({"n": 1, "best_of": 1})).await.result();
}

#[tokio::test]
async fn nothing_has_the_operators_server_load_unload_or_fetch_something() {
    let net = Net::start().await;
    let more: serde_json::Map<_, _> = OPERATORS
        .iter()
        .map(|key| ((*key).to_owned(), json!(1)))
        .collect();
    net.ask(&Value::Object(more)).await.result();
    let mut sent: Vec<_> = net.asked().as_object().unwrap().keys().cloned().collect();
    sent.sort();
    assert_eq!(sent, ["messages", "model", "stream", "stream_options"]);
    for url in [
        "http://127.0.0.1/x.png",
        "https://host/x.png",
        "file:///etc/passwd",
        "/etc/passwd",
    ] {
        for part in [
            json!({"type": "image_url", "image_url": {"url": url}}),
            json!({"type": "image_url", "image_url": url}),
            json!({"type": "video_url", "video_url": {"url": url}}),
        ] {
            let outcome = net
                .ask(&json!({"messages": [{"role": "user", "content": [part]}]}))
                .await;
            assert!(outcome.error().starts_with("invalid: "), "{part}");
        }
    }
    assert_eq!(net.server.chats().ever, 1);
    let part = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
    net.ask(&json!({"messages": [{"role": "user", "content": [part]}]}))
        .await
        .result();
    assert_eq!(net.asked()["messages"][0]["content"][0], part);
}

#[tokio::test]
async fn each_server_is_asked_by_its_own_name_for_a_model_and_the_consumer_hears_his() {
    for style in [Style::LlamaServer, Style::Vllm, Style::Mlx, Style::Ollama] {
        let server = server(style).await;
        server.set_behaviour(|behaviour| {
            behaviour.model_in_answers = Some("/home/operator/models/tiny.gguf".to_owned());
        });
        let net = Net::with(CLIENT, server, &[]).await;
        let outcome = net.ask(&json!({"stream": true})).await;
        assert_eq!(
            net.asked()["model"],
            net.server.model_id("tiny"),
            "{style:?}"
        );
        assert_eq!(outcome.result()["model"], "tiny", "{style:?}");
        assert!(!String::from_utf8_lossy(&outcome.frame.bytes).contains("operator"));
        assert_eq!(outcome.text(), spoken("alpha beta", 24));

        let desktop = Net::with(DESKTOP, net.server, &[]).await;
        let outcome = desktop.ask(&json!({})).await;
        assert_eq!(outcome.result()["model"], "tiny", "{style:?}");
    }
}

#[tokio::test]
async fn names_of_hubs_and_tags_go_up_as_they_are_listed() {
    let server = server(Style::Vllm).await;
    server.set_list(lists::slashes_and_colons());
    let net = Net::with(CLIENT, server, &[]).await;
    for (asked, sent) in [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("qwen/qwen3-8b", "Qwen/Qwen3-8B"),
        ("llama3.2:3b", "llama3.2:3b"),
        (
            "openrouter/meta-llama/llama-3.3-70b:free",
            "openrouter/meta-llama/llama-3.3-70b:free",
        ),
    ] {
        net.ask(&json!({"model": asked})).await.result();
        assert_eq!(net.asked()["model"], sent);
    }
    let outcome = net.ask(&json!({"model": "llama3.2"})).await;
    assert!(outcome.error().starts_with("model_not_found: "));
}

#[tokio::test]
async fn a_base_url_may_end_in_v1_or_not() {
    for end in ["", "/", "/v1", "/v1/"] {
        let server = server(Style::LlamaServer).await;
        let url = server.url() + end;
        let settings = [("PIN_OLLAMA_URL", url.as_str())];
        let net = Net::with(CLIENT, server, &settings).await;
        net.ask(&json!({})).await.result();
    }
}

/// A chat as a consumer's library may write it, with all that some server refuses.
fn difficult() -> Value {
    json!({
        "top_p": null, "stop": null, "tools": null, "max_tokens": 5,
        "messages": [
            {"role": "user", "content": "what time is it"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "now", "arguments": {}}},
            ]},
            {"role": "tool", "tool_call_id": "c", "content": "noon"},
            {"role": "user", "content": "alpha beta"},
        ],
    })
}

#[tokio::test]
async fn a_server_of_each_style_takes_what_goes_up() {
    for style in STYLES {
        let server = OpenAi::builder().style(style).model("owner/tiny");
        // `transformers serve` lists nothing.
        let settings: &[_] = match style {
            Style::Transformers => &[("PIN_ALLOW_MODELS", "owner/tiny")],
            _ => &[],
        };
        let net = Net::with(CLIENT, server.start().await.unwrap(), settings).await;
        let mut more = difficult();
        more["model"] = json!("owner/tiny");
        let outcome = net.ask(&more).await;
        assert_eq!(outcome.text(), spoken("alpha beta", 5), "{style:?}");
        assert_eq!(
            outcome.result()["usage"]["completion_tokens"],
            5,
            "{style:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_refuses_what_any_server_refuses_takes_what_goes_up() {
    let server = OpenAi::builder().model("tiny").behaviour(|behaviour| {
        behaviour.refuses = vec![
            Refuses::NoContentLength,
            Refuses::NoContentType,
            Refuses::Nulls,
            Refuses::StreamOptions,
            Refuses::ObjectArguments,
            Refuses::UnknownFields,
        ];
    });
    let net = Net::with(CLIENT, server.start().await.unwrap(), &[]).await;
    net.ask(&difficult()).await.result();
}
