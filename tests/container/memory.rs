//! The bound on memory that README gives, as the limit of a container.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::{
    docker::inspect,
    lab,
    node::{HARDENED, Node},
    support::MODEL,
};

const MIB: u64 = 1024 * 1024;
const CAPACITY: u64 = 4;
const FRAME: u64 = MIB;
const RESULT: u64 = MIB;
const OUTBOX: u64 = 4 * MIB;
const QUEUE: u64 = 2 * MIB;

/// How often the gateway stops reading until everything is full.
const ROUNDS: usize = 3;

/// README's formula, under "Memory".
fn bound() -> u64 {
    10 * MIB + OUTBOX * 5 / 4 + QUEUE + 3 * FRAME + CAPACITY * (FRAME + 3 * RESULT)
}

/// A request that is nearly as large as a frame may be.
fn large_request() -> Value {
    let prompt = "why is the sky blue ".repeat(45_000);
    json!({"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": true})
}

/// The most that the container ever had, in bytes, where the kernel tells it.
fn peak(id: &str) -> Option<u64> {
    let places = [
        format!("/sys/fs/cgroup/memory/docker/{id}/memory.max_usage_in_bytes"),
        format!("/sys/fs/cgroup/docker/{id}/memory.peak"),
    ];
    let read = |place: &String| fs::read_to_string(place).ok()?.trim().parse().ok();
    places.iter().find_map(read)
}

/// Sends requests until everything is full: the outbox, so that Ollama is held back, and the queue before that.
async fn fill(node: &Node, round: usize) {
    let payload = large_request();
    let held_back = || {
        let requests = node.ollama.chat_requests();
        let held_back = |request: &Duration| *request > Duration::from_secs(2);
        requests
            .iter()
            .map(|request| request.stalled_for())
            .filter(held_back)
            .count()
    };
    node.gateway.stop_reading();
    let full = async {
        for n in 0.. {
            if held_back() >= 2 {
                break;
            }
            node.gateway
                .try_request(&format!("chat-{round}-{n}"), &payload);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let filled = tokio::time::timeout(Duration::from_secs(120), full).await;
    assert!(filled.is_ok(), "Ollama was never held back");
}

#[tokio::test]
async fn the_memory_that_readme_reckons_is_enough_under_a_load_that_fills_every_bound() {
    if !lab::enter() {
        return;
    }
    let limit = bound().to_string();
    let memory = ["--memory", &limit, "--memory-swap", &limit];
    let (capacity, frame, result) = (CAPACITY.to_string(), FRAME.to_string(), RESULT.to_string());
    let (outbox, queue) = (OUTBOX.to_string(), QUEUE.to_string());
    let settings = [
        ("PIN_CAPACITY", &*capacity),
        ("PIN_MAX_FRAME_BYTES", &frame),
        ("PIN_MAX_RESULT_BYTES", &result),
        ("PIN_OUTBOX_BYTES", &outbox),
        ("PIN_QUEUE_BYTES", &queue),
    ];
    let node = Node::start(&[&HARDENED[..], &memory].concat(), &settings).await;
    node.gateway
        .set_policy(|policy| policy.record_chats = false);
    node.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(20_000); 45]);
        behaviour.send_buffer = Some(64 * 1024);
    });
    let pid = node.container.state().await["Pid"].clone();
    for round in 0..ROUNDS {
        fill(&node, round).await;
        let metrics = node.container.get("/metrics").await.unwrap().text();
        let waiting = metrics.lines().filter(|line| {
            line.starts_with("pin_sidecar_outbox_bytes")
                || line.starts_with("pin_sidecar_requests_")
        });
        println!("full: {:?}", waiting.collect::<Vec<_>>());
        node.gateway.read_again();
        node.ollama.wait_until_idle().await;
    }
    let told = inspect(node.container.name()).await;
    let peak = peak(told["Id"].as_str().unwrap());
    println!("of {limit} bytes at most {peak:?} were in use");
    let state = &told["State"];
    assert_eq!(state["OOMKilled"], false, "{state}");
    assert_eq!(state["Pid"], pid, "it is another process");
}
