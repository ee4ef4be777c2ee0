//! What becomes of a request, over streams of the test's own and on a clock that jumps.

#![allow(clippy::unwrap_used)]

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};

use super::*;
use crate::config::tests::config;

/// As much as the network holds.
const PIPE: usize = 1024 * 1024;

/// The one connection that there is.
struct OneConnection(Mutex<Option<DuplexStream>>);

impl Dial for OneConnection {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        let end = self.0.lock().unwrap().take();
        let dialled = end.map(|end| Box::new(end) as Stream);
        async { dialled.ok_or(DialError::Refused) }.boxed()
    }
}

fn client(connection: DuplexStream) -> HttpClient {
    client_by(Arc::new(OneConnection(Mutex::new(Some(connection)))))
}

fn client_by(dial: Arc<dyn Dial>) -> HttpClient {
    let config = config(&[("PIN_OLLAMA_URL", "http://127.0.0.1:1")]);
    HttpClient::new(
        dial,
        config.backend.url,
        Connections::default(),
        KeepAlive::Reused,
    )
}

/// As many connections as are wanted, to a server whose answers are empty. Counts them.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Dial for Counted {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = duplex(PIPE);
        tokio::spawn(answer_all(theirs));
        async { Ok(Box::new(ours) as Stream) }.boxed()
    }
}

async fn answer_all(mut connection: DuplexStream) {
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        connection.write_all(answer).await.unwrap();
    }
}

/// Asks a server that answers with these bytes; gives what it was asked, and what came of it.
async fn answered_with(answer: String) -> (String, Result<Bytes, HttpError>) {
    let (ours, mut theirs) = duplex(PIPE);
    let served = tokio::spawn(async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            theirs.read_buf(&mut request).await.unwrap();
        }
        theirs.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    let client = client(ours);
    let read = read_answer(client.get("/"), BUFFER, Duration::from_secs(1)).await;
    (served.await.unwrap(), read)
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_told_with_what_came() {
    let encoded = |encoding| {
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: 1\r\n\r\nx")
    };
    let extension = "x".repeat(20_000);
    for (answer, told) in [
        (
            encoded("gzip"),
            "its answer came encoded (gzip), which was not asked for",
        ),
        (
            encoded("identity\r\nContent-Encoding: br, gzip"),
            "its answer came encoded (br), which was not asked for",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
                .to_owned(),
            "its answer came encoded (gzip), which was not asked for",
        ),
        (
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{extension}\r\nx\r\n0\r\n\r\n"
            ),
            "what came is not HTTP: chunk extensions over limit",
        ),
        (
            "220 mail.example ESMTP\r\n".to_owned(),
            "what came is not HTTP: ",
        ),
        (
            encoded("gzip").replace("200 OK", "404 Not Found"),
            "it answers HTTP 404",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx".to_owned(),
            "the connection broke",
        ),
    ] {
        let (asked, read) = answered_with(answer).await;
        assert!(
            asked
                .to_ascii_lowercase()
                .contains("accept-encoding: identity\r\n"),
            "{asked}"
        );
        let error = read.unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
    for itself in ["identity", " Identity ", "", "identity, identity"] {
        assert_eq!(answered_with(encoded(itself)).await.1.unwrap(), "x");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_used_for_four_seconds_and_no_longer() {
    for (idle, connections) in [(3_900, 1), (4_100, 2)] {
        let dial = Arc::new(Counted::default());
        let client = client_by(Arc::clone(&dial) as Arc<dyn Dial>);
        for _ in 0..2 {
            let answer = client.get("/").await.unwrap();
            read_body(answer.into_body(), 0).await.unwrap();
            sleep(Duration::from_millis(idle)).await;
        }
        assert_eq!(dial.0.load(Ordering::Relaxed), connections, "{idle} ms");
    }
}

/// Answers one request with a body that never ends, as fast as it is taken; counts its bytes.
async fn answer_without_end(mut connection: DuplexStream, written: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        connection.read_buf(&mut request).await.unwrap();
    }
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
    connection.write_all(head).await.unwrap();
    while let Ok(bytes) = connection.write(&[b'x'; BUFFER]).await {
        written.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn little_is_read_ahead_of_an_answer_that_nobody_takes_any_more() {
    let (ours, theirs) = duplex(PIPE);
    let written = Arc::new(AtomicUsize::new(0));
    tokio::spawn(answer_without_end(theirs, Arc::clone(&written)));
    let mut body = client(ours).get("/").await.unwrap().into_body();
    // It flows for a while, or the buffers would not have grown.
    let mut taken = 0;
    while taken < 16 * PIPE {
        taken += body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    // The clock jumps once there is nothing left to do.
    sleep(Duration::from_secs(1)).await;
    let held = written.load(Ordering::Relaxed) - taken - PIPE;
    // What is being read, and the piece that waits to be taken.
    assert!(held <= 2 * BUFFER, "{} KiB are held", held / 1024);
}
