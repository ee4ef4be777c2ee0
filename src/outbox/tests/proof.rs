//! What proves that an answer has been read, and what does not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_result_ack_proves_its_answer_alone_and_only_what_was_sent_in_this_session() {
    let bench = bench();
    bench.open();
    bench.answer("a");
    bench.answer("b");
    bench.ack("a");
    assert_eq!(bench.outbox.undelivered(), 2, "neither was sent yet");
    bench.write_all();
    bench.ack("b");
    bench.ack("b");
    bench.ack("never heard of");
    assert_eq!(bench.outbox.undelivered(), 1);
    bench.outbox.close(false);
    bench.open();
    bench.ack("a");
    assert_eq!(bench.write_all(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_nth_acknowledged_heartbeat_proves_what_was_sent_before_the_nth_and_nothing_after() {
    let bench = bench();
    bench.open();
    bench.beat();
    bench.send("a");
    bench.heartbeat_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1, "the first went before it");
    bench.heartbeat_acknowledged();
    bench.beat();
    assert_eq!(bench.outbox.undelivered(), 1, "one too many proves nothing");
    bench.send("b");
    bench.heartbeat_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1);
    assert_eq!(bench.session_that_breaks(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_list_of_models_proves_as_a_heartbeat_does() {
    let bench = bench();
    bench.open();
    bench.outbox.control(models());
    bench.write_all();
    bench.send("a");
    bench.models_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1);
    bench.outbox.control(models());
    bench.write_all();
    bench.models_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pong_alone_counts_only_where_the_gateway_acknowledges_nothing() {
    let bench = bench();
    bench.open();
    bench.send("a");
    bench.beat();
    bench.pong(2);
    assert_eq!(bench.outbox.undelivered(), 1, "no such heartbeat");
    bench.pong(1);
    assert_eq!(bench.outbox.undelivered(), 0);
    bench.ack("a");
    bench.send("b");
    bench.beat();
    bench.pong(2);
    assert_eq!(bench.outbox.undelivered(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_acknowledges_every_heartbeat_twice_proves_no_more_than_it_has_read() {
    let bench = bench();
    bench.open();
    bench.beat();
    bench.send("a");
    bench.beat();
    bench.pong(1);
    bench.heartbeat_acknowledged();
    bench.heartbeat_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1);
    bench.pong(2);
    assert_eq!(bench.outbox.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_while_the_rest_of_its_batch_is_still_being_written_counts() {
    let bench = bench();
    bench.open();
    bench.send("a");
    bench.outbox.control(heartbeat());
    bench.answer("b");
    let (batch, _) = bench.begin().unwrap();
    bench.pong(1);
    bench.heartbeat_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1, "b is behind the heartbeat");
    bench.ack("b");
    assert_eq!(bench.outbox.undelivered(), 0);
    bench.outbox.written(&batch);
    assert_eq!(bench.fence_due(true), None);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_our_close_proves_all_that_was_sent() {
    let bench = bench();
    bench.open();
    bench.send("a");
    bench.answer("not sent");
    bench.outbox.prove(Proof::Before(Position::END));
    assert_eq!(bench.outbox.undelivered(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_proof_is_fenced_after_a_second_and_once_a_second_at_most() {
    let bench = bench();
    bench.open();
    let now = Instant::now();
    bench.answer("a");
    assert_eq!(bench.fence_due(false), None, "not sent yet");
    bench.write_all();
    assert_eq!(bench.fence_due(false), Some(now + SECOND));
    assert_eq!(bench.fence_due(true), Some(now));
    advance(SECOND).await;
    bench.outbox.fenced();
    bench.outbox.control(heartbeat());
    assert_eq!(bench.fence_due(false), None, "it waits");
    bench.write_all();
    assert_eq!(bench.fence_due(false), None, "it is behind them all");
    bench.send("b");
    advance(SECOND / 2).await;
    assert_eq!(bench.fence_due(false), Some(now + 2 * SECOND));
    bench.ack("b");
    assert_eq!(bench.fence_due(false), None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_sent_and_is_no_longer_wanted_needs_no_fence_and_is_not_kept_in_mind() {
    let bench = bench();
    bench.open();
    bench.send("a");
    assert!(bench.fence_due(true).is_some());
    bench.outbox.cancel(&id("a"));
    assert_eq!(bench.fence_due(true), None);
}

#[tokio::test(start_paused = true)]
async fn where_the_outbox_is_half_full_a_fence_goes_at_once_and_still_once_a_second() {
    let bench = bench_of(10_000);
    bench.open();
    let began = Instant::now();
    bench.reply(response("a", &"x".repeat(4_000)));
    bench.write_all();
    let a_second_old = Some(began + SECOND);
    assert_eq!(bench.fence_due(false), a_second_old, "not half full");
    bench.reply(response("b", &"x".repeat(1_000)));
    bench.write_all();
    assert_eq!(bench.fence_due(false), Some(began));
    bench.outbox.fenced();
    bench.beat();
    bench.send("c");
    assert_eq!(bench.fence_due(false), a_second_old, "not yet again");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_due_until_it_has_been_written() {
    let bench = bench();
    bench.open();
    let now = Instant::now();
    bench.outbox.control(heartbeat());
    advance(SECOND).await;
    let (batch, _) = bench.begin().unwrap();
    assert_eq!(bench.outbox.heartbeat_due_since(), Some(now));
    bench.outbox.written(&batch);
    assert_eq!(bench.outbox.heartbeat_due_since(), None);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_has_answered_heartbeats_and_answers_none_any_more_is_noticed() {
    let bench = bench();
    bench.open();
    bench.beat();
    advance(SECOND).await;
    assert_eq!(
        bench.link().unanswered_since(),
        None,
        "not all answer heartbeats"
    );
    bench.pong(1);
    assert_eq!(bench.link().unanswered_since(), None);
    let sent = Instant::now();
    bench.beat();
    advance(SECOND).await;
    bench.beat();
    assert_eq!(bench.link().unanswered_since(), Some(sent));
    bench.pong(2);
    assert_eq!(bench.link().unanswered_since(), Some(Instant::now()));
    bench.heartbeat_acknowledged();
    bench.pong(3);
    assert_eq!(bench.link().unanswered_since(), None);
}

#[tokio::test(start_paused = true)]
async fn an_errors_acknowledgement_does_not_prove_the_response_that_superseded_it() {
    let bench = bench();
    bench.open();
    bench.reply(error("r"));
    bench.write_all();
    bench.outbox.supersede(&id("r"));
    bench.send("r");
    bench.ack("r");
    assert_eq!(bench.outbox.undelivered(), 1, "that was the error's");
    bench.outbox.close(false);
    bench.open();
    assert_eq!(bench.write_all(), ["r"], "nothing is lost with the link");
    bench.ack("r");
    assert_eq!(bench.outbox.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_nth_acknowledgement_of_an_id_is_that_of_the_nth_frame_that_ended_a_request_of_it() {
    // Each way in which an id can have been used up before, in this session.
    let before: [fn(&Bench); 4] = [
        |bench| bench.outbox.refuse(error("r")).now_or_never().unwrap(),
        |bench| {
            bench.reply(error("r"));
            bench.write_all();
            bench.beat();
            bench.heartbeat_acknowledged();
            assert_eq!(bench.outbox.undelivered(), 0, "proven otherwise");
        },
        |bench| {
            bench.send("r");
            bench.outbox.cancel(&id("r"));
        },
        |bench| {
            bench.send("r");
            bench.beat();
            bench.heartbeat_acknowledged();
            assert_eq!(bench.repeat("r"), Repeat::SentAgain);
            bench.write_all();
            bench.outbox.cancel(&id("r"));
            bench.ack("r");
        },
    ];
    for (n, before) in before.iter().enumerate() {
        let bench = bench();
        bench.open();
        before(&bench);
        bench.write_all();
        bench.send("r");
        bench.ack("r");
        assert_eq!(bench.outbox.undelivered(), 1, "{n}");
        bench.ack("other");
        bench.ack("r");
        assert_eq!(bench.outbox.undelivered(), 0, "{n}");
        bench.ack("r");
        bench.reply(error("r"));
        bench.write_all();
        assert_eq!(
            bench.outbox.undelivered(),
            1,
            "{n}: one too many counts for nothing later"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_acknowledges_no_errors_costs_no_more_memory_the_longer_a_session_lasts() {
    let bench = bench();
    bench.open();
    for n in 0..10_000 {
        bench.outbox.refuse(error(&format!("refused {n}"))).await;
        bench.write_all();
    }
    let kept = bench.link().unacknowledged();
    assert!((1_000..5_000).contains(&kept), "{kept}");
    bench.send("a");
    bench.ack("a");
    assert_eq!(bench.outbox.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_acknowledges_every_list_of_models_twice_proves_no_more_than_it_has_read() {
    let bench = bench();
    bench.open();
    let list = |n: u64| {
        bench.outbox.control(models());
        assert_eq!(bench.write(), ["MODEL_LIST", "Ping"]);
        2 * n + 1
    };
    bench.beat();
    bench.heartbeat_acknowledged();
    bench.pong_of(list(1));
    bench.models_acknowledged();
    bench.send("a");
    let second = list(2);
    bench.models_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1, "it may be the first's");
    bench.models_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 1);
    bench.pong_of(second);
    assert_eq!(bench.outbox.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pong_to_nothing_that_was_sent_says_nothing() {
    let bench = bench();
    bench.open();
    bench.beat();
    bench.send("a");
    bench.beat();
    for payload in [0, 1, 6, 7, u64::MAX - 1, u64::MAX] {
        bench.pong_of(payload);
        assert_eq!(bench.outbox.undelivered(), 1, "{payload}");
        assert_eq!(bench.link().unanswered_since(), None, "{payload}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_asked_for_without_end_is_proven_by_the_first_fence_behind_it() {
    let bench = bench();
    bench.open();
    bench.send("a");
    bench.beat();
    for _ in 0..3 {
        assert_eq!(bench.repeat("a"), Repeat::SentAgain);
        bench.write_all();
    }
    assert_eq!(bench.fence_due(true), None, "one is on its way");
    bench.heartbeat_acknowledged();
    assert_eq!(bench.outbox.undelivered(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_comes_while_others_are_written_is_due_until_it_is_written_itself() {
    let bench = bench();
    bench.open();
    bench.answer("a");
    let (earlier, _) = bench.begin().unwrap();
    let due = Instant::now();
    bench.outbox.control(heartbeat());
    advance(SECOND).await;
    bench.outbox.written(&earlier);
    assert_eq!(bench.outbox.heartbeat_due_since(), Some(due));
    assert_eq!(bench.write(), ["HEARTBEAT", "Ping"]);
    assert_eq!(bench.outbox.heartbeat_due_since(), None);
}
