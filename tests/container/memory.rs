//! The bound on memory that docs/memory-and-limits.md gives, as the limit of a container.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::{
    docker::{PATIENCE, inspect},
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

/// Its formula.
fn bound() -> u64 {
    10 * MIB + OUTBOX * 5 / 4 + QUEUE + 3 * FRAME + CAPACITY * (FRAME + 3 * RESULT)
}

/// A request that is nearly as large as a frame may be, of which two are nearly as large as the queue may be.
const LARGE: u64 = 900_000;

fn large_request() -> Value {
    let prompt = "why is the sky blue ".repeat(LARGE as usize / 20);
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

/// Fills the queue while Ollama is silent, then the outbox while the gateway reads nothing, until there is no room for one
/// more answer.
async fn fill(node: &Node, round: usize) {
    let payload = large_request();
    let request = |n| {
        node.gateway
            .try_request(&format!("chat-{round}-{n}"), &payload)
    };
    let full = async {
        node.ollama.pause_at(1);
        for n in 0..CAPACITY * 2 {
            request(n);
        }
        wait_for(node, "requests_waiting", |waiting| {
            waiting * LARGE > QUEUE - LARGE
        })
        .await;
        node.gateway.stop_reading();
        node.ollama.go_on();
        for n in CAPACITY * 2.. {
            let waiting = metric(node, "outbox_bytes").await;
            if waiting > OUTBOX - RESULT {
                println!("round {round}: full after {n} requests, {waiting} bytes wait");
                return;
            }
            request(n);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let filled = tokio::time::timeout(Duration::from_secs(120), full).await;
    if filled.is_err() {
        panic!(
            "never full: {}",
            node.container.get("/metrics").await.unwrap().text()
        );
    }
}

async fn wait_for(node: &Node, name: &str, holds: impl Fn(u64) -> bool) {
    while !holds(metric(node, name).await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gauge, by its name without the prefix.
async fn metric(node: &Node, name: &str) -> u64 {
    let metrics = node.container.get("/metrics").await.unwrap().text();
    let series = format!("pin_sidecar_{name} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap().parse().unwrap()
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
        // A gateway that reads nothing is to stay, and a request that waits, however slow this machine is.
        ("PIN_HEARTBEAT_TIMEOUT", "10m"),
        ("PIN_QUEUE_TIMEOUT", "10m"),
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
        node.gateway.read_again();
        let empty = wait_for(&node, "outbox_bytes", |waiting| waiting == 0);
        tokio::time::timeout(PATIENCE, empty).await.unwrap();
    }
    let told = inspect(node.container.name()).await;
    let peak = peak(told["Id"].as_str().unwrap());
    println!("of {limit} bytes at most {peak:?} were in use");
    let state = &told["State"];
    assert_eq!(state["OOMKilled"], false, "{state}");
    assert_eq!(state["Pid"], pid, "it is another process");
}
