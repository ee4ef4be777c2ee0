//! What becomes of answers that are odd and all the same answers.

use std::time::Duration;

use devnet::{
    gateway::Outcome,
    openai::{Fault, Fixture, OpenAi, Step, Style, UsageManner, spoken},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Net, STYLES, server,
    support::{CLIENT, DESKTOP},
};

/// Odd and whole, with the counts of the fixtures.
fn whole() -> Vec<(&'static str, Fault)> {
    let every = Duration::from_millis(5);
    let fixtures = vec![
        ("plain", Fixture::plain()),
        ("role only first", Fixture::role_only_first()),
        ("null content", Fixture::null_content()),
        ("null delta", Fixture::null_delta()),
        ("content as a list", Fixture::content_as_list()),
        ("absent finish_reason", Fixture::absent_finish_reason()),
        ("empty finish_reason", Fixture::empty_finish_reason()),
        (
            "text with finish_reason",
            Fixture::text_with_finish_reason(),
        ),
        ("no finish_reason", Fixture::done_without_finish_reason()),
        ("no [DONE]", Fixture::no_done()),
        ("open after [DONE]", Fixture::open_after_done()),
        ("usage before", Fixture::usage_before_finish_reason()),
        ("usage with", Fixture::usage_with_finish_reason()),
        ("usage with choices", Fixture::usage_with_choices_again()),
        ("usage on each", Fixture::usage_on_each()),
        ("null usage", Fixture::null_usage()),
        (
            "late usage",
            Fixture::late_usage(Duration::from_millis(300)),
        ),
        ("CR LF", Fixture::crlf()),
        ("CR", Fixture::cr()),
        ("BOM", Fixture::bom()),
        ("odd fields", Fixture::odd_fields()),
        ("data in lines", Fixture::data_in_lines()),
        ("comments", Fixture::comments(20, every)),
        ("HTTP/1.0", Fixture::over_http_1_0()),
        ("late head", Fixture::late_head(20 * every)),
        ("NaN", Fixture::nan_in_logprobs()),
    ];
    let mut whole = Vec::new();
    for (name, fixture) in fixtures {
        let bytewise = fixture.clone().in_writes_of(1);
        whole.push((name, fixture.into()));
        whole.push((name, bytewise.into()));
    }
    whole.push(("a whole object", Fixture::whole_object()));
    whole
}

fn usage(prompt: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn assert_is_whole(outcome: &Outcome, name: &str) {
    assert_eq!(
        outcome.text(),
        Fixture::TEXT,
        "{name}: {:?}",
        outcome.answer
    );
    let result = outcome.result();
    assert_eq!(result["choices"][0]["finish_reason"], "stop", "{name}");
    assert_eq!(result["model"], "tiny", "{name}");
    assert_eq!(result["object"], "chat.completion", "{name}");
    assert_eq!(outcome.streamed("content"), Fixture::TEXT, "{name}");
    let indices: Vec<_> = outcome
        .chunks
        .iter()
        .map(|chunk| chunk.index.unwrap())
        .collect();
    assert_eq!(
        indices,
        (0..indices.len() as u64).collect::<Vec<_>>(),
        "{name}"
    );
}

#[tokio::test]
async fn an_odd_answer_is_an_answer() {
    let net = Net::start().await;
    for (name, fault) in whole() {
        let outcome = net.answered(fault).await;
        assert_is_whole(&outcome, name);
        assert_eq!(outcome.result()["usage"], usage(7, 3), "{name}");
    }
    net.server.wait_until_idle().await;
}

#[tokio::test]
async fn an_odd_answer_is_ollamas_final_object_for_a_desktop_client() {
    let net = Net::with(DESKTOP, server(Style::LlamaServer).await, &[]).await;
    for (name, fault) in whole() {
        net.server.answer_next(fault);
        let outcome = net.ask(&json!({})).await;
        assert_eq!(outcome.text(), Fixture::TEXT, "{name}");
        let result = outcome.result();
        assert_eq!(result["model"], "tiny", "{name}");
        assert_eq!(
            (&result["done"], &result["done_reason"]),
            (&json!(true), &json!("stop")),
            "{name}"
        );
        assert_eq!(
            (&result["prompt_eval_count"], &result["eval_count"]),
            (&json!(7), &json!(3)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn without_counts_the_counts_are_0() {
    let net = Net::start().await;
    for (name, fixture) in [
        ("no usage", Fixture::no_usage()),
        ("no last newline", Fixture::no_last_newline()),
    ] {
        let outcome = net.answered(fixture).await;
        assert_is_whole(&outcome, name);
        assert_eq!(outcome.result()["usage"], usage(0, 0), "{name}");
    }
}

#[tokio::test]
async fn after_a_finish_reason_usage_is_waited_for_but_no_longer_than_two_seconds() {
    let net = Net::start().await;
    let begun = Instant::now();
    let outcome = net.answered(Fixture::open_after_finish_reason()).await;
    assert_is_whole(&outcome, "open");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(10),
        "{took:?}"
    );
    net.server.wait_until_idle().await;
}

#[tokio::test]
async fn tokens_are_those_of_the_server_and_not_the_deltas() {
    let net = Net::start().await;
    for manner in [
        UsageManner::Asked,
        UsageManner::WithFinish,
        UsageManner::Before,
    ] {
        net.server.set_behaviour(|behaviour| {
            behaviour.usage = Some((20, 100));
            behaviour.usage_manner = Some(manner);
        });
        let outcome = net.ask(&json!({})).await;
        assert_eq!(outcome.result()["usage"], usage(20, 100), "{manner:?}");
    }
}

#[tokio::test]
async fn what_is_thought_goes_out_as_thinking_under_whatever_key_it_comes() {
    let net = Net::start().await;
    for (name, fixture) in [
        (
            "reasoning_content",
            Fixture::thinking_under("reasoning_content"),
        ),
        ("reasoning", Fixture::thinking_under("reasoning")),
        ("both", Fixture::thinking_under_both()),
    ] {
        let outcome = net.answered(fixture).await;
        assert_is_whole(&outcome, name);
        assert_eq!(outcome.streamed("thinking"), Fixture::THOUGHT, "{name}");
        let message = &outcome.result()["choices"][0]["message"];
        assert_eq!(message["thinking"], Fixture::THOUGHT, "{name}");
    }
    let outcome = net.answered(Fixture::thinking_in_text()).await;
    assert_eq!(outcome.text(), "<think>hm so</think>life goes on");
    assert_eq!(outcome.streamed("thinking"), "");
}

#[tokio::test]
async fn a_model_of_each_style_that_thinks_is_heard_by_either_generation() {
    for style in [Style::LlamaServer, Style::Vllm, Style::Mlx, Style::Ollama] {
        let server = OpenAi::builder().style(style).model("tiny");
        let server = server.behaviour(|behaviour| behaviour.thinks = true);
        let net = Net::with(CLIENT, server.start().await.unwrap(), &[]).await;
        let outcome = net.ask(&json!({"stream": true, "max_tokens": 6})).await;
        assert_eq!(outcome.streamed("thinking"), "Let me think.", "{style:?}");
        assert_eq!(outcome.text(), spoken("alpha beta", 2));
        let desktop = Net::with(DESKTOP, net.server, &[]).await;
        let outcome = desktop.ask(&json!({"max_tokens": 6})).await;
        assert_eq!(outcome.result()["message"]["thinking"], "Let me think.");
        assert_eq!(outcome.result()["done_reason"], "length");
    }
}

#[tokio::test]
async fn how_it_ended_is_told_as_the_server_tells_it() {
    let net = Net::start().await;
    for (reason, told) in [
        (r#""stop""#, "stop"),
        (r#""length""#, "length"),
        (r#""content_filter""#, "content_filter"),
    ] {
        let outcome = net.answered(Fixture::finish_reason(reason)).await;
        assert_eq!(outcome.result()["choices"][0]["finish_reason"], told);
    }
}

#[tokio::test]
async fn characters_that_are_cut_by_reads_are_whole_again() {
    let net = Net::start().await;
    for bytes in [1, 2, 3, 7] {
        let fixture = Fixture::many_bytes_a_character().in_writes_of(bytes);
        let outcome = net.answered(fixture).await;
        assert_eq!(outcome.text(), "grüße 🦀");
        assert_eq!(outcome.streamed("content"), "grüße 🦀");
    }
}

/// As with Ollama: an answer is worth more than one of its characters.
#[tokio::test]
async fn a_byte_that_is_no_character_costs_only_itself() {
    let net = Net::start().await;
    let outcome = net.answered(Fixture::bad_utf8()).await;
    assert_eq!(outcome.text(), "life goes on\u{fffd}");
}

#[tokio::test]
async fn a_server_that_is_slow_to_begin_and_only_comments_is_waited_for() {
    let settings = [
        ("PIN_FIRST_TOKEN_TIMEOUT", "10s"),
        ("PIN_TOKEN_TIMEOUT", "10s"),
    ];
    let net = Net::with(CLIENT, server(Style::Mlx).await, &settings).await;
    let late = Fixture::plain().first(Step::Repeat(
        ": keepalive 1/1\n\n".into(),
        15,
        Duration::from_millis(100),
    ));
    assert_is_whole(&net.answered(late).await, "comments for long");
}

#[tokio::test]
async fn log_probabilities_are_put_together() {
    let net = Net::start().await;
    let token = |token: &str| {
        json!({"choices": [{
            "index": 0, "delta": {"content": token}, "finish_reason": null,
            "logprobs": {"content": [{"token": token, "logprob": -0.5, "bytes": null, "top_logprobs": []}], "refusal": null},
        }]})
    };
    let end =
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": null}]});
    let events = [token("life"), token(" goes on"), end].map(|event| event.to_string());
    let done = "[DONE]".to_owned();
    let outcome = net
        .answered(Fixture::events(events.into_iter().chain([done])))
        .await;
    let logprobs = &outcome.result()["choices"][0]["logprobs"]["content"];
    let tokens: Vec<_> = logprobs
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["token"])
        .collect();
    assert_eq!(tokens, ["life", " goes on"]);
}

#[tokio::test]
async fn what_comes_after_the_end_is_not_read() {
    let net = Net::start().await;
    let late = "data: {\"error\":{\"message\":\"too late\"}}\n\n";
    let outcome = net
        .answered(Fixture::plain().then(Step::Bytes(late.into())))
        .await;
    assert_is_whole(&outcome, "after [DONE]");
}

#[tokio::test]
async fn many_chats_at_once_are_not_mixed_up_whatever_the_style() {
    for style in STYLES {
        let server = OpenAi::builder().style(style).model("owner/tiny");
        let server = server
            .token_delay(Duration::from_millis(1))
            .start()
            .await
            .unwrap();
        let settings = [
            ("PIN_CAPACITY", "8"),
            ("PIN_ALLOW_MODELS", "owner/*,owner/tiny"),
        ];
        let net = Net::with(CLIENT, server, &settings).await;
        let mut chats: Vec<_> = (0..24)
            .map(|number| {
                let words = format!("chat {number}");
                let messages = json!([{"role": "user", "content": words}]);
                let more =
                    json!({"model": "owner/tiny", "stream": number % 2 == 0, "messages": messages});
                (words, net.chat(&more))
            })
            .collect();
        for (words, chat) in &mut chats[..16] {
            let outcome = chat.outcome().await;
            assert_eq!(outcome.text(), spoken(words, 24), "{style:?}");
        }
        assert!(net.server.chats().most <= 8);
    }
}
