//! `pin-sidecar check`, as an operator runs it: what it finds, what it says to do, and what it never shows.

mod beside;
mod servers;
mod troubles;

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    process::Stdio,
    time::{Duration, SystemTime},
};

use devnet::{
    gateway::{Gateway, Login},
    ollama::{CHAT, Fault, Ollama},
    proxy::{ConnectProxy, Reply},
};
use rcgen::date_time_ymd;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    certificates::{self, Made, made, params},
    program::PROGRAM,
    support::{CLIENT, MODEL, SECRET, gateway, ollama},
};

/// What passes where nothing is wrong; devnet's gateway speaks without TLS.
const ALL_WELL: [(&str, &str); 10] = [
    ("settings", "passed"),
    ("secret", "passed"),
    ("dns", "passed"),
    ("tcp", "passed"),
    ("tls", "skipped"),
    ("clock", "passed"),
    ("login", "passed"),
    ("backend", "passed"),
    ("models", "passed"),
    ("answer", "passed"),
];

/// A check that has ended.
struct Checked {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A check of these two, with other settings that come first.
struct Check<'a> {
    gateway: String,
    ollama: String,
    settings: &'a [(&'a str, &'a str)],
}

impl<'a> Check<'a> {
    fn of(gateway: &Gateway, ollama: &Ollama, settings: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            gateway: gateway.url(),
            ollama: ollama.url(),
            settings,
        }
    }

    fn at(self, gateway: impl Into<String>) -> Self {
        Self {
            gateway: gateway.into(),
            ..self
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let usual = [
            ("PIN_CLIENT_ID", CLIENT),
            ("PIN_API_SECRET", SECRET),
            ("PIN_SERVER_URL", &self.gateway),
            ("PIN_OLLAMA_URL", &self.ollama),
            // Nobody listens on it.
            ("PIN_LISTEN_ADDR", "127.0.0.1:0"),
        ];
        let mut command = Command::new(PROGRAM);
        command
            .arg("check")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let is_file = |name: &str| {
            self.settings
                .iter()
                .any(|(set, _)| *set == format!("{name}_FILE"))
        };
        let usual = usual.into_iter().filter(|(name, _)| !is_file(name));
        command.envs(usual).envs(self.settings.iter().copied());
        command
    }

    async fn run(&self, arguments: &[&str]) -> Checked {
        let output = self.command(arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let checked = Checked {
            code: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        for shown in [&checked.out, &checked.err] {
            assert!(
                !shown.contains(SECRET) && !shown.contains("panicked"),
                "{shown}"
            );
        }
        checked
    }

    /// As JSON, of which standard output has one document and standard error nothing.
    async fn json(&self, arguments: &[&str]) -> Report {
        let checked = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(checked.err, "");
        assert_eq!(checked.out.lines().count(), 1, "{}", checked.out);
        let report = Report(serde_json::from_str(&checked.out).unwrap());
        assert_eq!(
            report.0["passed"],
            checked.code == Some(0),
            "{}",
            checked.out
        );
        report
    }
}

#[derive(Debug)]
struct Report(Value);

impl Report {
    fn outcomes(&self) -> Vec<(&str, &str)> {
        let steps = self.0["steps"].as_array().unwrap();
        let ended = steps.iter().map(|step| (&step["name"], &step["outcome"]));
        ended
            .map(|(name, outcome)| (name.as_str().unwrap(), outcome.as_str().unwrap()))
            .collect()
    }

    fn step(&self, name: &str) -> &Value {
        let steps = self.0["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"] == name);
        step.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// That this step ended like this, and what it says in all.
    fn expect(&self, name: &str, outcome: &str, words: &str) {
        let step = self.step(name);
        let said = format!("{} {}", step["found"], step["advice"]);
        assert!(
            step["outcome"] == outcome && said.contains(words),
            "{name} is not {outcome} with {words:?}: {self:?}"
        );
    }

    /// That this step failed, and those after it were not tried up to the backend, which knows nothing of it.
    fn expect_end_of_the_way(&self, name: &str, words: &str) {
        self.expect(name, "failed", words);
        let outcomes = self.outcomes();
        let failed = outcomes.iter().position(|(step, _)| *step == name).unwrap();
        for (step, outcome) in &outcomes[failed + 1..] {
            let expected = match *step {
                "backend" | "models" | "answer" => "passed",
                _ => "skipped",
            };
            assert_eq!(*outcome, expected, "{step} in {self:?}");
        }
    }
}

#[tokio::test]
async fn where_all_is_well_every_step_passes_and_the_session_is_closed_again() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let check = Check::of(&gateway, &ollama, &[]);
    let report = check.json(&[]).await;
    assert_eq!(report.outcomes(), ALL_WELL);
    report.expect("models", "passed", MODEL);
    report.expect(
        "answer",
        "passed",
        "tokens/s; the network's floor is 10, its best tier is over 20",
    );
    gateway.wait_for_no_session().await;
    assert_eq!(gateway.sessions().ever, 1);
    assert!(
        gateway
            .frames()
            .iter()
            .all(|frame| !frame.is_from_agent("REGISTER_NODE"))
    );
    // Loaded first, as for an interview, and then asked for a real answer.
    let asked = ollama.chat_requests();
    let [load, chat] = &asked[..] else {
        panic!("{} requests", asked.len())
    };
    assert_eq!(load.json()["messages"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(chat.json()["options"]["num_predict"], 32);
}

#[tokio::test]
async fn the_answer_to_a_close_is_waited_for_and_not_for_long() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.set_policy(|policy| policy.answer_closes = false);
    let settings = [("PIN_CONNECT_TIMEOUT", "1s")];
    let report = Check::of(&gateway, &ollama, &settings).json(&[]).await;
    report.expect("login", "passed", "accepted");
    assert!(report.step("login")["duration_ms"].as_u64().unwrap() >= 1_000);
}

#[tokio::test]
async fn people_read_a_line_a_step_with_a_mark_and_a_word() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let checked = Check::of(&gateway, &ollama, &[]).run(&[]).await;
    assert_eq!((checked.code, &*checked.err), (Some(0), ""));
    let lines: Vec<_> = checked.out.lines().collect();
    for ((name, outcome), line) in ALL_WELL.iter().zip(&lines) {
        let mark = if *outcome == "passed" { '✓' } else { '-' };
        assert!(
            line.starts_with(&format!("{mark} {outcome:7} {name}")),
            "{line}"
        );
    }
    assert_eq!(lines.last(), Some(&"Nothing failed."));
}

#[tokio::test]
async fn an_ollama_that_lists_its_models_and_cannot_run_them_fails() {
    let words = r#"{"error":"llama runner process has terminated"}"#;
    for (fault, expected) in [
        (
            Fault::answer(500, "application/json", words),
            "runner process has terminated",
        ),
        (Fault::Cut { after: 3 }, "the connection broke"),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        ollama.fail_always(CHAT, fault);
        let report = Check::of(&gateway, &ollama, &[]).json(&[]).await;
        report.expect("models", "passed", MODEL);
        report.expect("answer", "failed", expected);
        report.expect("answer", "failed", "ollama run");
    }
}

#[tokio::test]
async fn without_ollama_or_without_a_model_it_says_what_to_do() {
    let (gateway, away) = (gateway().await, ollama().await);
    away.stop().await;
    let report = Check::of(&gateway, &away, &[]).json(&[]).await;
    report.expect("login", "passed", "accepted");
    report.expect("backend", "failed", "Start it, or correct PIN_OLLAMA_URL");
    report.expect("models", "skipped", "`backend` failed");
    report.expect("answer", "skipped", "no model to ask");
    let empty = Ollama::builder().start().await.unwrap();
    let report = Check::of(&gateway, &empty, &[]).json(&[]).await;
    report.expect("backend", "passed", "answers");
    report.expect("models", "failed", "Ollama has no model. Pull one");
    report.expect("answer", "skipped", "no model to ask");
}

#[tokio::test]
async fn a_model_below_the_networks_floor_is_warned_about() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    ollama.set_behaviour(|behaviour| {
        behaviour.tokens = 4;
        behaviour.token_delay = Duration::from_millis(200);
    });
    let report = Check::of(&gateway, &ollama, &[]).json(&["--offline"]).await;
    report.expect("answer", "warned", "PIN_INTERVIEW_MODEL");
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_and_beyond_the_window_it_fails() {
    for (ahead, outcome, login, words) in [
        (600, "failed", "failed", "s behind the gateway's"),
        (-600, "failed", "failed", "s ahead of the gateway's"),
        (60, "warned", "passed", "timedatectl"),
    ] {
        let (gateway, ollama) = (gateway().await, ollama().await);
        gateway.set_policy(|policy| policy.clock_ahead = ahead);
        let report = Check::of(&gateway, &ollama, &[]).json(&[]).await;
        report.expect("clock", outcome, words);
        report.expect("login", login, "");
    }
}

#[tokio::test]
async fn a_refused_login_is_told_in_the_words_of_readyz() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let wrong = [("PIN_API_SECRET", "Zebra")];
    let check = Check::of(&gateway, &ollama, &wrong);
    let report = check.json(&[]).await;
    report.expect_end_of_the_way("login", "The gateway refused the login (Invalid signature)");
    report.expect("clock", "passed", "agree");
    assert!(!report.0.to_string().contains("Zebra"));
    let edge = Login::Http {
        status: 403,
        retry_after: None,
        body: "<html>Just a moment...</html>".to_owned(),
    };
    gateway.set_policy(|policy| policy.login = edge);
    let report = check.json(&[]).await;
    report.expect_end_of_the_way("login", "PIN_USER_AGENT");
}

#[tokio::test]
async fn a_proxy_is_a_step_of_its_own_and_its_password_is_not_shown() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let proxy = ConnectProxy::start(gateway.addr()).unwrap();
    let url = format!("http://ann:Zebra@{}", proxy.addr());
    let settings = [("HTTPS_PROXY", &*url), ("PIN_ALLOW_PLAINTEXT", "true")];
    let there = format!("ws://gateway.test:{}", gateway.addr().port());
    let check = Check::of(&gateway, &ollama, &settings).at(format!("{there}/api/v1/pin/ws"));
    let report = check.json(&[]).await;
    report.expect("dns", "passed", "proxy");
    report.expect("proxy", "passed", &proxy.addr().to_string());
    report.expect("login", "passed", "");
    for (reply, words) in [
        (Reply::Status(403), "forbids this connection (HTTP 403)"),
        (
            Reply::Status(407),
            "refuses the user and password in HTTPS_PROXY",
        ),
    ] {
        proxy.reply_with(reply);
        let report = check.json(&[]).await;
        report.expect_end_of_the_way("proxy", words);
        assert!(!report.0.to_string().contains("Zebra"));
    }
    proxy.stop().await;
    check
        .json(&[])
        .await
        .expect_end_of_the_way("tcp", "cannot be used");
}

/// A file that makes a certificate trusted.
fn trusted(root: &Made) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, root.certificate.pem()).unwrap();
    (folder, file)
}

#[tokio::test]
async fn a_certificate_is_told_with_its_chain_and_its_end() {
    let root = made(params("root", true), None);
    let (_folder, file) = trusted(&root);
    let settings = [("PIN_TLS_CA_FILE", file.to_str().unwrap())];
    let ollama = ollama().await;
    let until = |left: Duration| {
        let mut params = params("gateway", false);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = (SystemTime::now() + left).into();
        made(params, Some(&root))
    };
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for (left, outcome, words) in [
        (
            100 * DAY,
            "passed",
            "asked for as localhost (SNI), no ALPN, a chain of 2 certificates",
        ),
        (100 * DAY, "passed", "99 more days"),
        (10 * DAY, "warned", "certificate renewed"),
    ] {
        let gateway = certificates::gateway(&[&until(left), &root]).await;
        let report = Check::of(&gateway, &ollama, &settings).json(&[]).await;
        report.expect("tls", outcome, words);
        report.expect("login", "passed", "");
    }
    let mut old = params("gateway", false);
    (old.not_before, old.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    let old = made(old, Some(&root));
    let stranger = made(params("stranger", false), None);
    for (certificate, words) in [
        (&old, "its certificate has expired; have it renewed"),
        (&stranger, "self-signed and not trusted (UnknownIssuer)"),
    ] {
        let gateway = certificates::gateway(&[certificate]).await;
        let report = Check::of(&gateway, &ollama, &settings).json(&[]).await;
        report.expect_end_of_the_way("tls", words);
    }
}

#[tokio::test]
async fn a_gateway_that_cannot_be_reached_is_told_by_the_step_that_fails() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let nowhere = Check::of(&gateway, &ollama, &[]).at("wss://no-such-host.invalid");
    let report = nowhere.json(&[]).await;
    report.expect_end_of_the_way("dns", "its name cannot be resolved");
    gateway.stop().await;
    let report = Check::of(&gateway, &ollama, &[]).json(&[]).await;
    report.expect_end_of_the_way("tcp", "nothing listens there");
}

#[tokio::test]
async fn offline_the_gateway_is_left_alone() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    gateway.stop().await;
    let report = Check::of(&gateway, &ollama, &[]).json(&["--offline"]).await;
    for step in ["dns", "tcp", "tls", "clock", "login"] {
        report.expect(step, "skipped", "--offline");
    }
    report.expect("answer", "passed", "tokens/s");
}

#[tokio::test]
async fn wrong_settings_are_all_named_and_end_it_with_78() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let settings = [("PIN_CAPACITY", "many"), ("PIN_NOPE", "x")];
    let check = Check::of(&gateway, &ollama, &settings);
    let checked = check.run(&[]).await;
    assert_eq!(checked.code, Some(78), "{}", checked.out);
    for name in ["PIN_CAPACITY", "PIN_NOPE"] {
        assert!(checked.out.contains(name), "{}", checked.out);
    }
    let report = check.json(&[]).await;
    report.expect("settings", "failed", "PIN_NOPE");
    report.expect("login", "skipped", "`settings` failed");
    let missing = [("PIN_API_SECRET_FILE", "/nonexistent/secret")];
    let check = Check::of(&gateway, &ollama, &missing);
    assert_eq!(check.run(&[]).await.code, Some(78));
    let report = check.json(&[]).await;
    report.expect("settings", "passed", "");
    report.expect(
        "secret",
        "failed",
        "secret file /nonexistent/secret: No such file",
    );
    report.expect("answer", "skipped", "`secret` failed");
    assert_eq!(gateway.sessions().ever, 0);
}

#[tokio::test]
async fn a_reader_that_has_gone_away_is_no_failure() {
    let (gateway, ollama) = (gateway().await, ollama().await);
    let check = Check::of(&gateway, &ollama, &[]);
    for arguments in [&[][..], &["--json"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let errors = tempfile::NamedTempFile::new().unwrap();
        let status = check
            .command(arguments)
            .stdout(writer)
            .stderr(File::create(errors.path()).unwrap())
            .status()
            .await
            .unwrap();
        let told = fs::read_to_string(errors.path()).unwrap();
        assert_eq!((status.code(), &*told), (Some(0), ""));
    }
}
