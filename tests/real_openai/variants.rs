//! What llama-server alone can be made to do with a tiny model: think, call a tool, want a key, be loading, and tell what it
//! is at.

use devnet::http;
use serde_json::{Value, json};

use crate::{
    Net,
    server::{Place, cases},
    support::CLIENT,
};

cases! {
    llama => {
        what_is_thought_goes_out_as_thinking
        a_tool_is_called
        a_key_is_wanted_and_a_wrong_one_is_told
        while_it_loads_the_operator_is_told
    }
}

async fn what_is_thought_goes_out_as_thinking(place: Place) {
    let net = Net::start(CLIENT, place.thinking().start().await, &[]).await;
    let outcome = net.ask(20, &json!({"stream": true})).await;
    let message = &outcome.result()["choices"][0]["message"];
    let thinking = message["thinking"].as_str().unwrap();
    assert!(!thinking.is_empty());
    assert_eq!(outcome.streamed("thinking"), thinking);
    assert_eq!(outcome.streamed("content"), outcome.text());
    assert_eq!(outcome.result()["usage"]["completion_tokens"], 20);
}

async fn a_tool_is_called(place: Place) {
    let net = Net::start(CLIENT, place.calling().start().await, &[]).await;
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let function = json!({"name": "get_weather", "parameters": parameters});
    let outcome = net
        .ask(
            100,
            &json!({
                "stream": true, "tools": [{"type": "function", "function": function}],
                "tool_choice": "required", "logit_bias": [["{", 30]],
            }),
        )
        .await;
    let choice = &outcome.result()["choices"][0];
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    assert_eq!(call["function"]["name"], "get_weather");
    assert!(!call["id"].as_str().unwrap().is_empty());
    let arguments = call["function"]["arguments"].as_str().unwrap();
    assert!(arguments.starts_with('{'), "{arguments}");
}

async fn a_key_is_wanted_and_a_wrong_one_is_told(place: Place) {
    let mut server = place.with_key("K").start().await;
    let refused = http::get(&(server.url() + "/v1/models")).await.unwrap();
    let words = json!({"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}});
    assert_eq!((refused.status, refused.json()), (401, words));
    for (key, ready) in [("K", true), ("wrong", false), ("", false)] {
        let settings = [("PIN_BACKEND_API_KEY", key)];
        let settings = if key.is_empty() { &[][..] } else { &settings };
        if ready {
            let net = Net::start(CLIENT, server, settings).await;
            net.ask(3, &json!({})).await.result();
            server = net.server;
        } else {
            let net = Net::begin(CLIENT, server, settings).await;
            net.sidecar.wait_until_pending("PIN_BACKEND_API_KEY").await;
            server = net.server;
        }
    }
}

async fn while_it_loads_the_operator_is_told(place: Place) {
    let server = place.loading().await;
    for path in ["/health", "/v1/models", "/nope"] {
        let answer = http::get(&(server.url() + path)).await.unwrap();
        let loading =
            r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
        let loading: Value = serde_json::from_str(loading).unwrap();
        assert_eq!((answer.status, answer.json()), (503, loading));
        assert_eq!(
            answer.headers["connection"]
                .to_str()
                .unwrap()
                .to_lowercase(),
            "close"
        );
    }
    let mut net = Net::begin(CLIENT, server, &[]).await;
    net.sidecar.wait_until_pending("loading").await;
    net.server = net.server.loaded().await;
    net.sidecar.wait_until_pending("").await;
    net.ask(3, &json!({"model": "tiny"})).await.result();
}
