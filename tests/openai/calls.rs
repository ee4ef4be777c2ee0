//! Tool calls.

use devnet::openai::{Fixture, OpenAi, Style};
use serde_json::{Value, json};

use crate::{
    Net, server,
    support::{CLIENT, DESKTOP},
};

/// Each way in which the call of `f` with `{"x":1}` was met.
fn single() -> Vec<(&'static str, Fixture)> {
    vec![
        ("fragments", Fixture::call()),
        ("no index, id on each", Fixture::call_without_index()),
        ("no index, id once", Fixture::call_without_index_or_id()),
        ("index from 1", Fixture::call_from_index_1()),
        ("name first, id later", Fixture::call_name_first()),
        ("whole", Fixture::whole_call()),
        ("stop", Fixture::call_that_stops()),
    ]
}

fn calls(message: &Value) -> Vec<(String, Value)> {
    let calls = message["tool_calls"].as_array().unwrap().iter();
    calls
        .map(|call| {
            let function = &call["function"];
            (
                function["name"].as_str().unwrap().to_owned(),
                function["arguments"].clone(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_call_is_put_together_however_it_comes() {
    let net = Net::start().await;
    for (name, fixture) in single() {
        let outcome = net.answered(fixture).await;
        let result = outcome.result();
        let message = &result["choices"][0]["message"];
        assert_eq!(
            calls(message),
            [("f".to_owned(), json!(r#"{"x":1}"#))],
            "{name}"
        );
        assert_eq!(message["tool_calls"][0]["id"], "a", "{name}");
        assert_eq!(message["tool_calls"][0]["type"], "function", "{name}");
        assert_eq!(
            result["choices"][0]["finish_reason"], "tool_calls",
            "{name}"
        );
        assert_eq!(result["usage"]["completion_tokens"], 3, "{name}");
    }
}

#[tokio::test]
async fn two_calls_stay_two_in_one_delta_and_interleaved() {
    let net = Net::start().await;
    for fixture in [
        Fixture::two_calls_in_one_delta(),
        Fixture::interleaved_calls(),
    ] {
        let outcome = net.answered(fixture).await;
        let message = &outcome.result()["choices"][0]["message"];
        let wanted = [
            ("f".to_owned(), json!(r#"{"x":1}"#)),
            ("g".to_owned(), json!(r#"{"y":2}"#)),
        ];
        assert_eq!(calls(message), wanted);
        let ids: Vec<_> = message["tool_calls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|call| &call["id"])
            .collect();
        assert_eq!(ids, ["a", "b"]);
    }
}

#[tokio::test]
async fn a_call_without_arguments_or_an_id_is_given_them() {
    let net = Net::start().await;
    let outcome = net.answered(Fixture::call_with_null_arguments()).await;
    let message = &outcome.result()["choices"][0]["message"];
    assert_eq!(calls(message), [("f".to_owned(), json!("{}"))]);

    let mut ids = Vec::new();
    for _ in 0..2 {
        let outcome = net.answered(Fixture::call_without_id()).await;
        let message = &outcome.result()["choices"][0]["message"];
        ids.push(message["tool_calls"][0]["id"].as_str().unwrap().to_owned());
    }
    assert!(!ids[0].is_empty() && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn a_desktop_client_gets_arguments_as_an_object() {
    let net = Net::with(DESKTOP, server(Style::LlamaServer).await, &[]).await;
    for (name, fixture) in single() {
        net.server.answer_next(fixture);
        let outcome = net.ask(&json!({})).await;
        let message = &outcome.result()["message"];
        assert_eq!(
            calls(message),
            [("f".to_owned(), json!({"x": 1}))],
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_call_of_each_style_reaches_the_consumer() {
    for style in [Style::LlamaServer, Style::Vllm, Style::Mlx, Style::Ollama] {
        let server = OpenAi::builder().style(style).model("tiny");
        let server = server.behaviour(|behaviour| {
            behaviour.tool_arguments = Some(json!({"city": "Bern"}));
            behaviour.usage = Some((20, 100));
        });
        let net = Net::with(CLIENT, server.start().await.unwrap(), &[]).await;
        let tool = json!({"type": "function", "function": {"name": "weather"}});
        let outcome = net.ask(&json!({"stream": true, "tools": [tool]})).await;
        let result = outcome.result();
        let wanted = [("weather".to_owned(), json!(r#"{"city":"Bern"}"#))];
        assert_eq!(calls(&result["choices"][0]["message"]), wanted, "{style:?}");
        assert_eq!(
            result["choices"][0]["finish_reason"], "tool_calls",
            "{style:?}"
        );
        assert_eq!(result["usage"]["completion_tokens"], 100, "{style:?}");
    }
}
