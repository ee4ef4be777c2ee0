//! SIGHUP, time and again, while chats are answered.

use std::{cell::Cell, fs, path::Path};

use devnet::{agent::Signal, gateway::Frame, ollama::ModelShape};
use futures_util::join;

use crate::{
    program::{Net, ends_with, program},
    support::{CLIENT, SECRET, chat, gateway},
};

const ROUNDS: usize = 200;

/// How many files and sockets a process has open.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A root certificate that nobody needs.
fn certificate(name: &str) -> String {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    made.cert.pem()
}

#[tokio::test]
async fn two_hundred_reloads_under_load_lose_nothing_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (secret, roots, token) = (path("secret"), path("roots"), path("token"));
    let key = path("key");
    let replace = |path: &str, text: &str| {
        // As Kubernetes and every careful editor do it.
        let beside = Path::new(path).with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    };
    let certificates = [certificate("one"), certificate("two")];
    replace(&secret, SECRET);
    replace(&roots, &certificates[0]);
    replace(&token, "first");
    replace(&key, "first");
    let settings = [
        ("PIN_API_SECRET", ""),
        ("PIN_API_SECRET_FILE", &secret),
        ("PIN_TLS_CA_FILE", &roots),
        ("PIN_ADMIN_TOKEN_FILE", &token),
        ("PIN_BACKEND_API_KEY_FILE", &key),
        // Nothing but a reload looks.
        ("PIN_MODEL_REFRESH_INTERVAL", "1h"),
    ];
    let net = Net::with(gateway().await, program(), &settings).await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    let before = descriptors(net.agent.pid());
    let is_done = Cell::new(false);
    let reloads = async {
        for round in 0..ROUNDS {
            // Each is broken every third time, and good at the end.
            let is_broken = |third| round % 3 == third && round + 3 < ROUNDS;
            replace(&secret, if is_broken(0) { "" } else { SECRET });
            let newer = if is_broken(1) {
                "none"
            } else {
                &*certificates[round % 2]
            };
            replace(&roots, newer);
            let newer = if is_broken(2) {
                String::new()
            } else {
                format!("t{round}")
            };
            for file in [&token, &key] {
                replace(file, &newer);
            }
            let model = format!("model-{}:latest", round % 7);
            let has = net.gateway.models().contains(&model);
            if has {
                net.ollama.remove_model(&model);
            } else {
                net.ollama.add_model(&model, ModelShape::default());
            }
            let frames = net.gateway.frames().len();
            net.agent.signal(Signal::HUP);
            let is_told = |frame: &Frame| {
                let models = frame.value["models"].as_array().into_iter().flatten();
                let mut models = models.filter_map(|name| name.as_str());
                frame.is_from_agent("MODEL_LIST") && models.any(|name| name == model) != has
            };
            net.gateway.wait_for_since(frames, is_told).await;
        }
        is_done.set(true);
    };
    let answered = Cell::new(0);
    let chats = async {
        while !is_done.get() {
            net.gateway.chat(chat("one")).outcome().await.result();
            answered.set(answered.get() + 1);
        }
    };
    join!(reloads, chats, async {
        while !is_done.get() {
            net.gateway.chat(chat("two")).outcome().await.result();
        }
    });
    assert!(answered.get() > 0);
    assert_eq!(net.gateway.sessions().ever, 1);
    let ready = net.agent.get("/readyz").await.unwrap().text();
    assert!(!ready.contains("last good"), "{ready}");
    let metrics = net.agent.get("/metrics").await.unwrap().text();
    assert!(metrics.contains("config_last_reload_successful 1"));
    let after = descriptors(net.agent.pid());
    assert!(
        after <= before + 4,
        "{before} files and sockets were open, {after} are"
    );
    let last = format!("Bearer t{}", ROUNDS - 1);
    let asked = net.ollama.requests();
    assert_eq!(asked.last().unwrap().headers["authorization"], last);
    // What was read last is in force.
    let newest = "rotated";
    net.gateway.set_secret(CLIENT, newest);
    replace(&secret, newest);
    net.agent.signal(Signal::HUP);
    net.gateway.drop_sessions();
    net.gateway.wait_for_session(2).await;
    net.agent.signal(Signal::TERM);
    ends_with(&net.agent, 0).await;
}
