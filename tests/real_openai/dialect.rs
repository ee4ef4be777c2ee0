//! How each server speaks, without a sidecar between: what the stand-in says is what the real one says.

use devnet::http::{self, Answer};
use serde_json::{Value, json};

use crate::server::{Place, Server, cases};

cases! {
    llama mlx transformers vllm ollama => {
        a_stream_has_the_shape_that_its_server_gives_it
        what_is_refused_is_refused_by_both
        the_list_has_ids
    }
}

async fn ask(server: &Server, more: &Value) -> Answer {
    let mut body = json!({
        "model": server.id(), "messages": [{"role": "user", "content": "once upon a time"}], "max_tokens": 3,
    });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body.as_object_mut()
        .unwrap()
        .retain(|_, value| *value != "absent");
    let json = [("content-type", "application/json")];
    let url = server.url() + "/v1/chat/completions";
    http::post_with(&url, &json, body.to_string())
        .await
        .unwrap()
}

/// What one event is, without its words.
fn shape(event: &str) -> String {
    let Some(data) = event.strip_prefix("data: ") else {
        return if event.starts_with(':') {
            "comment"
        } else {
            event
        }
        .to_owned();
    };
    let Ok(event) = serde_json::from_str::<Value>(data) else {
        return data.to_owned();
    };
    let mut shape = Vec::new();
    let choice = &event["choices"][0];
    for key in ["role", "content", "reasoning", "reasoning_content"] {
        match choice["delta"].get(key) {
            Some(Value::String(text)) if text.is_empty() => shape.push(format!("{key}=\"\"")),
            Some(Value::Null) => shape.push(format!("{key}=null")),
            Some(_) => shape.push(key.to_owned()),
            None => {}
        }
    }
    match choice.get("finish_reason") {
        Some(Value::String(reason)) => shape.push(format!("finish={reason}")),
        Some(_) => {}
        None if choice.is_null() => shape.push("no choices".to_owned()),
        None => shape.push("no finish".to_owned()),
    }
    for key in ["usage", "timings"] {
        if event.get(key).is_some_and(Value::is_object) {
            shape.push(key.to_owned());
        }
    }
    shape.join(" ")
}

/// The shapes of a stream, with what repeats once.
fn shapes(text: &str) -> Vec<String> {
    let mut shapes: Vec<_> = text
        .split("\n\n")
        .filter(|event| !event.trim().is_empty())
        .map(|event| shape(event.trim()))
        .filter(|shape| shape != "comment")
        .collect();
    shapes.dedup();
    shapes
}

async fn a_stream_has_the_shape_that_its_server_gives_it(place: Place) {
    let server = place.start().await;
    let asked = ask(
        &server,
        &json!({"stream": true, "stream_options": {"include_usage": true}}),
    )
    .await;
    let unasked = ask(&server, &json!({"stream": true})).await;
    assert!(
        asked.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let wanted: &[&str] = match server.engine() {
        "llama" => &[
            "role content=null",
            "content",
            "finish=length",
            "no choices usage timings",
            "[DONE]",
        ],
        "vllm" => &[
            "role content=\"\"",
            "content",
            "content finish=length",
            "no choices usage",
            "[DONE]",
        ],
        "mlx" => &[
            "role content",
            "role finish=length",
            "no choices usage",
            "[DONE]",
        ],
        "transformers" => &["role no finish", "content no finish", "finish=length usage"],
        _ => &[
            "role content",
            "role content=\"\" finish=length",
            "no choices usage",
            "[DONE]",
        ],
    };
    assert_eq!(shapes(&asked.text()), wanted);
    let usages = |text: &str| text.matches("\"usage\":").count();
    let always = usize::from(server.engine() == "transformers");
    assert_eq!(usages(&unasked.text()), always);
}

async fn what_is_refused_is_refused_by_both(place: Place) {
    let server = place.start().await;
    let objects = json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}]},
        {"role": "user", "content": "x"},
    ]);
    let nothing = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null}, {"role": "user", "content": "x"}]);
    // llama, vllm, mlx, transformers, ollama; 0: not looked at
    for (more, statuses) in [
        (json!({}), [200, 200, 200, 200, 200]),
        (json!({"model": "nope"}), [200, 404, 404, 400, 404]),
        (json!({"top_p": null}), [200, 200, 400, 200, 200]),
        (json!({"no_such_field": 1}), [200, 200, 200, 422, 200]),
        (
            json!({"stream_options": {"include_usage": true}}),
            [200, 400, 200, 200, 200],
        ),
        (json!({"messages": []}), [0, 400, 404, 500, 400]),
        (json!({"max_tokens": 100_000}), [0, 400, 0, 0, 0]),
        (json!({"messages": objects}), [200, 400, 0, 0, 0]),
        (json!({"messages": nothing}), [200, 0, 0, 0, 400]),
        (json!({"temperature": -3}), [200, 400, 400, 0, 200]),
        (json!({"max_tokens": 0}), [200, 400, 400, 500, 0]),
    ] {
        let column = ["llama", "vllm", "mlx", "transformers", "ollama"]
            .iter()
            .position(|engine| *engine == server.engine());
        let wanted = statuses[column.unwrap()];
        if wanted != 0 {
            let answer = ask(&server, &more).await;
            assert_eq!(answer.status, wanted, "{more}: {}", answer.text());
        }
    }
}

async fn the_list_has_ids(place: Place) {
    let server = place.start().await;
    let list = http::get(&(server.url() + "/v1/models"))
        .await
        .unwrap()
        .json();
    let ids: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["id"].as_str().unwrap())
        .collect();
    match server.engine() {
        "llama" | "vllm" => assert_eq!(ids, ["tiny"]),
        "mlx" => assert!(ids.iter().any(|id| id.starts_with('/')), "{ids:?}"),
        "transformers" => assert!(ids.is_empty(), "{ids:?}"),
        _ => assert_eq!(ids, ["tiny:latest"]),
    }
}
