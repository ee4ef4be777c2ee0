//! An Ollama that answers what no Ollama should. Each chat gets its one answer or failure all the same, the next one is
//! served, and the session never notices.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use devnet::ollama::{CHAT, Fault};
use serde_json::{Value, json};
use support::{CLIENT, MODEL, Net, Sidecar, chat, gateway, ollama};

/// One write of NDJSON, byte for byte.
fn bytes(body: &[u8]) -> Fault {
    Fault::Script(vec![body.to_vec().into()])
}

fn status(status: u16, header: (&'static str, &str), body: &str) -> Fault {
    Fault::Answer {
        status,
        headers: vec![(header.0, header.1.to_owned())],
        body: body.to_owned().into(),
    }
}

/// Has Ollama answer so, streamed and not; gives the errors that come of it.
async fn failures(net: &Net, fault: Fault) -> Vec<String> {
    let mut errors = Vec::new();
    for streamed in [false, true] {
        net.ollama.fail_next(CHAT, 1, fault.clone());
        let mut payload = chat("Zebra");
        payload["stream"] = json!(streamed);
        let mut chat = net.gateway.chat(payload);
        errors.push(chat.outcome().await.error().to_owned());
        // What comes after it has overtaken nothing of it.
        net.chat("afterwards").outcome().await.result();
        let deliveries = net.gateway.books().deliveries(chat.id());
        assert_eq!(
            (deliveries.responses, deliveries.errors),
            (0, 1),
            "{fault:?}"
        );
    }
    assert_eq!(net.gateway.sessions().ever, 1);
    errors
}

#[tokio::test]
async fn a_status_that_is_no_success_is_told_whatever_comes_with_it() {
    let net = Net::start(&[]).await;
    let busy = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    for (fault, told) in [
        (
            status(503, ("retry-after", "120"), busy),
            "backend: server busy, please try again.  maximum pending requests exceeded",
        ),
        (
            status(503, ("retry-after", "soon"), ""),
            "backend: HTTP 503",
        ),
        (
            status(500, ("content-type", "text/html"), "<html>Zebra</html>"),
            "backend: HTTP 500",
        ),
        (
            status(500, ("content-type", "application/json"), r#"{"error":"#),
            "backend: HTTP 500",
        ),
        (
            status(
                500,
                ("content-type", "application/json"),
                r#"{"error":{"x":1}}"#,
            ),
            "backend: HTTP 500",
        ),
        (
            status(307, ("location", "http://127.0.0.1:9/Zebra"), ""),
            "backend: HTTP 307",
        ),
        (
            status(404, ("x", "y"), r#"{"error":"model 'llama3.2' not found"}"#),
            "backend: model 'llama3.2' not found",
        ),
        (
            status(422, ("x", "y"), r#"{"error":"seed must be a number"}"#),
            "rejected: seed must be a number",
        ),
        (status(413, ("x", "y"), "<html>"), "rejected: HTTP 413"),
        (status(400, ("x", "y"), ""), "rejected: HTTP 400"),
        (status(401, ("x", "y"), ""), "backend: HTTP 401"),
    ] {
        for error in failures(&net, fault).await {
            assert_eq!(error, told);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_failure_and_quotes_nothing() {
    let net = Net::start(&[]).await;
    let page = "<!doctype html>\n<html>Zebra</html>\n";
    for fault in [
        bytes(b""),
        bytes(b"\n\n \r\n"),
        bytes(page.as_bytes()),
        bytes(b"null\n"),
        bytes(b"[]\n"),
        bytes(b"{}\n"),
        bytes(b"\xff\xfe\0Zebra"),
        bytes(b"{\"message\":{\"content\":{\"Zebra\":1}},\"done\":true}\n"),
        bytes(b"{\"message\":{\"content\":\"Zebra\"},\"done\":\"yes\"}\n"),
        // Half a line, half a character, half an escape.
        bytes(b"{\"message\":{\"content\":\"Zebra"),
        bytes(
            "{\"message\":{\"content\":\"🦀"
                .as_bytes()
                .split_last()
                .unwrap()
                .1,
        ),
        bytes(b"{\"message\":{\"content\":\"\\u00"),
        status(204, ("x", "y"), ""),
        status(200, ("content-type", "text/html"), page),
        status(200, ("content-type", "application/json"), ""),
        Fault::Cut { after: 0 },
        Fault::EndWithoutDone { after: 0 },
        Fault::Garbage { bytes: 100_000 },
    ] {
        for error in failures(&net, fault.clone()).await {
            assert!(error.starts_with("backend: "), "{fault:?}: {error}");
            assert!(!error.contains("Zebra"), "{fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn an_error_in_the_stream_ends_it_however_long_its_words_are() {
    let net = Net::start(&[]).await;
    let long = format!(
        "{{\"error\":\"{}\"}}\n{{\"done\":true}}\n",
        "é".repeat(50_000)
    );
    for error in failures(&net, bytes(long.as_bytes())).await {
        let words = error.strip_prefix("backend: ").unwrap();
        assert_eq!(words, "é".repeat(256));
    }
}

#[tokio::test]
async fn whatever_has_no_end_is_cut_off_at_the_limit() {
    /// What a line may have beyond an answer, for log probabilities that are left out, and more.
    const LINE: usize = 2 << 20;
    let net = Net::start(&[("PIN_MAX_RESULT_BYTES", "64KiB")]).await;
    let line = format!(
        "{}\n",
        json!({"message": {"content": "Zebra "}, "done": false})
    );
    let call = json!({"message": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}});
    for endless in [
        line.repeat(20_000),
        format!("{call}\n").repeat(3_000),
        format!("{{\"message\":{{\"content\":\"{}", "x".repeat(LINE)),
        format!("{{\"x\":{}", "[".repeat(LINE)),
    ] {
        for error in failures(&net, bytes(endless.as_bytes())).await {
            assert_eq!(
                error,
                "too_large: the answer is larger than PIN_MAX_RESULT_BYTES"
            );
        }
    }
}

#[tokio::test]
async fn strange_but_whole_answers_are_answers() {
    let net = Net::start(&[]).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, text) in [
        (r#"{"message":{"content":"x"},"done":true}"#.to_owned(), "x"),
        (
            format!(
                "{{\"x\":{deep},\"message\":{{\"content\":\"x\",\"y\":{deep}}},\"done\":true}}\n"
            ),
            "x",
        ),
        (
            "{\"message\":{\"content\":\"x\"},\"done\":true}\n{\"error\":\"late\"}\n<html>"
                .to_owned(),
            "x",
        ),
        ("{\"done\":true}\n".to_owned(), ""),
        // Half a character.
        (
            r#"{"message":{"content":"x\ud83d"},"done":true}"#.to_owned(),
            "x\u{fffd}",
        ),
        // More blank lines than an answer may have bytes.
        (
            format!(
                "{}{{\"message\":{{\"content\":\"x\"}},\"done\":true}}\n",
                "\n".repeat(9 << 20)
            ),
            "x",
        ),
        (
            "{\"message\":null,\"done\":true,\"eval_count\":1e99,\"prompt_eval_count\":-1}\n"
                .to_owned(),
            "",
        ),
    ] {
        for streamed in [false, true] {
            net.ollama.fail_next(CHAT, 1, bytes(body.as_bytes()));
            let mut payload = chat("one");
            payload["stream"] = json!(streamed);
            let outcome = net.gateway.chat(payload).outcome().await;
            assert!(
                outcome.answer.is_ok(),
                "{:?} for {:.100}",
                outcome.answer,
                body
            );
            assert_eq!(outcome.text(), text, "{:.100}", body);
        }
    }
    assert_eq!(net.gateway.sessions().ever, 1);
}

#[tokio::test]
async fn a_list_of_models_that_cannot_be_read_is_no_list_and_the_next_one_counts() {
    let huge = format!("{{\"models\":[{}]}}", "{},".repeat(10_000_000));
    for fault in [
        Fault::answer(200, "application/json", ""),
        Fault::answer(200, "application/json", r#"{"models":[{"name":"#),
        Fault::answer(200, "application/json", &huge),
        status(307, ("location", "http://127.0.0.1:9/"), ""),
        status(503, ("retry-after", "1"), ""),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        ollama.fail_always("/api/tags", fault);
        let often = [("PIN_MODEL_REFRESH_INTERVAL", "20ms")];
        let sidecar = Sidecar::start(CLIENT, &gateway.url(), &ollama.url(), &often);
        sidecar.wait_until_pending("Ollama ").await;
        ollama.clear_faults();
        gateway
            .wait_for(|frame| {
                frame.is_from_agent("MODEL_LIST") && frame.value["models"] == json!([MODEL])
            })
            .await;
        gateway.chat(chat("one")).outcome().await.result();
        assert_eq!(gateway.sessions().ever, 1);
    }
}

/// A few changes at random places: a byte that becomes another, goes, or comes twice, and pieces that move.
fn mutated(random: &mut fastrand::Rng, text: &str) -> String {
    const TASTY: &[u8] = b"{}[]\",:\\0123456789.eE+-tfnu \n\x00\x7f";
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] = TASTY[random.usize(..TASTY.len())],
            1 => drop(bytes.drain(at..(at + random.usize(1..9)).min(bytes.len()))),
            2 => bytes.insert(at, TASTY[random.usize(..TASTY.len())]),
            _ => {
                let piece = bytes[at..(at + random.usize(1..40)).min(bytes.len())].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, piece);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'{');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A frame as gateways write it, its type first.
fn frame(kind: &str, rest: &Value) -> String {
    let rest = rest.to_string();
    format!(r#"{{"type":"{kind}",{}"#, &rest[1..])
}

#[tokio::test]
async fn of_frames_that_are_damaged_on_their_way_each_whose_id_can_be_read_is_answered_once() {
    const FRAMES: usize = 2_000;
    let net = Net::start(&[("PIN_QUEUE", "2000")]).await;
    net.ollama.set_behaviour(|behaviour| behaviour.tokens = 1);
    let payload = json!({
        "model": MODEL, "stream": true, "keep_alive": -1, "max_tokens": 5, "stop": "x", "seed": 1,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}, "reasoning_effort": "low",
        "options": {"num_ctx": 4096, "num_gpu": 1, "temperature": 0.5},
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "é🦀"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{\"n\": 1}"}}]},
        ],
    });
    let others = [
        frame("CANCEL_REQUEST", &json!({"request_id": "r"})),
        frame("RESULT_ACK", &json!({"request_id": "r"})),
        frame(
            "INTERVIEW_FAILED",
            &json!({"reason": "x", "retry_after_seconds": 60}),
        ),
        frame(
            "REGISTER_NODE_ACK",
            &json!({"node_id": "n", "alias": "a", "models": []}),
        ),
        frame("HEARTBEAT_ACK", &json!({"x": null})),
    ];
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for n in 0..FRAMES {
        // So long that no damage makes one id another's.
        let id = format!("{n}-{:016x}", random.u64(..));
        let whole = match random.usize(..others.len() * 4) {
            other if other < others.len() => others[other].clone(),
            _ => {
                format!(r#"{{"type":"INFERENCE_REQUEST","request_id":"{id}","payload":{payload}}}"#)
            }
        };
        net.gateway.send_text(&mutated(&mut random, &whole));
    }
    net.chat("afterwards").outcome().await.result();
    for series in [
        "requests_running",
        "requests_waiting",
        "undelivered_results",
    ] {
        net.sidecar
            .wait_for_metric(series, |count| count == 0.0)
            .await;
    }
    assert_eq!(net.gateway.sessions().ever, 1);

    let requests = r#"messages_received_total{message="INFERENCE_REQUEST"}"#;
    let mut expected = net.sidecar.metric(requests).await;
    assert!(expected > 1_000.0, "too few could be read: {expected}");
    for unanswered in ["ignored", "cancelled", "duplicate"] {
        expected -= net
            .sidecar
            .metric(&format!("{unanswered}_requests_total"))
            .await;
    }
    let deliveries = net.gateway.books().all_deliveries();
    assert_eq!((deliveries.responses + deliveries.errors) as f64, expected);
    assert!(
        deliveries.responses > 100 && deliveries.errors > 100,
        "{deliveries:?}"
    );
    let panics = r#"request_failures_total{operation="chat",reason="internal"}"#;
    assert_eq!(net.sidecar.metric(panics).await, 0.0);
}

#[tokio::test]
async fn no_answer_that_is_damaged_on_its_way_goes_without_its_end() {
    const ANSWERS: usize = 400;
    let net = Net::start(&[]).await;
    let call = json!({"function": {"name": "f", "arguments": {"n": 1e300}}});
    let whole = [
        json!({"model": MODEL, "message": {"role": "assistant", "content": "é🦀", "thinking": "x"}, "done": false}),
        json!({"message": {"content": "", "tool_calls": [call]}, "logprobs": [{"token": "x", "logprob": -1}]}),
        json!({"message": {"content": "y"}, "done": true, "done_reason": "stop", "eval_count": 7, "load_duration": 5}),
    ]
    .map(|line| line.to_string() + "\n")
    .concat();
    let mut random = fastrand::Rng::with_seed(0x5eed);
    let mut answered = 0;
    for n in 0..ANSWERS {
        let body = mutated(&mut random, &whole);
        net.ollama.fail_next(CHAT, 1, bytes(body.as_bytes()));
        let mut payload = chat("one");
        payload["stream"] = json!(n % 2 == 0);
        let outcome = net.gateway.chat(payload).outcome().await;
        match outcome.answer {
            Ok(_) => answered += 1,
            Err(error) => assert!(error.starts_with("backend: "), "{error} of {body:?}"),
        }
    }
    let deliveries = net.gateway.books().all_deliveries();
    assert_eq!(deliveries.responses + deliveries.errors, ANSWERS);
    assert!(
        (10..ANSWERS - 10).contains(&answered),
        "{answered} of {ANSWERS} were whole"
    );
    assert_eq!(net.gateway.sessions().ever, 1);
}
