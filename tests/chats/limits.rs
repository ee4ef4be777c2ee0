//! How long Ollama may be silent and how large its answer may be, and what it may keep to itself.

use std::time::Duration;

use devnet::ollama::{CHAT, Fault, ModelShape};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    support::{CLIENT, Counts, DESKTOP, MODEL, Net, chat},
    wire,
};

#[tokio::test(start_paused = true)]
async fn what_a_model_can_do_is_asked_again_when_ollama_is_another_and_once_an_hour() {
    let (net, _wire) = wire::start(&[]).await;
    let described = || {
        let requests = net.ollama.requests();
        requests
            .iter()
            .filter(|request| request.path == "/api/show")
            .count()
    };
    let mut payload = chat("one");
    payload["reasoning_effort"] = json!("low");
    net.gateway.chat(payload.clone()).outcome().await.result();
    net.ollama.add_model(
        MODEL,
        ModelShape {
            capabilities: vec!["completion", "thinking"],
            ..ModelShape::default()
        },
    );
    sleep(Duration::from_secs(60)).await;
    assert_eq!(described(), 1, "nothing has changed");

    let newer = Fault::answer(200, "application/json", r#"{"version":"0.99.0"}"#);
    net.ollama.fail_always("/api/version", newer);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(described(), 2, "Ollama is another");
    net.gateway.chat(payload).outcome().await.result();
    let thought: Vec<_> = net
        .asked()
        .iter()
        .map(|body| body["think"].clone())
        .collect();
    assert_eq!(thought, [json!(null), json!(true)]);

    sleep(Duration::from_secs(3500)).await;
    assert_eq!(described(), 2);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(described(), 3, "an hour has passed");
}

#[tokio::test(start_paused = true)]
async fn a_model_is_served_and_kept_where_ollama_does_not_tell_what_is_in_memory() {
    let (net, _wire) = wire::start(&[("PIN_PRELOAD_MODELS", MODEL)]).await;
    net.ollama.fail_always("/api/ps", Fault::HangBeforeHeaders);
    sleep(Duration::from_secs(40 * 60)).await;
    let loads = net.ollama.load_requests();
    assert_eq!(
        loads.len(),
        3,
        "at first and each quarter of an hour: {loads:?}"
    );
    net.chat("one").outcome().await.result();
}

#[tokio::test]
async fn silence_of_ollama_has_limits() {
    let net = Net::start(&[
        ("PIN_FIRST_TOKEN_TIMEOUT", "100ms"),
        ("PIN_TOKEN_TIMEOUT", "50ms"),
        ("PIN_REQUEST_TIMEOUT", "30s"),
    ])
    .await;
    for (fault, expected) in [
        (
            Fault::HangBeforeHeaders,
            "timeout: the backend gave no token within 100ms",
        ),
        (
            Fault::Hang { after: 0 },
            "timeout: the backend gave no token within 100ms",
        ),
        (
            Fault::Hang { after: 2 },
            "timeout: the backend gave no further token for 50ms",
        ),
    ] {
        net.ollama.fail_next(CHAT, 1, fault);
        assert_eq!(net.chat("one").outcome().await.error(), expected);
        net.ollama.wait_until_idle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_is_part_of_an_answer_is_a_sign_of_life() {
    let settings = [
        ("PIN_FIRST_TOKEN_TIMEOUT", "1s"),
        ("PIN_TOKEN_TIMEOUT", "1s"),
    ];
    let (net, _wire) = wire::start(&settings).await;
    net.ollama
        .set_behaviour(|b| b.token_delay = Duration::from_millis(400));
    let done = r#"{"message":{"content":""},"done":true,"done_reason":"stop","eval_count":8}"#;
    for (number, part) in [
        r#"{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":false}"#,
        r#"{"message":{"content":"","thinking":"hm"},"done":false}"#,
        r#"{"message":{"content":"x"},"done":false}"#,
        r#"{"message":{"content":""},"logprobs":[{"token":"x","logprob":-1}],"done":false}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let lines = std::iter::repeat_n(part, 8).chain([done]);
        net.ollama.fail_next(CHAT, 1, Fault::script(lines));
        net.chat("one").outcome().await.result();
        let first_tokens = net.sidecar.metric("time_to_first_token_seconds_count").await;
        assert_eq!(first_tokens, (number + 1) as f64, "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn lines_with_nothing_in_them_are_no_sign_of_life() {
    let settings = [
        ("PIN_FIRST_TOKEN_TIMEOUT", "1s"),
        ("PIN_TOKEN_TIMEOUT", "1s"),
    ];
    let (net, _wire) = wire::start(&settings).await;
    net.ollama
        .set_behaviour(|b| b.token_delay = Duration::from_millis(400));
    let nothing = r#"{"message":{"content":"","tool_calls":[]},"logprobs":[],"done":false}"#;
    net.ollama.fail_next(CHAT, 1, Fault::script([nothing; 8]));
    assert_eq!(
        net.chat("one").outcome().await.error(),
        "timeout: the backend gave no token within 1s"
    );
    let word = r#"{"message":{"content":"x"},"done":false}"#;
    let lines = [word].into_iter().chain([nothing; 8]);
    net.ollama.fail_next(CHAT, 1, Fault::script(lines));
    assert_eq!(
        net.chat("two").outcome().await.error(),
        "timeout: the backend gave no further token for 1s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_tool_may_take_as_long_to_write_as_a_first_token() {
    let settings = [
        ("PIN_FIRST_TOKEN_TIMEOUT", "1m"),
        ("PIN_TOKEN_TIMEOUT", "1s"),
    ];
    let (net, _wire) = wire::start(&settings).await;
    let tools = ["completion", "tools"].to_vec();
    let shape = ModelShape {
        capabilities: tools,
        ..ModelShape::default()
    };
    net.ollama.add_model(MODEL, shape);
    net.ollama
        .set_behaviour(|b| b.token_delay = Duration::from_secs(10));
    let word = r#"{"message":{"content":"x"},"done":false}"#;
    let done =
        r#"{"message":{"tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":true}"#;
    for (tools, is_answered) in [
        (
            json!([{"type": "function", "function": {"name": "f"}}]),
            true,
        ),
        (json!([]), false),
    ] {
        net.ollama.fail_next(CHAT, 1, Fault::script([word, done]));
        let mut payload = chat("one");
        payload["tools"] = tools;
        let outcome = net.gateway.chat(payload).outcome().await;
        assert_eq!(outcome.answer.is_ok(), is_answered, "{:?}", outcome.answer);
    }
}

#[tokio::test]
async fn the_whole_of_a_request_has_a_limit() {
    let net = Net::start(&[("PIN_REQUEST_TIMEOUT", "100ms")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 2 });
    assert_eq!(
        net.chat("one").outcome().await.error(),
        "timeout: not answered within 100ms"
    );
}

#[tokio::test]
async fn a_backend_that_never_ends_is_cut_off() {
    let net = Net::start(&[("PIN_MAX_RESULT_BYTES", "64KiB")]).await;
    net.ollama
        .fail_next(CHAT, 1, Fault::Garbage { bytes: u64::MAX });
    let outcome = net.chat("one").outcome().await;
    assert_eq!(
        outcome.error(),
        "too_large: the answer is larger than PIN_MAX_RESULT_BYTES"
    );
    net.ollama.wait_until_idle().await;
}

#[tokio::test]
async fn log_probabilities_give_way_before_an_answer_is_too_large() {
    let line = json!({
        "message": {"content": "ab"},
        "logprobs": [{"token": "ab", "logprob": -1, "top_logprobs": [{"token": "x".repeat(1_500), "logprob": -2}]}],
        "done": false,
    });
    let done = line
        .to_string()
        .replace("false", r#"true,"done_reason":"stop","eval_count":101"#);
    let line = line.to_string();
    for (client, lines, shed) in [
        (CLIENT, 20, false),
        (CLIENT, 100, true),
        (DESKTOP, 100, true),
    ] {
        let net = Net::start_as(client, &[("PIN_MAX_RESULT_BYTES", "64KiB")]).await;
        let script = std::iter::repeat_n(line.as_str(), lines).chain([done.as_str()]);
        net.ollama.fail_next(CHAT, 1, Fault::script(script));
        let outcome = net.chat("one").outcome().await;
        assert_eq!(outcome.text(), "ab".repeat(lines + 1));
        let result = outcome.result();
        assert_eq!(result["warning"].is_string(), shed, "{}", result["warning"]);
        let logprobs = [&result["logprobs"], &result["choices"][0]["logprobs"]];
        assert_eq!(logprobs.iter().all(|logprobs| logprobs.is_null()), shed);
    }
}

#[tokio::test]
async fn log_probabilities_give_way_also_where_they_all_come_at_once() {
    let token = json!({"token": "ab", "logprob": -1, "top_logprobs": [{"token": "x".repeat(1_500), "logprob": -2}]});
    let all = |tokens: usize| {
        let end = json!({
            "message": {"content": "hello"},
            "logprobs": vec![&token; tokens],
            "done": true,
            "done_reason": "stop",
        });
        end.to_string()
    };
    let hello = r#"{"message":{"content":"hello"},"done":false}"#;
    let script =
        |lines: &[&str], ending: &str| Fault::Script(vec![(lines.join("\n") + ending).into()]);
    for client in [CLIENT, DESKTOP] {
        let net = Net::start_as(client, &[("PIN_MAX_RESULT_BYTES", "64KiB")]).await;
        for (fault, text, shed) in [
            (script(&[&all(20)], ""), "hello", false),
            (script(&[&all(200)], ""), "hello", true),
            (script(&[&all(200)], "\n"), "hello", true),
            (script(&[hello, &all(120)], "\n"), "hellohello", true),
        ] {
            net.ollama.fail_next(CHAT, 1, fault);
            let outcome = net.chat("one").outcome().await;
            assert_eq!(outcome.text(), text);
            assert_eq!(outcome.result()["warning"].is_string(), shed);
        }
    }
}
