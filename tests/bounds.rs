//! The figures that are promised of the program as it is shipped: memory, and times under load. Each test prints what it
//! measured. In a debug build the loads are small. The real thing is the release build under the full load:
//!
//! ```console
//! $ cargo build --release
//! $ SIDECAR_PROGRAM=$PWD/target/release/pin-sidecar cargo test --profile no-lto --test bounds -- --nocapture
//! ```
//!
//! One test runs at a time: two would measure each other.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::time::Duration;

use devnet::{
    agent::{Agent, Signal},
    gateway::{Chat, Frame, Gateway},
    network::{Proxy, Reach, Way},
    ollama::{CHAT, ModelShape, Ollama},
};
use serde_json::{Value, json};
use support::{CLIENT, MODEL, SECRET, chat, gateway, ollama};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

/// Names another build of the program than the tests' own.
const PROGRAM: &str = "SIDECAR_PROGRAM";

/// Whether what makes the load is fast enough for all of it.
const FULL_LOAD: bool = !cfg!(debug_assertions);

/// Held by the test that runs.
static TURN: Mutex<()> = Mutex::const_new(());

/// The program between a gateway and an Ollama.
struct Node {
    gateway: Gateway,
    ollama: Ollama,
    network: Proxy,
    agent: Agent,
    _turn: MutexGuard<'static, ()>,
}

impl Node {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().await;
        let (gateway, ollama) = (gateway().await, ollama().await);
        let network = Proxy::start(gateway.addr()).await.unwrap();
        let url = gateway.url_at(network.addr());
        let necessary = [
            ("PIN_CLIENT_ID", CLIENT),
            ("PIN_API_SECRET", SECRET),
            ("PIN_SERVER_URL", &url),
            ("PIN_OLLAMA_URL", &ollama.url()),
            ("PIN_NODE_ALIAS", "node-1"),
            ("PIN_RECONNECT_MIN", "10ms"),
            ("PIN_CONNECTS_PER_MINUTE", "0"),
        ];
        let program = std::env::var_os(PROGRAM).unwrap_or(env!("CARGO_BIN_EXE_pin-sidecar").into());
        let program = Agent::builder(program);
        let program = necessary
            .iter()
            .chain(settings)
            .fold(program, |program, (name, value)| program.env(name, *value));
        let agent = program.start().await.unwrap();
        agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
        Self {
            gateway,
            ollama,
            network,
            agent,
            _turn: turn,
        }
    }

    /// A line of `/proc/PID/status`, in MiB.
    fn memory(&self, line: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.agent.pid())).unwrap();
        let found = status.lines().find_map(|found| found.strip_prefix(line));
        let kib: f64 = found
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        kib / 1024.0
    }

    /// How long the thread that answers scrapes has been on a processor.
    fn admin_cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.agent.pid())).unwrap();
        let read = |task: &std::fs::DirEntry, file| {
            std::fs::read_to_string(task.path().join(file)).unwrap()
        };
        let admin = tasks
            .map(Result::unwrap)
            .find(|task| read(task, "comm").trim() == "admin")
            .unwrap();
        let schedule = read(&admin, "schedstat");
        Duration::from_nanos(schedule.split(' ').next().unwrap().parse().unwrap())
    }

    fn memory_now(&self) -> f64 {
        self.memory("VmRSS:")
    }

    fn memory_at_most(&self) -> f64 {
        self.memory("VmHWM:")
    }

    /// A metric without labels; `name` is without the prefix.
    async fn metric(&self, name: &str) -> f64 {
        let page = self.agent.get("/metrics").await.unwrap().text();
        let series = format!("pin_sidecar_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse().unwrap()
    }

    /// Chats that a load is made of are not written down, or the load would be on this process.
    fn forget_chats(&self) {
        self.gateway
            .set_policy(|policy| policy.record_chats = false);
    }
}

fn streamed(prompt: &str) -> Value {
    let mut payload = chat(prompt);
    payload["stream"] = json!(true);
    payload
}

/// Waits until something is so, for as long as a load may take.
async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), all).await;
    assert!(waited.is_ok(), "waited two minutes for {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_thrown_at_a_small_node_are_answered_or_refused_in_little_memory() {
    const REQUESTS: usize = if FULL_LOAD { 20_000 } else { 2_000 };
    let node = Node::start(&[("PIN_CAPACITY", "2")]).await;
    node.forget_chats();
    node.ollama
        .set_behaviour(|behaviour| behaviour.record = false);
    let before = node.memory_now();
    let began = Instant::now();
    let payload = streamed(&"why is the sky blue ".repeat(10));
    for n in 0..REQUESTS {
        assert!(node.gateway.try_request(&format!("chat-{n}"), &payload));
    }
    let told = || {
        let told = node.gateway.books().all_deliveries();
        told.responses + told.errors
    };
    wait_until("an answer to each", || told() >= REQUESTS).await;
    let (took, grown) = (began.elapsed(), node.memory_at_most() - before);
    let books = node.gateway.books();
    println!(
        "{REQUESTS} requests at capacity 2: {} answered, the rest refused, in {took:.1?}; memory {before:.1} MiB + {grown:.1} MiB",
        books.bills()
    );
    for n in 0..REQUESTS {
        let told = books.deliveries(&format!("chat-{n}"));
        assert_eq!(told.responses + told.errors, 1, "chat-{n}");
    }
    assert!(grown <= 32.0, "memory grew by {grown:.1} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_reading_slows_ollama_instead_of_filling_memory() {
    const CHATS: usize = if FULL_LOAD { 40 } else { 12 };
    const TOKEN: usize = 20_000;
    const TOKENS: usize = 400;
    const OUTBOX_MIB: f64 = 32.0;
    let capacity = CHATS.to_string();
    let node = Node::start(&[
        ("PIN_CAPACITY", &capacity),
        ("PIN_OUTBOX_BYTES", &format!("{OUTBOX_MIB}MiB")),
        ("PIN_MAX_RESULT_BYTES", "16MiB"),
    ])
    .await;
    node.forget_chats();
    node.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(TOKEN); TOKENS]);
        behaviour.send_buffer = Some(64 * 1024);
        // At full speed the system would give the connections to Ollama buffers that hold an answer whole.
        behaviour.token_delay = Duration::from_millis(10);
    });
    let before = node.memory_now();
    node.gateway.stop_reading();
    let mut chats: Vec<Chat> = (0..CHATS)
        .map(|n| {
            node.gateway
                .chat_with_id(&format!("chat-{n}"), streamed("x"))
        })
        .collect();
    let stuck = || {
        let requests = node.ollama.chat_requests();
        let stuck = requests
            .iter()
            .filter(|request| request.stalled_for() > Duration::from_secs(2));
        stuck.count()
    };
    wait_until("Ollama to be slowed", || stuck() >= CHATS / 2).await;
    let grown = node.memory_at_most() - before;
    // How much the system takes into its own buffers differs from run to run, and is anything up to 35 MiB. It no longer waits
    // in the outbox, but its text is kept for the answers.
    let sent = node.metric("sent_bytes_total").await / 1024.0 / 1024.0;
    let limit = 1.25 * (OUTBOX_MIB + sent) + 10.0;
    println!(
        "{} MB wait for a gateway that does not read, {sent:.1} MiB were sent: {} of {CHATS} answers are held back at Ollama; memory {before:.1} MiB + {grown:.1} MiB of {limit:.1}",
        CHATS * TOKEN * TOKENS / 1_000_000,
        stuck(),
    );
    node.gateway.read_again();
    let began = Instant::now();
    for chat in &mut chats {
        let outcome = chat.outcome().await;
        assert_eq!(outcome.text().len(), TOKEN * TOKENS);
        assert_eq!(outcome.streamed("content").len(), TOKEN * TOKENS);
    }
    println!(
        "all delivered {:.1?} after it read again; memory at most {before:.1} MiB + {:.1} MiB",
        began.elapsed(),
        node.memory_at_most() - before
    );
    assert_eq!(node.gateway.sessions().ever, 1);
    assert!(
        grown <= limit,
        "memory grew by {grown:.1} MiB of {limit:.1}"
    );
}

/// The formula of docs/memory-and-limits.md: every term of it is filled at once. The gateway reads and acknowledges nothing, so
/// that each answer has to be kept; while they are made, as many requests wait as may.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_acknowledges_nothing_costs_no_more_memory_than_is_reckoned() {
    const MIB: usize = 1024 * 1024;
    const CAPACITY: usize = 4;
    const QUEUE: usize = 200;
    const ANSWER: usize = 900_000;
    let (outbox, queue, frame, result) = (4 * MIB, 16 * MIB, MIB, MIB);
    let bytes = [outbox, queue, frame, result].map(|bytes| bytes.to_string());
    let (capacity, waiting) = (CAPACITY.to_string(), QUEUE.to_string());
    let node = Node::start(&[
        ("PIN_CAPACITY", &*capacity),
        ("PIN_QUEUE", &waiting),
        ("PIN_OUTBOX_BYTES", &bytes[0]),
        ("PIN_QUEUE_BYTES", &bytes[1]),
        ("PIN_MAX_FRAME_BYTES", &bytes[2]),
        ("PIN_MAX_RESULT_BYTES", &bytes[3]),
        ("PIN_QUEUE_TIMEOUT", "10m"),
        ("PIN_HEARTBEAT_TIMEOUT", "10m"),
    ])
    .await;
    node.forget_chats();
    node.gateway.set_policy(|policy| {
        policy.acknowledge_results = false;
        policy.acknowledge_heartbeats = false;
        policy.acknowledge_models = false;
        policy.answer_pings = false;
    });
    node.ollama.set_behaviour(|behaviour| {
        behaviour.script = Some(vec!["x".repeat(ANSWER / 45); 45]);
        behaviour.record = false;
    });
    node.ollama.pause_at(1);
    // Those that run have requests as large as a frame may be, those that wait are as many and as large as may wait.
    for n in 0..CAPACITY {
        let large = chat(&"x".repeat(frame - 1_000));
        assert!(node.gateway.try_request(&format!("runs-{n}"), &large));
    }
    node.ollama.wait_for_chats(CAPACITY).await;
    for n in 0..QUEUE {
        let waits = chat(&"x".repeat(queue / QUEUE - 1_000));
        assert!(node.gateway.try_request(&format!("waits-{n}"), &waits));
    }
    while node.metric("requests_waiting").await < QUEUE as f64 {
        tokio::task::yield_now().await;
    }
    node.ollama.go_on();
    // Once there is no room for the next answer no job begins.
    while node.metric("outbox_bytes").await < outbox as f64 || node.ollama.chats().running > 0 {
        tokio::task::yield_now().await;
    }
    let held = node.metric("outbox_bytes").await;
    let most = outbox + CAPACITY * (ANSWER + 2_000);
    let reckoned = 10 * MIB + outbox * 5 / 4 + queue + 3 * frame + CAPACITY * (frame + 3 * result);
    let used = node.memory_at_most();
    println!(
        "{:.1} MiB of answers are kept, {:.1} at most; memory {used:.1} MiB of {:.1} at most; {} requests wait on",
        held / MIB as f64,
        most as f64 / MIB as f64,
        reckoned as f64 / MIB as f64,
        node.metric("requests_waiting").await,
    );
    assert!(held <= most as f64, "{held}");
    assert!(used * MIB as f64 <= reckoned as f64, "{used:.1} MiB");
    assert_eq!(node.gateway.books().all_deliveries().errors, 0);
}

/// Chats that run all the time, as many as fit and some more, for as long as this is polled.
async fn full_load(gateway: &Gateway, capacity: usize) {
    let run = || async {
        loop {
            gateway
                .chat(streamed("why is the sky blue"))
                .outcome()
                .await;
        }
    };
    futures_util::future::join_all((0..capacity * 2).map(|_| run())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_pongs_are_on_time_under_full_load() {
    const CAPACITY: usize = 32;
    const INTERVAL: Duration = Duration::from_secs(2);
    const LASTS: Duration = Duration::from_secs(if FULL_LOAD { 40 } else { 10 });
    // A debug build of the gateway reads so slowly that 5 ms would fill the link, and PONGs would wait for it alone.
    const TOKEN_DELAY: Duration = Duration::from_millis(if FULL_LOAD { 5 } else { 50 });
    let capacity = CAPACITY.to_string();
    let settings = [
        ("PIN_CAPACITY", &*capacity),
        ("PIN_HEARTBEAT_INTERVAL", "2s"),
    ];
    let node = Node::start(&settings).await;
    node.forget_chats();
    node.ollama.set_behaviour(|behaviour| {
        behaviour.token_delay = TOKEN_DELAY;
        behaviour.record = false;
    });
    node.gateway
        .set_policy(|policy| policy.ping_every = Some(Duration::from_millis(97)));
    let from = node.gateway.frames().len();
    tokio::select! {
        () = full_load(&node.gateway, CAPACITY) => {}
        () = tokio::time::sleep(LASTS) => {}
    }
    let frames = &node.gateway.frames()[from..];
    let times = |name: &str| -> Vec<Instant> {
        let named = frames.iter().filter(|frame| frame.name() == name);
        named.map(|frame| frame.at).collect()
    };
    let beats = times("HEARTBEAT");
    let gaps: Vec<Duration> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let worst = gaps.iter().max().unwrap();
    let mut pongs: Vec<Duration> = times("PING")
        .iter()
        .zip(times("PONG"))
        .map(|(ping, pong)| pong.saturating_duration_since(*ping))
        .collect();
    pongs.sort();
    let answers = node.gateway.books().bills();
    println!(
        "{LASTS:?} at capacity {CAPACITY}, {answers} answers: {} heartbeats every {INTERVAL:?}, at most {worst:?} apart; \
         {} PINGs answered in {:?} (median), {:?} (99 %), {:?} (all)",
        beats.len(),
        pongs.len(),
        pongs[pongs.len() / 2],
        pongs[pongs.len() * 99 / 100],
        pongs[pongs.len() - 1],
    );
    assert!(answers > CAPACITY * 4);
    assert!(gaps.len() >= (LASTS.as_secs() / INTERVAL.as_secs()) as usize - 2);
    for gap in gaps {
        assert!(gap <= INTERVAL + Duration::from_secs(1), "{gap:?}");
        assert!(gap >= INTERVAL - Duration::from_secs(1), "{gap:?}");
    }
    assert!(pongs[pongs.len() / 2] < Duration::from_millis(100));
    // On a machine that does something else meanwhile, a few may find both cores taken.
    assert!(pongs[pongs.len() * 9 / 10] < Duration::from_millis(250));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_with_200_models_takes_less_than_5_ms_under_full_load() {
    const MODELS: usize = 200;
    const CAPACITY: usize = 32;
    const SCRAPES: usize = if FULL_LOAD { 200 } else { 20 };
    let capacity = CAPACITY.to_string();
    let node = Node::start(&[
        ("PIN_CAPACITY", &capacity),
        ("PIN_MODEL_REFRESH_INTERVAL", "50ms"),
    ])
    .await;
    node.forget_chats();
    node.ollama
        .set_behaviour(|behaviour| behaviour.record = false);
    let name = |n: usize| format!("model-{n}:latest");
    for n in 0..MODELS {
        node.ollama.add_model(&name(n), ModelShape::default());
    }
    let offers_all = |frame: &Frame| {
        let models = frame.value["models"].as_array();
        frame.name() == "MODEL_LIST" && models.is_some_and(|models| models.len() == MODELS + 1)
    };
    node.gateway.wait_for(offers_all).await;
    for n in 0..MODELS {
        let mut payload = chat("x");
        payload["model"] = json!(name(n));
        node.gateway.chat(payload).outcome().await.result();
    }
    node.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(20));
    let ask = async |path: &str| {
        let began = Instant::now();
        let answer = node.agent.get(path).await.unwrap();
        (began.elapsed(), answer.text())
    };
    // The clock also measures what else this machine is busy with, which a probe shows; the processor's time does not.
    let (mut scraped, mut probed) = (Vec::new(), Vec::new());
    let mut on_cpu = Duration::ZERO;
    let mut text = String::new();
    let scrapes = async {
        wait_until("all slots to be taken", || {
            node.ollama.chats().running >= CAPACITY
        })
        .await;
        for _ in 0..SCRAPES {
            probed.push(ask("/healthz").await.0);
            let before = node.admin_cpu();
            let (took, page) = ask("/metrics").await;
            on_cpu += node.admin_cpu() - before;
            scraped.push(took);
            text = page;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = full_load(&node.gateway, CAPACITY) => {}
        () = scrapes => {}
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (probe, scrape) = (median(&mut probed), median(&mut scraped));
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    let each = on_cpu / SCRAPES as u32;
    println!(
        "{SCRAPES} scrapes of {MODELS} models while {CAPACITY} chats stream: {each:.1?} of a processor each; {scrape:.1?} by \
         the clock (median), where a probe takes {probe:.1?}; {series} series, {} KiB",
        text.len() / 1024
    );
    for family in [
        "requests_total",
        "prompt_tokens_total",
        "earnings_estimate_usd_total",
    ] {
        let series = format!("pin_sidecar_{family}{{model=\"model-");
        let models = text
            .lines()
            .filter(|line| line.starts_with(&series))
            .count();
        assert_eq!(models, MODELS, "{family}");
    }
    let limit = Duration::from_millis(if FULL_LOAD { 5 } else { 100 });
    assert!(each < limit, "{each:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_frees_ollama_within_a_quarter_of_a_second() {
    let node = Node::start(&[("PIN_CAPACITY", "8")]).await;
    node.ollama.set_behaviour(|behaviour| {
        behaviour.tokens = 10_000;
        behaviour.token_delay = Duration::from_millis(20);
    });
    let mut chats: Vec<Chat> = (0..8)
        .map(|n| {
            node.gateway
                .chat_with_id(&format!("chat-{n}"), streamed("x"))
        })
        .collect();
    let mut worst = Duration::ZERO;
    for chat in &mut chats {
        chat.next().await;
    }
    let running = node.ollama.chat_requests();
    assert_eq!(running.len(), chats.len());
    let cancelled = Instant::now();
    for chat in &chats {
        node.gateway.cancel(chat.id());
    }
    for request in running {
        worst = worst.max(request.wait_until_left().await - cancelled);
    }
    println!("8 streams cancelled at once: the last is closed at Ollama after {worst:?}");
    assert!(worst < Duration::from_millis(250), "{worst:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_is_noticed_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let settings = [
        ("PIN_HEARTBEAT_INTERVAL", "500ms"),
        ("PIN_HEARTBEAT_TIMEOUT", "2s"),
    ];
    let node = Node::start(&settings).await;
    for (session, ways) in [
        (2, &[Way::Up][..]),
        (3, &[Way::Down]),
        (4, &[Way::Up, Way::Down]),
    ] {
        // The agent knows that it is logged in: before that it is the login that is given up.
        node.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
        let lost = Instant::now();
        for way in ways {
            node.network.lose(*way, Reach::Open);
        }
        node.gateway.wait_for_session(session).await;
        let noticed = lost.elapsed();
        println!("{ways:?} lost: a new session after {noticed:?}, with a timeout of {TIMEOUT:?}");
        assert!(
            noticed < TIMEOUT + Duration::from_millis(500),
            "{noticed:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_end_answers_what_runs_first_and_ends_at_once_where_nothing_does() {
    let node = Node::start(&[]).await;
    let began = Instant::now();
    node.agent.signal(Signal::TERM);
    assert_eq!(node.agent.wait().await.code(), Some(0));
    let idle = began.elapsed();
    println!("idle: gone {idle:?} after SIGTERM");
    assert!(idle < Duration::from_secs(1), "{idle:?}");
    drop(node);

    let node = Node::start(&[]).await;
    node.ollama.pause_at(3);
    let payload =
        json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": true});
    let mut chats: Vec<Chat> = (0..4).map(|_| node.gateway.chat(payload.clone())).collect();
    node.ollama.wait_for_chats(4).await;
    node.agent.signal(Signal::TERM);
    node.agent
        .wait_for_log(|line| line.contains("draining"))
        .await;
    let began = Instant::now();
    node.ollama.go_on();
    for chat in &mut chats {
        chat.outcome().await.result();
    }
    assert_eq!(node.agent.wait().await.code(), Some(0));
    let busy = began.elapsed();
    println!("busy: gone {busy:?} after the last answers could be given");
    assert!(busy < Duration::from_secs(2), "{busy:?}");
    assert_eq!(node.ollama.chat_requests().len(), 4);
    assert_eq!(node.ollama.wait_for_request(CHAT).await.left_at(), None);
}
