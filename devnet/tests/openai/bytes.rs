//! What is said, byte for byte.

use super::*;

#[tokio::test]
async fn each_style_streams_the_bytes_of_its_server() {
    let usage = r#""usage":{"completion_tokens":2,"prompt_tokens":2,"total_tokens":4}"#;
    for (style, wanted) in [
        (
            Style::LlamaServer,
            vec![
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"model":"tiny","object":"chat.completion.chunk"}"#.to_owned(),
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"alpha"}}],"model":"tiny","object":"chat.completion.chunk"}"#.to_owned(),
                r#"data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" beta"}}],"model":"tiny","object":"chat.completion.chunk"}"#.to_owned(),
                r#"data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"model":"tiny","object":"chat.completion.chunk"}"#.to_owned(),
                format!(r#"data: {{"choices":[],"model":"tiny","object":"chat.completion.chunk",{usage},"timings":{{"cache_n":0,"prompt_n":2,"prompt_ms":5.7,"predicted_n":2,"predicted_ms":1.1}}}}"#),
                "data: [DONE]".to_owned(),
            ],
        ),
        (
            Style::Vllm,
            vec![
                r#"data: {"object":"chat.completion.chunk","model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null,"token_ids":null}]}"#.to_owned(),
                r#"data: {"object":"chat.completion.chunk","model":"tiny","choices":[{"index":0,"delta":{"content":"alpha"},"logprobs":null,"finish_reason":null,"token_ids":null}]}"#.to_owned(),
                r#"data: {"object":"chat.completion.chunk","model":"tiny","choices":[{"index":0,"delta":{"content":" beta"},"logprobs":null,"finish_reason":"length","token_ids":null}]}"#.to_owned(),
                format!(r#"data: {{"object":"chat.completion.chunk","model":"tiny","choices":[],{usage}}}"#),
                "data: [DONE]".to_owned(),
            ],
        ),
        (
            Style::Mlx,
            vec![
                r#"data: {"object": "chat.completion.chunk", "model": "/srv/models/tiny", "choices": [{"index": 0, "finish_reason": null, "delta": {"role": "assistant", "content":"alpha"}}]}"#.to_owned(),
                r#"data: {"object": "chat.completion.chunk", "model": "/srv/models/tiny", "choices": [{"index": 0, "finish_reason": null, "delta": {"role": "assistant", "content":" beta"}}]}"#.to_owned(),
                r#"data: {"object": "chat.completion.chunk", "model": "/srv/models/tiny", "choices": [{"index": 0, "finish_reason": "length", "delta": {"role": "assistant"}}]}"#.to_owned(),
                r#"data: {"object": "chat.completion", "model": "/srv/models/tiny", "choices": [], "usage": {"completion_tokens":2,"prompt_tokens":2,"total_tokens":4}}"#.to_owned(),
                "data: [DONE]".to_owned(),
            ],
        ),
        (
            Style::Transformers,
            vec![
                r#"data: {"choices":[{"delta":{"role":"assistant"},"index":0}],"model":"/srv/models/tiny@main","object":"chat.completion.chunk","system_fingerprint":""}"#.to_owned(),
                r#"data: {"choices":[{"delta":{"content":"alpha"},"index":0}],"model":"/srv/models/tiny@main","object":"chat.completion.chunk","system_fingerprint":""}"#.to_owned(),
                r#"data: {"choices":[{"delta":{"content":" beta"},"index":0}],"model":"/srv/models/tiny@main","object":"chat.completion.chunk","system_fingerprint":""}"#.to_owned(),
                format!(r#"data: {{"choices":[{{"delta":{{}},"index":0,"finish_reason":"length"}}],"model":"/srv/models/tiny@main","object":"chat.completion.chunk","system_fingerprint":"",{usage}}}"#),
            ],
        ),
        (
            Style::Ollama,
            vec![
                r#"data: {"object":"chat.completion.chunk","model":"tiny:latest","choices":[{"index":0,"delta":{"role":"assistant","content":"alpha"},"finish_reason":null}]}"#.to_owned(),
                r#"data: {"object":"chat.completion.chunk","model":"tiny:latest","choices":[{"index":0,"delta":{"role":"assistant","content":" beta"},"finish_reason":null}]}"#.to_owned(),
                r#"data: {"object":"chat.completion.chunk","model":"tiny:latest","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"length"}]}"#.to_owned(),
                format!(r#"data: {{"object":"chat.completion.chunk","model":"tiny:latest","choices":[],{usage}}}"#),
                "data: [DONE]".to_owned(),
            ],
        ),
    ] {
        let server = server(style).await;
        let answer = ask(&server, &streamed(&server, 2)).await;
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert_eq!(events(&answer.text()), wanted, "{style:?}");
    }
}

#[tokio::test]
async fn each_style_answers_whole_and_can_think_and_call() {
    for style in STYLES {
        let server = with(style, |behaviour| behaviour.thinks = true).await;
        let whole = ask(&server, &chat(&server, 6)).await.json();
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["content"], spoken("alpha beta", 2), "{style:?}");
        let key = if style == Style::LlamaServer {
            "reasoning_content"
        } else {
            "reasoning"
        };
        assert_eq!(message[key], "Let me think.", "{style:?}");
        assert_eq!(whole["usage"]["completion_tokens"], 6);

        server.set_behaviour(|behaviour| {
            behaviour.thinks = false;
            behaviour.tool_arguments = Some(json!({"city": "Bern"}));
        });
        let tool = json!({"type": "function", "function": {"name": "weather"}});
        let calling = and(streamed(&server, 50), &json!({"tools": [tool]}));
        let text = ask(&server, &calling).await.text();
        let mut arguments = String::new();
        let mut reasons = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("data: {")) {
            let event: Value = serde_json::from_str(&format!("{{{line}")).unwrap();
            let choice = &event["choices"][0];
            reasons.extend(choice["finish_reason"].as_str().map(str::to_owned));
            let function = &choice["delta"]["tool_calls"][0]["function"];
            arguments += function["arguments"].as_str().unwrap_or_default();
        }
        assert_eq!(arguments, r#"{"city":"Bern"}"#, "{style:?}");
        assert_eq!(reasons, ["tool_calls"], "{style:?}");
    }
}

#[tokio::test]
async fn a_call_begins_as_its_server_begins_it() {
    let tool = json!({"tools": [{"type": "function", "function": {"name": "get_weather"}}]});
    for (style, place, wanted) in [
        (
            Style::LlamaServer,
            1,
            r#"{"tool_calls":[{"index":0,"id":"call-85cc0a","type":"function","function":{"name":"get_weather","arguments":"{\"ci"}}]}"#,
        ),
        (
            Style::Vllm,
            1,
            r#"{"content":null,"tool_calls":[{"id":"call-85cc0a","type":"function","index":0,"function":{"name":"get_weather"}}]}"#,
        ),
    ] {
        let server = with(style, |behaviour| {
            behaviour.tool_arguments = Some(json!({"city": "Bern"}));
        })
        .await;
        let text = ask(&server, &and(streamed(&server, 50), &tool))
            .await
            .text();
        assert!(events(&text)[place].contains(wanted), "{text}");
    }
}

#[tokio::test]
async fn usage_comes_when_it_is_wanted_and_says_what_it_is_told_to() {
    let server = with(Style::Vllm, |behaviour| behaviour.usage = Some((20, 100))).await;
    let used = |text: &str| {
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        events
            .filter_map(|event| serde_json::from_str::<Value>(event).ok())
            .map(|event| event["usage"]["completion_tokens"].clone())
            .collect::<Vec<_>>()
    };
    for (manner, wanted) in [
        (UsageManner::Asked, json!([null, null, null, null, 100])),
        (UsageManner::WithFinish, json!([null, null, null, 100])),
        (UsageManner::Before, json!([null, null, null, 100, null])),
        (UsageManner::Each, json!([0, 1, 2, 2, 100])),
        (UsageManner::Null, json!([null, null, null, null])),
        (UsageManner::Never, json!([null, null, null, null])),
    ] {
        server.set_behaviour(|behaviour| {
            behaviour.usage_manner = Some(manner);
            behaviour.script = Some(vec!["a".to_owned(), "b".to_owned()]);
        });
        let text = ask(&server, &streamed(&server, 5)).await.text();
        assert_eq!(Value::from(used(&text)), wanted, "{manner:?}");
    }
    let mut unasked = streamed(&server, 5);
    unasked.as_object_mut().unwrap().remove("stream_options");
    server.set_behaviour(|behaviour| behaviour.usage_manner = None);
    let text = ask(&server, &unasked).await.text();
    assert!(!text.contains("usage"), "{text}");
}
