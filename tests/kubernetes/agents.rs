//! Several agents with one client id, at a gateway that allows them and at one that allows only the newest.

use std::time::Duration;

use serde_json::json;

use crate::{pods::Pod, release::Release};

/// How long the peace is watched; without it both would log in several times a second.
const PEACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn two_agents_of_one_client_share_it_or_keep_away_from_each_other() {
    let values = json!({"replicas": 2});
    let Some((release, _ollama, first)) = Release::with_stand_in(&values).await else {
        return;
    };
    let second = release.pods.wait_for_ready_agent(&[&first]).await;
    assert_eq!(release.gateway.sessions().open, 2);

    release
        .gateway
        .set_policy(|policy| policy.one_session_each = true);
    release.gateway.drop_sessions();
    one_stays_away(&first, &second).await;
    let before = release.gateway.sessions().ever;
    tokio::time::sleep(PEACE).await;
    let logins = release.gateway.sessions().ever - before;
    assert!(logins <= 2, "{logins} logins in {PEACE:?}");
}

/// Waits until one of them says why it is not there.
async fn one_stays_away(first: &Pod, second: &Pod) {
    let words = "another agent may be using this client id";
    tokio::select! {
        _ = first.wait_until_pending(words) => {}
        _ = second.wait_until_pending(words) => {}
    }
}
