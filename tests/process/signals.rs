//! Signals, as orchestrators send them.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use devnet::{
    agent::{Agent, Signal},
    gateway::{Gateway, Login},
    ollama::{CHAT, Fault},
};

use crate::{
    program::{Net, PROGRAM, program, skipped, with_arguments},
    support::{CLIENT, SECRET, chat, gateway},
};

/// What a drain may take where there is nothing to drain.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Sends a signal and gives the exit code, or `None` if it had not exited at once.
async fn ended_at_once(agent: &Agent, signal: Signal) -> Option<i32> {
    agent.signal(signal);
    let status = agent.wait_for(AT_ONCE).await;
    status.and_then(|status| status.code())
}

#[tokio::test]
async fn with_nothing_to_do_it_is_gone_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let net = Net::start(&[]).await;
        assert_eq!(
            ended_at_once(&net.agent, signal).await,
            Some(0),
            "{:#?}",
            net.agent.log()
        );
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
        assert_eq!(
            net.agent.wait().await.code(),
            Some(0),
            "{:#?}",
            net.agent.log()
        );
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
        assert_eq!(
            ended_at_once(&net.agent, second).await,
            Some(1),
            "{:#?}",
            net.agent.log()
        );
    }
}

#[tokio::test]
async fn it_can_be_stopped_while_it_starts() {
    let net = Net::with(gateway().await, program(), &[]).await;
    net.agent
        .wait_for_log(|line| line.contains("starting"))
        .await;
    assert_eq!(
        ended_at_once(&net.agent, Signal::TERM).await,
        Some(0),
        "{:#?}",
        net.agent.log()
    );
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
        assert_eq!(
            ended_at_once(&net.agent, Signal::TERM).await,
            Some(0),
            "{login:?}: {:#?}",
            net.agent.log()
        );
    }
}

#[tokio::test]
async fn it_can_be_stopped_while_it_stays_away() {
    for login in [Login::Refuse("no".into()), Login::Reset] {
        let gateway = patient_gateway(login.clone()).await;
        let net = Net::with(gateway, program(), &[("PIN_RECONNECT_MIN", "60s")]).await;
        net.wait_until_pending("Next attempt").await;
        assert_eq!(
            ended_at_once(&net.agent, Signal::TERM).await,
            Some(0),
            "{login:?}: {:#?}",
            net.agent.log()
        );
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
    assert_eq!(
        ended_at_once(&net.agent, Signal::TERM).await,
        Some(0),
        "{:#?}",
        net.agent.log()
    );
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
    assert_eq!(
        ended_at_once(&net.agent, Signal::TERM).await,
        Some(0),
        "{:#?}",
        net.agent.log()
    );
}

/// A gateway that is stuck costs the second that it has for its Close.
#[tokio::test]
async fn a_gateway_that_reads_no_more_does_not_hold_it_up() {
    let net = Net::start(&[]).await;
    net.gateway.stop_reading();
    let asked = Instant::now();
    net.agent.signal(Signal::TERM);
    assert_eq!(
        net.agent.wait().await.code(),
        Some(0),
        "{:#?}",
        net.agent.log()
    );
    println!("ended beside a stuck gateway after {:?}", asked.elapsed());
    assert!(asked.elapsed() < 2 * AT_ONCE, "{:?}", asked.elapsed());
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
    assert_eq!(
        ended_at_once(&net.agent, Signal::TERM).await,
        Some(0),
        "{:#?}",
        net.agent.log()
    );
}

/// In a container nobody else is process 1, and the kernel gives that one no default action for signals.
#[tokio::test]
async fn it_ends_as_process_1_too() {
    if !works("unshare", &["--pid", "--fork", "true"]) {
        return skipped("process 1", "unshare --pid is not possible");
    }
    let arguments = ["--pid", "--fork", "--kill-child", PROGRAM];
    let unshared = with_arguments(Agent::builder("unshare"), &arguments);
    let net = Net::with(gateway().await, unshared, &[]).await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", net.agent.pid())).unwrap();
    let asked = Instant::now();
    assert!(works("kill", &["-TERM", children.trim()]));
    assert_eq!(
        net.agent.wait().await.code(),
        Some(0),
        "{:#?}",
        net.agent.log()
    );
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let output = std::process::Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}
