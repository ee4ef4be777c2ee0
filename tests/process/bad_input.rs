//! What nobody should send, by the gigabyte and at the finest level of the log: memory stays where it is, and the log
//! has nothing of it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use async_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};
use devnet::ollama::{CHAT, Fault};
use serde_json::json;

use crate::{
    program::{Net, between, memory_kib, program, with},
    support::{MODEL, chat, gateway, ollama, poll},
};

/// What must never be seen again.
const MARK: &str = "Zebra";

/// The most that may ever be in memory: what an idle debug build needs, a list of models, and a megabyte or two each
/// for four chats.
const MOST_KIB: u64 = 40 << 10;

const SMALL: [(&str, &str); 6] = [
    ("PIN_LOG", "trace"),
    ("PIN_LOG_FORMAT", "json"),
    ("PIN_MAX_RESULT_BYTES", "1MiB"),
    ("PIN_MAX_FRAME_BYTES", "1MiB"),
    ("PIN_RECONNECT_MIN", "10ms"),
    ("PIN_RECONNECT_MAX", "20ms"),
];

fn assert_stays_put(net: &Net) {
    let most = memory_kib(&net.agent, "VmHWM");
    println!("resident: {most} KiB at most");
    assert!(most < MOST_KIB, "{most} KiB");
}

fn assert_tells_nothing(net: &Net) {
    let log = net.agent.log();
    assert!(log[0].contains("PIN_LOG=trace"), "{}", log[0]);
    let shown = log
        .iter()
        .find(|line| line.contains(MARK) || line.contains("panicked"));
    assert_eq!(shown, None);
}

#[tokio::test]
async fn an_ollama_that_never_stops_talking_fills_no_memory() {
    let net = Net::start(&SMALL).await;
    net.gateway.chat(chat("one")).outcome().await.result();
    let line = json!({"message": {"content": MARK.repeat(50), "thinking": MARK}, "done": false})
        .to_string()
        + "\n";
    let call = json!({"message": {"tool_calls": [{"function": {"name": MARK, "arguments": {}}}]}, "done": false});
    let faults = [
        Fault::Garbage { bytes: u64::MAX },
        Fault::Script(vec![line.repeat((2 << 20) / line.len()).into()]),
        Fault::Script(vec![
            (call.to_string() + "\n").repeat((2 << 20) / 80).into(),
        ]),
        Fault::Script(vec![format!("{{\"{MARK}\":{}", "[".repeat(2 << 20)).into()]),
        Fault::Answer {
            status: 500,
            headers: Vec::new(),
            body: MARK.repeat(2 << 20).into(),
        },
    ];
    for fault in faults {
        net.ollama.fail_next(CHAT, 8, fault);
        // Four at once, as many as there are slots, and as many behind them as may wait.
        let mut chats: Vec<_> = (0..8)
            .map(|n| {
                let mut payload = chat(MARK);
                payload["stream"] = json!(n % 2 == 0);
                net.gateway.chat(payload)
            })
            .collect();
        for chat in &mut chats {
            chat.outcome().await.error();
        }
    }
    net.gateway.chat(chat("one")).outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);
    assert_stays_put(&net);
    assert_tells_nothing(&net);
}

#[tokio::test]
async fn a_gateway_that_sends_nothing_but_nonsense_fills_no_memory() {
    let net = Net::start(&SMALL).await;
    net.gateway.chat(chat("one")).outcome().await.result();
    let large = MARK.repeat(100_000);
    let deep = "[".repeat(10_000);
    for n in 0..20 {
        for text in [
            format!("{{\"{MARK}\":"),
            format!(r#"{{"type":"NEWS","x":"{large}"}}"#),
            format!(r#"{{"type":"NEWS{n}{}"}}"#, "x".repeat(100_000)),
            format!(r#"{{"type":"INFERENCE_REQUEST","request_id":"","payload":"{large}"}}"#),
            format!(
                r#"{{"type":"INFERENCE_REQUEST","request_id":"r{n}","payload":{{"model":"{large}"}}}}"#
            ),
            format!(
                r#"{{"type":"INFERENCE_REQUEST","request_id":"d{n}","payload":{{"{MARK}":{deep}"#
            ),
            format!(r#"{{"type":"CANCEL_REQUEST","request_id":["{large}"]}}"#),
            format!(
                r#"{{"type":"INFERENCE_REQUEST","request_id":"k{n}","payload":{{"model":"{MODEL}","messages":[{{}}],{}"x":1}}}}"#,
                format!("\"{MARK}\":0,").repeat(10_000)
            ),
        ] {
            net.gateway.send_text(&text);
        }
        net.gateway.send_message(Message::binary(large.clone()));
        // What is refused has been read, and nothing of it is left.
        for id in ["r", "d", "k"] {
            let id = format!("{id}{n}");
            net.gateway
                .wait_for(|frame| {
                    frame.is_from_agent("INFERENCE_ERROR") && frame.request_id() == id
                })
                .await;
        }
    }
    net.gateway.chat(chat("one")).outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);

    // What ends a session is not told either.
    let not_utf8 = [MARK.as_bytes(), b"\xff"].concat();
    for message in [
        Message::text(large.repeat(3)),
        Message::Frame(Frame::message(not_utf8, OpCode::Data(Data::Text), true)),
        Message::Frame(Frame::message(MARK, OpCode::Data(Data::Continue), true)),
    ] {
        let sessions = net.gateway.sessions().ever;
        net.gateway.send_message(message);
        net.gateway.wait_for_session(sessions + 1).await;
    }
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    net.gateway.chat(chat("one")).outcome().await.result();
    assert_stays_put(&net);
    assert_tells_nothing(&net);
}

/// A server that answers whatever it is asked with `head` and then goes on until the other end has had enough.
struct Endless {
    addr: SocketAddr,
    connections: Arc<AtomicU64>,
}

/// What one connection is given at most, should the other end never have enough.
const MOST: usize = 1 << 30;

impl Endless {
    fn start(head: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                talk(stream, head);
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { addr, connections }
    }

    /// Waits until so many connections were given up.
    async fn wait_until_left(&self, times: u64) {
        poll(
            || async { self.connections.load(Ordering::Relaxed) },
            |left| *left >= times,
        )
        .await;
    }
}

fn talk(mut stream: TcpStream, head: &str) {
    let _ = stream.set_read_timeout(Some(devnet::PATIENCE));
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(head.as_bytes());
    let more = MARK.repeat(10_000);
    for _ in 0..MOST / more.len() {
        if stream.write_all(more.as_bytes()).is_err() {
            break;
        }
    }
}

const HEADS: [&str; 4] = [
    "",
    "HTTP/1.1 200 OK\r\nx: ",
    "HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 99999999999\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
];

#[tokio::test]
async fn what_is_no_gateway_may_send_without_end() {
    for head in HEADS {
        let endless = Endless::start(head);
        let url = format!("ws://{}", endless.addr);
        let settings = [
            &SMALL[..],
            &[("PIN_SERVER_URL", &url), ("PIN_CONNECT_TIMEOUT", "300ms")],
        ]
        .concat();
        let net = Net::with(gateway().await, program(), &settings).await;
        net.wait_until_pending("Connect").await;
        endless.wait_until_left(5).await;
        assert_eq!(net.agent.get("/healthz").await.unwrap().status, 200);
        assert_stays_put(&net);
        assert_tells_nothing(&net);
    }
}

#[tokio::test]
async fn what_is_no_ollama_may_send_without_end() {
    for head in HEADS {
        let endless = Endless::start(head);
        let url = format!("http://{}", endless.addr);
        let (gateway, ollama) = (gateway().await, ollama().await);
        let settings = [
            &SMALL[..],
            &[
                ("PIN_OLLAMA_URL", &url),
                ("PIN_CONNECT_TIMEOUT", "300ms"),
                ("PIN_MODEL_REFRESH_INTERVAL", "20ms"),
            ],
        ]
        .concat();
        let agent = with(between(program(), &gateway, &ollama), &settings)
            .start()
            .await
            .unwrap();
        let net = Net {
            gateway,
            ollama,
            agent,
        };
        net.wait_until_pending("Ollama").await;
        endless.wait_until_left(3).await;
        net.gateway.wait_for_session(1).await;
        let mut chat = net.gateway.chat(chat(MARK));
        chat.outcome().await.error();
        assert_eq!(net.gateway.sessions().ever, 1);
        assert_stays_put(&net);
        assert_tells_nothing(&net);
    }
}
