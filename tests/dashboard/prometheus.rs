//! A real Prometheus, with the repository's own configuration. Of that, only the target's address and the time between
//! scrapes are changed.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpSocket,
    process::{Child, Command},
};

use crate::page::file;

const PROGRAM: &str = "prometheus";

/// Generous: a machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus; it is killed when this is dropped.
pub(crate) struct Prometheus {
    addr: SocketAddr,
    process: Child,
    folder: TempDir,
    /// Keeps the port from others.
    _reservation: TcpSocket,
}

impl Prometheus {
    /// Starts one that reads `sidecar` every second; `None` where there is none to start.
    pub(crate) async fn start(sidecar: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path(), sidecar);
        let reservation = TcpSocket::new_v4().unwrap();
        reservation.set_reuseaddr(true).unwrap();
        reservation.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let addr = reservation.local_addr().unwrap();
        let process = match run(folder.path(), addr) {
            Ok(process) => process,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                devnet::skip_without(PROGRAM);
                return None;
            }
            Err(error) => panic!("{PROGRAM}: {error}"),
        };
        let mut prometheus = Self {
            addr,
            process,
            folder,
            _reservation: reservation,
        };
        prometheus.wait_until_ready().await;
        Some(prometheus)
    }

    async fn wait_until_ready(&mut self) {
        let url = format!("http://{}/-/ready", self.addr);
        let began = Instant::now();
        while devnet::http::get(&url)
            .await
            .map_or(true, |answer| answer.status != 200)
        {
            let over = self.process.try_wait().unwrap().is_some();
            assert!(
                !over && began.elapsed() < PATIENCE,
                "{PROGRAM} does not start:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What an expression is now.
    pub(crate) async fn now(&self, expr: &str) -> Result<Vec<Value>, String> {
        self.ask(&format!("query?query={}", encoded(expr))).await
    }

    /// What an expression was in every second from `start`, in Unix time, until now.
    pub(crate) async fn since(&self, start: u64, expr: &str) -> Result<Vec<Value>, String> {
        // The second that has begun counts, too.
        let end = unix_time() + 1;
        let query = encoded(expr);
        self.ask(&format!(
            "query_range?query={query}&start={start}&end={end}&step=1"
        ))
        .await
    }

    /// The series of an answer, or Prometheus' words about the question.
    async fn ask(&self, question: &str) -> Result<Vec<Value>, String> {
        let url = format!("http://{}/api/v1/{question}", self.addr);
        let answer = devnet::http::get(&url).await.unwrap().json();
        match answer["data"]["result"].as_array() {
            Some(series) if answer["status"] == "success" => Ok(series.clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Waits until scrapes have made an expression give something.
    pub(crate) async fn wait_until(&self, expr: &str) {
        let began = Instant::now();
        while self.now(expr).await.unwrap().is_empty() {
            assert!(
                began.elapsed() < PATIENCE,
                "never came true: {expr}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The repository's configuration, in a folder of its own.
fn configure(folder: &Path, sidecar: SocketAddr) {
    let config = file("prometheus/prometheus.yml");
    let changed = config
        .replace("scrape_interval: 15s", "scrape_interval: 1s")
        .replace("pin-sidecar:9464", &sidecar.to_string());
    assert!(
        changed.contains("scrape_interval: 1s") && changed.contains(&sidecar.to_string()),
        "this test knows deploy/prometheus/prometheus.yml no more"
    );
    fs::write(folder.join("prometheus.yml"), changed).unwrap();
    fs::write(folder.join("rules.yml"), file("prometheus/rules.yml")).unwrap();
}

fn run(folder: &Path, addr: SocketAddr) -> io::Result<Child> {
    let log = File::create(folder.join("log"))?;
    Command::new(PROGRAM)
        .arg(format!("--web.listen-address={addr}"))
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

pub(crate) fn unix_time() -> u64 {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs()
}

/// Text as a part of a URL's query.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
