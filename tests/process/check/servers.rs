//! What a check finds of servers that are no Ollama.

use devnet::{
    openai::{OpenAi, Style},
    speech::SpeechServer,
};

use super::{Check, gateway, ollama};

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
async fn a_speech_server_is_a_step_of_its_own() {
    let (gateway, ollama, speech) = (
        gateway().await,
        ollama().await,
        SpeechServer::start().await.unwrap(),
    );
    let url = speech.url();
    let settings = [("PIN_TTS_URL", &*url), ("PIN_TTS_MODELS", "kokoro")];
    let check = Check::of(&gateway, &ollama, &settings);
    let report = check.json(&["--offline"]).await;
    report.expect("speech", "passed", "tts:kokoro");
    speech.stop().await;
    let report = check.json(&["--offline"]).await;
    report.expect("speech", "failed", "Start it, or correct PIN_TTS_URL");
    report.expect("answer", "passed", "tokens/s");
}
