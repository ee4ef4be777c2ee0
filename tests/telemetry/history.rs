//! What `/history` and `/status` tell of what has happened, of a whole sidecar over real sockets.

use devnet::ollama::{CHAT, Fault, ModelShape, Ollama};
use serde_json::{Value, json};

use crate::support::{CLIENT, MODEL, Net, gateway, poll};

/// A gateway that goes away is looked for again soon.
const QUICK: [(&str, &str); 2] = [("PIN_RECONNECT_MIN", "10ms"), ("PIN_RECONNECT_MAX", "50ms")];

async fn history(net: &Net, since: u64) -> Value {
    let path = format!("/history?since={since}");
    let (status, body) = net.sidecar.get(&path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until `/history` shows something.
async fn wait_for_history(net: &Net, holds: impl Fn(&Value) -> bool) -> Value {
    poll(|| history(net, 0), holds).await
}

/// The sum of a field of objects in a list.
fn sum(list: &Value, field: &str) -> f64 {
    let list = list.as_array().unwrap().iter();
    list.map(|entry| entry[field].as_f64().unwrap()).sum()
}

fn outcomes(status: &Value) -> Vec<&str> {
    let recent = status["requests"]["recent"].as_array().unwrap().iter();
    recent
        .map(|request| request["outcome"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn chats_a_failure_and_a_cut_session_are_in_the_points_the_days_and_the_lists() {
    let price = ("PIN_PRICE_PER_THOUSAND_TOKENS", "0.25");
    let net = Net::start(&[QUICK[0], QUICK[1], price]).await;
    for _ in 0..2 {
        net.chat("x").outcome().await.result();
    }
    net.ollama.fail_next(CHAT, 1, Fault::Cut { after: 2 });
    net.chat("x").outcome().await.error();
    net.gateway.send(&json!({
        "type": "INTERVIEW_COMPLETE", "interview_id": "i", "tier": "Elite", "accuracy": 97.5,
        "tokens_per_sec": 42.5, "reason": "",
    }));
    let earned = format!("earnings_estimate_usd_total{{model=\"{MODEL}\"}}");
    net.sidecar.wait_for_metric(&earned, |usd| usd > 0.0).await;
    let three = |history: &Value| {
        sum(&history["days"], "requests") == 3.0 && !history["interviews"][0].is_null()
    };
    let told = wait_for_history(&net, three).await;
    let [points, days] = [&told["fine"]["points"], &told["days"]];
    for list in [points, days] {
        assert_eq!(sum(list, "requests"), 3.0, "{told}");
        assert_eq!(sum(list, "failures"), 1.0, "{told}");
    }
    let model = format!("generation_tokens_total{{model=\"{MODEL}\"}}");
    assert_eq!(sum(days, "tokens"), net.sidecar.metric(&model).await);
    let points = points.as_array().unwrap();
    assert!(points.iter().any(|point| point["running"] == 1), "{told}");
    let first_token = |point: &Value| !point["first_token_p95_ms"].is_null();
    assert!(points.iter().any(first_token), "{told}");
    assert_eq!(told["outages"], json!([]));
    let verdict = &told["interviews"][0];
    assert_eq!(
        (&verdict["node"], &verdict["tier"], &verdict["accuracy"]),
        (&json!("node-1"), &json!("elite"), &json!(0.975))
    );

    net.gateway.stop().await;
    let lasts = |told: &Value| told["outages"][0].is_object();
    let told = wait_for_history(&net, lasts).await;
    assert_eq!(told["outages"][0]["to"], json!(null));
    net.gateway.start_again().await.unwrap();
    let over = |told: &Value| told["outages"][0]["to"].is_u64();
    let told = wait_for_history(&net, over).await;
    let [outage] = &told["outages"].as_array().unwrap()[..] else {
        panic!("{told}");
    };
    let [from, to] = ["from", "to"].map(|end| outage[end].as_u64().unwrap());
    assert!((5..60).contains(&(to - from)), "{outage}");
    let why = outage["why"].as_str().unwrap();
    assert!(
        why.starts_with("The connection to the gateway broke"),
        "{why}"
    );
    assert!(sum(&told["days"], "up_seconds") < sum(&told["days"], "known_seconds"));
    let usd = sum(&told["days"], "usd");
    assert!(
        (usd - net.sidecar.metric(&earned).await).abs() < 1e-9,
        "{usd}"
    );
    let now = told["now"].as_u64().unwrap();
    let none = history(&net, now).await;
    assert_eq!(none["coarse"]["points"], json!([]));
    assert_eq!(none["outages"], told["outages"], "always whole");
}

#[tokio::test]
async fn a_request_is_shown_while_it_runs_and_with_its_outcome_once_it_has_ended() {
    let net = Net::start(&[]).await;
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 2 });
    let secret = "nobody else's business";
    let chat = net.streamed(secret);
    let runs = |status: &Value| !status["requests"]["running"][0]["first_token_ms"].is_null();
    let status = net.sidecar.wait_for_status(runs).await;
    let running = &status["requests"]["running"][0];
    assert_eq!(
        (&running["id"], &running["model"], &running["operation"]),
        (&json!(chat.id()), &json!(MODEL), &json!("chat"))
    );
    assert!(running["wait_ms"].as_u64() <= running["first_token_ms"].as_u64());
    assert!(running["first_token_ms"].as_u64() <= running["age_ms"].as_u64());
    assert_eq!(status["requests"]["last_at"], running["received"]);
    net.gateway.cancel(chat.id());
    let ended = |status: &Value| !status["requests"]["recent"][0].is_null();
    let status = net.sidecar.wait_for_status(ended).await;
    assert_eq!(status["requests"]["running"], json!([]));
    assert_eq!(outcomes(&status), ["cancelled"]);
    net.ollama.fail_next(CHAT, 1, Fault::Cut { after: 2 });
    net.chat(secret).outcome().await.error();
    let mut last = net.chat(secret);
    last.outcome().await.result();
    let unknown = json!({"model": "unknown", "messages": [{"role": "user", "content": secret}]});
    net.gateway.chat(unknown).outcome().await.error();
    let all = |status: &Value| outcomes(status).len() == 4;
    let status = net.sidecar.wait_for_status(all).await;
    assert_eq!(
        outcomes(&status),
        ["model_not_found", "ok", "backend", "cancelled"]
    );
    let recent = &status["requests"]["recent"];
    assert_eq!(recent[0]["model"], json!(null), "it is none of ours");
    assert_eq!(recent[1]["id"], json!(last.id()));
    for field in ["wait_ms", "first_token_ms", "duration_ms", "prompt_tokens"] {
        assert!(recent[1][field].is_u64(), "{field}: {}", recent[1]);
    }
    assert!(recent[1]["generation_tokens"].as_u64() > Some(0));
    assert!(!status.to_string().contains(secret));
}

#[tokio::test]
async fn models_that_are_not_offered_are_listed_with_the_setting_that_hides_them() {
    let embeds = ModelShape {
        capabilities: vec!["embedding"],
        ..ModelShape::default()
    };
    let ollama = Ollama::builder()
        .model(MODEL, ModelShape::default())
        .model("denied:latest", ModelShape::default())
        .model("embeds:latest", embeds)
        .start()
        .await
        .unwrap();
    let deny = [("PIN_DENY_MODELS", "denied")];
    let net = Net::with(CLIENT, gateway().await, ollama, &deny).await;
    let two = |status: &Value| status["hidden"].as_array().unwrap().len() == 2;
    let status = net.sidecar.wait_for_status(two).await;
    let why = |name: &str| {
        let hidden = status["hidden"].as_array().unwrap().iter();
        let mut named = hidden.filter(|hidden| hidden["name"] == name);
        named.next().unwrap()["why"].as_str().unwrap().to_owned()
    };
    assert_eq!(why("denied:latest"), "PIN_DENY_MODELS names it.");
    assert!(why("embeds:latest").contains("in full in PIN_ALLOW_MODELS"));
    assert_eq!(status["models"].as_array().unwrap().len(), 1);
}
