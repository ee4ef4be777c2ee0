//! Which node a request goes to, and whose slots it waits for.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::{
    backend::{
        ModelServer, Suitability,
        tests::{Listing, allowing, counted},
    },
    config::tests::config,
};

/// The settings of a node of this capacity.
pub(crate) fn node_settings(capacity: usize) -> NodeSettings {
    config(&[("PIN_CAPACITY", &capacity.to_string())]).node
}

/// Nodes with capacity and models, all of which have been looked at.
pub(crate) async fn nodes(of: &[(&str, usize, &[&'static str])]) -> Nodes {
    let node = |(alias, capacity, models): &(&str, usize, &[&'static str])| {
        let models: Vec<_> = models
            .iter()
            .map(|name| (*name, Suitability::Suits))
            .collect();
        let server: Arc<dyn ModelServer> = Listing::has(&models);
        let backend = Backend::new(server, allowing("*"), Duration::from_secs(600), counted());
        let alias = (*alias).to_owned();
        Node::new(
            NodeSettings {
                alias,
                ..node_settings(*capacity)
            },
            backend,
        )
    };
    let nodes: Nodes = of.iter().map(node).collect();
    nodes.look_now().await;
    nodes
}

fn aliases(offering: &[Offered]) -> Vec<&str> {
    offering
        .iter()
        .map(|offered| &*offered.node.alias)
        .collect()
}

#[tokio::test]
async fn a_request_goes_to_a_node_that_offers_the_model_the_one_with_most_free_slots_first() {
    let nodes = nodes(&[
        ("small", 1, &["both:latest", "small:latest"]),
        ("large", 3, &["both:latest", "large:latest"]),
        ("equal", 3, &["both:latest"]),
    ])
    .await;
    assert_eq!(aliases(&nodes.offering("SMALL")), ["small"]);
    assert_eq!(aliases(&nodes.offering("none")), [""; 0]);
    assert_eq!(
        aliases(&nodes.offering("both")),
        ["large", "equal", "small"]
    );
    let _taken = [
        nodes[1].slots.take(Turn::Last),
        nodes[1].slots.take(Turn::Last),
    ];
    assert_eq!(
        aliases(&nodes.offering("both")),
        ["equal", "small", "large"]
    );
}

#[tokio::test]
async fn a_slot_that_becomes_free_goes_to_whoever_has_waited_longest_for_one_of_that_node() {
    let (one, other) = (Slots::new(1), Slots::new(1));
    let (held, other_held) = (
        one.take(Turn::Last).unwrap(),
        other.take(Turn::Last).unwrap(),
    );
    let (of_one, of_any) = ([Arc::clone(&one)], [Arc::clone(&one), Arc::clone(&other)]);
    let _waiting = [Waiting::for_any(&of_one), Waiting::for_any(&of_any)];
    let (mut first, mut second) = (
        Box::pin(Slot::next_of(&of_one, Turn::Last)),
        Box::pin(Slot::next_of(&of_any, Turn::Last)),
    );
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    drop(held);
    assert!(one.take(Turn::Last).is_none(), "no newcomer has it");
    assert!(second.as_mut().now_or_never().is_none());
    let first = first.now_or_never().unwrap();
    assert!(first.is_of(&one));
    drop(other_held);
    assert!(second.now_or_never().unwrap().is_of(&other));
}

#[tokio::test]
async fn an_interview_has_the_next_slot_before_all_who_wait_and_a_free_one_that_is_promised_to_them()
 {
    let slots = Slots::new(1);
    let of = [Arc::clone(&slots)];
    let held = slots.take(Turn::Last).unwrap();
    let _waiting = Waiting::for_any(&of);
    let mut chat = Box::pin(Slot::next_of(&of, Turn::Last));
    assert!(chat.as_mut().now_or_never().is_none());
    let mut interview = Box::pin(Slot::next_of(&of, Turn::First));
    assert!(interview.as_mut().now_or_never().is_none());
    drop(held);
    assert!(chat.as_mut().now_or_never().is_none());
    drop(interview.now_or_never().unwrap());
    drop(chat.now_or_never().unwrap());
    assert_eq!(slots.taken(), 0);
    // The chat that waits has not come for it yet.
    assert!(slots.take(Turn::Last).is_none());
    assert!(slots.take(Turn::First).is_some());
}

#[tokio::test]
async fn whoever_no_longer_waits_for_a_slot_keeps_it_from_nobody() {
    let slots = Slots::new(1);
    let of = [Arc::clone(&slots)];
    let held = slots.take(Turn::Last).unwrap();
    let mut first = Box::pin(Slot::next_of(&of, Turn::Last));
    let mut second = Box::pin(Slot::next_of(&of, Turn::Last));
    let mut third = Box::pin(Slot::next_of(&of, Turn::Last));
    for waiting in [&mut first, &mut second, &mut third] {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    drop(first);
    drop(held);
    // It has been given the slot, and gives up before it has seen it.
    drop(second);
    drop(third.now_or_never().unwrap());
    assert_eq!(slots.taken(), 0);
}

#[tokio::test]
async fn one_interview_of_a_node_is_run_another_waits_and_there_is_no_place_for_a_third() {
    let interviews = Interviews::default();
    let first = interviews.enter().unwrap();
    let mut second = interviews.enter().unwrap();
    assert!(first.has_turn() && !second.has_turn());
    assert!(interviews.enter().is_none());
    assert!(second.turn().now_or_never().is_none());
    drop(first);
    assert!(second.turn().now_or_never().is_some());
    assert!(second.has_turn());
    assert!(interviews.enter().is_some_and(|third| !third.has_turn()));
}

#[tokio::test]
async fn an_interview_that_waits_has_the_slot_of_the_one_before_it_ahead_of_chats_that_wait() {
    let (interviews, slots) = (Interviews::default(), Slots::new(1));
    let of = [Arc::clone(&slots)];
    let first = interviews.enter().unwrap();
    let held = slots.take(Turn::First).unwrap().left_to(first.next());
    let mut chat = Box::pin(Slot::next_of(&of, Turn::Last));
    assert!(chat.as_mut().now_or_never().is_none());
    let mut second = interviews.enter().unwrap();
    let mut turn = Box::pin(second.turn());
    assert!(turn.as_mut().now_or_never().is_none());
    drop((held, first));
    assert!(chat.as_mut().now_or_never().is_none());
    drop(turn.now_or_never().unwrap().unwrap());
    assert!(chat.now_or_never().is_some());
}

#[tokio::test]
async fn an_interview_that_no_longer_waits_leaves_the_slot_to_the_next_chat() {
    let (interviews, slots) = (Interviews::default(), Slots::new(1));
    let of = [Arc::clone(&slots)];
    let first = interviews.enter().unwrap();
    let held = slots.take(Turn::First).unwrap().left_to(first.next());
    let mut chat = Box::pin(Slot::next_of(&of, Turn::Last));
    assert!(chat.as_mut().now_or_never().is_none());
    let mut second = interviews.enter().unwrap();
    let mut turn = Box::pin(second.turn());
    assert!(turn.as_mut().now_or_never().is_none());
    drop((held, first));
    // It has been given the slot, and gives up before it has seen it.
    drop(turn);
    drop(second);
    assert!(chat.now_or_never().is_some());
    assert_eq!(slots.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_meant_by_what_the_network_calls_it_before_what_another_calls_itself() {
    let nodes = nodes(&[("gpu", 1, &[]), ("gpu-a", 1, &[])]).await;
    let named = |name| nodes.named(name).map(|node| &*node.alias);
    assert_eq!(named("gpu-a"), Some("gpu-a"));
    let (alias, node_id) = ("gpu-a".to_owned(), "node_7".to_owned());
    nodes[0].standing.register(Registered { alias, node_id });
    assert_eq!(named("node_7"), Some("gpu"));
    assert_eq!(named("gpu-a"), Some("gpu"));
    assert_eq!(named("gpu"), Some("gpu"));
    assert_eq!(named("node_8"), None);
}

#[tokio::test]
async fn a_node_is_found_by_its_alias_and_by_one_that_the_network_has_made_of_it() {
    let nodes = nodes(&[("gpu", 1, &[]), ("gpu-1", 1, &[])]).await;
    let found = |alias| nodes.registered_as(alias).map(|node| &*node.alias);
    assert_eq!(found("gpu"), Some("gpu"));
    assert_eq!(found("gpu-1"), Some("gpu-1"));
    assert_eq!(found("gpu-1-a"), Some("gpu-1"));
    assert_eq!(found("gpu-a"), Some("gpu"));
    assert_eq!(found("tower"), None);
}
