//! How each server speaks, without a sidecar between: what the stand-in says is what the real one says.

use devnet::http::{self, Answer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Place, Server, cases};

cases! {
    llama mlx transformers vllm ollama => {
        a_stream_has_the_shape_that_its_server_gives_it
        what_is_refused_is_refused_by_both
        the_list_has_ids
        heads_are_as_its_server_wants_and_sends_them
        a_connection_ends_with_a_stream_where_its_server_ends_it
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

/// A chat with these headers and this body, over a connection of its own; gives all that comes.
async fn raw(server: &Server, headers: &str, body: &str) -> String {
    let url = server.url();
    let addr = url.trim_start_matches("http://");
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close";
    let request = format!("{head}\r\n{headers}\r\n\r\n{body}");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses may reset what it has not read.
    let _ = tcp.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn heads_are_as_its_server_wants_and_sends_them(place: Place) {
    let server = place.start().await;
    let chat = json!({
        "model": server.id(), "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": true,
    })
    .to_string();
    let version = if server.engine() == "mlx" {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    let json = "Content-Type: application/json";
    let length = format!("Content-Length: {}", chat.len());
    let chunked = format!("{:x}\r\n{chat}\r\n0\r\n\r\n", chat.len());
    let refuses_untyped = match server.engine() {
        "vllm" => "400",
        "transformers" => "422",
        _ => "200",
    };
    let refuses_chunks = if server.engine() == "mlx" {
        "411"
    } else {
        "200"
    };
    for (headers, body, status) in [
        (format!("{json}\r\n{length}"), &chat, "200"),
        (length, &chat, refuses_untyped),
        (
            format!("{json}\r\nTransfer-Encoding: chunked"),
            &chunked,
            refuses_chunks,
        ),
    ] {
        let answer = raw(&server, &headers, body).await;
        assert!(
            answer.starts_with(&format!("{version} {status} ")),
            "{headers}: {answer}"
        );
        let head = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
        if status == "200" && version == "HTTP/1.0" {
            assert!(
                !head.contains("content-length") && !head.contains("transfer-encoding"),
                "{head}"
            );
        }
    }
}

async fn a_connection_ends_with_a_stream_where_its_server_ends_it(place: Place) {
    let server = place.start().await;
    let chat = json!({
        "model": server.id(), "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "stream": true,
    })
    .to_string();
    let json = "Content-Type: application/json";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{json}\r\nContent-Length: {}\r\n\r\n{chat}",
        chat.len()
    );
    let url = server.url();
    let addr = url.trim_start_matches("http://");
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let mut answer = Vec::new();
    tcp.write_all(request.as_bytes()).await.unwrap();
    while !answer.ends_with(b"\r\n0\r\n\r\n") && tcp.read_buf(&mut answer).await.unwrap() > 0 {}
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    // Of HTTP/1.0 nobody expects anything else.
    let says_so = answer.contains("\r\nconnection: close");
    assert!(!says_so || server.engine() == "mlx", "{answer}");
    // A reset is an end, too.
    let _ = tcp.write_all(request.as_bytes()).await;
    let more = tcp.read_buf(&mut Vec::new()).await;
    let is_open = more.is_ok_and(|read| read > 0);
    assert_eq!(is_open, !matches!(server.engine(), "llama" | "mlx"));
}
