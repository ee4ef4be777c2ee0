//! OpenAI's dialect where Ollama has other words for it, or takes the same ones for something else.

use serde_json::{Value, json};

use crate::{
    Net, payload,
    server::{Server, cases},
    support::CLIENT,
};

/// A template from which a real Ollama concludes that a model can think.
const THINKS: &str =
    "{{ range .Messages }}<think>{{ .Thinking }}</think>{{ .Role }}: {{ .Content }}\n{{ end }}";

/// One that prints the name of a tool beside its result.
const NAMES_TOOLS: &str =
    "{{ range .Messages }}{{ .Role }} {{ .ToolName }}: {{ .Content }}\n{{ end }}{{ .Tools }}";

cases! {
    an_effort_is_answered_whatever_the_model_makes_of_it
    a_stop_or_a_limit_that_means_nothing_changes_nothing
    a_conversation_goes_on_after_a_call_without_arguments
    a_tools_result_has_its_name_in_the_prompt
    log_probabilities_cost_no_answer
}

/// A chat with `tiny` of four tokens at most, in OpenAI's words.
fn chat() -> Value {
    let mut chat = payload(4);
    chat["max_tokens"] = json!(4);
    chat["options"] = json!({"seed": 1});
    chat
}

async fn an_effort_is_answered_whatever_the_model_makes_of_it(server: Server) {
    let capabilities = ["completion", "thinking"];
    server.add_model("thinker", THINKS, &capabilities).await;
    let net = Net::start(CLIENT, server, &[]).await;
    for model in ["thinker", "tiny"] {
        for effort in [
            "none", "minimal", "low", "medium", "high", "xhigh", "default", "Low",
        ] {
            let mut chat = chat();
            chat["model"] = json!(model);
            chat["reasoning_effort"] = json!(effort);
            let outcome = net.ask(chat).await;
            let tokens = &outcome.result()["usage"]["completion_tokens"];
            assert_eq!(tokens, 4, "{effort} on {model}");
        }
    }
}

async fn a_stop_or_a_limit_that_means_nothing_changes_nothing(server: Server) {
    let net = Net::start(CLIENT, server, &[("PIN_MAX_OUTPUT_TOKENS", "6")]).await;
    let whole = net.ask(payload(6)).await;
    for nothing in [
        json!({"stop": ""}),
        json!({"stop": [""]}),
        json!({"stop": []}),
        json!({"max_tokens": 0}),
        json!({"max_completion_tokens": -1}),
    ] {
        let mut chat = payload(6);
        chat["options"] = json!({"seed": 1});
        chat.as_object_mut()
            .unwrap()
            .extend(nothing.as_object().unwrap().clone());
        let outcome = net.ask(chat).await;
        assert_eq!(outcome.text(), whole.text(), "{nothing}");
    }
}

async fn a_conversation_goes_on_after_a_call_without_arguments(server: Server) {
    let net = Net::start(CLIENT, server, &[]).await;
    for arguments in [
        json!("null"),
        json!(null),
        json!(""),
        json!("[]"),
        json!([]),
    ] {
        let mut chat = payload(3);
        let call = json!({"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}});
        chat["messages"] = json!([
            {"role": "user", "content": "what time is it"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "noon"},
        ]);
        let outcome = net.ask(chat).await;
        let tokens = &outcome.result()["usage"]["completion_tokens"];
        assert_eq!(tokens, 3, "{arguments}");
    }
}

async fn a_tools_result_has_its_name_in_the_prompt(server: Server) {
    server
        .add_model("caller", NAMES_TOOLS, &["completion", "tools"])
        .await;
    let net = Net::start(CLIENT, server, &[]).await;
    let mut prompts = Vec::new();
    for result in [
        json!({"tool_name": "weather_in_the_old_town"}),
        json!({"tool_call_id": "c"}),
        json!({"name": "weather_in_the_old_town"}),
    ] {
        let function = json!({"name": "weather_in_the_old_town", "arguments": "{}"});
        let mut tool = json!({"role": "tool", "content": "rain"});
        tool.as_object_mut()
            .unwrap()
            .extend(result.as_object().unwrap().clone());
        let mut chat = payload(1);
        chat["model"] = json!("caller");
        chat["messages"] = json!([
            {"role": "user", "content": "what is the weather like"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": function}]},
            tool,
        ]);
        let outcome = net.ask(chat).await;
        prompts.push(outcome.result()["usage"]["prompt_tokens"].clone());
    }
    assert!(
        prompts.iter().all(|tokens| *tokens == prompts[0]),
        "{prompts:?}"
    );
}

async fn log_probabilities_cost_no_answer(server: Server) {
    let net = Net::start(CLIENT, server, &[("PIN_MAX_RESULT_BYTES", "2KiB")]).await;
    let mut chat = payload(40);
    chat["logprobs"] = json!(true);
    chat["top_logprobs"] = json!(20);
    let outcome = net.ask(chat).await;
    let result = outcome.result();
    assert_eq!(result["usage"]["completion_tokens"], 40);
    assert!(
        result["warning"]
            .as_str()
            .unwrap()
            .contains("log probabilities were left out")
    );
}
