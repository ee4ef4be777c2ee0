//! The API secret, which changes while pods run; and settings that are wrong.

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    namespace::{ACCOUNT, KEY, Namespace},
    release::{NAME, Release, gateway},
    support::CLIENT,
};

#[tokio::test]
async fn a_secret_that_is_rotated_needs_no_restart_and_a_wrong_one_says_who_must_act() {
    let values = json!({"settings": {"PIN_RECONNECT_MAX": "1s"}});
    let Some((release, _ollama, pod)) = Release::with_stand_in(&values).await else {
        return;
    };
    release.gateway.set_secret(CLIENT, "rotated");
    release.gateway.drop_sessions();
    let words = "The gateway refused the login";
    let pending = pod.wait_until_pending(words).await;
    assert!(pending.contains("Invalid signature"), "{pending}");
    let log = release
        .namespace
        .kubectl(&format!("logs {}", pod.name()))
        .await;
    let told = log.lines().filter(|line| line.contains("refused"));
    assert_eq!(told.count(), 1, "{log}");

    let patch = json!({"stringData": {KEY: "rotated"}}).to_string();
    release
        .namespace
        .kubectl_with(&["patch", "secret", ACCOUNT, "--patch", &patch], "")
        .await;
    pod.wait_until_pending("").await;
    release.chat().await;
    let pod = release.ready(&[]).await;
    assert_eq!(pod.restarts("pin-sidecar"), 0);
    assert_eq!(release.gateway.sessions().ever, 2);
}

#[tokio::test]
async fn a_wrong_setting_is_named_in_the_state_of_its_container() {
    let Some(cluster) = Cluster::find() else {
        return;
    };
    let namespace = Namespace::create(cluster, json!({})).await;
    let values = json!({
        "topology": "external", "ollama": {"url": "http://nowhere:11434"},
        "settings": {"PIN_TLS_CA_FILE": "/nowhere/ca.pem"},
    });
    let release = Release::begin(namespace, gateway().await, &values).await;
    let ended = |pod: &crate::pods::Pod| {
        let status = pod.container(NAME);
        let states = [&status["state"], &status["lastState"]];
        let ended = states.map(|state| &state["terminated"]);
        ended.into_iter().find(|ended| !ended.is_null()).cloned()
    };
    let ended: Value = release
        .pods
        .wait("the container's end", |states| {
            states.iter().find_map(|pod| ended(pod))
        })
        .await;
    assert_eq!(ended["exitCode"], 78, "{ended}");
    let message = ended["message"].as_str().unwrap();
    assert!(message.contains("PIN_TLS_CA_FILE"), "{message}");
}
