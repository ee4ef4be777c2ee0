//! Signals, as orchestrators send them.

use std::{
    fmt::Display,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::process::ExitStatusExt as _,
    time::{Duration, Instant},
};

use devnet::{
    agent::{Agent, Builder, Signal},
    gateway::{Chat, Gateway, Login},
    ollama::{CHAT, Fault},
};

use socket2::{Domain, Socket, Type};

use crate::{
    program::{Net, PROGRAM, between, ends_with, program, skipped, with_arguments},
    support::{CLIENT, SECRET, chat, gateway, ollama},
};

/// What a drain may take where there is nothing to drain.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A chat that runs, and its sidecar; it ends in a while.
async fn with_a_chat(program: Builder, settings: &[(&str, &str)]) -> (Net, Chat) {
    let net = Net::with(gateway().await, program, settings).await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(20));
    let chat = net.gateway.chat(chat("why is the sky blue"));
    net.ollama.wait_for_chats(1).await;
    (net, chat)
}

#[tokio::test]
async fn a_hangup_without_a_terminal_reads_the_secret_again_and_drops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let settings = [
        ("PIN_API_SECRET", ""),
        ("PIN_API_SECRET_FILE", file.to_str().unwrap()),
    ];
    let (net, mut chat) = with_a_chat(heeding_hangups(&[PROGRAM]), &settings).await;
    fs::write(&file, "").unwrap();
    net.agent.signal(Signal::HUP);
    net.agent
        .wait_for_log(|line| line.contains("SIGHUP: the secret cannot be read"))
        .await;
    let ready = net.agent.get("/readyz").await.unwrap();
    assert_eq!(ready.status, 200);
    let words = "The last good secret is in use";
    assert!(ready.text().contains(words), "{}", ready.text());
    let metrics = net.agent.get("/metrics").await.unwrap().text();
    assert!(metrics.contains("config_last_reload_successful 0"));
    fs::write(&file, SECRET).unwrap();
    net.agent.signal(Signal::HUP);
    net.agent
        .wait_for_log(|line| line.contains("SIGHUP: the secret was read again"))
        .await;
    let ready = net.agent.get("/readyz").await.unwrap();
    assert!(!ready.text().contains(words), "{}", ready.text());
    chat.outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);
    ends_at_once(&net.agent, Signal::TERM, 0).await;
}

#[tokio::test]
async fn signals_that_mean_nothing_do_nothing() {
    let (net, mut chat) = with_a_chat(program(), &[]).await;
    for signal in [Signal::USR1, Signal::USR2, Signal::ALARM] {
        net.agent.signal(signal);
    }
    chat.outcome().await.result();
    assert_eq!(net.gateway.sessions().ever, 1);
    ends_at_once(&net.agent, Signal::TERM, 0).await;
}

#[tokio::test]
async fn a_hangup_that_was_inherited_as_ignored_stays_ignored() {
    let arguments = ["-c", r#"trap "" HUP; exec "$0""#, PROGRAM];
    let (net, mut chat) = with_a_chat(with_arguments(Agent::builder("sh"), &arguments), &[]).await;
    net.agent.signal(Signal::HUP);
    chat.outcome().await.result();
    ends_at_once(&net.agent, Signal::TERM, 0).await;
    let log = net.agent.log();
    assert!(!log.iter().any(|line| line.contains("SIGHUP")), "{log:#?}");
}

#[tokio::test]
async fn the_end_of_its_terminal_drains_it_and_a_second_one_does_not_hurry_it() {
    const WHAT: &str = "the end of a terminal";
    if !works("script", &["-qec", "true", "/dev/null"]) {
        return skipped(WHAT, "script is not there");
    }
    let in_a_terminal = heeding_hangups(&["script", "-qec", PROGRAM, "/dev/null"]);
    let (net, mut chat) = with_a_chat(in_a_terminal, &[("PIN_LOG_FORMAT", "json")]).await;
    let pid = program_beneath(net.agent.pid());
    for _ in 0..2 {
        assert!(works("kill", &["-HUP", &pid]));
        net.agent
            .wait_for_log(|line| line.contains("draining"))
            .await;
    }
    chat.outcome().await.result();
    ends_with(&net.agent, 0).await;
}

/// A program to which SIGHUP means what it does by default, also where these tests run under `nohup`.
fn heeding_hangups(command: &[&str]) -> Builder {
    let arguments = [&["--default-signal=HUP"], command].concat();
    with_arguments(Agent::builder("env"), &arguments)
}

/// The id of the program, somewhere beneath a process: shells and `script` may be between.
fn program_beneath(parent: impl Display) -> String {
    let mut pid = parent.to_string();
    loop {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        if name.trim() == "pin-sidecar" {
            return pid;
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        pid = children.split_whitespace().next().unwrap().to_owned();
    }
}

/// Sends a signal, upon which the process exits at once, with this code.
async fn ends_at_once(agent: &Agent, signal: Signal, code: i32) {
    agent.signal(signal);
    let status = agent.wait_for(AT_ONCE).await;
    let exited = status.and_then(|status| status.code());
    assert_eq!(exited, Some(code), "{:#?}", agent.log());
}

#[tokio::test]
async fn with_nothing_to_do_it_is_gone_at_once() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let net = Net::start(&[]).await;
        ends_at_once(&net.agent, signal, 0).await;
        net.gateway.wait_for_no_session().await;
    }
}

#[tokio::test]
async fn a_chat_that_runs_is_answered_first() {
    for signal in [Signal::TERM, Signal::INT] {
        let net = Net::start(&[]).await;
        net.ollama
            .set_behaviour(|behaviour| behaviour.token_delay = Duration::from_millis(20));
        let mut chat = net.gateway.chat(chat("why is the sky blue"));
        net.ollama.wait_for_chats(1).await;
        net.agent.signal(signal);
        chat.outcome().await.result();
        ends_with(&net.agent, 0).await;
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_whatever_runs() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let net = Net::start(&[]).await;
        net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
        let _chat = net.gateway.chat(chat("why is the sky blue"));
        net.ollama.wait_for_chats(1).await;
        net.agent.signal(first);
        net.agent
            .wait_for_log(|line| line.contains("draining"))
            .await;
        ends_at_once(&net.agent, second, 1).await;
    }
}

#[tokio::test]
async fn what_ollama_does_not_finish_is_cut_short_and_the_exit_is_clean() {
    let net = Net::start(&[("PIN_DRAIN_TIMEOUT", "300ms")]).await;
    net.ollama.fail_always(CHAT, Fault::Hang { after: 1 });
    let mut chats: Vec<_> = (0..6).map(|_| net.gateway.chat(chat("why"))).collect();
    net.ollama.wait_for_chats(4).await;
    let asked = Instant::now();
    net.agent.signal(Signal::TERM);
    for chat in &mut chats {
        let outcome = chat.outcome().await;
        assert_eq!(outcome.error(), "draining: this node is shutting down");
    }
    ends_with(&net.agent, 0).await;
    let took = asked.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_millis(300) + 2 * AT_ONCE).contains(&took),
        "{took:?}"
    );
}

/// Before the program has said what is to be done about it, the signal itself ends it.
#[tokio::test]
async fn a_signal_at_any_moment_of_the_start_ends_it() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    for millis in [0, 1, 2, 3, 4, 5, 8, 20] {
        let agent = between(program(), &gateway, &ollama).start().await.unwrap();
        tokio::time::sleep(Duration::from_millis(millis)).await;
        let had_a_handler = handles_sigterm(&agent);
        agent.signal(Signal::TERM);
        let status = agent.wait_for(AT_ONCE).await.unwrap();
        let by_the_signal = status.signal() == Some(Signal::TERM.as_raw());
        assert!(
            status.code() == Some(0) || (by_the_signal && !had_a_handler),
            "{status:?} after {millis} ms: {:#?}",
            agent.log()
        );
    }
}

/// Whether the process has a handler for SIGTERM, by the mask of those that it has.
fn handles_sigterm(agent: &Agent) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    mask >> (Signal::TERM.as_raw() - 1) & 1 == 1
}

#[tokio::test]
async fn it_can_be_stopped_while_it_starts() {
    let net = Net::with(gateway().await, program(), &[]).await;
    net.agent
        .wait_for_log(|line| line.contains("starting"))
        .await;
    ends_at_once(&net.agent, Signal::TERM, 0).await;
}

#[tokio::test]
async fn it_can_be_stopped_while_the_gateway_keeps_it_waiting() {
    for login in [Login::HangUpgrade, Login::Hang, Login::NeverRead] {
        let gateway = patient_gateway(login.clone()).await;
        let net = Net::with(gateway, program(), &[]).await;
        net.wait_until_pending("Connecting now").await;
        if login == Login::Hang {
            net.gateway
                .wait_for(|frame| frame.is_from_agent("AUTH"))
                .await;
        }
        ends_at_once(&net.agent, Signal::TERM, 0).await;
    }
}

#[tokio::test]
async fn it_can_be_stopped_while_it_stays_away() {
    for login in [Login::Refuse("no".into()), Login::Reset] {
        let gateway = patient_gateway(login.clone()).await;
        let net = Net::with(gateway, program(), &[("PIN_RECONNECT_MIN", "60s")]).await;
        net.wait_until_pending("Next attempt").await;
        ends_at_once(&net.agent, Signal::TERM, 0).await;
    }
}

async fn patient_gateway(login: Login) -> Gateway {
    let builder = Gateway::builder().secret(CLIENT, SECRET);
    builder
        .policy(|policy| policy.login = login)
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn it_can_be_stopped_while_ollama_keeps_it_waiting() {
    let net = Net::start(&[("PIN_MODEL_REFRESH_INTERVAL", "20ms")]).await;
    for path in ["/api/version", "/api/tags", "/api/ps"] {
        net.ollama.fail_always(path, Fault::HangBeforeHeaders);
    }
    net.ollama
        .wait_for(|request| request.left_at().is_none())
        .await;
    ends_at_once(&net.agent, Signal::TERM, 0).await;
}

#[tokio::test]
async fn no_client_of_its_http_server_holds_it_up() {
    let net = Net::start(&[]).await;
    let address = net.agent.url("").trim_start_matches("http://").to_owned();
    let _silent = TcpStream::connect(&address).unwrap();
    let mut halfway = TcpStream::connect(&address).unwrap();
    halfway
        .write_all(b"GET /metrics HTTP/1.1\r\nHost:")
        .unwrap();
    ends_at_once(&net.agent, Signal::TERM, 0).await;
}

/// A gateway that is stuck costs the second that it has for its Close.
#[tokio::test]
async fn a_gateway_that_reads_no_more_does_not_hold_it_up() {
    let net = Net::start(&[]).await;
    net.gateway.stop_reading();
    let asked = Instant::now();
    net.agent.signal(Signal::TERM);
    ends_with(&net.agent, 0).await;
    println!("ended beside a stuck gateway after {:?}", asked.elapsed());
    assert!(asked.elapsed() < 2 * AT_ONCE, "{:?}", asked.elapsed());
}

/// What a firewall that drops packets looks like: nobody ever says yes or no.
#[tokio::test]
async fn it_can_be_stopped_while_it_dials() {
    let full = Full::start();
    for setting in ["PIN_SERVER_URL", "PIN_OLLAMA_URL"] {
        let url = format!(
            "{}://{}",
            if setting == "PIN_SERVER_URL" {
                "ws"
            } else {
                "http"
            },
            full.addr
        );
        let net = Net::with(gateway().await, program(), &[(setting, &url)]).await;
        if setting == "PIN_SERVER_URL" {
            net.wait_until_pending("Connecting now").await;
        } else {
            net.gateway.wait_for_session(1).await;
        }
        ends_at_once(&net.agent, Signal::TERM, 0).await;
    }
}

/// An address at which connecting hangs: the system holds as many connections for it as it may.
struct Full {
    addr: SocketAddr,
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Full {
    fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let dial = || TcpStream::connect_timeout(&addr, Duration::from_millis(100));
        let waiting = std::iter::from_fn(|| dial().ok()).take(16).collect();
        assert!(dial().is_err(), "connecting does not hang here");
        Self {
            addr,
            _listener: listener,
            _waiting: waiting,
        }
    }
}

/// The system's resolver takes its time and cannot be interrupted.
#[tokio::test]
async fn it_can_be_stopped_while_a_name_is_looked_up() {
    const WHAT: &str = "ending while a name is looked up";
    // Beside whatever answers on 127.0.0.1.
    let server = Ipv4Addr::new(127, 0, 53, 53);
    let Ok(silent) = UdpSocket::bind((server, 53)) else {
        return skipped(WHAT, "port 53 cannot be bound");
    };
    if !works("unshare", &["--mount", "true"]) {
        return skipped(WHAT, "unshare --mount is not possible");
    }
    let dir = tempfile::tempdir().unwrap();
    let resolv = dir.path().join("resolv.conf");
    fs::write(&resolv, format!("nameserver {server}\n")).unwrap();
    let script = r#"mount --bind "$1" /etc/resolv.conf && exec "$0""#;
    let arguments = [
        "--mount",
        "sh",
        "-c",
        script,
        PROGRAM,
        resolv.to_str().unwrap(),
    ];
    let settings = [
        ("PIN_SERVER_URL", "ws://gateway.pin.test"),
        ("PIN_ALLOW_PLAINTEXT", "true"),
    ];
    let unshared = with_arguments(Agent::builder("unshare"), &arguments);
    let net = Net::with(gateway().await, unshared, &settings).await;
    let asked = tokio::task::spawn_blocking(move || {
        silent.set_read_timeout(Some(devnet::PATIENCE)).unwrap();
        silent.recv(&mut [0; 512]).map(|_| silent)
    });
    let _silent = asked.await.unwrap().unwrap();
    ends_at_once(&net.agent, Signal::TERM, 0).await;
}

/// In a container nobody else is process 1, and the kernel gives that one no default action for signals.
#[tokio::test]
async fn it_ends_as_process_1_too() {
    let Some((net, pid)) = process_1().await else {
        return;
    };
    let asked = Instant::now();
    assert!(works("kill", &["-TERM", &pid]));
    ends_with(&net.agent, 0).await;
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn as_process_1_too_it_drains_and_a_second_signal_ends_it() {
    let Some((net, pid)) = process_1().await else {
        return;
    };
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after: 1 });
    let _running = net.gateway.chat(chat("one"));
    net.ollama.wait_for_chats(1).await;
    assert!(works("kill", &["-TERM", &pid]));
    net.agent
        .wait_for_log(|line| line.contains("draining"))
        .await;
    assert!(works("kill", &["-TERM", &pid]));
    let status = net.agent.wait_for(AT_ONCE).await;
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{:#?}",
        net.agent.log()
    );
}

/// One that is process 1 of a namespace of its own, and its id out here; `None` where that is not allowed.
async fn process_1() -> Option<(Net, String)> {
    const NAMESPACE: [&str; 3] = ["--pid", "--fork", "--kill-child"];
    let as_user = ["--user", "--map-root-user"];
    let allowed = [&NAMESPACE[..], &[&as_user[..], &NAMESPACE[..]].concat()]
        .into_iter()
        .map(<[&str]>::to_vec)
        .find(|arguments| works("unshare", &[&arguments[..], &["true"]].concat()));
    let Some(arguments) = allowed else {
        skipped("process 1", "unshare --pid is not possible");
        return None;
    };
    let unshared = with_arguments(
        Agent::builder("unshare"),
        &[&arguments[..], &[PROGRAM]].concat(),
    );
    let net = Net::with(gateway().await, unshared, &[]).await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    let children = format!("/proc/{0}/task/{0}/children", net.agent.pid());
    let pid = fs::read_to_string(children).unwrap().trim().to_owned();
    Some((net, pid))
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let output = std::process::Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}
