//! Interviews of a server with OpenAI's interface: the network judges the operator by them.

use std::time::Duration;

use devnet::openai::{Behaviour, End, Fault, Fixture, OpenAi, Style};
use serde_json::{Value, json};

use crate::{Net, support::CLIENT};

/// What an interview of these prompts gives, of a server that behaves so.
async fn interview(
    style: Style,
    prompts: &[&str],
    change: impl FnOnce(&mut Behaviour),
) -> (Net, Vec<Value>) {
    let server = OpenAi::builder()
        .style(style)
        .model("owner/tiny")
        .behaviour(change);
    let settings = [
        ("PIN_PRELOAD_MODELS", "none"),
        ("PIN_ALLOW_MODELS", "owner/tiny"),
    ];
    let net = Net::with(CLIENT, server.start().await.unwrap(), &settings).await;
    let results = ask(&net, "i", prompts).await;
    (net, results)
}

async fn ask(net: &Net, id: &str, prompts: &[&str]) -> Vec<Value> {
    let prompts = prompts
        .iter()
        .map(|text| json!({"id": text, "prompt": text, "max_tokens": 3}));
    net.gateway.send(&json!({
        "type": "INTERVIEW_REQUEST", "interview_id": id, "model": "owner/tiny", "timeout_ms": 60_000,
        "prompts": prompts.collect::<Vec<_>>(),
    }));
    let result = net
        .gateway
        .wait_for(|frame| {
            frame.is_from_agent("INTERVIEW_RESULT") && frame.value["interview_id"] == id
        })
        .await;
    result.value["results"].as_array().unwrap().clone()
}

fn millis(result: &Value, name: &str) -> u64 {
    result[name].as_u64().unwrap()
}

#[tokio::test]
async fn what_is_waited_for_behind_the_last_byte_is_no_part_of_a_prompts_time() {
    let (net, _) = interview(Style::LlamaServer, &["one"], |_| {}).await;
    let without_counts = Fixture::events([
        r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    ]);
    // Loaded before.
    net.server
        .answer_next(without_counts.clone().end(End::StayOpen));
    net.server.answer_next(without_counts.end(End::StayOpen));
    let results = ask(&net, "late", &["two"]).await;
    assert!(millis(&results[0], "total_ms") < 1_000, "{results:?}");
}

#[tokio::test]
async fn an_interview_is_one_untimed_token_and_a_streamed_chat_for_each_prompt() {
    let (net, results) = interview(Style::LlamaServer, &["one", "two"], |behaviour| {
        behaviour.token_delay = Duration::from_millis(4);
    })
    .await;
    for (result, prompt) in results.iter().zip(["one", "two"]) {
        assert_eq!(
            (&result["prompt_id"], &result["error"]),
            (&json!(prompt), &Value::Null)
        );
        assert_eq!(result["tokens_generated"], 24, "its own limit was applied");
        assert!(millis(result, "total_ms") >= 23 * 4, "{result}");
        assert!(
            millis(result, "ttft_ms") < millis(result, "total_ms"),
            "{result}"
        );
    }
    let asked: Vec<_> = net
        .server
        .chat_requests()
        .iter()
        .map(|request| request.json())
        .collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[0]["max_tokens"], 1);
    for asked in &asked[1..] {
        assert_eq!(
            (asked.get("max_tokens"), &asked["stream"]),
            (None, &json!(true))
        );
    }
}

#[tokio::test]
async fn the_first_token_is_neither_a_role_nor_a_comment_and_may_be_a_thought() {
    let late = Duration::from_millis(150);
    for style in [
        Style::LlamaServer,
        Style::Vllm,
        Style::Mlx,
        Style::Transformers,
    ] {
        for thinks in [false, true] {
            let (_, results) = interview(style, &["one"], |behaviour| {
                behaviour.first_token_delay = late;
                behaviour.comment_every = Some(Duration::from_millis(20));
                behaviour.token_delay = Duration::from_millis(10);
                behaviour.thinks = thinks;
            })
            .await;
            let (first, total) = (
                millis(&results[0], "ttft_ms"),
                millis(&results[0], "total_ms"),
            );
            assert!(first >= 150, "{style:?} {thinks}: {first}");
            // The 23 tokens after the first come 10 ms apart.
            assert!(
                total >= 150 + 230 && total > first,
                "{style:?} {thinks}: {first} of {total}"
            );
        }
    }
}

#[tokio::test]
async fn a_prompt_that_fails_has_zeros_and_the_next_one_goes_on() {
    let (net, _) = interview(Style::Vllm, &["warm"], |_| {}).await;
    // The untimed token, and the first prompt.
    net.server.answer_next(Fault::SplitEvery(100));
    net.server.answer_next(Fault::ErrorEvent {
        after: 2,
        error: json!({"message": "out of memory"}),
        done: true,
    });
    let results = ask(&net, "j", &["one", "two"]).await;
    assert!(results[0]["error"].is_string(), "{}", results[0]);
    for name in ["ttft_ms", "total_ms", "tokens_generated"] {
        assert_eq!(millis(&results[0], name), 0, "{name}");
    }
    assert_eq!(
        (&results[1]["error"], &results[1]["tokens_generated"]),
        (&Value::Null, &json!(24))
    );
}
