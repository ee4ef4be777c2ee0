//! Wrong settings, tried as a new user would: one clear message, the documented exit code, no panic, no secret.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use devnet::agent::Agent;
use pin_sidecar::config::settings;

use crate::{
    program::{Ended, Net, PROGRAM, program, run, skipped, with, with_arguments},
    support::{CLIENT, SECRET, gateway},
};

const LEAST: &[(&str, &str)] = &[("PIN_CLIENT_ID", CLIENT), ("PIN_API_SECRET", SECRET)];

async fn started_with(more: &[(&str, &str)]) -> Ended {
    run(with(with(program(), LEAST), more)).await
}

#[tokio::test]
async fn who_sets_nothing_is_told_all_that_is_needed() {
    let ended = run(program()).await;
    assert_eq!(ended.code, Some(78), "{}", ended.output);
    let lines: Vec<_> = ended.output.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("PIN_CLIENT_ID: required"), "{lines:?}");
    if cfg!(not(feature = "keyring")) {
        assert!(lines[1].contains("set PIN_API_SECRET_FILE"), "{lines:?}");
    }
}

#[tokio::test]
async fn a_mistake_is_told_in_one_line_that_says_what_to_write() {
    for (name, value, told) in [
        (
            "PIN_CLIENT_ID",
            " ",
            "PIN_CLIENT_ID: required, and there is no default: the id to log in as, `pin_...` or `op_...`",
        ),
        (
            "PIN_CAPACTY",
            SECRET,
            "PIN_CAPACTY: there is no such setting; the nearest is PIN_CAPACITY",
        ),
        (
            "PIN_HEARTBEAT_INTERVAL",
            "15",
            "PIN_HEARTBEAT_INTERVAL: \"15\" has no unit; write a duration such as 15s, 500ms or 5m",
        ),
        (
            "PIN_SERVER_URL",
            "ws://pin.example",
            "PIN_SERVER_URL: ws://pin.example/api/v1/pin/ws is not encrypted and not on this machine; write wss:// or \
             https://, or set PIN_ALLOW_PLAINTEXT=true if nobody can listen in between",
        ),
        (
            "HTTPS_PROXY",
            "ann:s3cret@proxy.example:http",
            "HTTPS_PROXY: \"http://…@proxy.example:http\" has a port that is not a number from 1 to 65535",
        ),
        (
            "PIN_DENY_MODELS",
            "\"private:*\"",
            "PIN_DENY_MODELS: \"\\\"private:*\\\"\" has quotes around it; write it without them, since what hands settings \
             on (docker --env-file, kubectl, kustomize) leaves them in the value",
        ),
        (
            "PIN_PAYOUT_ADDRESS",
            "0xabc # main",
            "PIN_PAYOUT_ADDRESS: has a blank in it; write the value alone, with no blank and no comment behind it",
        ),
    ] {
        let ended = started_with(&[(name, value)]).await;
        assert_eq!((ended.code, ended.output.trim_end()), (Some(78), told));
    }
}

#[tokio::test]
async fn every_mistake_is_told_at_once() {
    let ended = run(with(
        program(),
        &[
            ("PIN_API_SECRET_FILE", "/nonexistent/secret"),
            ("PIN_CAPACITY", "many"),
            ("PIN_DRAIN_TIMEOUT", "15"),
            ("PIN_OLLAMA_URL", "http://ann:s3cret@:11434"),
            ("PIN_OLAMA_URL", "http://ann:s3cret@localhost:11434"),
        ],
    ))
    .await;
    assert_eq!(ended.code, Some(78));
    let named: Vec<_> = ended
        .output
        .lines()
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(
        named,
        [
            "PIN_CLIENT_ID",
            "PIN_OLLAMA_URL",
            "PIN_CAPACITY",
            "PIN_DRAIN_TIMEOUT",
            "secret file /nonexistent/secret",
            "PIN_OLAMA_URL"
        ],
        "{}",
        ended.output
    );
}

#[tokio::test]
async fn a_secret_file_that_is_missing_or_empty_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    for content in [None, Some(""), Some("\n")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let file = path.to_str().unwrap();
        let ended = run(with(
            program(),
            &[("PIN_CLIENT_ID", CLIENT), ("PIN_API_SECRET_FILE", file)],
        ))
        .await;
        assert_eq!(ended.code, Some(78), "{}", ended.output);
        assert!(
            ended.output.starts_with(&format!("secret file {file}: ")),
            "{}",
            ended.output
        );
        assert_eq!(ended.output.lines().count(), 1, "{}", ended.output);
    }
}

#[tokio::test]
async fn what_nobody_sees_in_a_secret_file_is_told_and_the_secret_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let file = path.to_str().unwrap();
    for (content, told) in [
        (
            format!("\u{feff}{SECRET}\n"),
            "it begins with a byte order mark",
        ),
        (format!("{SECRET}\nother\n"), "it has a second line"),
        (format!("{SECRET} \n"), "it has a blank at its end"),
        (
            format!("{SECRET}\0"),
            "its character 7 is invisible (U+0000)",
        ),
        (
            format!("PIN_API_SECRET={SECRET}\n"),
            "it is written as NAME=value",
        ),
    ] {
        fs::write(&path, content).unwrap();
        let settings = [("PIN_CLIENT_ID", CLIENT), ("PIN_API_SECRET_FILE", file)];
        let ended = run(with(program(), &settings)).await;
        assert_eq!(ended.code, Some(78), "{}", ended.output);
        let words = format!("secret file {file}: {told}");
        assert!(ended.output.starts_with(&words), "{}", ended.output);
    }
}

#[tokio::test]
async fn proxies_of_other_programs_do_not_keep_it_from_starting() {
    let settings = [
        ("HTTPS_PROXY", "socks5://proxy.example:1080"),
        ("NO_PROXY", "10.*,<local>"),
    ];
    let net = Net::start(&settings).await;
    let log = net.agent.log();
    assert!(
        !log.iter().any(|line| line.contains("is not heeded")),
        "{log:#?}"
    );
}

#[tokio::test]
async fn an_exception_from_the_proxy_that_is_not_understood_is_told_once() {
    let settings = [
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("NO_PROXY", "10.*"),
        ("PIN_SERVER_URL", "wss://gateway.invalid"),
        ("PIN_RECONNECT_MAX", "10ms"),
    ];
    let net = Net::with(gateway().await, program(), &settings).await;
    net.wait_until_pending("the proxy 127.0.0.1:1").await;
    let log = net.agent.log();
    let told = log
        .iter()
        .filter(|line| line.contains("not understood and skipped"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

/// As in a container whose user is not the one that the secret was mounted for.
#[tokio::test]
async fn a_secret_file_that_another_user_owns_is_named_with_what_to_do() {
    const WHAT: &str = "a secret file that another user owns";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, SECRET).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let other = [
        "--reuid=65532",
        "--regid=65532",
        "--clear-groups",
        "--",
        PROGRAM,
    ];
    let builder = with_arguments(
        Agent::builder("setpriv").env("PIN_CLIENT_ID", CLIENT),
        &other,
    );
    let able = std::process::Command::new("setpriv")
        .args(other)
        .arg("--version")
        .output();
    if !able.is_ok_and(|output| output.status.success()) {
        return skipped(WHAT, "setpriv cannot run the program as another user here");
    }
    let ended = run(builder.env("PIN_API_SECRET_FILE", path.to_str().unwrap())).await;
    assert_eq!(ended.code, Some(78), "{}", ended.output);
    let told = "(owner uid 0, mode 0400; this process: uid 65532); let uid 65532 read it: chown it to that user or chmod \
                it to 0444";
    assert!(
        ended.output.contains("Permission denied") && ended.output.contains(told),
        "{}",
        ended.output
    );
}

#[tokio::test]
async fn a_wrong_secret_is_told_while_it_keeps_trying() {
    let net = Net::with(
        gateway().await,
        program(),
        &[("PIN_API_SECRET", "wr0ng"), ("PIN_LOG", "trace")],
    )
    .await;
    let pending = net.wait_until_pending("refused the login").await;
    assert!(
        pending.contains("Check PIN_CLIENT_ID, the secret and this machine's clock."),
        "{pending}"
    );
    assert_eq!(net.agent.get("/healthz").await.unwrap().status, 200);
    assert_eq!(net.agent.exit_status(), None);
    net.agent
        .wait_for_log(|line| line.contains("refused the login"))
        .await;
    let log = net.agent.log();
    assert!(!log.iter().any(|line| line.contains("wr0ng")), "{log:#?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_the_setting_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ended = started_with(&[("PIN_LISTEN_ADDR", &addr)]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    for words in [&*addr, "in use", "PIN_LISTEN_ADDR"] {
        assert!(ended.output.contains(words), "{words}: {}", ended.output);
    }
}

#[tokio::test]
async fn a_ca_file_that_is_missing_or_no_pem_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    for content in [None, Some(""), Some("no certificate")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let file = path.to_str().unwrap();
        let ended = started_with(&[("PIN_TLS_CA_FILE", file)]).await;
        assert_eq!(ended.code, Some(78), "{}", ended.output);
        assert!(
            ended.output.contains(file) && ended.output.contains("PIN_TLS_CA_FILE"),
            "{}",
            ended.output
        );
    }
}

#[tokio::test]
async fn an_unknown_command_is_refused() {
    for argument in ["serve", "--capacity=2"] {
        let ended = run(with(program().argument(argument), LEAST)).await;
        assert_eq!(ended.code, Some(2), "{}", ended.output);
        assert!(
            ended.output.contains(argument.split('=').next().unwrap()),
            "{}",
            ended.output
        );
    }
}

#[tokio::test]
async fn help_lists_every_setting_with_its_default_and_meaning() {
    let ended = run(program().argument("--help")).await;
    assert_eq!(ended.code, Some(0));
    // As by `pin-sidecar --help | head -1`.
    let unread = program()
        .argument("--help")
        .log_file(Path::new("/dev/full"))
        .start()
        .await
        .unwrap();
    assert_eq!(unread.wait().await.code(), Some(0));
    // Meanings are wrapped.
    let on_one_line = ended.output.replace("\n      ", " ");
    for setting in settings() {
        let row = format!(
            "\n  {} [{}] {}\n",
            setting.name, setting.default, setting.help
        );
        assert!(
            on_one_line.contains(&row),
            "{row} is not in {}",
            ended.output
        );
    }
    let meanings = ended
        .output
        .lines()
        .filter(|line| line.starts_with("      "));
    for meaning in meanings {
        assert!(meaning.len() <= 80, "{meaning}");
    }
    for command in ["run", "healthcheck"] {
        assert!(
            ended.output.contains(&format!("\n  {command} ")),
            "{}",
            ended.output
        );
    }
}

#[tokio::test]
async fn it_tells_its_version() {
    let ended = run(program().argument("--version")).await;
    let expected = format!("pin-sidecar {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ended.code, ended.output), (Some(0), expected));
}

#[tokio::test]
async fn what_kubernetes_sets_for_a_service_called_pin_disturbs_nothing() {
    let net = Net::start(&[
        ("PIN_GATEWAY_PORT", "tcp://10.96.0.1:443"),
        ("PIN_GATEWAY_SERVICE_HOST", "10.96.0.1"),
        ("PIN_GATEWAY_SERVICE_PORT_HTTPS", "443"),
        ("PIN_GATEWAY_PORT_443_TCP_ADDR", "10.96.0.1"),
    ])
    .await;
    net.gateway.wait_for_session(1).await;
}
