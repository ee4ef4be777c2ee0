//! An answer that is whole is delivered, though there was no room for its chunks until its time was over.

use std::time::Duration;

use devnet::{
    gateway::Chat,
    ollama::{Behaviour, CHAT, Fault},
    sim::wire::BUFFER,
};
use tokio::time::{Instant, sleep};

use crate::{
    MOMENT, SECOND,
    support::{Counts, Net},
    wire::{self, Node},
};

/// `PIN_REQUEST_TIMEOUT` here.
const LIMIT: Duration = Duration::from_secs(10);

/// A chat whose answer is like this from its second second on, and the one that has kept anything from going out since its
/// first.
async fn clogged(answer: Behaviour) -> (Net<Node>, [Chat; 2]) {
    let (net, _wire) = wire::start(&[
        ("PIN_REQUEST_TIMEOUT", "10s"),
        ("PIN_OUTBOX_BYTES", "64KiB"),
        ("PIN_MAX_RESULT_BYTES", "32MiB"),
    ])
    .await;
    net.gateway.stop_reading();
    net.ollama.set_behaviour(|behaviour| {
        *behaviour = Behaviour {
            first_token_delay: SECOND,
            ..answer
        };
    });
    let one = net.streamed("one");
    sleep(MOMENT).await;
    // Eight times what the wire holds.
    let tokens = vec!["x".repeat(BUFFER as usize / 8); 64];
    let after = tokens.len();
    net.ollama.set_behaviour(|behaviour| {
        *behaviour = Behaviour {
            script: Some(tokens),
            ..Behaviour::default()
        };
    });
    net.ollama.fail_next(CHAT, 1, Fault::Hang { after });
    let flood = net.streamed("flood");
    sleep(SECOND / 2).await;
    let waiting = net.sidecar.metric("outbox_bytes").await;
    assert!(waiting > 64.0 * 1024.0, "it is full");
    (net, [one, flood])
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_waits_for_room_for_its_last_chunks_and_goes_without_them_when_its_time_is_over()
 {
    for answer in [
        // What is whole in one read, and what arrives behind a chunk that waits.
        Behaviour {
            tokens: 1,
            ..Behaviour::default()
        },
        Behaviour {
            tokens: 2,
            token_delay: SECOND,
            ..Behaviour::default()
        },
    ] {
        let (net, [mut one, _flood]) = clogged(answer).await;
        sleep(LIMIT).await;
        let undelivered = net.sidecar.metric("undelivered_results").await;
        assert_eq!(undelivered, 2.0, "one has timed out");
        let asked = Instant::now();
        net.gateway.read_again();
        one.outcome().await.result();
        assert!(asked.elapsed() < SECOND);
        let failed = "request_failures_total{operation=\"chat\",reason=\"timeout\"}";
        assert_eq!(net.sidecar.metric(failed).await, 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_whole_by_then_is_not_waited_for() {
    let (net, chats) = clogged(Behaviour {
        tokens: 1,
        done_delay: LIMIT,
        ..Behaviour::default()
    })
    .await;
    sleep(LIMIT).await;
    assert_eq!(net.sidecar.metric("requests_running").await, 0.0);
    net.gateway.read_again();
    for mut chat in chats {
        let outcome = chat.outcome().await;
        assert_eq!(outcome.error(), "timeout: not answered within 10s");
    }
}
