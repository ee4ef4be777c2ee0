//! What a check finds of servers that are no Ollama.

use devnet::{
    openai::{CHAT, Fault, Fixture, MODELS, OpenAi, Style},
    speech::{self, MODELS as LIST, SpeechServer},
};

use super::{Check, Report, gateway, ollama};

/// What a check finds of such a server that answers requests to `path` so.
async fn found_with(path: &str, fault: impl Into<Fault>) -> Report {
    let server = OpenAi::builder().style(Style::Vllm).model("tiny");
    let server = server.start().await.unwrap();
    server.fail_always(path, fault.into());
    let (gateway, url) = (gateway().await, server.url());
    let settings = [("PIN_API_MODE", "openai"), ("PIN_OLLAMA_URL", &*url)];
    let check = Check::of(&gateway, &ollama().await, &settings);
    check.json(&["--offline"]).await
}

/// The events of an answer with this delta in it, and what follows it.
fn events(delta: &str, more: &[&str]) -> Fixture {
    let said = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#);
    let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let first = [&*said, finish];
    Fixture::events(first.iter().chain(more).chain(&["[DONE]"]))
}

const TWO_TOKENS: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;

#[tokio::test]
async fn a_server_with_openais_interface_is_asked_for_a_real_answer_and_measured_by_its_own_limits()
{
    let server = OpenAi::builder().style(Style::Vllm).model("tiny");
    let server = server.start().await.unwrap();
    let (gateway, url) = (gateway().await, server.url());
    let settings = [("PIN_API_MODE", "openai"), ("PIN_OLLAMA_URL", &*url)];
    let check = Check::of(&gateway, &ollama().await, &settings);
    let report = check.json(&["--offline"]).await;
    report.expect("backend", "passed", "The model server answers.");
    report.expect("models", "passed", "tiny");
    let limits = "tokens/s; the network's floor is 15, its best tier is over 30";
    report.expect("answer", "passed", limits);
    let asked = server.chat_requests();
    let asked: Vec<_> = asked
        .iter()
        .map(|request| request.json()["max_tokens"].clone())
        .collect();
    assert_eq!(asked, [1, 32]);
    server.set_behaviour(|behaviour| behaviour.api_key = Some("K".to_owned()));
    let report = check.json(&["--offline"]).await;
    report.expect("backend", "failed", "set PIN_BACKEND_API_KEY");
}

#[tokio::test]
async fn a_server_that_answers_and_counts_no_tokens_has_answered() {
    let report = found_with(CHAT, events(r#"{"content":"one"}"#, &[])).await;
    report.expect(
        "answer",
        "warned",
        "The model tiny answered, the first token after",
    );
    report.expect("answer", "warned", "its server counts no tokens");
    report.expect("answer", "warned", "How tokens are counted");
}

#[tokio::test]
async fn an_answer_with_nothing_in_it_is_none_whatever_its_server_counts() {
    let empty = "answers without any text, thought or call; its server counts 2 tokens";
    for nothing in [
        "{}",
        r#"{"content":""}"#,
        r#"{"content":null,"tool_calls":[]}"#,
    ] {
        let report = found_with(CHAT, events(nothing, &[TWO_TOKENS])).await;
        report.expect("answer", "failed", empty);
    }
    let call = r#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]}"#;
    for something in [r#"{"reasoning_content":"hm"}"#, call] {
        let report = found_with(CHAT, events(something, &[TWO_TOKENS])).await;
        report.expect("answer", "passed", "gave 2 tokens");
    }
}

#[tokio::test]
async fn a_server_that_wants_a_key_for_chats_alone_is_told_as_readyz_does() {
    for status in [401, 403] {
        let refused = r#"{"error":{"message":"Invalid API Key","code":401}}"#;
        let refused = Fault::answer(status, "application/json", refused);
        let report = found_with(CHAT, refused).await;
        report.expect("backend", "passed", "answers");
        report.expect("answer", "failed", "(backend: Invalid API Key)");
        let helps = format!(
            "refuses the sidecar (HTTP {status}): set PIN_BACKEND_API_KEY or PIN_BACKEND_API_KEY_FILE"
        );
        report.expect("answer", "failed", &helps);
    }
}

#[tokio::test]
async fn a_chat_that_no_model_server_answers_is_not_called_the_models_fault() {
    for (fault, came) in [
        (Fault::answer(302, "text/html", "<html>"), "HTTP 302"),
        (Fault::answer(404, "text/html", "<html>"), "HTTP 404"),
        (Fault::answer(405, "text/plain", ""), "HTTP 405"),
        (Fault::answer(502, "text/html", "<html>"), "HTTP 502"),
        (Fault::answer(504, "text/html", "<html>"), "HTTP 504"),
        (
            Fixture::html_with_200(),
            "the answer cannot be read: HTML came",
        ),
    ] {
        let report = found_with(CHAT, fault).await;
        report.expect("backend", "passed", "answers");
        let found = format!("The model tiny gives no answer (backend: {came}).");
        report.expect("answer", "failed", &found);
        let helps = format!("What came from {CHAT} is no model server's own answer ({came}).");
        report.expect("answer", "failed", &helps);
    }
    let unknown = r#"{"error":{"message":"no such model","code":404}}"#;
    let report = found_with(CHAT, Fault::answer(404, "application/json", unknown)).await;
    let found = "The model tiny gives no answer (backend: no such model).";
    report.expect("answer", "failed", found);
    report.expect("answer", "failed", "Its chats are answered with HTTP 404");
    let broken = r#"{"error":{"message":"out of memory","code":500}}"#;
    let report = found_with(CHAT, Fault::answer(500, "application/json", broken)).await;
    let found = "The model tiny cannot be loaded (backend: out of memory).";
    report.expect("answer", "failed", found);
}

#[tokio::test]
async fn a_user_and_password_that_are_refused_are_told_where_they_stand() {
    let server = OpenAi::builder().style(Style::Vllm).model("tiny");
    let server = server.start().await.unwrap();
    server.fail_always(MODELS, Fault::answer(401, "text/html", "<html>"));
    let url = server.url().replace("http://", "http://bob:wrong@");
    let settings = [("PIN_API_MODE", "openai"), ("PIN_OLLAMA_URL", &*url)];
    let (gateway, ollama) = (gateway().await, ollama().await);
    let report = Check::of(&gateway, &ollama, &settings);
    let report = report.json(&["--offline"]).await;
    let words = "it does not take the user and password in PIN_OLLAMA_URL";
    report.expect("backend", "failed", words);
}

#[tokio::test]
async fn a_server_without_tls_at_an_https_url_is_told_with_the_scheme_to_write() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let url = ollama.url().replace("http://", "https://");
    let settings = [("PIN_OLLAMA_URL", &*url)];
    let check = Check::of(&gateway, &ollama, &settings);
    let report = check.json(&["--offline"]).await;
    report.expect("backend", "failed", "TLS failed: what came is not TLS");
    let helps = "write http:// (for a gateway ws://). Do that, or correct PIN_OLLAMA_URL";
    report.expect("backend", "failed", helps);
}

#[tokio::test]
async fn a_page_in_ollamas_place_is_no_model_that_was_loaded() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.fail_always(
        "/api/chat",
        devnet::ollama::Fault::answer(200, "text/html", "<html>"),
    );
    let report = Check::of(&gateway, &ollama, &[]).json(&["--offline"]).await;
    report.expect(
        "answer",
        "failed",
        "What came from /api/chat is no model server's own answer",
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_with_its_code_once() {
    let piece = r#"{"choices":[{"index":0,"delta":{"content":"one"}}]}"#;
    let report = found_with(CHAT, Fixture::events([piece])).await;
    let once = "cannot be loaded (backend: the answer ended before it was complete)";
    report.expect("answer", "failed", once);
}

#[tokio::test]
async fn a_server_that_answers_something_else_than_its_list_is_not_called_silent() {
    for status in [302, 400, 429, 500, 502] {
        let report = found_with(MODELS, Fault::answer(status, "text/plain", "")).await;
        let words =
            format!("The model server answers HTTP {status} instead of its list of models.");
        report.expect("backend", "failed", &words);
    }
}

#[tokio::test]
async fn a_speech_server_is_a_step_of_its_own() {
    let (gateway, ollama, server) = (
        gateway().await,
        ollama().await,
        SpeechServer::start().await.unwrap(),
    );
    let url = server.url();
    let settings = [("PIN_TTS_URL", &*url), ("PIN_TTS_MODELS", "kokoro")];
    let check = Check::of(&gateway, &ollama, &settings);
    let report = check.json(&["--offline"]).await;
    report.expect("speech", "passed", "tts:kokoro");
    server.stop().await;
    let report = check.json(&["--offline"]).await;
    report.expect("speech", "failed", "Start it, or correct PIN_TTS_URL");
    report.expect("answer", "passed", "tokens/s");
    server.start_again().await.unwrap();
    for (status, words) in [
        (502, "The speech server is not ready (HTTP 502)"),
        (401, "The speech server refuses the sidecar (HTTP 401)"),
    ] {
        server.clear_faults();
        server.fail_always(LIST, speech::Fault::answer(status, "text/plain", ""));
        let report = check.json(&["--offline"]).await;
        report.expect("speech", "failed", words);
    }
}
