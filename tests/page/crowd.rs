//! Many at once: more tabs than there are connections, and peers that never read.

use std::net::SocketAddr;

use devnet::http;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{browser::Browser, buttons::word_is, scenes::Scene, sidecar::Sidecar};

/// As many as the server keeps open (src/admin/server.rs).
const CONNECTIONS: usize = 64;

/// So that a peer that reads nothing is soon full, in bytes.
const SMALL: u32 = 4 << 10;

const QUESTION: &[u8] = b"GET /status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";

/// A tab that looks, and keeps its connection for the next time, as browsers do.
struct Tab {
    addr: SocketAddr,
    connection: TcpStream,
}

impl Tab {
    async fn open(addr: SocketAddr) -> Self {
        let connection = TcpStream::connect(addr).await.unwrap();
        Self { addr, connection }
    }

    /// Asks, on a new connection where the old one was closed, and reads the beginning of the answer.
    async fn look(&mut self) -> String {
        if let Some(answer) = self.try_to_look().await {
            return answer;
        }
        self.connection = TcpStream::connect(self.addr).await.unwrap();
        let answer = self.try_to_look().await;
        answer.expect("a connection is closed as soon as it is open")
    }

    async fn try_to_look(&mut self) -> Option<String> {
        self.connection.write_all(QUESTION).await.ok()?;
        let mut answer = vec![0; 1 << 16];
        let length = self.connection.read(&mut answer).await.ok()?;
        answer.truncate(length);
        (length > 0).then(|| String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Whether the page works, buttons too, and a probe is answered.
async fn assert_serves(browser: &mut Browser, sidecar: &Sidecar) {
    browser.open(&sidecar.url()).await;
    browser.click("1 hr").await;
    browser.wait_for(&word_is("Paused")).await;
    assert_eq!(sidecar.verbs(), ["pause 3600"]);
    let probe = http::get(&format!("{}healthz", sidecar.url())).await;
    assert_eq!(probe.unwrap().status, 200);
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test]
async fn the_65th_who_looks_sees_the_page_and_the_64_before_go_on() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    let mut tabs = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut tab = Tab::open(sidecar.addr).await;
        assert!(tab.look().await.starts_with("HTTP/1.1 200"));
        tabs.push(tab);
    }
    assert_serves(&mut browser, &sidecar).await;
    for tab in &mut tabs {
        let answer = tab.look().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn those_who_ask_without_end_and_read_nothing_keep_nobody_out() {
    let Some(mut browser) = Browser::start().await else {
        return;
    };
    let sidecar = Sidecar::start(Scene::Online);
    let mut silent = Vec::new();
    for _ in 0..2 * CONNECTIONS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SMALL).unwrap();
        socket.set_recv_buffer_size(SMALL).unwrap();
        let connection = socket.connect(sidecar.addr).await.unwrap();
        connection.writable().await.unwrap();
        // Until nothing more goes in, since what would have to come out is not taken.
        while connection.try_write(&QUESTION.repeat(100)).is_ok() {}
        silent.push(connection);
    }
    assert_serves(&mut browser, &sidecar).await;
}
