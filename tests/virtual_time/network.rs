//! A fresh node under the network's own clocks and rules: interviews, probes, reputation.

use std::time::Duration;

use devnet::gateway::{
    Interview, InterviewState, Interviews, Policy, Probes, Standing, Tier, Verdict,
};

use crate::{
    SECOND,
    support::Net,
    wire::{self, Node},
};

const ALIAS: &str = "rig";

const UNTIL_TOKEN: Duration = Duration::from_millis(60);
const BETWEEN: Duration = Duration::from_millis(40);
const TOKENS: usize = 24;

/// A node that is about to log in, with a cold model.
fn fresh_node() -> Net<Node> {
    let (net, _wire) = wire::begin(&[("PIN_NODE_ALIAS", ALIAS)], Policy::network_rules);
    net.ollama.set_behaviour(|behaviour| {
        behaviour.load_delay = 5 * SECOND;
        behaviour.first_token_delay = UNTIL_TOKEN;
        behaviour.token_delay = BETWEEN;
        behaviour.tokens = TOKENS;
    });
    net
}

async fn verdict(net: &Net<Node>) -> Verdict {
    let judged = net
        .gateway
        .until_interview(|interview| matches!(interview.state, InterviewState::Judged(_)));
    match judged.await.state {
        InterviewState::Judged(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_node_passes_with_its_true_figures_and_keeps_its_reputation_for_an_hour() {
    let net = fresh_node();
    let verdict = verdict(&net).await;
    assert_eq!((verdict.tier, verdict.accuracy), (Tier::Elite, 1.0));
    let first = verdict.first_token.unwrap();
    assert!(
        (UNTIL_TOKEN..UNTIL_TOKEN + BETWEEN).contains(&first),
        "{first:?}"
    );
    let whole = UNTIL_TOKEN + BETWEEN * (TOKENS as u32 - 1);
    let speed = TOKENS as f64 / whole.as_secs_f64();
    assert!(
        (verdict.tokens_per_second / speed - 1.0).abs() < 0.05,
        "{verdict:?}"
    );

    tokio::time::sleep(3600 * SECOND).await;
    let node = &net.gateway.members()[0];
    let probes = 3600 / Probes::default().every.as_secs() as usize;
    assert!(
        (probes - 1..=probes).contains(&node.probes.answered),
        "{node:?}"
    );
    assert_eq!(
        (node.standing, node.probes.missed, node.reputation),
        (Standing::Good, 0, Policy::default().reputation.most)
    );
    assert_eq!(
        (net.gateway.interviews().len(), net.gateway.sessions().ever),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_session_breaks_in_its_interview_passes_over_the_next_one() {
    let net = fresh_node();
    net.gateway.until_interview(|_| true).await;
    net.ollama.wait_for_chats(3).await;
    net.gateway.drop_sessions();
    verdict(&net).await;
    let node = &net.gateway.members()[0];
    assert_eq!(
        (node.standing, node.tier),
        (Standing::Good, Some(Tier::Elite))
    );
    tokio::time::sleep(Interviews::default().timeout * 5).await;
    let judged = net.gateway.interviews().into_iter();
    let judged = judged.filter(|one| matches!(one.state, InterviewState::Judged(_)));
    assert_eq!((judged.count(), net.gateway.sessions().ever), (1, 2));
    assert!(net.gateway.books().altered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_too_slow_stays_away_for_its_time_and_not_longer_and_may_try_again() {
    let net = fresh_node();
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = 5 * BETWEEN);
    let failed = net
        .gateway
        .wait_for(|frame| frame.is_from_gateway("INTERVIEW_FAILED"))
        .await;
    assert_eq!(failed.value["reason"], "too_slow");
    net.ollama
        .set_behaviour(|behaviour| behaviour.token_delay = BETWEEN);
    let passed = |one: &Interview| matches!(&one.state, InterviewState::Judged(verdict) if verdict.tier == Tier::Elite);
    let second = net.gateway.until_interview(passed).await;
    let away = second.asked - failed.at;
    let wanted = Interviews::default().retry_after;
    assert!((wanted..wanted + 60 * SECOND).contains(&away), "{away:?}");
    let failures = net.gateway.frames();
    let failures = failures
        .iter()
        .filter(|frame| frame.is_from_gateway("INTERVIEW_FAILED"));
    assert_eq!(failures.count(), 1, "nobody knocked too early");
    assert_eq!(net.gateway.attempts().len(), 2);
}
