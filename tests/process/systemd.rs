//! What systemd hears of the program (sd_notify).

use std::{fs, process::Command, time::Duration};

use devnet::{agent::Signal, ollama::ModelShape};
use tokio::{net::UnixDatagram, time::timeout};

use crate::{
    program::{Net, PROGRAM, program},
    support::gateway,
};

/// Listens as systemd does.
struct Systemd {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    path: String,
}

impl Systemd {
    fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        Self {
            socket: UnixDatagram::bind(&path).unwrap(),
            path: path.to_str().unwrap().to_owned(),
            _folder: folder,
        }
    }

    /// The next message with these words.
    async fn hears(&self, words: &str) -> String {
        let mut buffer = [0; 4_096];
        let heard = async {
            loop {
                let length = self.socket.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.contains(words) {
                    return text;
                }
            }
        };
        timeout(devnet::PATIENCE, heard)
            .await
            .unwrap_or_else(|_| panic!("never {words}"))
    }
}

#[tokio::test]
async fn systemd_hears_when_it_is_ready_why_it_is_offline_that_it_lives_reloads_and_ends() {
    let systemd = Systemd::listen();
    let settings = [
        ("NOTIFY_SOCKET", &*systemd.path),
        ("WATCHDOG_USEC", "30000000"),
        ("PIN_MODEL_REFRESH_INTERVAL", "100ms"),
    ];
    let net = Net::with(gateway().await, program(), &settings).await;
    systemd.hears("READY=1").await;
    systemd.hears("STATUS=Online").await;
    systemd.hears("WATCHDOG=1").await;
    systemd.hears("WATCHDOG=1").await;
    net.ollama.remove_model(crate::support::MODEL);
    systemd.hears("STATUS=Ollama").await;
    net.ollama
        .add_model(crate::support::MODEL, ModelShape::default());
    systemd.hears("STATUS=Online").await;
    net.agent.signal(Signal::HUP);
    let reloading = systemd.hears("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    systemd.hears("READY=1").await;
    net.agent.signal(Signal::TERM);
    systemd.hears("STOPPING=1").await;
    assert_eq!(net.agent.wait().await.code(), Some(0));
}

#[tokio::test]
async fn a_credential_of_systemd_is_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pin_api_secret"), crate::support::SECRET).unwrap();
    let settings = [
        ("PIN_API_SECRET", ""),
        ("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap()),
    ];
    let net = Net::with(gateway().await, program(), &settings).await;
    net.agent.wait_until_ready(devnet::PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_program_that_hangs_gives_no_sign_of_life() {
    let systemd = Systemd::listen();
    let settings = [
        ("NOTIFY_SOCKET", &*systemd.path),
        ("WATCHDOG_USEC", "30000000"),
    ];
    let net = Net::with(gateway().await, program(), &settings).await;
    systemd.hears("WATCHDOG=1").await;
    net.agent.signal(Signal::STOP);
    let mut buffer = [0; 64];
    // What was on its way, and then nothing for as long as some beats take.
    let mut silent = Duration::ZERO;
    for _ in 0..3 {
        let heard = timeout(Duration::from_secs(3), systemd.socket.recv(&mut buffer)).await;
        silent = if heard.is_err() {
            Duration::from_secs(3)
        } else {
            Duration::ZERO
        };
        if heard.is_err() {
            break;
        }
    }
    assert!(!silent.is_zero());
    net.agent.signal(Signal::CONT);
    systemd.hears("WATCHDOG=1").await;
}

/// Also that of Debian 12 and Ubuntu 22.04, which know no `Type=notify-reload`.
#[test]
fn systemd_finds_nothing_to_say_about_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let ours = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/systemd/pin-sidecar.service"
    );
    let unit = fs::read_to_string(ours).unwrap();
    let here = unit.replace(
        "ExecStart=/usr/local/bin/pin-sidecar",
        &format!("ExecStart={PROGRAM}"),
    );
    assert_ne!(here, unit);
    let file = folder.path().join("pin-sidecar.service");
    fs::write(&file, here).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(file)
        .output();
    let Ok(verified) = verify else {
        devnet::skip_without("systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
    // The type decides whether `systemctl reload` is known.
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nExecReload=kill -HUP $MAINPID\n"));
}
