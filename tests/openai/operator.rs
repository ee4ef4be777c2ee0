//! What the operator is told, and which models are offered.

use std::time::Duration;

use devnet::{
    gateway::Frame,
    openai::{CHAT, Fault, Fixture, MODELS, OpenAi, Style, lists},
};
use serde_json::{Value, json};

use crate::{
    Net, OFTEN, server,
    support::{CLIENT, DESKTOP, Sidecar, poll},
};

/// What `/readyz` says where the list is this.
async fn pending_with(list: Fault) -> String {
    let server = server(Style::Vllm).await;
    server.set_list(list);
    let net = Net::begin(CLIENT, server, &[OFTEN]).await;
    net.server.wait_for_request(MODELS).await;
    let pending = net.sidecar.wait_until_pending("server").await;
    assert!(net.gateway.models().is_empty());
    pending.join(" ")
}

#[tokio::test]
async fn a_key_that_is_wrong_is_the_operators_matter() {
    for (settings, ready) in [
        (vec![("PIN_BACKEND_API_KEY", "K")], true),
        (vec![("PIN_BACKEND_API_KEY", "wrong")], false),
        (vec![], false),
    ] {
        for style in [Style::LlamaServer, Style::Vllm] {
            let server = OpenAi::builder().style(style).model("tiny").api_key("K");
            let server = server.start().await.unwrap();
            let settings = [&settings[..], &[OFTEN]].concat();
            let net = Net::begin(CLIENT, server, &settings).await;
            if ready {
                net.sidecar.wait_until_pending("").await;
                net.ask(&json!({})).await.result();
                let sent = net.server.chat_requests()[0].clone();
                assert_eq!(sent.headers["authorization"], "Bearer K");
            } else {
                let pending = net.sidecar.wait_until_pending("PIN_BACKEND_API_KEY").await;
                assert!(pending.join(" ").contains("401"), "{pending:?}");
                assert!(net.gateway.models().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_only_chats_want_is_told_once_a_chat_was_refused() {
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &[OFTEN]).await;
    let refused =
        r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}"#;
    net.server
        .fail_always(CHAT, Fault::answer(401, "application/json", refused));
    assert!(net.ask(&json!({})).await.answer.is_err());
    net.sidecar.wait_until_pending("PIN_BACKEND_API_KEY").await;
}

/// What a proxy, a page to log in or another server answers with that is taken for a model server.
fn no_server() -> Vec<Fault> {
    let page = "<html><body>Log in</body></html>";
    vec![
        Fault::answer(301, "text/html", page),
        Fault::answer(404, "text/plain", "404 page not found"),
        Fault::answer(405, "text/html", page),
        Fault::answer(200, "text/html; charset=utf-8", page),
    ]
}

#[tokio::test]
async fn a_server_that_lists_its_models_and_serves_no_chats_is_not_offered() {
    for fault in no_server() {
        let net = Net::with(CLIENT, server(Style::LlamaServer).await, &[OFTEN]).await;
        net.server.fail_always(CHAT, fault);
        assert!(net.ask(&json!({})).await.answer.is_err());
        let pending = net
            .sidecar
            .wait_until_pending("no model server's own answer")
            .await;
        assert!(pending.join(" ").contains("PIN_OLLAMA_URL"), "{pending:?}");
        poll(|| async { net.gateway.models() }, Vec::is_empty).await;
        net.server.clear_faults();
        net.sidecar.wait_until_pending("").await;
        net.ask(&json!({})).await.result();
    }
}

#[tokio::test]
async fn models_that_only_the_operator_names_are_not_offered_where_nothing_serves_chats() {
    for fault in no_server() {
        let server = server(Style::LlamaServer).await;
        for path in [MODELS, CHAT] {
            server.fail_always(path, fault.clone());
        }
        let net = Net::begin(CLIENT, server, &[OFTEN, ("PIN_ALLOW_MODELS", "tiny")]).await;
        net.sidecar
            .wait_until_pending("no model server's own answer")
            .await;
        assert!(net.gateway.models().is_empty());
        net.server.clear_faults();
        net.server.fail_always(MODELS, fault);
        net.sidecar.wait_until_pending("").await;
        net.ask(&json!({})).await.result();
    }
}

#[tokio::test]
async fn a_model_whose_chats_alone_are_refused_is_left_out_and_takes_no_other_with_it() {
    let words = |status, words: &str| Fault::answer(status, "application/json", words);
    for fault in [
        words(
            404,
            r#"{"error":{"message":"The model `a` does not exist"}}"#,
        ),
        words(
            401,
            r#"{"error":{"message":"this key is not for the model a"}}"#,
        ),
        words(403, ""),
    ] {
        let server = OpenAi::builder().model("a").model("b");
        let net = Net::with(CLIENT, server.start().await.unwrap(), &[OFTEN]).await;
        net.server.fail_always_for(CHAT, "a", fault);
        let ask = async |model| net.ask(&json!({"model": model})).await;
        assert!(ask("a").await.answer.is_err());
        poll(|| async { net.gateway.models() }, |models| *models == ["b"]).await;
        let warned =
            |(_, readyz): &(u16, String)| readyz.contains("[\"The model a is not offered. ");
        let (status, _) = poll(|| net.sidecar.get("/readyz"), warned).await;
        assert_eq!(status, 200);
        ask("b").await.result();
        net.server.clear_faults();
        poll(
            || async { net.gateway.models() },
            |models| *models == ["a", "b"],
        )
        .await;
        ask("a").await.result();
    }
}

#[tokio::test]
async fn ten_chats_that_fail_in_a_row_are_told_until_one_is_answered() {
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &[]).await;
    let broken = r#"{"error":{"message":"out of memory"}}"#;
    net.server
        .fail_always(CHAT, Fault::answer(500, "application/json", broken));
    let is_told = |(status, readyz): &(u16, String)| {
        assert_eq!(*status, 200);
        readyz.contains("The last 10 chats have failed at the model server")
    };
    for _ in 0..9 {
        net.ask(&json!({})).await.error();
    }
    // Which is no failure of the server.
    net.ask(&json!({"n": 2})).await.error();
    assert!(!is_told(&net.sidecar.get("/readyz").await));
    net.ask(&json!({})).await.error();
    let (_, told) = poll(|| net.sidecar.get("/readyz"), is_told).await;
    assert!(!told.contains("memory"), "{told}");
    net.server.clear_faults();
    net.ask(&json!({})).await.result();
    let is_over = |answer: &(u16, String)| !is_told(answer);
    poll(|| net.sidecar.get("/readyz"), is_over).await;
}

#[tokio::test]
async fn a_server_too_busy_with_chats_to_list_its_models_is_offered_on() {
    for fault in [
        Fault::answer(503, "text/html", "busy"),
        Fault::answer(429, "text/plain", "slow down"),
    ] {
        let net = Net::with(CLIENT, server(Style::LlamaServer).await, &[OFTEN]).await;
        net.server.pause_at(2);
        let mut running = net.chat(&json!({"stream": true}));
        let is_chunk = |frame: &Frame| frame.is_from_agent("INFERENCE_CHUNK");
        net.gateway.wait_for(is_chunk).await;
        net.server.fail_always(MODELS, fault);
        let looks = net.server.requests().len();
        poll(
            || async { net.server.requests().len() },
            |now| *now > looks + 3,
        )
        .await;
        net.server.go_on();
        running.outcome().await.result();
        // With no chat left it is what it says.
        net.sidecar.wait_until_pending("HTTP").await;
        poll(|| async { net.gateway.models() }, Vec::is_empty).await;
        let lists = net.gateway.frames();
        let ended = lists
            .iter()
            .position(|frame| frame.is_from_agent("INFERENCE_RESPONSE"));
        let withdrawn = lists.iter().position(|frame| {
            frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([])
        });
        assert!(ended < withdrawn, "{ended:?} {withdrawn:?}");
    }
}

#[tokio::test]
async fn a_chat_that_is_refused_for_what_it_says_leaves_the_node_where_it_is() {
    let settings = [OFTEN, ("PIN_BACKEND_API_KEY", "K-one-two-three")];
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &settings).await;
    let policy = r#"{"error":{"message":"forbidden by the policy of K-one-two-three"}}"#;
    net.server
        .fail_next(CHAT, 1, Fault::answer(403, "application/json", policy));
    let refused = net.ask(&json!({})).await;
    assert_eq!(refused.error(), "backend: forbidden by the policy of …");
    // The next look asks for a token, and gets it.
    net.server.wait_for_chats(1).await;
    net.sidecar.wait_until_pending("").await;
    net.ask(&json!({})).await.result();
    assert_eq!(net.gateway.models(), ["tiny"]);
    let in_the_stream = r#"{"error":{"message":"no such key: K-one-two-three"}}"#;
    let answer = Fault::answer(200, "application/json", in_the_stream);
    let broken = net.answered(answer).await;
    assert_eq!(broken.error(), "backend: no such key: …");
}

#[tokio::test]
async fn chats_that_are_refused_one_after_another_are_not_each_followed_by_a_token() {
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &[OFTEN]).await;
    let policy = r#"{"error":{"message":"forbidden by the policy"}}"#;
    let loads = || {
        let asked = net.server.chat_requests().into_iter();
        let tokens = asked.filter(|request| request.json()["max_tokens"] == 1);
        tokens.count()
    };
    let before = loads();
    for _ in 0..5 {
        let refused = Fault::answer(403, "application/json", policy);
        net.server.fail_next(CHAT, 1, refused);
        assert!(net.ask(&json!({})).await.answer.is_err());
        let looks = || async {
            let requests = net.server.requests();
            let looks = requests.iter().filter(|request| request.path == MODELS);
            looks.count()
        };
        let seen = looks().await;
        poll(looks, |looks| *looks > seen + 1).await;
    }
    assert_eq!(loads() - before, 1);
    net.ask(&json!({})).await.result();
}

/// The key as programs write it that repeat what they were asked with.
const KEY_IN_ALL_FORMS: &str = r#"{"error":{"message":"'sk/PRIV+k==' 'sk%2FPRIV%2bk%3D%3d' 'c2svUFJJVitrPT0=' 'OnNrL1BSSVYraz09'"}}"#;

#[tokio::test]
async fn the_key_is_in_no_error_in_whatever_form_the_server_repeats_it() {
    for client in [CLIENT, DESKTOP] {
        let settings = [OFTEN, ("PIN_BACKEND_API_KEY", "sk/PRIV+k==")];
        let net = Net::with(client, server(Style::LlamaServer).await, &settings).await;
        let error = |status| Fault::answer(status, "application/json", KEY_IN_ALL_FORMS);
        let in_the_stream = Fixture::events([
            r#"{"choices":[{"index":0,"delta":{"content":"a"}}]}"#,
            KEY_IN_ALL_FORMS,
        ]);
        for answer in [error(500), error(400), error(200), in_the_stream.into()] {
            let outcome = net.answered(answer).await;
            let told = outcome.error();
            let words = told.split_once(": ").unwrap().1;
            assert_eq!(words, "'…' '…' '…' '…'", "{client}");
        }
    }
}

#[tokio::test]
async fn the_password_of_the_url_is_in_no_error_in_whatever_form_the_server_repeats_it() {
    let server = server(Style::LlamaServer).await;
    let url = server.url().replace("://", "://ann:pa%2Fss%2Bw%20rd@");
    let net = Net::with(CLIENT, server, &[("PIN_OLLAMA_URL", &url)]).await;
    let words = r#"{"error":{"message":"ann 'pa/ss+w rd' 'pa%2fss%2Bw+rd' 'ann:pa/ss+w rd' 'YW5uOnBhL3NzK3cgcmQ=' Basic YW5uOnBhL3NzK3cgcmQ="}}"#;
    let outcome = net
        .answered(Fault::answer(500, "application/json", words))
        .await;
    assert_eq!(outcome.error(), "backend: ann '…' '…' '…' '…' Basic …");
}

#[tokio::test]
async fn a_key_at_the_end_of_a_long_error_is_not_cut_to_its_beginning() {
    let settings = [OFTEN, ("PIN_BACKEND_API_KEY", "K-one-two-three-four")];
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &settings).await;
    let words = format!(
        r#"{{"error":{{"message":"{}K-one-two-three-four"}}}}"#,
        "word ".repeat(101)
    );
    let outcome = net
        .answered(Fault::answer(500, "application/json", &words))
        .await;
    assert!(!outcome.error().contains("K-o"), "{}", outcome.error());
}

#[tokio::test]
async fn a_key_is_read_from_its_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "K\n").unwrap();
    let server = OpenAi::builder()
        .model("tiny")
        .api_key("K")
        .start()
        .await
        .unwrap();
    let settings = [("PIN_BACKEND_API_KEY_FILE", file.path().to_str().unwrap())];
    let net = Net::with(CLIENT, server, &settings).await;
    net.ask(&json!({})).await.result();
}

#[tokio::test]
async fn a_key_goes_with_every_request_and_is_read_again_once_it_is_another() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "old").unwrap();
    let server = OpenAi::builder().model("tiny").api_key("old");
    let path = file.path().to_str().unwrap();
    let settings = [("PIN_BACKEND_API_KEY_FILE", path), OFTEN];
    let net = Net::with(CLIENT, server.start().await.unwrap(), &settings).await;
    net.server
        .set_behaviour(|behaviour| behaviour.api_key = Some("new".to_owned()));
    net.sidecar.wait_until_pending("PIN_BACKEND_API_KEY").await;
    std::fs::write(file.path(), "new").unwrap();
    net.sidecar.wait_until_pending("").await;
    net.ask(&json!({})).await.result();
    for request in net.server.requests() {
        let key = request.headers["authorization"].to_str().unwrap();
        assert!(matches!(key, "Bearer old" | "Bearer new"), "{request:?}");
    }
}

#[tokio::test]
async fn a_key_file_that_gets_a_comment_behind_its_key_is_told_and_the_last_good_key_stays() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "K-good\n").unwrap();
    let server = OpenAi::builder().model("tiny").api_key("K-good");
    let path = file.path().to_str().unwrap();
    let settings = [("PIN_BACKEND_API_KEY_FILE", path), OFTEN];
    let net = Net::with(CLIENT, server.start().await.unwrap(), &settings).await;
    std::fs::write(file.path(), "K-good # mine\n").unwrap();
    let is_told = |(_, readyz): &(u16, String)| readyz.contains("its character 7 is a blank");
    let (_, readyz) = poll(|| net.sidecar.get("/readyz"), is_told).await;
    assert!(!readyz.contains("K-good"), "{readyz}");
    net.ask(&json!({})).await.result();
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_stays_where_it_is() {
    let elsewhere = server(Style::LlamaServer).await;
    let net = Net::with(
        CLIENT,
        server(Style::LlamaServer).await,
        &[("PIN_BACKEND_API_KEY", "K"), OFTEN],
    )
    .await;
    for (path, status) in [(CHAT, 307), (CHAT, 302), (MODELS, 308), (MODELS, 301)] {
        // What has just served is not tried for one failure.
        net.ask(&json!({})).await.result();
        let there = vec![("location", elsewhere.url() + path)];
        let headers = there.clone();
        let body = Default::default();
        net.server.fail_next(
            path,
            1,
            Fault::Answer {
                status,
                headers,
                body,
            },
        );
        if path == CHAT {
            assert!(net.ask(&json!({})).await.answer.is_err(), "{status}");
        } else {
            let looks = net.server.requests().len();
            poll(
                || async { net.server.requests().len() },
                |now| *now > looks + 2,
            )
            .await;
        }
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn whether_a_model_is_in_memory_is_not_told_where_the_server_does_not_tell() {
    let settings = [("PIN_PRELOAD_MODELS", "tiny")];
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &settings).await;
    let status = net.sidecar.get("/status").await.1;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["models"][0]["loaded"], Value::Null);
    assert_eq!(status["preloads"][0]["state"], "loaded");
}

#[tokio::test]
async fn a_chat_model_that_the_network_would_take_for_speech_is_not_offered_and_that_is_told() {
    let server = server(Style::Vllm).await;
    server.set_list(lists::of(&["tts:kokoro", "TTS:other", "tiny"]));
    let net = Net::with(CLIENT, server, &[OFTEN]).await;
    assert_eq!(net.gateway.models(), ["tiny"]);
    assert!(
        net.sidecar
            .get("/status")
            .await
            .1
            .contains("take it for speech")
    );
    net.server.set_list(lists::of(&["tts:kokoro"]));
    net.sidecar.wait_until_pending("begins with tts:").await;
}

#[tokio::test]
async fn a_server_that_loads_is_waited_for() {
    let server = OpenAi::builder()
        .model("tiny")
        .loading_for(Duration::from_secs(3600));
    let net = Net::begin(CLIENT, server.start().await.unwrap(), &[OFTEN]).await;
    let pending = net.sidecar.wait_until_pending("503").await;
    assert!(pending.join(" ").contains("loading"), "{pending:?}");
    net.server.loaded();
    net.sidecar.wait_until_pending("").await;
    net.ask(&json!({})).await.result();
}

#[tokio::test]
async fn a_server_that_sleeps_is_woken_by_a_chat_and_not_by_looks() {
    let net = Net::with(
        CLIENT,
        server(Style::LlamaServer).await,
        &[OFTEN, ("PIN_PRELOAD_MODELS", "none")],
    )
    .await;
    net.server.sleep();
    let looks = net.server.requests().len();
    poll(
        || async { net.server.requests().len() },
        |now| *now > looks + 3,
    )
    .await;
    assert!(net.server.is_asleep());
    net.ask(&json!({})).await.result();
}

#[tokio::test]
async fn a_list_that_is_none_is_told_with_what_to_do() {
    for (list, words) in [
        (lists::empty(), "PIN_ALLOW_MODELS"),
        (lists::failing(), "500"),
        (lists::nothing(), "PIN_ALLOW_MODELS"),
        (lists::html(), "PIN_OLLAMA_URL"),
        (lists::unexpected_endpoint(), "PIN_OLLAMA_URL"),
        (lists::unauthorized(), "PIN_BACKEND_API_KEY"),
        (
            Fault::answer(404, "text/plain", "404 page not found"),
            "PIN_OLLAMA_URL",
        ),
        (lists::of(&["nomic-embed-text"]), "PIN_ALLOW_MODELS"),
    ] {
        let name = format!("{list:?}");
        let pending = pending_with(list).await;
        assert!(pending.contains(words), "{name}: {pending}");
        assert!(!pending.contains('<'), "{pending}");
    }
}

/// What is offered where the list is this.
async fn offered_with(list: Fault, settings: &[(&str, &str)]) -> Vec<String> {
    let server = server(Style::LlamaServer).await;
    server.set_list(list);
    let net = Net::with(CLIENT, server, settings).await;
    poll(
        || async { net.gateway.models() },
        |models| !models.is_empty(),
    )
    .await
}

#[tokio::test]
async fn of_a_list_the_ids_are_believed_and_nothing_else() {
    for (list, offered) in [
        (lists::odd_sizes(), vec!["other", "tiny"]),
        (lists::odd_entries(), vec!["tiny"]),
        (lists::duplicates(), vec!["other", "tiny"]),
        (lists::embeddings(), vec!["tiny"]),
        (lists::partly_ready(), vec!["tiny"]),
        (lists::paths(), vec!["phi-4.gguf", "qwen3-8b.gguf", "tiny"]),
        (
            lists::slashes_and_colons(),
            vec![
                "Qwen/Qwen3-8B",
                "llama3.2:3b",
                "openrouter/meta-llama/llama-3.3-70b:free",
            ],
        ),
    ] {
        let name = format!("{list:?}");
        let mut found = offered_with(list, &[]).await;
        found.sort();
        assert_eq!(found, offered, "{name}");
    }
}

#[tokio::test]
async fn a_list_of_ten_thousand_is_taken() {
    let offered = offered_with(lists::many(), &[("PIN_ALLOW_MODELS", "model-0000*")]).await;
    assert_eq!(offered.len(), 10);
    assert_eq!(offered_with(lists::many(), &[]).await.len(), lists::MANY);
}

#[tokio::test]
async fn what_the_operator_allows_and_denies_holds() {
    let list = || lists::of(&["a", "b", "c"]);
    let settings = [("PIN_ALLOW_MODELS", "a,b"), ("PIN_DENY_MODELS", "b")];
    assert_eq!(offered_with(list(), &settings).await, ["a"]);
}

#[tokio::test]
async fn a_server_that_lists_nothing_serves_what_the_operator_names() {
    for list in [lists::empty(), lists::failing(), lists::nothing()] {
        let name = format!("{list:?}");
        let server = server(Style::LlamaServer).await;
        server.set_list(list);
        let net = Net::with(CLIENT, server, &[("PIN_ALLOW_MODELS", "tiny")]).await;
        assert_eq!(net.gateway.models(), ["tiny"], "{name}");
        net.ask(&json!({})).await.result();
        assert_eq!(net.server.chat_requests()[0].json()["model"], "tiny");
    }
}

#[tokio::test]
async fn models_come_and_go_with_the_list() {
    let net = Net::with(CLIENT, server(Style::Vllm).await, &[OFTEN]).await;
    net.server.add_model("other");
    let has =
        |models: &'static [&str]| poll(|| async { net.gateway.models() }, move |now| now == models);
    has(&["other", "tiny"]).await;
    net.server.remove_model("tiny");
    has(&["other"]).await;
    assert!(
        net.ask(&json!({}))
            .await
            .error()
            .starts_with("model_not_found: ")
    );
    // A list that fails for a while takes nothing away at once.
    net.ask(&json!({"model": "other"})).await.result();
}

#[tokio::test]
async fn the_router_is_asked_for_what_it_has_and_its_command_lines_stay_with_it() {
    let server = OpenAi::builder()
        .model("tiny")
        .behaviour(|behaviour| behaviour.router = true);
    let net = Net::with(CLIENT, server.start().await.unwrap(), &[]).await;
    net.ask(&json!({})).await.result();
    for frame in net.gateway.frames() {
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        assert!(
            !text.contains("/home/operator") && !text.contains("--api-key"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_preload_is_one_token_and_comes_before_the_registration() {
    let settings = [("PIN_PRELOAD_MODELS", "tiny")];
    let net = Net::with(CLIENT, server(Style::LlamaServer).await, &settings).await;
    net.server.wait_for_chats(1).await;
    let load = net.asked();
    assert_eq!(
        (&load["max_tokens"], &load["model"], &load["stream"]),
        (&json!(1), &json!("tiny"), &json!(true))
    );
    let registered = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("REGISTER_NODE"))
        .await;
    assert_eq!(registered.value["apiMode"], "openai");
    let loaded = net.server.chat_requests()[0].at;
    assert!(registered.at > loaded, "{:?}", registered.at - loaded);
}

#[tokio::test]
async fn a_server_may_come_after_the_sidecar_and_go_and_come_again() {
    let server = server(Style::LlamaServer).await;
    server.stop().await;
    let net = Net::begin(CLIENT, server, &[OFTEN]).await;
    net.sidecar.wait_until_pending("does not answer").await;
    net.server.start_again().await.unwrap();
    net.sidecar.wait_until_pending("").await;
    net.server.stop().await;
    net.sidecar.wait_until_pending("does not answer").await;
    net.server.start_again().await.unwrap();
    net.sidecar.wait_until_pending("").await;
    net.ask(&json!({})).await.result();
}

#[tokio::test]
async fn a_wrong_api_mode_is_told() {
    let server = server(Style::LlamaServer).await;
    let gateway = crate::gateway().await;
    let sidecar = Sidecar::start(CLIENT, &gateway.url(), &server.url(), &[]);
    gateway.wait_for_session(1).await;
    let pending = sidecar.wait_until_pending("PIN_API_MODE").await;
    assert!(pending.join(" ").contains("openai"), "{pending:?}");
}
