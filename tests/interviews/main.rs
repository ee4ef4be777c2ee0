//! What is promised of interviews: they are run honestly, one after another, whatever else goes on, and their results are
//! kept like any answer.

#![allow(clippy::unwrap_used, missing_docs)]

mod life;
mod place;
#[path = "../support/mod.rs"]
mod support;
mod verdict;

use std::{sync::Arc, time::Duration};

use devnet::{
    gateway::{Frame, Gateway},
    network::Proxy,
    ollama::{CHAT, Fault},
};
use serde_json::{Value, json};
use support::{CLIENT, DESKTOP, MODEL, Net, Sidecar, chat, gateway, ollama, round_trip};

/// An interview under this id with these prompts, each of which is its own id.
fn interview(id: &str, prompts: &[&str]) -> Value {
    let prompts = prompts
        .iter()
        .map(|text| json!({"id": text, "prompt": text, "max_tokens": 3}));
    json!({
        "type": "INTERVIEW_REQUEST", "interview_id": id, "model": MODEL, "timeout_ms": 60_000,
        "prompts": prompts.collect::<Vec<_>>(),
    })
}

/// The n-th result of an interview, 0 being the first.
async fn nth_result(gateway: &Gateway, id: &str, n: usize) -> Arc<Frame> {
    let is_it = |frame: &Frame| {
        frame.is_from_agent("INTERVIEW_RESULT") && frame.value["interview_id"] == id
    };
    let mut from = 0;
    for _ in 0..n {
        from = gateway.wait_for_since(from, is_it).await.0 + 1;
    }
    gateway.wait_for_since(from, is_it).await.1
}

/// Its result, prompt by prompt.
async fn result(gateway: &Gateway, id: &str) -> Vec<Value> {
    let frame = nth_result(gateway, id, 0).await;
    frame.value["results"].as_array().unwrap().clone()
}

/// How many results of an interview have come.
fn results(gateway: &Gateway, id: &str) -> usize {
    let frames = gateway.frames();
    let results = frames.iter().filter(|frame| {
        frame.is_from_agent("INTERVIEW_RESULT") && frame.value["interview_id"] == id
    });
    results.count()
}

fn errors(results: &[Value]) -> Vec<Option<&str>> {
    let errors = results.iter().map(|result| result["error"].as_str());
    errors.collect()
}

/// The prompts that Ollama was asked, in order; a load asks none.
fn prompts<S>(net: &Net<S>) -> Vec<String> {
    let asked = net.asked();
    let prompts = asked
        .iter()
        .filter_map(|body| body["messages"][0]["content"].as_str());
    prompts.map(str::to_owned).collect()
}

async fn wait_for_prompt<S>(net: &Net<S>, prompt: &str) {
    net.ollama
        .wait_for(|request| {
            request.path == CHAT && request.json()["messages"][0]["content"] == prompt
        })
        .await;
}

#[tokio::test]
async fn the_model_is_loaded_and_then_each_prompt_is_asked_and_timed_by_itself() {
    let net = Net::start(&[]).await;
    net.ollama.set_behaviour(|behaviour| {
        behaviour.load_delay = Duration::from_millis(700);
        behaviour.first_token_delay = Duration::from_millis(100);
        behaviour.token_delay = Duration::from_millis(10);
        behaviour.tokens = 11;
    });
    net.gateway.send(&interview("i", &["one", "two"]));
    let frame = nth_result(&net.gateway, "i", 0).await;
    assert_eq!(frame.value["model"], MODEL);
    assert_eq!(prompts(&net), ["one", "two"]);
    for (result, prompt) in result(&net.gateway, "i").await.iter().zip(["one", "two"]) {
        assert_eq!(result["prompt_id"], prompt);
        assert!(!result["response"].as_str().unwrap().is_empty());
        // `max_tokens` is not applied.
        assert_eq!(result["tokens_generated"], 11);
        let (first, total) = (
            result["ttft_ms"].as_u64().unwrap(),
            result["total_ms"].as_u64().unwrap(),
        );
        // Loading, which takes longer than all of this, is not in it.
        assert!((100..600).contains(&first), "{result}");
        assert!((first + 90..700).contains(&total), "{result}");
        assert_eq!(result.get("error"), None);
    }
    let asked = net.asked();
    assert!(asked[0]["messages"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(asked.len(), 3);
    for body in &asked[1..] {
        assert_eq!(body["stream"], true);
        assert_eq!(body["options"].get("num_predict"), None);
    }
    assert_eq!(net.ollama.loads(MODEL), 1);
}

#[tokio::test]
async fn a_desktop_client_is_interviewed_as_well() {
    let net = Net::start_as(DESKTOP, &[]).await;
    net.gateway.send(&interview("i", &["one"]));
    let results = result(&net.gateway, "i").await;
    assert_eq!(errors(&results), [None]);
    assert!(results[0]["tokens_generated"].as_u64() > Some(0));
}

#[tokio::test]
async fn a_prompt_that_fails_has_zeros_and_the_next_one_goes_on() {
    let net = Net::start(&[("PIN_CAPACITY", "1")]).await;
    net.ollama
        .fail_next(CHAT, 1, Fault::script([r#"{"done":true}"#]));
    let error = r#"{"error":"out of memory"}"#;
    net.ollama
        .fail_next(CHAT, 1, Fault::answer(500, "application/json", error));
    let prompts = ["one", "two", "three"];
    net.gateway.send(&interview("i", &prompts));
    let results = result(&net.gateway, "i").await;
    assert_eq!(
        errors(&results),
        [Some("backend: out of memory"), None, None]
    );
    assert_eq!(
        results[0],
        json!({"prompt_id": "one", "response": "", "ttft_ms": 0, "total_ms": 0, "tokens_generated": 0,
            "error": "backend: out of memory"})
    );
    // Its slot is free again.
    net.chat("chat").outcome().await.result();
}

#[tokio::test]
async fn a_prompt_has_the_time_that_the_network_gives_it_and_no_more() {
    let net = Net::start(&[]).await;
    net.ollama.pause_at(3);
    let mut request = interview("i", &["slow", "quick"]);
    request["timeout_ms"] = json!(300);
    net.gateway.send(&request);
    wait_for_prompt(&net, "quick").await;
    net.ollama.go_on();
    let results = result(&net.gateway, "i").await;
    let late = Some("timeout: not answered within 300ms");
    assert_eq!(errors(&results), [late, None]);
}

#[tokio::test]
async fn a_request_that_means_little_is_refused_for_as_many_prompts_as_it_has() {
    let net = Net::start(&[]).await;
    let refused = |change: fn(&mut Value)| {
        let mut request = interview("i", &["one", "two"]);
        change(&mut request);
        request
    };
    let cases = [
        (
            refused(|r| r["model"] = json!("other")),
            vec![Some("model_not_found"); 2],
        ),
        (refused(|r| r["model"] = json!(7)), vec![Some("invalid"); 2]),
        (refused(|r| r["prompts"] = json!([])), vec![]),
        (refused(|r| r["prompts"] = json!("one")), vec![]),
        (
            refused(|r| r["prompts"] = json!(vec![json!({"id": 1}); 65])),
            vec![Some("invalid"); 65],
        ),
    ];
    for (n, (mut request, expected)) in cases.into_iter().enumerate() {
        let id = format!("refused-{n}");
        request["interview_id"] = json!(id);
        net.gateway.send(&request);
        assert_eq!(
            errors(&result(&net.gateway, &id).await),
            expected,
            "{request}"
        );
    }
    let series =
        |reason| format!("request_failures_total{{operation=\"interview\",reason=\"{reason}\"}}");
    assert_eq!(net.sidecar.metric(&series("invalid")).await, 4.0);
    // One that is no text fails alone, and ids are given back as they came.
    let mut request = interview("odd", &["one"]);
    request["prompts"] =
        json!([{"id": 7, "prompt": 7}, {"prompt": "two"}, {"id": {"a": 1}, "prompt": "three"}]);
    net.gateway.send(&request);
    let results = result(&net.gateway, "odd").await;
    assert_eq!(
        errors(&results),
        [Some("invalid: the prompt is no text"), None, None]
    );
    let ids: Vec<_> = results.iter().map(|result| &result["prompt_id"]).collect();
    assert_eq!(ids, [&json!(7), &Value::Null, &json!({"a": 1})]);
}

#[tokio::test]
async fn what_an_interview_writes_is_bounded_as_an_answer_is() {
    let net = Net::start(&[("PIN_MAX_RESULT_BYTES", "64KiB")]).await;
    net.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(1_000); 24]);
        behaviour.tokens = 24;
    });
    net.gateway
        .send(&interview("i", &["one", "two", "three", "four"]));
    let results = result(&net.gateway, "i").await;
    let written: usize = results
        .iter()
        .map(|result| result["response"].as_str().unwrap().len())
        .sum();
    assert!(written <= 64 * 1024, "{written}");
    assert_eq!(errors(&results[..1]), [None]);
    let too_large = "too_large: the answer is larger than PIN_MAX_RESULT_BYTES";
    assert_eq!(errors(&results[3..]), [Some(too_large)]);
}
