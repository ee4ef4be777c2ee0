//! When a speech server is looked at, and what is offered of it, on a clock that jumps.

#![allow(clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{advance, sleep, timeout},
};

use super::*;
use crate::{
    config::tests::config,
    transport::{DialError, Endpoint, Stream},
};

/// A server that is there or not, and answers whatever it is asked that it has no such thing.
#[derive(Default)]
struct Door {
    is_open: AtomicBool,
    knocks: AtomicUsize,
}

impl Dial for Door {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, Result<Stream, DialError>> {
        self.knocks.fetch_add(1, Ordering::Relaxed);
        let is_open = self.is_open.load(Ordering::Relaxed);
        let (ours, theirs) = duplex(1024);
        if is_open {
            tokio::spawn(refuse(theirs));
        }
        async move {
            let opened = is_open.then(|| Box::new(ours) as Stream);
            opened.ok_or(DialError::Refused)
        }
        .boxed()
    }
}

async fn refuse(mut connection: DuplexStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    connection.write_all(answer).await.unwrap();
}

fn server(door: &Arc<Door>) -> SpeechServer {
    let config = config(&[
        ("PIN_TTS_URL", "http://127.0.0.1:1"),
        ("PIN_TTS_MODELS", "Kokoro"),
    ]);
    let door = Arc::clone(door) as Arc<dyn Dial>;
    let metrics = Arc::new(Metrics::new());
    SpeechServer::new(
        config.speech.unwrap(),
        door,
        &metrics,
        Connections::default(),
    )
}

#[tokio::test(start_paused = true)]
async fn nothing_is_offered_before_the_first_look_and_what_is_then_is_found_in_any_case() {
    let door = Arc::new(Door::default());
    door.is_open.store(true, Ordering::Relaxed);
    let server = server(&door);
    assert!(server.find("tts:kokoro").is_none() && server.why_nothing().is_none());
    let offer = server.offer();
    server.look_now().await;
    assert!(offer.has_changed().unwrap());
    assert_eq!(&*server.find("TTS:KOKORO").unwrap().name, "tts:Kokoro");
    assert!(server.find("kokoro").is_none() && server.find("tts:other").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_model_whose_server_was_away_may_be_offered_once_that_is_a_second_ago() {
    let door = Arc::new(Door::default());
    let server = server(&door);
    assert!(server.may_offer("tts:kokoro"), "nobody has looked yet");
    let offer = server.offer();
    server.look_now().await;
    assert!(
        offer.has_changed().unwrap(),
        "whoever waits for the first look has it"
    );
    assert!(!server.may_offer("tts:kokoro"));
    advance(FRESH + Duration::from_millis(1)).await;
    assert!(server.may_offer("tts:Kokoro") && !server.may_offer("tts:other"));
    assert!(server.find("tts:kokoro").is_none());
    door.is_open.store(true, Ordering::Relaxed);
    server.look_now().await;
    assert!(server.find("tts:kokoro").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_server_is_looked_at_each_second_while_it_is_away_and_else_as_often_as_is_set() {
    let door = Arc::new(Door::default());
    let server = server(&door);
    let looks = async |time: Duration| {
        let before = door.knocks.load(Ordering::Relaxed);
        let _ = timeout(time, server.follow()).await;
        door.knocks.load(Ordering::Relaxed) - before
    };
    assert_eq!(looks(Duration::from_millis(9_500)).await, 10);
    door.is_open.store(true, Ordering::Relaxed);
    assert_eq!(looks(Duration::from_secs(44)).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_finds_nobody_has_the_server_looked_at_again() {
    let door = Arc::new(Door::default());
    door.is_open.store(true, Ordering::Relaxed);
    let server = server(&door);
    let request = SpeechRequest::read(r#"{"model":"kokoro","input":"x"}"#).unwrap();
    let asking = async {
        sleep(Duration::from_secs(1)).await;
        door.is_open.store(false, Ordering::Relaxed);
        // What is idle is not used for longer.
        sleep(Duration::from_secs(5)).await;
        let asked = server.speak(&request, "tts:kokoro", 1024).await;
        assert_eq!(
            asked.err().unwrap().text(),
            "backend: the speech server cannot be reached"
        );
        let mut offer = server.offer();
        offer
            .wait_for(|offer| offer.names.is_empty())
            .await
            .unwrap();
    };
    tokio::select! {
        () = server.follow() => unreachable!(),
        done = timeout(Duration::from_secs(7), asking) => done.unwrap(),
    }
    assert!(
        server
            .why_nothing()
            .unwrap()
            .contains("correct PIN_TTS_URL")
    );
}
