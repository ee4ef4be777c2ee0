//! Which node a request goes to, and whose slots it waits for.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::{
    backend::{
        ModelServer, Suitability,
        tests::{Listing, allowing},
    },
    config::tests::config,
    telemetry::Metrics,
};

/// The settings of a node of this capacity.
pub(crate) fn node_settings(capacity: usize) -> NodeSettings {
    config(&[("PIN_CAPACITY", &capacity.to_string())]).node
}

/// Nodes with capacity and models, all of which have been looked at.
async fn nodes(of: &[(&str, usize, &[&'static str])]) -> Nodes {
    let metrics = Arc::new(Metrics::new());
    let node = |(alias, capacity, models): &(&str, usize, &[&'static str])| {
        let models: Vec<_> = models
            .iter()
            .map(|name| (*name, Suitability::Suits))
            .collect();
        let server: Arc<dyn ModelServer> = Listing::has(&models);
        let backend = Backend::new(server, allowing("*"), Duration::from_secs(600), &metrics);
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
async fn a_node_is_found_by_its_alias_and_by_one_that_the_network_has_made_of_it() {
    let nodes = nodes(&[("gpu", 1, &[]), ("gpu-1", 1, &[])]).await;
    let found = |alias| nodes.registered_as(alias).map(|node| &*node.alias);
    assert_eq!(found("gpu"), Some("gpu"));
    assert_eq!(found("gpu-1"), Some("gpu-1"));
    assert_eq!(found("gpu-1-a"), Some("gpu-1"));
    assert_eq!(found("gpu-a"), Some("gpu"));
    assert_eq!(found("tower"), None);
}
