//! The server as probes, Prometheus and strangers meet it: over real sockets.

#![allow(clippy::unwrap_used)]

mod scripted;

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::FutureExt;
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, setrlimit};
use scripted::Scripted;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::*;
use crate::{
    protocol::{Code, Generation},
    telemetry::{DisconnectReason, ErrorSource, RecentError},
};

/// No test waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn scripted_connection() -> server::Connection {
    let sidecar = Arc::new(Scripted::default());
    server::Connection {
        caller: Ipv4Addr::LOCALHOST.into(),
        routes: Routes {
            overview: sidecar.clone(),
            verbs: sidecar,
            metrics: Arc::new(Metrics::new()),
            access: Access::default(),
        },
        is_answering: Arc::default(),
    }
}

struct Fixture {
    sidecar: Arc<Scripted>,
    addr: SocketAddr,
    server: AdminServer,
}

impl Fixture {
    fn start() -> Self {
        let sidecar = Arc::new(Scripted::default());
        let bound = AdminServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = bound.addr();
        let server = bound
            .serve(
                sidecar.clone(),
                sidecar.clone(),
                Arc::new(Metrics::new()),
                Access::default(),
            )
            .unwrap();
        Self {
            sidecar,
            addr,
            server,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str) -> Answer {
        self.ask_as("localhost", method, path)
    }

    fn ask_as(&self, host: &str, method: &str, path: &str) -> Answer {
        let mut stream = self.connect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}

struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Whether the server has closed this connection; waits for it.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_process_is_alive_until_its_tick_is_thirty_seconds_old() {
    let fixture = Fixture::start();
    for (age, status) in [(0, 200), (29, 200), (30, 503), (0, 200)] {
        fixture
            .sidecar
            .tick_age_seconds
            .store(age, Ordering::Relaxed);
        for path in ["/healthz", "/livez"] {
            let answer = fixture.ask("GET", path);
            assert_eq!(answer.status(), status, "{path} at {age} s");
            assert_eq!(answer.json()["healthy"], status == 200);
        }
    }
}

#[test]
fn not_being_ready_says_why_and_harms_no_liveness() {
    let fixture = Fixture::start();
    assert_eq!(
        fixture.ask("GET", "/readyz").body,
        "{\"ready\":true,\"pending\":[]}\n"
    );
    *fixture.sidecar.pending.lock().unwrap() =
        vec!["Ollama does not answer: is it running?".into()];
    let answer = fixture.ask("GET", "/readyz");
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.body,
        "{\"ready\":false,\"pending\":[\"Ollama does not answer: is it running?\"]}\n"
    );
    let for_the_page = fixture.ask("GET", "/readyz?always_ok");
    assert_eq!(
        (for_the_page.status(), for_the_page.body),
        (200, answer.body)
    );
    assert_eq!(fixture.ask("GET", "/readyz?verbose").status(), 503);
    assert_eq!(fixture.ask("GET", "/healthz").status(), 200);
    let own = Target::Own(fixture.addr);
    assert!(healthcheck(&own, false).is_ok());
    let error = healthcheck(&own, true).unwrap_err().to_string();
    assert!(
        error.ends_with("\n- Ollama does not answer: is it running?"),
        "{error}"
    );
}

#[test]
fn prometheus_gets_its_text_format() {
    let answer = Fixture::start().ask_as("evil.example", "GET", "/metrics");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        answer.body.contains("\npin_sidecar_session_up 0\n"),
        "{}",
        answer.body
    );
}

#[test]
fn status_is_json_whose_fields_keep_their_order() {
    let answer = Fixture::start().ask("GET", "/status");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = concat!(
        r#"{"now":1704499300,"ready":true,"pause":null,"#,
        r#""requests":{"last_at":null,"running":[],"recent":[]},"#,
        r#""session":{"state":"up","since":1704499200,"generation":2,"transport":"ws","logged_in_since":1704499200,"#,
        r#""attempts":2,"last_disconnect":"silent","last_connect_failure":null,"backoff_until":null},"nodes":[],"#,
        r#""models":[{"name":"tiny:latest","context_length":2048,"loaded":true}],"hidden":[],"#,
        r#""pulls":[{"model":"big:latest","state":"pulling","completed_bytes":34,"total_bytes":100}],"#,
        r#""preloads":[{"model":"big:latest","state":"waiting"}],"#,
        r#""load":{"running":1,"waiting":0,"capacity":4,"queue":4},"counts":{"requests":0,"failures":{},"#,
    );
    assert!(answer.body.starts_with(expected), "{}", answer.body);
    assert_eq!(answer.json()["last_errors"][0]["reason"], "timeout");
}

#[test]
fn a_page_under_somebody_elses_name_cannot_read_the_status() {
    let fixture = Fixture::start();
    for (host, status) in [
        ("evil.example:9464", 421),
        ("", 421),
        ("127.0.0.1:9464", 200),
        ("pin.default.svc", 200),
    ] {
        assert_eq!(
            fixture.ask_as(host, "GET", "/status").status(),
            status,
            "{host}"
        );
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(
            fixture.ask_as("evil.example", "GET", path).status(),
            200,
            "{path}"
        );
    }
}

#[test]
fn head_is_get_without_the_body() {
    let fixture = Fixture::start();
    for path in ["/healthz", "/readyz", "/status"] {
        let (get, head) = (fixture.ask("GET", path), fixture.ask("HEAD", path));
        assert_eq!((head.status(), head.body.as_str()), (get.status(), ""));
        assert_eq!(head.header("content-length"), get.header("content-length"));
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string().as_str())
        );
    }
}

#[test]
fn other_methods_and_paths_are_refused() {
    let fixture = Fixture::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = fixture.ask(method, "/healthz");
        assert_eq!(
            (answer.status(), answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    for path in [
        "/index.html",
        "/healthz/",
        "/metrics/../status",
        "/session",
        "//",
    ] {
        assert_eq!(fixture.ask("GET", path).status(), 404, "{path}");
    }
    assert_eq!(fixture.ask("GET", "/healthz?verbose").status(), 200);
}

#[test]
fn a_body_is_not_waited_for_and_an_endless_head_is_refused() {
    let fixture = Fixture::start();
    let mut stream = fixture.connect();
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
    )
    .unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    let mut stream = fixture.connect();
    let endless = format!(
        "GET /healthz?{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "x".repeat(20 << 10)
    );
    // The server may hang up before all was written or read, so errors of both are fine.
    let _ = stream.write_all(endless.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn connections_that_never_ask_do_not_keep_a_probe_from_its_answer() {
    let fixture = Fixture::start();
    let mut strangers: Vec<_> = (0..server::MAX_CONNECTIONS + 10)
        .map(|_| fixture.connect())
        .collect();
    // Accepting is in order, so with this answer all strangers were accepted before it.
    assert_eq!(fixture.ask("GET", "/healthz").status(), 200);
    assert!(
        strangers[..11].iter_mut().all(is_closed),
        "the oldest make room"
    );
    for stranger in &mut strangers[11..] {
        write!(stranger, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        let mut start = [0; 12];
        stranger.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
}

#[test]
fn a_drain_is_answered_when_it_is_over_and_says_what_it_has_left() {
    for (undelivered, status, body) in [
        (0, 200, "{\"drained\":true,\"undelivered\":0}\n"),
        (2, 503, "{\"drained\":false,\"undelivered\":2}\n"),
    ] {
        let fixture = Fixture::start();
        let mut hook = fixture.connect();
        write!(
            hook,
            "POST /drain HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        wait_for(|| fixture.sidecar.undelivered.receiver_count() == 1);
        // However many come meanwhile, it is answered.
        let _strangers: Vec<_> = (0..server::MAX_CONNECTIONS + 10)
            .map(|_| fixture.connect())
            .collect();
        assert_eq!(fixture.ask("GET", "/healthz").status(), 200);
        fixture.sidecar.undelivered.send(Some(undelivered)).unwrap();
        let mut answer = String::new();
        hook.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.ends_with(body), "{answer}");
    }
}

#[test]
fn a_session_is_opened_again_at_once_or_as_soon_as_it_has_been_drained() {
    let fixture = Fixture::start();
    assert_eq!(fixture.ask("POST", "/session/connect").status(), 202);
    fixture.sidecar.serves.store(true, Ordering::Relaxed);
    assert_eq!(fixture.ask("POST", "/session/connect").status(), 200);
}

#[test]
fn a_verb_is_for_post_and_for_those_who_may() {
    let fixture = Fixture::start();
    for path in [
        "/drain",
        "/session/connect",
        "/session/disconnect",
        "/check",
    ] {
        let answer = fixture.ask("GET", path);
        assert_eq!(
            (answer.status(), answer.header("allow")),
            (405, Some("POST")),
            "{path}"
        );
        let answer = fixture.ask_as("evil.example", "POST", path);
        assert_eq!(answer.status(), 403, "{path}");
        assert!(answer.body.contains("Host"), "{}", answer.body);
    }
    assert_eq!(fixture.sidecar.undelivered.receiver_count(), 0);
}

#[test]
fn a_pause_is_answered_with_its_end_and_a_length_that_means_nothing_is_refused() {
    let fixture = Fixture::start();
    for (length, until) in [
        ("", "null"),
        ("?for=2h", "1704506400"),
        ("?for=1h30m", "1704504600"),
    ] {
        let answer = fixture.ask("POST", &format!("/session/disconnect{length}"));
        let expected = format!("{{\"paused\":true,\"since\":1704499200,\"until\":{until}}}\n");
        assert_eq!((answer.status(), answer.body), (200, expected), "{length}");
    }
    for length in ["", "2", "h", "0s", "-1h", "2h?", "366d", "1h%2030m"] {
        let answer = fixture.ask("POST", &format!("/session/disconnect?for={length}"));
        assert_eq!(answer.status(), 400, "{length}");
        assert!(
            answer.body.contains("/session/disconnect?for=2h"),
            "{}",
            answer.body
        );
    }
}

#[test]
fn a_history_is_asked_for_since_a_moment() {
    let fixture = Fixture::start();
    assert_eq!(fixture.ask("GET", "/history").json()["known_since"], 0);
    let answer = fixture.ask("GET", "/history?since=1704499200");
    assert_eq!(answer.json()["known_since"], 1_704_499_200);
    assert_eq!(fixture.ask("GET", "/history?since=yesterday").status(), 400);
    assert_eq!(
        fixture.ask_as("evil.example", "GET", "/history").status(),
        421
    );
}

/// Waits for something that nothing tells of.
fn wait_for(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_its_request_byte_by_byte_is_hung_up_on() {
    let connection = scripted_connection();
    let (mut peer, stream) = tokio::io::duplex(1 << 10);
    let started = tokio::time::Instant::now();
    let serving = connection.serve(TokioIo::new(stream), CancellationToken::new());
    let dripping = async {
        while peer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(serving, dripping);
    assert!(
        started.elapsed() <= server::HEAD_TIMEOUT + Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_answer() {
    let connection = scripted_connection();
    let (mut peer, stream) = tokio::io::duplex(1 << 10);
    let serving = connection.serve(TokioIo::new(stream), CancellationToken::new());
    let asking = async {
        peer.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        peer.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = tokio::join!(serving, asking);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[test]
fn stopping_ends_idle_connections_at_once_and_frees_the_port() {
    let fixture = Fixture::start();
    let mut idle = fixture.connect();
    assert_eq!(fixture.ask("GET", "/healthz").status(), 200);
    let started = Instant::now();
    fixture.server.stop();
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(is_closed(&mut idle));
    assert!(AdminServer::bind(fixture.addr).is_ok());
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let fixture = Fixture::start();
    assert_eq!(
        AdminServer::bind(fixture.addr).err().unwrap().kind(),
        ErrorKind::AddrInUse
    );
}

/// Not a test of its own: what the next one runs in a process apart, since descriptors are the process's.
#[test]
#[ignore = "run by being_out_of_file_descriptors_only_delays_a_probe"]
fn out_of_file_descriptors_in_a_process_apart() {
    let fixture = Fixture::start();
    let few = Some(64);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: few,
            maximum: few,
        },
    )
    .unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    taken.pop().unwrap();
    let mut probe = fixture.connect();
    probe
        .set_read_timeout(Some(3 * server::ACCEPT_PAUSE))
        .unwrap();
    write!(probe, "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut start = [0; 12];
    let error = probe.read_exact(&mut start).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::WouldBlock,
        "there is no descriptor to answer on"
    );
    drop(taken);
    probe.set_read_timeout(Some(PATIENCE)).unwrap();
    probe.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[test]
fn being_out_of_file_descriptors_only_delays_a_probe() {
    let name = "admin::tests::out_of_file_descriptors_in_a_process_apart";
    let test = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored"])
        .output()
        .unwrap();
    assert!(
        test.status.success(),
        "{}",
        String::from_utf8_lossy(&test.stdout)
    );
    assert!(String::from_utf8_lossy(&test.stdout).contains("1 passed"));
}

#[test]
fn the_page_is_shown_under_our_names_and_may_do_nothing_but_ask_us() {
    let fixture = Fixture::start();
    let page = fixture.ask("GET", "/");
    assert_eq!(page.status(), 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
    assert_eq!(fixture.ask("GET", "/page.js").status(), 200);
    assert_eq!(fixture.ask("POST", "/").status(), 405);
    for path in ["/", "/page.js"] {
        assert_eq!(
            fixture.ask_as("evil.example", "GET", path).status(),
            421,
            "{path}"
        );
    }
}
