//! What is refused, and when nothing is answered.

use super::*;

#[tokio::test]
async fn each_style_refuses_what_its_server_refuses_in_its_shape() {
    let error = |status: u16, message: &str, kind: &str| json!({"error": {"code": status, "message": message, "type": kind}});
    for (style, more, status, body) in [
        (Style::LlamaServer, json!({"model": "nope"}), 200, None),
        (
            Style::LlamaServer,
            json!({"top_p": null, "top_k": 3, "tools": null}),
            200,
            None,
        ),
        (Style::LlamaServer, json!({"messages": []}), 200, None),
        (
            Style::LlamaServer,
            json!({"messages": 3}),
            400,
            Some(error(
                400,
                "Expected 'messages' to be an array",
                "invalid_request_error",
            )),
        ),
        (
            Style::Vllm,
            json!({"model": "tiny:latest"}),
            404,
            Some(json!({"error": {
                "message": "The model `tiny:latest` does not exist.", "type": "NotFoundError", "param": null, "code": 404,
            }})),
        ),
        (
            Style::Vllm,
            json!({"stream_options": {"include_usage": true}}),
            400,
            None,
        ),
        (Style::Vllm, json!({"max_tokens": 2048}), 400, None),
        (Style::Vllm, json!({"max_tokens": 0}), 400, None),
        (Style::Vllm, json!({"temperature": -3}), 400, None),
        (Style::Vllm, json!({"messages": []}), 400, None),
        (Style::Vllm, json!({"top_p": null, "top_k": 3}), 200, None),
        (
            Style::Vllm,
            json!({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"function": {"arguments": {}}}]}]}),
            400,
            None,
        ),
        (
            Style::Mlx,
            json!({"model": "nope"}),
            404,
            Some(json!({"error": "Failed to load model: cannot find nope on the hub"})),
        ),
        (Style::Mlx, json!({"model": "default_model"}), 200, None),
        (
            Style::Mlx,
            json!({"top_p": null}),
            400,
            Some(json!({"error": "top_p must not be null"})),
        ),
        (Style::Mlx, json!({"messages": []}), 404, None),
        (
            Style::Transformers,
            json!({"model": "nope"}),
            400,
            Some(json!({"detail": "Server is not serving the model nope"})),
        ),
        (Style::Transformers, json!({"top_k": 3}), 422, None),
        (Style::Transformers, json!({"keep_alive": 3}), 422, None),
        (Style::Transformers, json!({"messages": []}), 500, None),
        (Style::Transformers, json!({"max_tokens": 0}), 500, None),
        (Style::Transformers, json!({"top_p": null}), 200, None),
        (
            Style::Ollama,
            json!({"model": "nope"}),
            404,
            Some(
                json!({"error": {"message": "model 'nope' not found", "type": "not_found_error", "param": null, "code": null}}),
            ),
        ),
        (Style::Ollama, json!({"model": "tiny"}), 200, None),
        (
            Style::Ollama,
            json!({"messages": [{"role": "assistant", "content": null}]}),
            400,
            None,
        ),
    ] {
        let server = server(style).await;
        let answer = ask(&server, &and(chat(&server, 2), &more)).await;
        assert_eq!(answer.status, status, "{style:?} {more} {}", answer.text());
        if let Some(body) = body {
            assert_eq!(answer.json(), body, "{style:?} {more}");
        }
    }
}

#[tokio::test]
async fn any_style_can_refuse_what_another_does() {
    let server = server(Style::LlamaServer).await;
    let objects = json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]});
    for (refused, more) in [
        (Refuses::Nulls, json!({"stop": null})),
        (Refuses::UnknownFields, json!({"think": true})),
        (Refuses::StreamOptions, json!({"stream_options": {}})),
        (Refuses::ObjectArguments, objects),
        (Refuses::MaxTokens, json!({"max_tokens": 100_000})),
        (
            Refuses::NullContent,
            json!({"messages": [{"role": "assistant", "content": null}]}),
        ),
        (Refuses::NoMessages, json!({"messages": []})),
    ] {
        let body = and(chat(&server, 2), &more);
        server.set_behaviour(|behaviour| behaviour.refuses.clear());
        assert_eq!(ask(&server, &body).await.status, 200, "{refused:?}");
        server.set_behaviour(|behaviour| behaviour.refuses.push(refused));
        let status = ask(&server, &body).await.status;
        assert!(matches!(status, 400 | 422), "{refused:?}");
    }
}

#[tokio::test]
async fn the_head_of_a_request_is_as_strict_as_its_server_wants_it() {
    for (style, chunked, untyped) in [
        (Style::LlamaServer, 200, 200),
        (Style::Vllm, 200, 400),
        (Style::Mlx, 411, 200),
        (Style::Transformers, 200, 422),
        (Style::Ollama, 200, 200),
    ] {
        let server = server(style).await;
        let body = chat(&server, 1).to_string();
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let answer = raw(&server, &request).await;
        let status = answer.split(' ').nth(1).unwrap();
        assert_eq!(status, chunked.to_string(), "{style:?} {answer}");
        let answer = http::post(&(server.url() + CHAT), body).await.unwrap();
        assert_eq!(answer.status, untyped, "{style:?}");
    }
}

#[tokio::test]
async fn a_key_is_wanted_where_there_is_one() {
    for (style, closed, open) in [
        (Style::LlamaServer, MODELS, "/health"),
        (Style::Vllm, MODELS, "/health"),
    ] {
        let server = OpenAi::builder()
            .style(style)
            .model("tiny")
            .api_key("K")
            .start()
            .await
            .unwrap();
        let refused = http::get(&(server.url() + closed)).await.unwrap();
        let words = match style {
            Style::Vllm => json!({"error": "Unauthorized"}),
            _ => {
                json!({"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
            }
        };
        assert_eq!((refused.status, refused.json()), (401, words));
        assert_eq!(http::get(&(server.url() + open)).await.unwrap().status, 200);
        for (key, status) in [("Bearer K", 200), ("Bearer k", 401), ("K", 401)] {
            let headers = [JSON, ("authorization", key)];
            let body = chat(&server, 1).to_string();
            let answer = http::post_with(&(server.url() + CHAT), &headers, body)
                .await
                .unwrap();
            assert_eq!(answer.status, status, "{key}");
        }
    }
}

#[tokio::test]
async fn while_it_loads_every_path_says_so() {
    let server = OpenAi::builder()
        .model("tiny")
        .loading_for(Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    let loading =
        json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}});
    for path in ["/health", MODELS, "/nope"] {
        let answer = http::get(&(server.url() + path)).await.unwrap();
        assert_eq!((answer.status, answer.json()), (503, loading.clone()));
        assert_eq!(answer.headers["connection"], "close");
    }
    assert_eq!(ask(&server, &chat(&server, 1)).await.status, 503);
    server.loaded();
    assert_eq!(ask(&server, &chat(&server, 1)).await.status, 200);

    server.sleep();
    assert_eq!(
        http::get(&(server.url() + "/health")).await.unwrap().status,
        200
    );
    let props = http::get(&(server.url() + "/props")).await.unwrap().json();
    assert_eq!(props, json!({"is_sleeping": true}));
    assert_eq!(ask(&server, &chat(&server, 1)).await.status, 200);
    assert!(!server.is_asleep());
}
