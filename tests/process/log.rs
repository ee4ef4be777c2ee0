//! What the log says, what it never says, and that nobody has to read it.

use std::{
    collections::HashSet,
    fmt,
    fs::{File, OpenOptions},
    path::Path,
    process::Command,
    time::Duration,
};

use devnet::{
    agent::{Agent, Signal},
    ollama::{CHAT, Fault},
};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};

use crate::{
    program::{Net, PROGRAM, between, event, program, with, with_arguments},
    support::{CLIENT, MODEL, SECRET, chat, gateway, ollama},
};

const PROMPT: &str = "Zebra-Prompt";
const ANSWER: &str = "Zebra-Answer";
const ERROR: &str = "Zebra-Error";
const PAYOUT: &str = "0xZebraWallet";
const PASSWORD: &str = "Zebra-Password";

/// A network in which all sorts of things go wrong, each with words that are nobody else's business.
async fn trouble(net: &Net) {
    let line = |done: bool| {
        let message = json!({"role": "assistant", "content": ANSWER, "thinking": ANSWER});
        json!({"model": MODEL, "message": message, "done": done, "done_reason": "stop"}).to_string()
    };
    let told = format!(r#"{{"error":"{ERROR} at http://10.9.8.7:11434/x and /root/{ERROR}"}}"#);
    for fault in [
        Fault::script([&*line(false), &*line(true)]),
        Fault::answer(500, "application/json", &told),
        Fault::answer(502, "text/html", ERROR),
        Fault::ErrorLine {
            after: 2,
            error: ERROR.into(),
        },
        Fault::Cut { after: 2 },
        Fault::script([ANSWER]),
        Fault::script([&*line(false), &format!("{{\"message\":\"{ANSWER}")]),
    ] {
        net.ollama.fail_next(CHAT, 1, fault);
        let mut payload = chat(PROMPT);
        payload["stream"] = json!(true);
        let _ = net.gateway.chat(payload).outcome().await;
    }
    for payload in [
        json!({"model": PROMPT, "messages": [{"role": "user", "content": PROMPT}]}),
        json!({"model": MODEL, "messages": PROMPT}),
        json!({"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "options": {"Num_CTX": PROMPT}}),
        json!({"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "response_format": PROMPT}),
        json!(PROMPT),
    ] {
        let _ = net.gateway.chat(payload).outcome().await;
    }
    for frame in [
        format!(r#"{{"type":"INFERENCE_REQUEST","payload":"{PROMPT}"}}"#),
        format!(r#"{{"type":"INFERENCE_REQUEST","request_id":["{PROMPT}"],"payload":{{}}}}"#),
        format!(r#"{{"type":"INFERENCE_REQUEST","request_id":"r","payload":{{"{PROMPT}"#),
        format!(r#"{{"{PROMPT}"#),
        format!(r#"{{"type":"NEWS","text":"{PROMPT}"}}"#),
        format!(
            r#"{{"type":"TTS_REQUEST","request_id":"t","payload":{{"model":"m","input":"{PROMPT}"}}}}"#
        ),
        format!(
            r#"{{"type":"INTERVIEW_REQUEST","interview_id":"i","model":"{MODEL}","prompts":[{{"id":"1","prompt":"{PROMPT}"}}]}}"#
        ),
    ] {
        net.gateway.send_text(&frame);
    }
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let cancelled = net.gateway.chat(chat(PROMPT));
    net.ollama.wait_for_chats(7).await;
    net.ollama.wait_for_request(CHAT).await;
    net.gateway.cancel(cancelled.id());
    net.agent
        .wait_for_log(|line| line.contains(r#""outcome":"cancelled""#))
        .await;
    net.ollama.stop().await;
    let _ = net.gateway.chat(chat(PROMPT)).outcome().await;
}

#[tokio::test]
async fn no_prompt_answer_secret_or_backend_address_is_told_at_any_level() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let address = ollama.url().trim_start_matches("http://").to_owned();
    let settings = [
        ("PIN_LOG", "trace"),
        ("PIN_LOG_FORMAT", "json"),
        ("PIN_PAYOUT_ADDRESS", PAYOUT),
        (
            "PIN_OLLAMA_URL",
            &format!("http://ann:{PASSWORD}@{address}"),
        ),
        ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
    ];
    let agent = with(between(program(), &gateway, &ollama), &settings)
        .start()
        .await
        .unwrap();
    let net = Net {
        gateway,
        ollama,
        agent,
    };
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    trouble(&net).await;
    net.wait_until_pending("Ollama does not answer").await;
    let mut pages = String::new();
    for path in ["/status", "/metrics", "/readyz", "/healthz", "/nope"] {
        pages += &net.agent.get(path).await.unwrap().text();
    }
    net.agent.signal(Signal::TERM);
    net.agent.wait().await;

    let log = net.agent.log();
    let log: Vec<&str> = log.iter().map(|line| line.as_str()).collect();
    let everything = format!("{pages}\n{}", log.join("\n"));
    for private in [PROMPT, ANSWER, ERROR, SECRET, PAYOUT, PASSWORD, "10.9.8.7"] {
        let shown = everything.lines().find(|line| line.contains(private));
        assert_eq!(shown, None, "{private}");
    }
    // The effective settings, told once at the start, are the operator's own words.
    let told_later = everything
        .lines()
        .filter(|line| !line.contains(r#""message":"starting""#));
    assert_eq!(
        told_later.clone().find(|line| line.contains(&address)),
        None
    );
    assert!(!pages.contains(CLIENT), "{pages}");
}

#[tokio::test]
async fn a_log_in_json_is_one_object_a_line_and_each_request_ends_with_the_same_fields() {
    let net = Net::start(&[("PIN_LOG", "trace")]).await;
    trouble(&net).await;
    net.agent.signal(Signal::TERM);
    net.agent.wait().await;
    let events: Vec<Value> = net.agent.log().iter().map(|line| event(line)).collect();
    let documented = documented_fields();
    for line in net.agent.log() {
        for field in fields_in_order(&line) {
            assert!(documented.contains(&field), "{field} in {line}");
        }
    }
    for event in &events {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(event[field].is_string(), "no {field} in {event}");
        }
    }
    let ends: Vec<_> = events
        .iter()
        .filter(|event| event["outcome"].is_string())
        .collect();
    let outcomes: Vec<_> = ends
        .iter()
        .map(|end| end["outcome"].as_str().unwrap())
        .collect();
    for outcome in ["ok", "backend", "invalid", "model_not_found", "cancelled"] {
        assert!(outcomes.contains(&outcome), "no {outcome} in {outcomes:?}");
    }
    for end in ends
        .iter()
        .filter(|end| end["message"] != "request refused" && end["message"] != "requests refused")
    {
        assert!(
            end["model"] == MODEL
                && end["node"] == "node-1"
                && (end["operation"] == "chat" || end["operation"] == "interview")
                && end["session"] == 1
                && end["request_id"].is_string()
                && end["duration_ms"].is_u64(),
            "{end}"
        );
        let is_ours = ["backend", "timeout"].contains(&end["outcome"].as_str().unwrap());
        assert_eq!(end["level"] == "WARN", is_ours, "{end}");
    }
}

/// The names in the list at the top of `src/telemetry/logging.rs`, and those that every line has.
fn documented_fields() -> Vec<String> {
    let rows = include_str!("../../src/telemetry/logging.rs").lines();
    let names = rows
        .filter_map(|row| row.strip_prefix("//! | `")?.split_once(" |"))
        .flat_map(|(names, _)| names.split(", "));
    names
        .chain(["timestamp", "level", "message", "target"])
        .map(|name| name.trim_matches('`').to_owned())
        .collect()
}

/// The keys of an object.
///
/// # Panics
/// One is written twice: which of them a reader takes is anybody's guess.
fn fields_in_order(line: &str) -> Vec<String> {
    struct Keys(Vec<String>);
    impl<'de> Visitor<'de> for &mut Keys {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                self.0.push(key);
            }
            Ok(())
        }
    }
    let mut keys = Keys(Vec::new());
    serde_json::Deserializer::from_str(line)
        .deserialize_map(&mut keys)
        .unwrap();
    let distinct: HashSet<_> = keys.0.iter().collect();
    assert_eq!(distinct.len(), keys.0.len(), "a key twice in {line}");
    keys.0
}

#[tokio::test]
async fn a_flood_of_requests_does_not_become_a_flood_of_lines() {
    const REQUESTS: usize = 2_000;
    let net = Net::start(&[("PIN_CAPACITY", "2"), ("PIN_LOG_FORMAT", "json")]).await;
    net.ollama.pause_at(1);
    let lines_before = net.agent.log().len();
    for n in 0..REQUESTS {
        assert!(net.gateway.try_request(&format!("chat-{n}"), &chat("x")));
    }
    let is_whole = |line: &str| {
        let event = event(line);
        event["message"] == "requests refused" && event["attempts"] == REQUESTS - 4
    };
    net.agent.wait_for_log(is_whole).await;
    let lines = net.agent.log().split_off(lines_before);
    assert!(lines.len() <= 10, "{lines:#?}");
    let first = event(&lines[0]);
    assert_eq!(
        (&first["outcome"], &first["level"]),
        (&"busy".into(), &"WARN".into())
    );
    assert!(first["request_id"].is_string(), "{first}");
    net.ollama.go_on();
}

#[tokio::test]
async fn a_gateway_that_invents_type_after_type_does_not_fill_the_log() {
    const TYPES: usize = 500;
    let net = Net::start(&[("PIN_LOG", "debug")]).await;
    for n in 0..TYPES {
        let kind = format!("NEWS_{n}");
        net.gateway.send(&json!({"type": kind}));
        net.gateway.send(&json!({"type": kind}));
    }
    net.gateway
        .send(&json!({"type": "ERROR", "message": "that was all"}));
    net.agent
        .wait_for_log(|line| line.contains("that was all"))
        .await;
    let log = net.agent.log();
    let told = |kind: &str| {
        let frame = format!("\"frame\":\"{kind}");
        log.iter().filter(|line| line.contains(&frame)).count()
    };
    assert_eq!(told("NEWS_0\""), 1);
    assert!(told("NEWS_") <= 100, "{} lines", told("NEWS_"));
}

#[tokio::test]
async fn no_peer_can_forge_a_line_of_the_log() {
    for format in ["text", "json"] {
        let net = Net::start(&[("PIN_LOG", "trace"), ("PIN_LOG_FORMAT", format)]).await;
        let id = "r\n2026-01-01T00:00:00Z ERROR pin_sidecar: forged\r\u{1b}[2Jforged";
        net.gateway
            .chat_with_id(id, json!({}))
            .outcome()
            .await
            .error();
        net.gateway
            .chat_with_id(id, chat("x"))
            .outcome()
            .await
            .result();
        net.agent
            .wait_for_log(|line| line.contains("refused") || line.contains("failed"))
            .await;
        for line in net.agent.log() {
            assert!(
                !line.contains(['\r', '\u{1b}']) && !line.starts_with("2026-01-01T"),
                "{line:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_chat() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let reader = pipe_that_nobody_reads(&pipe);
    let (gateway, ollama) = (gateway().await, ollama().await);
    let builder = with(
        between(program(), &gateway, &ollama),
        &[("PIN_LOG", "trace")],
    );
    let agent = builder.log_file(&pipe).start().await.unwrap();
    let net = Net {
        gateway,
        ollama,
        agent,
    };
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    // A line each, which is far more than a pipe holds.
    for _ in 0..1_000 {
        net.gateway.chat(json!({})).outcome().await.error();
    }
    net.gateway.chat(chat("x")).outcome().await.result();
    assert_eq!(net.agent.get("/healthz").await.unwrap().status, 200);
    net.agent.signal(Signal::TERM);
    let status = net.agent.wait_for(Duration::from_secs(3)).await;
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    drop(reader);
}

/// Opened both ways, so that it has a reader from the start.
fn pipe_that_nobody_reads(path: &Path) -> File {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[tokio::test]
async fn a_log_whose_reader_goes_away_holds_up_no_chat() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let reader = pipe_that_nobody_reads(&pipe);
    let (gateway, ollama) = (gateway().await, ollama().await);
    let agent = between(program(), &gateway, &ollama)
        .log_file(&pipe)
        .start()
        .await
        .unwrap();
    drop(reader);
    serves_and_ends(&Net {
        gateway,
        ollama,
        agent,
    })
    .await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_holds_up_no_chat() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let agent = between(program(), &gateway, &ollama)
        .log_file(Path::new("/dev/full"))
        .start()
        .await
        .unwrap();
    serves_and_ends(&Net {
        gateway,
        ollama,
        agent,
    })
    .await;
}

#[tokio::test]
async fn with_standard_error_closed_it_serves_all_the_same() {
    let closed = with_arguments(
        Agent::builder("sh"),
        &["-c", r#"exec "$0" >&- 2>&-"#, PROGRAM],
    );
    serves_and_ends(&Net::with(gateway().await, closed, &[]).await).await;
}

async fn serves_and_ends(net: &Net) {
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    net.gateway.chat(chat("x")).outcome().await.result();
    net.agent.signal(Signal::TERM);
    assert_eq!(net.agent.wait().await.code(), Some(0));
}
