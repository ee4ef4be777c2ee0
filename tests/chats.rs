//! Chats, from the request that comes down the session to the answer that goes up.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "chats/limits.rs"]
mod limits;
mod support;
#[path = "support/wire.rs"]
mod wire;

use std::time::Duration;

use devnet::ollama::{CHAT, Fault, ModelShape, Ollama, spoken};
use serde_json::{Value, json};
use support::{CLIENT, DESKTOP, MODEL, Net, chat, gateway};
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn an_operator_daemon_answers_in_openais_shape() {
    let net = Net::start(&[]).await;
    let outcome = net.chat("why is the sky blue").outcome().await;
    let result = outcome.result();
    assert_eq!(result["object"], "chat.completion");
    assert_eq!(result["model"], MODEL);
    assert_eq!(result["choices"][0]["index"], 0);
    assert_eq!(result["choices"][0]["finish_reason"], "stop");
    assert_eq!(result["choices"][0]["message"]["role"], "assistant");
    let usage = &result["usage"];
    let tokens = usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(
        outcome.text(),
        spoken("why is the sky blue", usize::try_from(tokens).unwrap())
    );
    assert_eq!(
        usage["total_tokens"],
        usage["prompt_tokens"].as_u64().unwrap() + tokens
    );
    assert!(outcome.chunks.is_empty(), "chunks nobody asked for");
}

#[tokio::test]
async fn a_desktop_client_answers_in_ollamas_shape() {
    let net = Net::start_as(DESKTOP, &[]).await;
    let outcome = net.chat("why is the sky blue").outcome().await;
    let result = outcome.result();
    assert_eq!(result["done"], true);
    assert_eq!(result["done_reason"], "stop");
    assert_eq!(result["message"]["role"], "assistant");
    let tokens = usize::try_from(result["eval_count"].as_u64().unwrap()).unwrap();
    assert_eq!(outcome.text(), spoken("why is the sky blue", tokens));
}

#[tokio::test]
async fn chunks_tell_the_whole_answer_in_order_before_it_comes() {
    let ollama = Ollama::builder()
        .model(
            "thinker:latest",
            ModelShape {
                capabilities: vec!["completion", "thinking"],
                ..ModelShape::default()
            },
        )
        .start()
        .await
        .unwrap();
    let net = Net::with(CLIENT, gateway().await, ollama, &[]).await;
    let mut payload = chat("tell me more");
    payload["model"] = json!("thinker");
    payload["stream"] = json!(true);
    payload["think"] = json!(true);
    let outcome = net.gateway.chat(payload).outcome().await;
    let indices: Vec<_> = outcome
        .chunks
        .iter()
        .map(|chunk| chunk.index.unwrap())
        .collect();
    assert_eq!(indices, (0..indices.len() as u64).collect::<Vec<_>>());
    assert_eq!(outcome.streamed("content"), outcome.text());
    let message = &outcome.result()["choices"][0]["message"];
    assert_eq!(
        outcome.streamed("thinking"),
        message["thinking"].as_str().unwrap()
    );
    assert!(!outcome.streamed("thinking").is_empty() && !outcome.text().is_empty());
}

#[tokio::test]
async fn what_nobody_has_to_touch_reaches_ollama_byte_for_byte() {
    let net = Net::start(&[]).await;
    let payload = r#"{ "zeta":[1e300, 12345678901234567890123],"model":"llama3.2:latest","messages":[{"role":"user","content":"\u00e9 \ud83d\ude00","new":{"b":1,"a":2}}],"a":null,"temperature":0.50 }"#;
    net.gateway.chat_with_text(payload).outcome().await.result();
    let sent = String::from_utf8(net.ollama.chat_requests()[0].body.to_vec()).unwrap();
    assert_eq!(
        sent,
        r#"{"zeta":[1e300, 12345678901234567890123],"model":"llama3.2:latest","messages":[{"role":"user","content":"\u00e9 \ud83d\ude00","new":{"b":1,"a":2}}],"a":null,"options":{"temperature":0.50},"stream":true}"#
    );
}

#[tokio::test]
async fn with_capacity_two_and_queue_one_of_four_chats_two_run_one_waits_and_one_is_told_busy_at_once()
 {
    let net = Net::start(&[("PIN_CAPACITY", "2"), ("PIN_QUEUE", "1")]).await;
    net.ollama.fail_next(CHAT, 2, Fault::Hang { after: 0 });
    let mut first = net.chat("one");
    let mut second = net.chat("two");
    net.ollama.wait_for_chats(2).await;
    let mut third = net.chat("three");
    let busy = net.chat("four").outcome().await;
    assert_eq!(busy.error(), "busy: all slots and places to wait are taken");
    assert_eq!(net.ollama.chats().running, 2);
    assert_eq!(net.sidecar.metric("requests_running").await, 2.0);
    assert_eq!(net.sidecar.metric("requests_waiting").await, 1.0);

    net.gateway.cancel(first.id());
    assert!(
        third.outcome().await.answer.is_ok(),
        "the one that waited runs when a slot is free"
    );
    net.gateway.cancel(second.id());
    net.ollama.wait_until_idle().await;
    assert_eq!(net.ollama.chats().most, 2);
    let _ = (&mut first, &mut second);
}

#[tokio::test]
async fn waiting_too_long_for_a_slot_is_told() {
    let net = Net::start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE_TIMEOUT", "50ms")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 0 });
    let _running = net.chat("one");
    net.ollama.wait_for_chats(1).await;
    assert_eq!(
        net.chat("two").outcome().await.error(),
        "queue_timeout: no slot became free within 50ms"
    );
}

#[tokio::test]
async fn a_cancelled_chat_frees_ollama_and_says_nothing_more() {
    let net = Net::start(&[("PIN_CAPACITY", "1"), ("PIN_QUEUE", "0")]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 3 });
    let mut running = net.streamed("one");
    running.next().await;
    let request = net.ollama.wait_for_request(CHAT).await;
    let told = Instant::now();
    net.gateway.cancel(running.id());
    let left = request.wait_until_left().await;
    assert!(
        left - told < Duration::from_millis(250),
        "{:?}",
        left - told
    );
    // The slot is free again, and what comes after it is all that comes.
    net.chat("two").outcome().await.result();
    assert_eq!(
        net.gateway.books().deliveries(running.id()),
        Default::default()
    );
    assert_eq!(net.sidecar.metric("cancelled_requests_total").await, 1.0);
}

#[tokio::test]
async fn a_request_that_is_sent_again_while_it_runs_is_answered_once() {
    let net = Net::start(&[]).await;
    net.ollama
        .set_behaviour(|b| b.first_token_delay = Duration::from_millis(50));
    let mut first = net.gateway.chat_with_id("again", chat("one"));
    let _second = net.gateway.chat_with_id("again", chat("one"));
    first.outcome().await.result();
    net.chat("afterwards").outcome().await.result();
    assert_eq!(net.gateway.books().deliveries("again").responses, 1);
    assert_eq!(net.ollama.chats().ever, 2);
    assert_eq!(net.sidecar.metric("duplicate_requests_total").await, 1.0);
}

#[tokio::test]
async fn a_model_that_is_not_offered_is_not_served() {
    let net = Net::start(&[("PIN_DENY_MODELS", "secret*")]).await;
    net.ollama.add_model("secret:latest", ModelShape::default());
    for model in ["nope", "secret", "secret:latest"] {
        let mut payload = chat("one");
        payload["model"] = json!(model);
        let outcome = net.gateway.chat(payload).outcome().await;
        assert_eq!(
            outcome.error(),
            "model_not_found: this node does not offer that model"
        );
    }
    assert_eq!(net.ollama.chats().ever, 0);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_was_pulled_a_moment_ago_is_served() {
    let (net, _wire) = wire::start(&[("PIN_MODEL_REFRESH_INTERVAL", "1h")]).await;
    net.ollama.add_model("new:latest", ModelShape::default());
    let mut payload = chat("one");
    payload["model"] = json!("NEW");
    // A list that is younger than a second is taken at its word.
    sleep(Duration::from_millis(900)).await;
    let outcome = net.gateway.chat(payload.clone()).outcome().await;
    assert!(
        outcome.error().starts_with("model_not_found: "),
        "{outcome:?}"
    );
    sleep(Duration::from_millis(200)).await;
    net.gateway.chat(payload).outcome().await.result();
    assert_eq!(net.asked()[0]["model"], "new:latest");
}

#[tokio::test]
async fn the_operators_machine_is_the_operators() {
    let net = Net::start(&[
        ("PIN_MAX_CONTEXT", "4096"),
        ("PIN_MAX_OUTPUT_TOKENS", "100"),
    ])
    .await;
    let mut payload = chat("one");
    payload["keep_alive"] = json!(-1);
    payload["options"] = json!({"num_gpu": 0, "num_thread": 64, "num_ctx": 1_000_000, "num_predict": -1, "top_k": 5});
    net.gateway.chat(payload).outcome().await.result();
    let asked = &net.asked()[0];
    assert_eq!(asked.get("keep_alive"), None);
    assert_eq!(
        asked["options"],
        json!({"num_ctx": 4096, "num_predict": 100, "top_k": 5})
    );
}

#[tokio::test]
async fn keys_that_ollama_would_take_for_others_are_refused() {
    let net = Net::start(&[]).await;
    for key in [
        "MODEL",
        "Keep_Alive",
        "\u{212a}eep_alive",
        "OPTIONS",
        "keep_alive\",\"keep_alive",
    ] {
        let payload = format!(
            r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"x"}}],"options":{{}},"{key}":0}}"#
        );
        let outcome = net.gateway.chat_with_text(&payload).outcome().await;
        assert!(
            outcome.error().starts_with("invalid: "),
            "{key}: {}",
            outcome.error()
        );
    }
    assert_eq!(net.ollama.chats().ever, 0);
    assert_eq!(net.ollama.loads(MODEL), 0);
}

#[tokio::test]
async fn what_is_no_chat_is_refused_and_never_reaches_ollama() {
    let net = Net::start(&[]).await;
    for payload in [
        json!(null),
        json!([]),
        json!({}),
        json!({"model": MODEL}),
        json!({"model": MODEL, "messages": []}),
        json!({"model": MODEL, "messages": "hello"}),
        json!({"model": 7, "messages": [{"role": "user", "content": "x"}]}),
        json!({"messages": [{"role": "user", "content": "x"}]}),
    ] {
        let outcome = net.gateway.chat(payload.clone()).outcome().await;
        assert!(
            outcome.error().starts_with("invalid: "),
            "{payload}: {}",
            outcome.error()
        );
    }
    assert_eq!(net.ollama.chats().ever, 0);
}

#[tokio::test]
async fn ollamas_failures_are_told_in_its_own_words() {
    let net = Net::start(&[]).await;
    let html = "<html><body>Bad Gateway</body></html>";
    for (fault, expected) in [
        (Fault::answer(502, "text/html", html), "backend: HTTP 502"),
        (
            Fault::answer(
                500,
                "application/json",
                r#"{"error":"no memory at http://10.0.0.7:11434/x"}"#,
            ),
            "backend: no memory at …",
        ),
        (
            Fault::Answer {
                status: 302,
                headers: vec![("location", "http://127.0.0.1:1/".into())],
                body: Default::default(),
            },
            "backend: HTTP 302",
        ),
        (
            Fault::Answer {
                status: 400,
                headers: vec![("content-encoding", "gzip".into())],
                body: b"\x1f\x8b\x08"[..].into(),
            },
            "rejected: HTTP 400: its answer came encoded (gzip), which was not asked for",
        ),
        (
            Fault::answer(200, "text/html", html),
            "backend: the answer cannot be read: HTML came",
        ),
        (
            Fault::ErrorLine {
                after: 3,
                error: "an error was encountered".into(),
            },
            "backend: an error was encountered",
        ),
    ] {
        net.ollama.fail_next(CHAT, 1, fault);
        assert_eq!(net.chat("one").outcome().await.error(), expected);
    }
    for fault in [
        Fault::Cut { after: 3 },
        Fault::EndWithoutDone { after: 3 },
        Fault::HalfLine { after: 3 },
    ] {
        net.ollama.fail_next(CHAT, 1, fault.clone());
        let outcome = net.chat("one").outcome().await;
        assert!(
            outcome.error().starts_with("backend: "),
            "{fault:?}: {}",
            outcome.error()
        );
    }
    net.chat("two").outcome().await.result();
}

#[tokio::test]
async fn an_answer_in_any_pieces_is_the_same_answer() {
    let net = Net::start(&[]).await;
    let prompt = "zwölf Boxkämpfer 🥊 jagen";
    let whole = net.chat(prompt).outcome().await.text().to_owned();
    for fault in [
        Fault::SplitEvery(1),
        Fault::SplitEvery(7),
        Fault::SingleObject,
    ] {
        net.ollama.fail_next(CHAT, 1, fault);
        let outcome = net.streamed(prompt).outcome().await;
        assert_eq!(outcome.text(), whole);
        assert_eq!(outcome.streamed("content"), whole);
    }
}

#[tokio::test]
async fn speech_is_refused_where_there_is_no_speech_backend() {
    let net = Net::start(&[]).await;
    net.gateway.send(
        &json!({"type": "TTS_REQUEST", "request_id": "t", "payload": {"model": "m", "input": "x"}}),
    );
    let frame = net
        .gateway
        .wait_for(|frame| frame.is_from_agent("TTS_ERROR"))
        .await;
    assert_eq!(frame.value["request_id"], "t");
    assert_eq!(
        frame.value["error"],
        "model_not_found: this node has no speech backend"
    );
}

#[tokio::test]
async fn what_happened_is_counted() {
    let net = Net::start(&[]).await;
    let usage: Value = net.chat("one").outcome().await.result()["usage"].clone();
    net.gateway.chat(json!({})).outcome().await.error();
    let sidecar = &net.sidecar;
    let model = format!("model=\"{MODEL}\"");
    assert_eq!(
        sidecar
            .metric(&format!("requests_total{{{model},operation=\"chat\"}}"))
            .await,
        1.0
    );
    assert_eq!(
        sidecar
            .metric("requests_total{model=\"other\",operation=\"chat\"}")
            .await,
        1.0
    );
    assert_eq!(
        sidecar
            .metric("request_failures_total{operation=\"chat\",reason=\"invalid\"}")
            .await,
        1.0
    );
    let tokens = sidecar
        .metric(&format!("generation_tokens_total{{{model}}}"))
        .await;
    assert_eq!(tokens, usage["completion_tokens"].as_f64().unwrap());
    assert_eq!(
        sidecar.metric("time_to_first_token_seconds_count").await,
        1.0
    );
    assert_eq!(sidecar.metric("session_up").await, 1.0);
}

#[tokio::test]
async fn the_password_of_the_url_is_in_no_error_that_what_stands_before_ollama_repeats() {
    for client in [CLIENT, DESKTOP] {
        let ollama = Ollama::builder().model(MODEL, ModelShape::default());
        let ollama = ollama.start().await.unwrap();
        let url = ollama.url().replace("://", "://ann:pa%2Fss%2Bw%20rd@");
        let settings = [("PIN_OLLAMA_URL", url.as_str())];
        let net = Net::with(client, gateway().await, ollama, &settings).await;
        let words = r#"{"error":"ann 'pa/ss+w rd' 'pa%2fss%2Bw+rd' 'YW5uOnBhL3NzK3cgcmQ='"}"#;
        for fault in [
            Fault::answer(500, "application/json", words),
            Fault::answer(200, "application/x-ndjson", words),
            Fault::script([r#"{"message":{"content":"a"},"done":false}"#, words]),
        ] {
            net.ollama.fail_next(CHAT, 1, fault);
            let outcome = net.chat("one").outcome().await;
            assert_eq!(outcome.error(), "backend: ann '…' '…' '…'", "{client}");
        }
    }
}
