//! The ways in which a pod ends in order, each with twenty chats running.

use std::sync::Arc;

use serde_json::json;

use crate::{
    pods::Pod,
    release::{CHART, NAME, Release},
};

/// An upgrade, a deletion, a restart of the rollout and an eviction: none costs a chat. Gives the pod that is there in
/// the end, and all states of each that went.
pub(crate) async fn lose_no_chat(
    release: &Release,
    pod: Arc<Pod>,
    workload: &str,
) -> (Arc<Pod>, Vec<Vec<Arc<Pod>>>) {
    let namespace = &release.namespace;
    let mut gone = Vec::new();

    let mut values = release.values.clone();
    values["node"] = json!({"pricePerThousandTokens": "0.002"});
    let command = format!("upgrade {NAME} {CHART}");
    let upgrade = namespace.helm(&command, Some(&values));
    let (pod, states) = release.lose_nothing_while(&pod, upgrade).await;
    gone.push(states);

    let command = format!("delete pod {}", pod.name());
    let delete = namespace.kubectl(&command);
    let (pod, states) = release.lose_nothing_while(&pod, delete).await;
    gone.push(states);

    let command = format!("rollout restart {workload}/{NAME}");
    let restart = namespace.kubectl(&command);
    let (pod, states) = release.lose_nothing_while(&pod, restart).await;
    gone.push(states);

    let eviction = release.evict(pod.name());
    let (pod, states) = release.lose_nothing_while(&pod, eviction).await;
    gone.push(states);
    (pod, gone)
}

/// `outer` was there before `inner` and after it, and the sidecar ended as it should.
pub(crate) fn assert_order(states: &[Arc<Pod>], outer: &str, inner: &str) {
    for pod in states {
        let inner_runs = !pod.container(inner)["state"]["running"].is_null();
        let outer_started = pod.container(outer)["started"] == true;
        let going = !pod.object["metadata"]["deletionTimestamp"].is_null();
        assert!(
            !inner_runs || outer_started || going,
            "{inner} did not wait"
        );
    }
    let last = states.last().unwrap();
    // RFC 3339 in UTC, to the second.
    let at = |container: &str, state: &str, when: &str| {
        let status = last.container(container);
        let at = status["state"][state][when].as_str();
        at.unwrap_or_else(|| panic!("{container}: {status}"))
            .to_owned()
    };
    let started = |container| at(container, "terminated", "startedAt");
    let ended = |container| at(container, "terminated", "finishedAt");
    assert!(started(outer) <= started(inner), "{outer} started later");
    assert!(ended(inner) <= ended(outer), "{outer} ended earlier");
    assert_exit_code(last);
}

/// The sidecar has drained, and nothing was dropped.
pub(crate) fn assert_exit_code(last: &Pod) {
    let ended = &last.container("pin-sidecar")["state"]["terminated"];
    assert_eq!(ended["exitCode"], 0, "{ended}");
}
