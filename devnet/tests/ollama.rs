//! The stand-in, as an HTTP client sees it; shapes and words are those of Ollama 0.17.4.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use devnet::{
    http::{self, Answer},
    ollama::{CHAT, Chats, Fault, ModelShape, Ollama, PULL, Pullable, spoken},
};
use serde_json::{Value, json};

async fn ollama() -> Ollama {
    let clever = ModelShape {
        capabilities: vec!["completion", "tools", "thinking"],
        ..ModelShape::default()
    };
    let builder = Ollama::builder()
        .model("tiny", ModelShape::default())
        .model("clever:7b", clever);
    builder
        .model(
            "embed",
            ModelShape {
                capabilities: vec!["embedding"],
                ..ModelShape::default()
            },
        )
        .start()
        .await
        .unwrap()
}

async fn ask(ollama: &Ollama, body: Value) -> Answer {
    http::post(&(ollama.url() + CHAT), body.to_string())
        .await
        .unwrap()
}

fn chat(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "alpha beta"}]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn content(lines: &[Value]) -> String {
    lines
        .iter()
        .map(|line| line["message"]["content"].as_str().unwrap())
        .collect()
}

/// What came of a chat, piece by piece, and whether it was cut off.
async fn pieces(ollama: &Ollama, body: &Value) -> (Vec<Vec<u8>>, bool) {
    let mut answer = http::post_streaming(&(ollama.url() + CHAT), body.to_string())
        .await
        .unwrap();
    let mut pieces = Vec::new();
    loop {
        match answer.next().await {
            Ok(Some(piece)) => pieces.push(piece.to_vec()),
            Ok(None) => return (pieces, false),
            Err(_) => return (pieces, true),
        }
    }
}

#[tokio::test]
async fn a_chat_is_streamed_by_default_and_ends_with_its_counts() {
    let ollama = ollama().await;
    let answer = ask(
        &ollama,
        chat("tiny", &json!({"options": {"num_predict": 3}})),
    )
    .await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines = lines(&answer);
    assert_eq!((lines.len(), content(&lines)), (4, spoken("alpha beta", 3)));
    assert_eq!(spoken("alpha beta", 3), "alpha beta alpha");
    let done = &lines[3];
    assert_eq!(
        (&done["done"], &done["done_reason"]),
        (&json!(true), &json!("length"))
    );
    assert_eq!(
        (&done["prompt_eval_count"], &done["eval_count"]),
        (&json!(2), &json!(3))
    );
    assert!(
        answer
            .text()
            .starts_with(r#"{"model":"tiny","created_at":"20"#)
    );

    let one = ask(&ollama, chat("TINY", &json!({"ſtream": false}))).await;
    assert_eq!(
        one.headers["content-type"],
        "application/json; charset=utf-8"
    );
    assert_eq!(
        one.json()["message"],
        json!({"role": "assistant", "content": spoken("alpha beta", 24)})
    );
    assert_eq!(
        (&one.json()["done_reason"], &one.json()["model"]),
        (&json!("stop"), &json!("TINY"))
    );
}

#[tokio::test]
async fn what_a_model_cannot_do_is_refused_in_ollamas_words() {
    let ollama = ollama().await;
    let tool = json!({"type": "function", "function": {"name": "f"}});
    for (model, more, status, error) in [
        ("nope", json!({}), 404, "model 'nope' not found"),
        (
            "tiny",
            json!({"think": true}),
            400,
            "\"tiny\" does not support thinking",
        ),
        (
            "tiny",
            json!({"tools": [tool]}),
            400,
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        ("embed", json!({}), 400, "\"embed\" does not support chat"),
        (
            "tiny",
            json!({"options": {"num_predict": "3"}}),
            500,
            "option \"num_predict\" must be of type integer",
        ),
    ] {
        let answer = ask(&ollama, chat(model, &more)).await;
        assert_eq!(
            (answer.status, answer.json()),
            (status, json!({"error": error}))
        );
    }
}

#[tokio::test]
async fn a_model_that_can_thinks_and_calls_tools() {
    let ollama = ollama().await;
    let answer = ask(
        &ollama,
        chat(
            "clever:7b",
            &json!({"stream": false, "options": {"num_predict": 6}}),
        ),
    )
    .await;
    assert_eq!(answer.json()["message"]["thinking"], "Let me think.");
    assert_eq!(answer.json()["message"]["content"], "alpha beta");

    ollama.set_behaviour(|behaviour| behaviour.tool_arguments = Some(json!({"city": "Bern"})));
    let tool = json!({"type": "function", "function": {"name": "weather"}});
    let answer = lines(
        &ask(
            &ollama,
            chat("clever:7b", &json!({"think": false, "tools": [tool]})),
        )
        .await,
    );
    let function = json!({"index": 0, "name": "weather", "arguments": {"city": "Bern"}});
    assert_eq!(answer[0]["message"]["tool_calls"][0]["function"], function);
    assert_eq!(
        (answer.len(), &answer[1]["done_reason"]),
        (2, &json!("stop"))
    );
}

#[tokio::test]
async fn a_model_is_loaded_once_and_anew_for_another_context() {
    let ollama = ollama().await;
    for (context, loads) in [
        (json!({}), 1),
        (json!({}), 1),
        (json!({"num_ctx": 512}), 2),
        (json!({"num_ctx": 512}), 2),
        // No wish is one for the context that Ollama gives by itself.
        (json!({}), 3),
        // Compared is what was asked for, not what the model got.
        (json!({"num_ctx": 100_000}), 4),
        (json!({"num_ctx": 100_000}), 4),
        (json!({"num_ctx": 512}), 5),
    ] {
        ask(&ollama, chat("tiny", &json!({"options": context}))).await;
        assert_eq!(ollama.loads("tiny"), loads);
    }
    let running = http::get(&(ollama.url() + "/api/ps")).await.unwrap().json();
    assert_eq!(running["models"][0]["context_length"], 512);

    let unload = json!({"model": "tiny", "messages": [], "KEEP_ALIVE": 0});
    assert_eq!(ask(&ollama, unload).await.json()["done_reason"], "unload");
    assert!(!ollama.is_loaded("tiny"));
    assert_eq!(
        ask(&ollama, json!({"model": "tiny", "messages": []}))
            .await
            .json()["done_reason"],
        "load"
    );
    assert!(ollama.is_loaded("tiny"));
}

#[tokio::test]
async fn a_model_stays_for_as_long_as_its_requests_say() {
    let ollama = ollama().await;
    let load = async |keep_alive: Value| {
        ask(&ollama, json!({"model": "tiny", "keep_alive": keep_alive})).await;
        ollama.is_loaded("tiny")
    };
    assert!(load(json!("30m")).await);
    assert!(load(json!(null)).await);
    assert!(load(json!(-1)).await);
    load(json!("1ms")).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(!ollama.is_loaded("tiny"));
    ask(&ollama, chat("tiny", &json!({"keep_alive": 0}))).await;
    assert!(!ollama.is_loaded("tiny"));
}

#[tokio::test]
async fn one_model_too_many_throws_out_the_one_that_was_to_go_first() {
    let ollama = ollama().await;
    ollama.set_behaviour(|behaviour| behaviour.room = 1);
    for model in ["tiny", "clever:7b", "tiny"] {
        ask(&ollama, json!({"model": model, "keep_alive": "30m"})).await;
        let loaded = ["tiny", "clever:7b"].map(|model| ollama.is_loaded(model));
        assert_eq!(loaded, [model == "tiny", model != "tiny"]);
    }
    ollama.unload("tiny");
    assert!(!ollama.is_loaded("tiny"));
    assert_eq!(ollama.load_requests().len(), 3);
}

#[tokio::test]
async fn a_load_whose_request_goes_away_is_given_up() {
    let ollama = ollama().await;
    let slow = Duration::from_secs(60);
    ollama.set_behaviour(|behaviour| behaviour.load_delay = slow);
    let url = ollama.url() + CHAT;
    let load = tokio::spawn(async move { http::post(&url, r#"{"model":"tiny"}"#).await });
    let request = ollama.wait_for_request(CHAT).await;
    load.abort();
    request.wait_until_left().await;
    ollama.set_behaviour(|behaviour| behaviour.load_delay = Duration::ZERO);
    ask(&ollama, json!({"model": "tiny"})).await;
    assert_eq!(ollama.loads("tiny"), 2);
}

#[tokio::test]
async fn models_are_listed_as_they_come_and_go() {
    let ollama = ollama().await;
    let names = async || {
        let tags = http::get(&(ollama.url() + "/api/tags"))
            .await
            .unwrap()
            .json();
        tags["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    ollama.remove_model("embed");
    ollama.add_model(
        "cloud:70b",
        ModelShape {
            remote_host: Some("https://ollama.com".to_owned()),
            ..ModelShape::default()
        },
    );
    assert_eq!(names().await, ["tiny:latest", "clever:7b", "cloud:70b"]);
    let show = http::post(&(ollama.url() + "/api/show"), r#"{"model":"clever:7b"}"#)
        .await
        .unwrap()
        .json();
    assert_eq!(
        show["capabilities"],
        json!(["completion", "tools", "thinking"])
    );
    assert_eq!(show["model_info"]["llama.context_length"], 8192);
    let gone = http::post(&(ollama.url() + "/api/show"), r#"{"model":"embed"}"#)
        .await
        .unwrap();
    assert_eq!(
        (gone.status, gone.text().as_str()),
        (404, r#"{"error":"model 'embed' not found"}"#)
    );
}

#[tokio::test]
async fn faults_strike_where_they_are_told_to_and_then_are_over() {
    let ollama = ollama().await;
    let body = chat("tiny", &json!({"options": {"num_predict": 5}}));
    let two = "alpha beta";
    let said = |pieces: &[Vec<u8>]| {
        let text = String::from_utf8(pieces.concat()).unwrap();
        let read = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        read.filter_map(|line| line["message"]["content"].as_str().map(str::to_owned))
            .collect::<String>()
    };
    for (fault, cut) in [
        (Fault::Cut { after: 2 }, true),
        (Fault::EndWithoutDone { after: 2 }, false),
        (Fault::HalfLine { after: 2 }, false),
        (
            Fault::ErrorLine {
                after: 2,
                error: "out of memory".to_owned(),
            },
            false,
        ),
    ] {
        ollama.fail_next(CHAT, 1, fault.clone());
        let (pieces, was_cut) = pieces(&ollama, &body).await;
        assert_eq!((said(&pieces).as_str(), was_cut), (two, cut), "{fault:?}");
    }
    ollama.fail_next(
        CHAT,
        2,
        Fault::answer(502, "text/html", "<html>Bad Gateway</html>"),
    );
    for status in [502, 502, 200] {
        assert_eq!(ask(&ollama, body.clone()).await.status, status);
    }
    ollama.fail_always_for("/api/show", "tiny", Fault::answer(500, "text/plain", "no"));
    for (model, status) in [("embed", 200), ("tiny", 500)] {
        let asked = json!({"model": model}).to_string();
        let shown = http::post(&(ollama.url() + "/api/show"), asked).await;
        assert_eq!(shown.unwrap().status, status);
    }
    ollama.fail_always("/api/tags", Fault::answer(500, "text/plain", "no"));
    assert_eq!(
        http::get(&(ollama.url() + "/api/tags"))
            .await
            .unwrap()
            .status,
        500
    );
    ollama.clear_faults();
    assert_eq!(
        http::get(&(ollama.url() + "/api/tags"))
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn writes_are_cut_where_they_are_told_to_be() {
    let ollama = ollama().await;
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "grüße 🦀"}], "options": {"num_predict": 2}});
    ollama.fail_next(CHAT, 1, Fault::SplitEvery(1));
    let (single, cut) = pieces(&ollama, &body).await;
    assert!(!cut && single.iter().all(|piece| piece.len() == 1));
    let all = single.concat();
    let said: String = String::from_utf8(all)
        .unwrap()
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["message"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(said, "grüße 🦀");

    ollama.fail_next(CHAT, 1, Fault::script(["{\"a\":1}", "not json"]));
    let (script, _) = pieces(&ollama, &body).await;
    assert_eq!(script.concat(), b"{\"a\":1}\nnot json\n");
    ollama.fail_next(CHAT, 1, Fault::Garbage { bytes: 100_000 });
    assert_eq!(pieces(&ollama, &body).await.0.concat(), vec![b'x'; 100_000]);
    ollama.fail_next(CHAT, 1, Fault::SingleObject);
    assert_eq!(
        ask(&ollama, body).await.json()["message"]["content"],
        "grüße 🦀"
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_before_headers_between_tokens_and_while_nothing_comes() {
    let ollama = ollama().await;
    ollama.set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(20));
    let url = ollama.url() + CHAT;
    for (number, fault) in [
        Some(Fault::HangBeforeHeaders),
        None,
        Some(Fault::Hang { after: 1 }),
    ]
    .into_iter()
    .enumerate()
    {
        if let Some(fault) = fault {
            ollama.fail_next(CHAT, 1, fault);
        }
        let body = chat("tiny", &json!({"options": {"num_predict": 10_000}})).to_string();
        let asking = tokio::spawn({
            let url = url.clone();
            async move {
                let mut answer = http::post_streaming(&url, body).await.unwrap();
                while let Ok(Some(_)) = answer.next().await {}
            }
        });
        ollama.wait_for_chats(number + 1).await;
        asking.abort();
        ollama.chat_requests()[number].wait_until_left().await;
        ollama.wait_until_idle().await;
    }
    assert_eq!(
        ollama.chats(),
        Chats {
            running: 0,
            ever: 3,
            most: 1
        }
    );
}

#[tokio::test]
async fn a_stopped_ollama_cuts_its_answers_and_refuses_until_it_is_back() {
    let ollama = ollama().await;
    ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let url = ollama.url() + CHAT;
    let mut answer = http::post_streaming(&url, chat("tiny", &json!({})).to_string())
        .await
        .unwrap();
    answer.next().await.unwrap();
    ollama.stop().await;
    assert!(answer.next().await.is_err());
    assert!(http::get(&ollama.url()).await.is_err());
    ollama.start_again().await.unwrap();
    assert_eq!(
        http::get(&ollama.url()).await.unwrap().text(),
        "Ollama is running"
    );
}

#[tokio::test]
async fn openais_dialect_has_its_own_shapes() {
    let ollama = ollama().await;
    let url = ollama.url() + "/v1/chat/completions";
    let asked = chat(
        "tiny",
        &json!({"max_tokens": 2, "stream": true, "stream_options": {"include_usage": true}}),
    );
    let answer = http::post(&url, asked.to_string()).await.unwrap();
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let text = answer.text();
    let events: Vec<&str> = text
        .split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect();
    let read = |index: usize| serde_json::from_str::<Value>(events[index]).unwrap();
    assert_eq!((events.len(), events[4]), (5, "[DONE]"));
    assert_eq!(
        read(0)["choices"][0]["delta"],
        json!({"role": "assistant", "content": "alpha"})
    );
    assert_eq!(read(2)["choices"][0]["finish_reason"], "length");
    assert_eq!(
        read(3)["usage"],
        json!({"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4})
    );
    let unknown = http::post(&url, chat("nope", &json!({})).to_string())
        .await
        .unwrap();
    assert_eq!(unknown.json()["error"]["message"], "model 'nope' not found");
}

#[tokio::test]
async fn an_answer_can_be_stopped_at_a_token_and_told_to_go_on() {
    let ollama = ollama().await;
    ollama.pause_at(2);
    let url = ollama.url() + CHAT;
    let mut answer = http::post_streaming(&url, chat("tiny", &json!({})).to_string())
        .await
        .unwrap();
    let mut lines = 0;
    for (at, expected) in [(2, 2), (5, 5)] {
        ollama.pause_at(at);
        while lines < expected {
            let bytes = answer.next().await.unwrap().unwrap();
            lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        }
        assert_eq!(lines, expected);
    }
    ollama.go_on();
    while answer.next().await.unwrap().is_some() {}
    ollama.wait_until_idle().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_its_answer() {
    let ollama = ollama().await;
    ollama.set_behaviour(|behaviour| behaviour.script = Some(vec!["x".repeat(100_000); 300]));
    let url = ollama.url() + CHAT;
    let mut answer = http::post_streaming(&url, chat("tiny", &json!({})).to_string())
        .await
        .unwrap();
    let request = ollama.wait_for_request(CHAT).await;
    while request.stalled_for() < Duration::from_millis(50) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while answer.next().await.unwrap().is_some() {}
    assert_eq!(request.stalled_for(), Duration::ZERO);
}

/// What a pull says, line by line, as far as it goes.
async fn pull(ollama: &Ollama, model: &str) -> Vec<Value> {
    let body = json!({"model": model}).to_string();
    let answer = http::post(&(ollama.url() + PULL), body).await.unwrap();
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    lines(&answer)
}

#[tokio::test]
async fn a_pull_tells_of_each_layer_and_the_model_is_there_only_after_the_last() {
    let ollama = ollama().await;
    ollama.publish("new", Pullable::of([500, 20]));
    ollama.set_behaviour(|behaviour| behaviour.pull_bytes_per_tick = 300);
    let lines = pull(&ollama, "new").await;
    assert_eq!(lines[0], json!({"status": "pulling manifest"}));
    let completed: Vec<_> = lines[1..6]
        .iter()
        .map(|line| line["completed"].as_u64())
        .collect();
    assert_eq!(completed, [None, Some(300), Some(500), None, Some(20)]);
    assert_eq!(lines[1]["total"], 500);
    let last: Vec<_> = lines[6..].iter().map(|line| &line["status"]).collect();
    assert_eq!(
        last,
        ["verifying sha256 digest", "writing manifest", "success"]
    );
    let tags = http::get(&(ollama.url() + "/api/tags")).await.unwrap();
    let models = tags.json()["models"].as_array().unwrap().clone();
    let new = models.iter().find(|model| model["name"] == "new:latest");
    assert_eq!(new.unwrap()["size"], 520);
    // What it has it does not fetch again.
    assert_eq!(pull(&ollama, "new").await.len(), 6);
}

#[tokio::test]
async fn a_pull_that_was_left_goes_on_where_it_was() {
    let ollama = ollama().await;
    ollama.publish("new", Pullable::of([500]));
    ollama.set_behaviour(|behaviour| behaviour.pull_stops_at = Some(200));
    let body = json!({"model": "new"}).to_string();
    let mut left = http::post_streaming(&(ollama.url() + PULL), body)
        .await
        .unwrap();
    while !String::from_utf8_lossy(&left.next().await.unwrap().unwrap()).contains("200") {}
    drop(left);
    ollama.wait_for_request(PULL).await.wait_until_left().await;
    ollama.set_behaviour(|behaviour| behaviour.pull_stops_at = None);
    let lines = pull(&ollama, "new").await;
    assert_eq!(lines[1]["completed"], 200);
}

#[tokio::test]
async fn a_pull_fails_in_ollamas_words() {
    let ollama = ollama().await;
    let unknown = json!({"error": "pull model manifest: file does not exist"});
    assert_eq!(pull(&ollama, "nope").await[1], unknown);
    ollama.publish("new", Pullable::of([500]));
    let full = Fault::ErrorLine {
        after: 2,
        error: "no space left on device".to_owned(),
    };
    ollama.fail_next(PULL, 1, full);
    let lines = pull(&ollama, "new").await;
    assert_eq!(lines[2], json!({"error": "no space left on device"}));
}
