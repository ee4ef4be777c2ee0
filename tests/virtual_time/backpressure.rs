//! An answer that is whole is delivered, though there was no room for its chunks until its time was over.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::world::{Net, PIPE, Step};

const SECOND: Duration = Duration::from_secs(1);

/// `PIN_REQUEST_TIMEOUT` here.
const LIMIT: Duration = Duration::from_secs(10);

/// A chat whose answer is `rest`, from a moment on at which nothing more goes out.
async fn clogged(rest: &[Step]) -> Net {
    let mut net = Net::start(&[
        ("PIN_REQUEST_TIMEOUT", "10s"),
        ("PIN_OUTBOX_BYTES", "64KiB"),
        ("PIN_MAX_RESULT_BYTES", "32MiB"),
    ])
    .await;
    let begin = [Step::Rest(SECOND)];
    net.ollama.plan(&[&begin, rest].concat());
    net.gateway.ask_streamed("one").await;
    sleep(Duration::from_millis(1)).await;
    let flood = vec![Step::SayLong(PIPE / 50); 100];
    net.ollama.plan(&[&flood[..], &[Step::Hang]].concat());
    net.gateway.ask_streamed("flood").await;
    sleep(SECOND / 2).await;
    assert!(net.metric("outbox_bytes") > 64.0 * 1024.0, "it is full");
    net
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_waits_for_room_for_its_last_chunks_and_goes_without_them_when_its_time_is_over()
 {
    for answer in [
        // What is whole in one read, and what arrives behind a chunk that waits.
        &[Step::Say, Step::Done(1)][..],
        &[Step::Say, Step::Rest(SECOND), Step::Say, Step::Done(2)],
    ] {
        let mut net = clogged(answer).await;
        sleep(LIMIT).await;
        assert_eq!(net.metric("undelivered_results"), 2.0, "one has timed out");
        let asked = Instant::now();
        let response = net.gateway.wait_for("INFERENCE_RESPONSE").await;
        assert_eq!(response["request_id"], "one");
        assert!(asked.elapsed() < SECOND);
        let failed = "request_failures_total{operation=\"chat\",reason=\"timeout\"}";
        assert_eq!(net.metric(failed), 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_whole_by_then_is_not_waited_for() {
    let mut net = clogged(&[Step::Say, Step::Rest(LIMIT), Step::Done(1)]).await;
    sleep(LIMIT).await;
    assert_eq!(net.metric("requests_running"), 0.0);
    for _ in 0..2 {
        let error = net.gateway.wait_for("INFERENCE_ERROR").await;
        assert_eq!(error["error"], "timeout: not answered within 10s");
    }
}
