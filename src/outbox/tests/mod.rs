//! What an operator and a gateway rely on, shown on the outbox alone.

#![allow(clippy::unwrap_used)]

mod bench;
mod proof;

use bench::{Bench, bench, bench_of, chunk, error, heartbeat, id, models, response};
use futures_util::FutureExt;
use tokio::time::{advance, timeout};

use super::{lanes::MAX_REFUSALS, *};
use crate::{
    label::Label,
    link::{Acknowledged, Acknowledgements, Outgoing},
    protocol::{AgentMessage, Body, ChunkKind, Health},
};

const TTL: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);
const LARGE: usize = lanes::BATCH_BYTES + 1;

#[tokio::test(start_paused = true)]
async fn control_frames_overtake_what_is_not_yet_begun_and_those_that_wait_together_are_one() {
    let bench = bench();
    let session = bench.open();
    bench.outbox.chunk(session, chunk("a", "x")).await;
    bench.outbox.refuse(error("b")).await;
    bench.outbox.control(Control::Pong);
    bench.outbox.control(Control::Pong);
    bench.outbox.control(heartbeat());
    assert_eq!(bench.write(), ["PONG", "HEARTBEAT", "Ping", "b", "a"]);
    assert!(bench.outbox.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_leaves_alone_so_that_at_most_one_is_ahead_of_a_control_frame() {
    let bench = bench();
    let session = bench.open();
    bench.outbox.chunk(session, chunk("a", "small")).await;
    for request_id in ["b", "c"] {
        bench.reply(response(request_id, &"x".repeat(LARGE)));
    }
    assert_eq!(bench.write(), ["a"]);
    assert_eq!(bench.write(), ["b"]);
    bench.outbox.control(Control::Pong);
    assert_eq!(bench.write(), ["PONG"]);
    assert_eq!(bench.write(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_until_it_is_proven_and_sent_again_on_every_session_until_then() {
    let bench = bench();
    bench.answer("made while there was no session");
    assert_eq!(
        bench.session_that_breaks(),
        ["made while there was no session"]
    );
    bench.open();
    advance(10 * SECOND).await;
    assert_eq!(bench.write_all(), ["made while there was no session"]);
    assert_eq!(bench.metrics.undelivered_results.get(), 1);
    bench.ack("made while there was no session");
    assert_eq!(bench.metrics.undelivered_results.get(), 0);
    assert_eq!(bench.metrics.outbox_bytes.get(), 0);
    bench.outbox.close(true);
    assert!(bench.session_that_breaks().is_empty());
    assert_eq!(bench.metrics.results_redelivered_total.get(), 1);
    assert_eq!(bench.outbox.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_of_earlier_sessions_go_oldest_first_between_live_frames() {
    let bench = bench();
    for request_id in ["a", "b", "c"] {
        bench.answer(request_id);
    }
    let session = bench.open();
    for delta in ["1", "2"] {
        bench.outbox.chunk(session, chunk("live", delta)).await;
    }
    bench.answer("live");
    assert_eq!(bench.write_all(), ["live", "a", "live", "b", "live", "c"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_session_that_ended_soon_after_answers_they_go_one_by_one_each_proven_before_the_next()
 {
    let bench = bench();
    bench.answer("old");
    bench.open();
    bench.write_all();
    advance(5 * SECOND).await;
    for request_id in ["a", "b", "c"] {
        bench.answer(request_id);
    }
    bench.write_all();
    assert!(bench.outbox.close(true));

    bench.open();
    bench.answer("live");
    assert_eq!(bench.write_all(), ["live", "a", "old"]);
    bench.ack("live");
    assert!(bench.write_all().is_empty());
    bench.ack("a");
    assert_eq!(bench.write_all(), ["b"]);
    bench.outbox.cancel(&id("b"));
    assert_eq!(bench.write_all(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_which_three_sessions_in_a_row_ended_is_given_up_and_no_other_is() {
    let bench = bench();
    bench.answer("poison");
    bench.answer("good");
    assert_eq!(bench.session_that_breaks(), ["poison", "good"]);
    assert_eq!(bench.session_that_breaks(), ["poison"]);
    assert_eq!(bench.session_that_breaks(), ["poison"]);
    assert_eq!(bench.dropped(DropReason::Rejected), 0);
    assert_eq!(bench.session_that_breaks(), ["poison"]);
    assert_eq!(bench.dropped(DropReason::Rejected), 1);
    bench.open();
    assert_eq!(bench.write_all(), ["good"]);
    assert_eq!(bench.repeat("poison"), Repeat::Forgotten, "never run twice");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_we_end_or_that_lives_on_after_an_answer_is_not_the_answers_fault() {
    let bench = bench();
    bench.answer("a");
    for _ in 0..9 {
        bench.open();
        bench.write_all();
        bench.outbox.close(false);
        bench.session_that_breaks();
        bench.open();
        bench.write_all();
        advance(5 * SECOND).await;
        assert!(!bench.outbox.close(true));
    }
    assert_eq!(bench.outbox.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_the_link_while_it_is_written_is_suspected_too() {
    let bench = bench();
    bench.answer("too large for them");
    for _ in 0..3 {
        bench.open();
        assert!(bench.outbox.take().is_some());
        bench.outbox.close(true);
    }
    assert_eq!(bench.dropped(DropReason::Rejected), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_answered_gets_the_same_answer_again_until_that_is_forgotten() {
    let bench = bench();
    bench.open();
    assert_eq!(bench.repeat("a"), Repeat::New);
    bench.send("a");
    assert_eq!(bench.repeat("a"), Repeat::SentAgain, "undelivered");
    assert_eq!(bench.write_all(), ["a"]);
    bench.ack("a");
    assert_eq!(bench.repeat("a"), Repeat::SentAgain, "delivered");
    assert_eq!(bench.write_all(), ["a"]);
    assert_eq!(bench.outbox.undelivered(), 1, "to be proven once more");
    bench.ack("a");
    advance(TTL).await;
    bench.outbox.expire();
    assert_eq!(bench.repeat("a"), Repeat::New);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_repeated_without_end_costs_no_more_than_one_turn() {
    let bench = bench();
    bench.open();
    bench.answer("a");
    for _ in 0..3 {
        (0..1_000).for_each(|_| assert_eq!(bench.repeat("a"), Repeat::SentAgain));
        assert_eq!(bench.write_all(), ["a"]);
    }
    bench.outbox.close(false);
    (0..1_000).for_each(|_| assert_eq!(bench.repeat("a"), Repeat::SentAgain));
    bench.open();
    (0..1_000).for_each(|_| assert_eq!(bench.repeat("a"), Repeat::SentAgain));
    assert_eq!(bench.write_all(), ["a"]);
    bench.ack("a");
    assert_eq!(bench.outbox.undelivered(), 0);
    assert_eq!(bench.fence_due(true), None);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_not_remembered_and_an_undelivered_one_gives_way_to_new_work() {
    let bench = bench();
    bench.reply(error("a"));
    assert_eq!(bench.repeat("a"), Repeat::New);
    bench.outbox.supersede(&id("a"));
    assert_eq!(bench.dropped(DropReason::Superseded), 1);
    assert!(bench.session_that_breaks().is_empty());
    bench.open();
    bench.reply(error("b"));
    bench.write_all();
    bench.ack("b");
    assert_eq!(bench.repeat("b"), Repeat::New);
    assert_eq!(bench.outbox.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn bodies_of_delivered_answers_give_way_but_their_requests_are_not_run_again_for_lack_of_room()
 {
    let bench = bench_of(10_000);
    bench.open();
    for request_id in ["a", "b"] {
        bench.reply(response(request_id, &"x".repeat(4_000)));
        bench.write_all();
        bench.ack(request_id);
    }
    bench.reply(response("c", &"x".repeat(4_000)));
    assert_eq!(bench.repeat("a"), Repeat::Forgotten);
    bench.reply(response("d", &"x".repeat(20_000)));
    assert!(!bench.outbox.has_room());
    assert_eq!(bench.repeat("a"), Repeat::Forgotten);
    assert_eq!(bench.repeat("b"), Repeat::Forgotten);
    assert_eq!(bench.write_all(), ["c", "d"]);
    bench.ack("c");
    bench.ack("d");
    assert!(bench.outbox.has_room());
    assert_eq!(bench.repeat("d"), Repeat::Forgotten);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten_first() {
    let bench = bench_of(1 << 20);
    bench.open();
    let ids: Vec<_> = (0..20_000).map(|n| format!("request {n}")).collect();
    for request_id in &ids {
        bench.answer(request_id);
        bench.write_all();
        bench.ack(request_id);
    }
    let known = |request_id: &String| bench.repeat(request_id) != Repeat::New;
    assert!(!known(&ids[0]) && known(&ids[19_999]));
    let kept = ids.iter().filter(|request_id| known(request_id)).count();
    assert!((1_000..10_000).contains(&kept), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn after_a_cancel_nothing_that_waits_or_is_remembered_of_a_request_is_left() {
    let bench = bench();
    let session = bench.open();
    bench.send("delivered");
    bench.ack("delivered");
    bench.outbox.chunk(session, chunk("a", "x")).await;
    bench.answer("a");
    bench.outbox.refuse(error("refused")).await;
    for request_id in ["a", "refused", "delivered", "unknown"] {
        bench.outbox.cancel(&id(request_id));
        assert_eq!(bench.repeat(request_id), Repeat::New);
    }
    assert!(bench.outbox.take().is_none());
    assert_eq!(bench.metrics.outbox_bytes.get(), 0);
    assert_eq!(bench.dropped(DropReason::Cancelled), 2);
    assert_eq!(bench.outbox.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_undelivered_answer_is_given_up_when_it_is_too_old() {
    let bench = bench();
    let kept = async { match bench.outbox.keep_fresh().await {} };
    let story = async {
        bench.open();
        tokio::time::sleep(TTL / 2).await;
        bench.send("a");
        bench.outbox.close(false);
        tokio::time::sleep(TTL - SECOND).await;
        assert_eq!(bench.outbox.undelivered(), 1);
        tokio::time::sleep(SECOND).await;
        timeout(SECOND, bench.outbox.emptied()).await.unwrap();
        assert_eq!(bench.dropped(DropReason::Expired), 1);
        assert_eq!(bench.outbox.lost(), 1);
    };
    tokio::select! {
        () = kept => {}
        () = story => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_waits_for_room_and_is_dropped_with_its_session() {
    let bench = bench_of(2_000);
    let session = bench.open();
    let put = |delta: usize| {
        let frame = chunk("a", &"x".repeat(delta));
        bench.outbox.chunk(session, frame)
    };
    put(5_000).await;
    let mut second = std::pin::pin!(put(100));
    assert!(
        second.as_mut().now_or_never().is_none(),
        "one may always wait"
    );
    let (batch, _) = bench.begin().unwrap();
    assert!(
        second.as_mut().now_or_never().is_none(),
        "still being written"
    );
    bench.outbox.written(&batch);
    timeout(SECOND, second.as_mut()).await.unwrap();
    assert!(bench.metrics.outbox_bytes.get() > 0);

    put(700).now_or_never();
    bench.outbox.close(true);
    assert_eq!(bench.metrics.outbox_bytes.get(), 0);
    bench.open();
    put(1).await;
    assert!(bench.outbox.take().is_none(), "that session is over");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_bounded_and_not_kept_across_sessions() {
    let bench = bench();
    bench.open();
    for _ in 0..MAX_REFUSALS {
        bench.outbox.refuse(error("r")).await;
    }
    let one_more = bench.outbox.refuse(error("r"));
    assert!(timeout(SECOND, one_more).await.is_err());
    assert_eq!(
        bench.outbox.undelivered(),
        0,
        "a refusal is no answer that needs proof"
    );
    bench.outbox.close(true);
    bench.outbox.refuse(error("r")).await;
    bench.open();
    assert!(bench.outbox.take().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_undelivered_when_the_process_ends_is_told_as_lost() {
    let bench = bench();
    bench.answer("a");
    bench.outbox.abandon();
    assert_eq!(bench.dropped(DropReason::Shutdown), 1);
    assert_eq!(bench.outbox.lost(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_earns_when_it_is_proven_and_once_however_often_it_is_asked_for() {
    let bench = bench();
    let earning = Earning {
        model: "tiny:latest".into(),
        usd: 0.5,
    };
    bench.open();
    bench.outbox.answer(response("a", "text"), Some(earning));
    bench.write_all();
    assert_eq!(bench.earned(), 0.0, "it may not have arrived");
    bench.outbox.close(false);
    bench.open();
    bench.write_all();
    assert_eq!(bench.repeat("a"), Repeat::SentAgain);
    bench.write_all();
    bench.ack("a");
    assert_eq!(bench.earned(), 0.5);
    bench.ack("a");
    assert_eq!(bench.repeat("a"), Repeat::SentAgain);
    bench.write_all();
    bench.ack("a");
    assert_eq!(bench.earned(), 0.5, "a remembered answer is not paid again");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_not_delivered_earns_nothing() {
    let bench = bench();
    bench.open();
    for request_id in ["cancelled", "expired"] {
        let earning = Earning {
            model: "tiny:latest".into(),
            usd: 0.5,
        };
        bench
            .outbox
            .answer(response(request_id, "text"), Some(earning));
    }
    bench.write_all();
    bench.outbox.cancel(&id("cancelled"));
    bench.ack("cancelled");
    advance(TTL).await;
    bench.outbox.expire();
    bench.ack("expired");
    assert_eq!(bench.dropped(DropReason::Expired), 1);
    assert_eq!(bench.earned(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_delivered_is_no_loss_though_it_was_wanted_again_and_could_not_be_sent()
{
    let bench = bench();
    bench.open();
    for request_id in ["abandoned", "expired"] {
        bench.answer(request_id);
        bench.write_all();
        bench.ack(request_id);
    }
    assert_eq!(bench.repeat("expired"), Repeat::SentAgain);
    advance(TTL / 2).await;
    assert_eq!(bench.repeat("abandoned"), Repeat::SentAgain);
    advance(TTL / 2).await;
    bench.outbox.expire();
    assert_eq!(bench.outbox.undelivered(), 1);
    bench.outbox.abandon();
    assert_eq!(bench.outbox.undelivered(), 0);
    assert_eq!(bench.outbox.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_cancelled_while_the_link_takes_nothing_leave_nothing_behind() {
    let bench = bench();
    let session = bench.open();
    bench.answer("sent");
    let (stalled, _) = bench.begin().unwrap();
    for n in 0..20_000 {
        let request_id = format!("r{n}");
        bench.outbox.chunk(session, chunk(&request_id, "x")).await;
        bench.answer(&request_id);
        bench.outbox.cancel(&id(&request_id));
    }
    bench.answer("expires");
    bench.outbox.written(&stalled);
    advance(TTL).await;
    bench.outbox.expire();
    let state = bench.outbox.lock();
    assert_eq!(state.session.as_ref().unwrap().lanes.waiting(), 0);
}

/// What becomes of a delivered answer gives back all the room that it took, or the next ones would be forgotten early.
#[tokio::test(start_paused = true)]
async fn an_answer_is_remembered_however_many_were_asked_for_again_cancelled_or_forgotten_before_it()
 {
    let delivered = |bench: &Bench, request_id: &str| {
        let text = "x".repeat(4_000);
        bench.reply(response(request_id, &text));
        bench.write_all();
        bench.ack(request_id);
    };
    for is_cancelled in [false, true] {
        let bench = bench_of(300_000);
        bench.open();
        for _ in 0..100 {
            delivered(&bench, "earlier");
            if is_cancelled {
                bench.outbox.cancel(&id("earlier"));
            } else {
                advance(TTL).await;
                bench.outbox.expire();
            }
        }
        delivered(&bench, "r");
        for _ in 0..100 {
            assert_eq!(bench.repeat("r"), Repeat::SentAgain);
            bench.write_all();
            bench.ack("r");
        }
    }
}
